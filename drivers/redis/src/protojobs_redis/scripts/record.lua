-- Keep a worker's notes. ARGV[2] are rollups as {period, beginning, all or each, how many}, whose fields and values are
-- the arguments from the fourth on; ARGV[3] are attempts as {job, claim_seq, when it ended}, whose values follow those.

local at = 4
for _, rollups in ipairs(unpacked(ARGV[2])) do
  local period, began, kind, pairs_of_them = unpack(rollups)
  local key, last = counts_of(kind, period, began), at + 2 * pairs_of_them - 1
  for first = at, last, CHUNK do call('HSET', key, unpack(ARGV, first, min(first + CHUNK - 1, last))) end
  call('ZADD', COUNTED .. period, began, began)
  at = last + 1
end
for place, attempt in ipairs(unpacked(ARGV[3])) do
  local job_id, seq, ended_at = unpack(attempt)
  if call('HSETNX', NOTES, attempt_of(job_id, seq), ARGV[at + place - 1]) == 1 then
    put(to_zadd, NOTED .. job_id, seq, text(seq))
    put(to_zadd, NOTED_AT, ended_at, attempt_of(job_id, seq))
  end
end
commit()
return 1
