-- Keep a worker's notes. ARGV[2] are rollups as {period, beginning, all or each, how many}, whose fields and values are
-- the arguments from the fifth on; ARGV[3] are attempts as {job, claim_seq, when it ended, fingerprint}, whose values
-- follow those; ARGV[4] is how many attempts the store keeps, the latest.
--
-- In an incident everything fails all the time, and the notes of it must not fill the server. So of a job's failures
-- with one fingerprint there are the first ones and the latest, and on a server whose memory is half used by whatever
-- else, only the counts of all jobs, which are few.

local ALIKE_MAX = 4  -- notes of one job and one fingerprint
local JOB_MAX = 100  -- notes of one job: more are never shown (observing.ATTEMPTS_MAX)
local SHARE_MAX = 0.5  -- of maxmemory

local function has_room()
  local info = redis.pcall('INFO', 'memory')  -- the user may not be allowed to ask
  if type(info) ~= 'string' then return true end
  local used, limit = info:match('used_memory:(%d+)'), info:match('maxmemory:(%d+)')
  return not used or not limit or limit == '0' or tonumber(used) <= SHARE_MAX * tonumber(limit)
end

local has_room_for_all, at = has_room(), 5
for _, rollups in ipairs(unpacked(ARGV[2])) do
  local period, began, kind, pairs_of_them = unpack(rollups)
  local key, last = counts_of(kind, period, began), at + 2 * pairs_of_them - 1
  if kind == ALL or has_room_for_all then
    for first = at, last, CHUNK do call('HSET', key, unpack(ARGV, first, min(first + CHUNK - 1, last))) end
    call('ZADD', COUNTED .. period, began, began)
  end
  at = last + 1
end
if not has_room_for_all then return 1 end

local attempts, ids, runs_of, values = unpacked(ARGV[3]), {}, {}, {}
for _, attempt in ipairs(attempts) do
  if not runs_of[attempt[1]] then
    runs_of[attempt[1]] = {}
    ids[#ids + 1] = attempt[1]
  end
end
for i, noted in ipairs(values_of(NOTED, ids)) do
  if noted then runs_of[ids[i]] = unpacked(noted) end
end

-- Take a run out of the list of its job.
local function drop(job_id, runs, i)
  local field = attempt_of(job_id, runs[i])
  values[field] = nil
  put(to_hdel, NOTES, field)
  table.remove(runs, i)
  table.remove(runs, i)
end

local function keep(job_id, seq, fingerprint, value)
  local runs = runs_of[job_id]
  local i = #runs + 1
  while i > 1 and runs[i - 2] >= seq do i = i - 2 end
  if runs[i] == seq then return end
  table.insert(runs, i, fingerprint)
  table.insert(runs, i, seq)
  values[attempt_of(job_id, seq)] = value
  local alike = {}
  for pair = 1, #runs, 2 do
    if fingerprint ~= '' and runs[pair + 1] == fingerprint then alike[#alike + 1] = pair end
  end
  if #alike > ALIKE_MAX then
    drop(job_id, runs, alike[ALIKE_MAX])
  elseif #runs > 2 * JOB_MAX then
    drop(job_id, runs, 1)
  end
end

for i, attempt in ipairs(attempts) do
  local job_id, seq, ended_at, fingerprint = unpack(attempt)
  keep(job_id, seq, fingerprint, ARGV[at + i - 1])
  put(to_zadd, NOTED_AT, ended_at, job_id)
end
for field, value in pairs(values) do put(to_hset, NOTES, field, value) end
for job_id, runs in pairs(runs_of) do put(to_hset, NOTED, job_id, pack(runs)) end
commit()

local too_many = call('HLEN', NOTES) - ARGV[4]
if too_many > 0 then
  drop_notes(call('ZRANGE', NOTED_AT, 0, too_many - 1), too_many)
  commit()
end
return 1
