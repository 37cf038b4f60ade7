-- Delete finished jobs, queue by queue, from those that ended first. ARGV: offset, where to go on as {queue, number of
-- the state}, for completed, failed and cancelled the age in microseconds that they must exceed or '', how many to
-- delete (ROUND_MAX at most). Returns {completed, failed, cancelled, is there more, where to go on or nothing}. One run
-- looks at QUEUES_MAX queues at most, and at one job that it does not delete.

local QUEUES_MAX = 100

local from, ages, limit = unpacked(ARGV[2]), {ARGV[3], ARGV[4], ARGV[5]}, tonumber(ARGV[6])
local states, removed, total, has_more = {COMPLETED, FAILING, CANCELLED}, {0, 0, 0}, 0, false

-- Delete from the jobs of one queue and state that ended before `bound`; returns whether some are left.
local function prune_from(queue, number)
  local bound, ended = '(' .. text(now - ages[number]), ended_of(queue, states[number])
  while true do
    local room = min(CHUNK, limit - total)
    local ids = try('ZRANGEBYSCORE', ended, '-inf', bound, 'LIMIT', 0, math.max(room, 1))
    if #ids == 0 then return false end
    if room <= 0 then return true end
    for i, packed in ipairs(values_of(ROWS, ids)) do
      local id, row = ids[i], readable(packed)
      if row and row[STATE] == states[number] then
        remove(id, row)
      elseif row then
        put(to_zrem, ended, id)
      else
        erase(id, ended)
      end
    end
    total = total + #ids
    removed[number] = removed[number] + #ids
    commit_removed()
  end
end

local queues = call('ZRANGEBYLEX', QUEUES, from[1] == '' and '-' or '[' .. from[1], '+', 'LIMIT', 0, QUEUES_MAX + 1)
local go_on
for i, queue in ipairs(queues) do
  if i > QUEUES_MAX then
    go_on = {queue, 1}
    break
  end
  local is_first = queue == from[1]
  for number = is_first and from[2] or 1, 3 do
    if ages[number] ~= '' and prune_from(queue, number) then
      has_more, go_on = true, {queue, number}
      break
    end
  end
  if go_on then break end
end
commit_removed()
return pack({removed[1], removed[2], removed[3], has_more, go_on or {}})
