-- The counts of up to ARGV[3] queues after the name ARGV[2], by name.

local queues = {}
local after = ARGV[2] == '' and '-' or '(' .. ARGV[2]
for i, queue in ipairs(call('ZRANGEBYLEX', QUEUES, after, '+', 'LIMIT', 0, ARGV[3])) do
  queues[i] = counted(queue)
end
return list(queues)
