-- Let jobs of the queue ARGV[2] be claimed again; returns 0 if it was not paused.

local was_paused = call('SREM', PAUSED, ARGV[2])
if was_paused == 1 then
  if call('HEXISTS', JOBS, ARGV[2]) == 0 then
    call('ZREM', QUEUES, ARGV[2])
  else
    wakes[ARGV[2]] = true
    commit()
  end
end
return was_paused
