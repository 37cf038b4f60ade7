-- Of up to ARGV[3] queues after the name ARGV[2]: when their oldest finished job ended. Returns {the last name, or '' at
-- the end, {moment or 0 of completed, of failed, of cancelled}}, in microseconds.

local after = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local queues = call('ZRANGEBYLEX', QUEUES, after, '+', 'LIMIT', 0, ARGV[3])
local oldest = {0, 0, 0}
for _, queue in ipairs(queues) do
  for i, state in ipairs({COMPLETED, FAILING, CANCELLED}) do
    local at = tonumber(try('ZRANGE', ended_of(queue, state), 0, 0, 'WITHSCORES')[2] or 0)
    if at > 0 and (oldest[i] == 0 or at < oldest[i]) then oldest[i] = at end
  end
end
return pack({#queues < tonumber(ARGV[3]) and '' or queues[#queues], oldest})
