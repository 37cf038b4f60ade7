-- Remove up to ARGV[3] pending or finished jobs of the queue ARGV[2]. Answers {pending, completed, failed, cancelled,
-- is there more}.

local queue, limit, ids = ARGV[2], tonumber(ARGV[3]), {}
local places = {}
for _, priority in ipairs(call('ZRANGE', lanes_of(queue), 0, -1)) do places[#places + 1] = lane_of(queue, priority) end
for _, state in ipairs({COMPLETED, FAILING, CANCELLED}) do places[#places + 1] = ended_of(queue, state) end
for _, place in ipairs(places) do
  if #ids > limit then break end
  for _, id in ipairs(call('ZRANGE', place, 0, limit - #ids)) do ids[#ids + 1] = id end
end
local has_more, removed = #ids > limit, {[PENDING] = 0, [COMPLETED] = 0, [FAILING] = 0, [CANCELLED] = 0}
ids[limit + 1] = nil
for id, row in pairs(rows_of(ids)) do
  removed[row[STATE]] = removed[row[STATE]] + 1
  remove(id, row)
end
commit_removed()
return pack({removed[PENDING], removed[COMPLETED], removed[FAILING], removed[CANCELLED], has_more})
