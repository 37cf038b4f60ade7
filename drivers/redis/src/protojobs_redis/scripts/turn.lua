-- settle, claim, and both at once: the turn of a worker's loop, one round trip.
-- ARGV: offset, holder of the completions, completions, other settlements (turn_any.lua), worker, queues, slots, limit.
-- Returns {is the lease lost, completions settled, others settled, what the claim could not read, now}, behind its length
-- in four bytes, and then the claims. Those are apart, since their blobs may be spoilt, and the rest must be read all the
-- same. The settlements count whether or not the lease stands; jobs are claimed only if it does.

local others = settle_others and settle_others(unpacked(ARGV[4])) or '\144'
local completed = complete(ARGV[2], unpacked(ARGV[3]))
local limit = tonumber(ARGV[8])
local is_lost, claims, spoilt = limit > 0 and not call('ZSCORE', LEASES, ARGV[5]), '\144', '\144'
if limit > 0 and not is_lost then claims, spoilt = claim_for(ARGV[5], unpacked(ARGV[6]), tonumber(ARGV[7]), limit) end
for queue, by in pairs(moved) do
  if by ~= 0 and call('HINCRBY', RUNNING, queue, by) <= 0 then call('HDEL', RUNNING, queue) end
end
local first_part = '\149' .. pack(is_lost) .. completed .. others .. spoilt .. pack(now)
return bytes_of('>I4', #first_part) .. first_part .. claims
