-- Pause the queue ARGV[2]; returns 0 if it was paused before.

begin_by_giving()  -- people may want to stop what filled the server
local is_new = call('SADD', PAUSED, ARGV[2])
call('ZADD', QUEUES, 0, ARGV[2])
return is_new
