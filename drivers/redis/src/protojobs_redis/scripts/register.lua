-- Store a worker's row. ARGV: offset, id, {host, pid, queues, concurrency, lease in microseconds, isolates}.

local info = unpacked(ARGV[3])
info[7] = now
call('SREM', GONE, ARGV[2])  -- first, since it gives: a worker may also come to a server at its memory limit, see `commit`
call('HSET', WORKERS, ARGV[2], pack(info))
call('ZADD', LEASES, now + info[5], ARGV[2])
return 1
