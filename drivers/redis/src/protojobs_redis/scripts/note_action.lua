-- Keep a line of the audit log, unless it is there. ARGV: offset, id, when, value.

if call('HSETNX', ACTIONS, ARGV[2], ARGV[4]) == 1 then
  call('ZADD', ACTION_IDS, 0, ARGV[2])  -- all with one score, so by id
  call('ZADD', ACTED_AT, ARGV[3], ARGV[2])
end
return 1
