-- settle, claim, and both at once: the turn of a worker's loop, one round trip.
-- ARGV: offset, settlements, worker, queues, slots, limit. Answers {is the lease lost, settled, claimed}.
-- The settlements count whether or not the lease stands; jobs are lent only if it does.

local settled = settle(unpacked(ARGV[2]))
commit()

local limit = tonumber(ARGV[6])
local is_lost = limit > 0 and not call('ZSCORE', LEASES, ARGV[3])
local lent = {}
if limit > 0 and not is_lost then lent = lend(ARGV[3], unpacked(ARGV[4]), tonumber(ARGV[5]), limit) end
return '\147' .. pack(is_lost) .. list(settled) .. list(lent)
