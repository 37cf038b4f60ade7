-- Failed jobs by fingerprint, the one that failed last first. ARGV: offset, how many to skip, how many to show, up to
-- where to count, how many characters to show ('' for all). Returns groups, until the reply is full, as {fingerprint,
-- how many, when the first failed, row of the last as in showing.lua}.

local first, counted_max, groups, bytes = tonumber(ARGV[2]), tonumber(ARGV[4]), {}, 0
for _, fingerprint in ipairs(call('ZREVRANGE', CAUSES, first, first + ARGV[3] - 1)) do
  if bytes > BATCH_BYTES_MAX then break end
  local alike = ALIKE .. fingerprint
  local id = call('ZREVRANGE', alike, 0, 0)[1]
  local job_id, packed = failure_of(id)
  if job_id then
    groups[#groups + 1] = '\148' .. pack(fingerprint) .. pack(min(call('ZCARD', alike), counted_max + 1))
      .. pack(call('ZRANGE', alike, 0, 0, 'WITHSCORES')[2])
      .. shown(id, packed, job_id, call('HGET', ROWS, job_id), ARGV[5])
    bytes = bytes + #groups[#groups]
  end
end
return list(groups)
