-- Remove up to ARGV[3] pending or finished jobs of the queue ARGV[2]. Returns {pending, completed, failed, cancelled,
-- is there more}.

local queue, limit, ids = ARGV[2], tonumber(ARGV[3]), {}
local keys, key_of = {}, {}
for _, priority in ipairs(try('ZRANGE', lanes_of(queue), 0, -1)) do keys[#keys + 1] = lane_of(queue, priority) end
for _, state in ipairs({COMPLETED, FAILING, CANCELLED}) do keys[#keys + 1] = ended_of(queue, state) end
for _, key in ipairs(keys) do
  if #ids > limit then break end
  for _, id in ipairs(try('ZRANGE', key, 0, limit - #ids)) do
    ids[#ids + 1] = id
    key_of[#ids] = key
  end
end
local has_more, removed = #ids > limit, {[PENDING] = 0, [COMPLETED] = 0, [FAILING] = 0, [CANCELLED] = 0}
ids[limit + 1] = nil
local rows = rows_of(ids)
for number, id in ipairs(ids) do
  local row = rows[id]
  if row and removed[row[STATE]] then
    removed[row[STATE]] = removed[row[STATE]] + 1
    remove(id, row)
  elseif row then
    put(to_zrem, key_of[number], id)
  else
    erase(id, key_of[number])
  end
end
commit_removed()
return pack({removed[PENDING], removed[COMPLETED], removed[FAILING], removed[CANCELLED], has_more})
