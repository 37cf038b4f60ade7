-- Delete finished jobs, queue by queue. ARGV: offset, where to go on as {queue, number of the state, how many to skip},
-- for completed, failed and cancelled the age in microseconds that they must exceed or '', the same for the time since
-- they came, how many to delete. Answers {completed, failed, cancelled, is there more, where to go on or nothing}.
-- One run looks at EXAMINED_MAX jobs and QUEUES_MAX queues at most.

local EXAMINED_MAX, QUEUES_MAX = 2000, 100

local from, ages = unpacked(ARGV[2]), {ARGV[3], ARGV[4], ARGV[5]}
local arrived_by, limit = now - ARGV[6], tonumber(ARGV[7])
local states, removed, total, examined, has_more = {COMPLETED, FAILING, CANCELLED}, {0, 0, 0}, 0, 0, false

-- Delete from the jobs of one queue and state that ended before `bound`; answers where to go on, if it was not done.
local function prune_from(queue, number, skip)
  local bound = '(' .. text(now - ages[number])
  while true do
    if examined >= EXAMINED_MAX then return {queue, number, skip} end
    local ids = call('ZRANGEBYSCORE', ended_of(queue, states[number]), '-inf', bound, 'LIMIT', skip, CHUNK)
    if #ids == 0 then return nil end
    local rows = values_of(ROWS, ids)
    for place, id in ipairs(ids) do
      if fields_of('>i8', rows[place], 38) >= arrived_by then  -- created_at; to open all of a row takes much longer
        skip = skip + 1  -- so young that its push might still be sent again
      elseif total >= limit then
        has_more = true
        return {queue, number, skip}
      else
        remove(id, open(rows[place]))
        total = total + 1
        removed[number] = removed[number] + 1
      end
    end
    examined = examined + #ids
    commit()
  end
end

local queues = call('ZRANGEBYLEX', QUEUES, from[1] == '' and '-' or '[' .. from[1], '+', 'LIMIT', 0, QUEUES_MAX + 1)
local go_on
for place, queue in ipairs(queues) do
  if place > QUEUES_MAX then
    go_on = {queue, 1, 0}
    break
  end
  local is_first = queue == from[1]
  for number = is_first and from[2] or 1, 3 do
    if ages[number] ~= '' then
      go_on = prune_from(queue, number, is_first and number == from[2] and from[3] or 0)
      if go_on then break end
    end
  end
  if go_on then break end
end
commit()
return pack({removed[1], removed[2], removed[3], has_more, go_on or {}})
