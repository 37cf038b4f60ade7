-- Of up to ARGV[2] queues: the keys that are not of the type which they have here, at most ARGV[3] of them.

local SORTED_SET, NONE = 'zset', 'none'
local spoilt, most = {}, tonumber(ARGV[3])

local function look_at(key)
  local kind = call('TYPE', key).ok
  if kind ~= SORTED_SET and kind ~= NONE and #spoilt < most then spoilt[#spoilt + 1] = pack(key) end
end

for _, queue in ipairs(call('ZRANGE', QUEUES, 0, ARGV[2] - 1)) do
  look_at(lanes_of(queue))
  look_at(BELL .. queue)
  for _, priority in ipairs(try('ZRANGE', lanes_of(queue), 0, -1)) do look_at(lane_of(queue, priority)) end
  for _, state in ipairs({COMPLETED, FAILING, CANCELLED}) do look_at(ended_of(queue, state)) end
end
return list(spoilt)
