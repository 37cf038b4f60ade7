-- Delete a worker's row (ARGV[2]). What it still holds are orphans from now on: `gone` names their holder.

if call('ZREM', LEASES, ARGV[2]) == 1 then
  call('HDEL', WORKERS, ARGV[2])
  if call('EXISTS', held_by(ARGV[2])) == 1 then call('SADD', GONE, ARGV[2]) end
end
return 1
