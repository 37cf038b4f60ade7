-- Part of the scripts about notes: where they are kept. A note is a value that observing.py packs and reads; here it is
-- only handed through.

local COUNTS, COUNTED = PREFIX .. 'counts:', PREFIX .. 'counted:'  -- rollups of one beginning; the beginnings there are
local NOTES, NOTED, NOTED_AT = PREFIX .. 'notes', PREFIX .. 'noted', PREFIX .. 'noted_at'  -- attempts, see below
local DEPTH, DEPTHS = PREFIX .. 'depth:', PREFIX .. 'depths'  -- samples of one minute; the minutes there are
local ACTIONS, ACTION_IDS, ACTED_AT = PREFIX .. 'actions', PREFIX .. 'action_ids', PREFIX .. 'acted_at'

-- The rollups of one beginning are two hashes: those of all jobs, which most charts want and which are few, and those of
-- each queue and job. A field is queue, job name, result and worker with NUL between them, which no name holds.
local ALL, EACH = 'all', 'each'

local function counts_of(kind, period, began)
  return COUNTS .. kind .. ':' .. period .. ':' .. began
end

-- The note of a run is a field of NOTES. NOTED has for each job claim_seq and fingerprint of its notes, by claim_seq, one
-- after the other in one array; NOTED_AT has the jobs by when the run ended that was noted last.
local function attempt_of(job_id, seq)
  return job_id .. '\0' .. text(seq)
end

-- Delete the notes of the jobs, but once there were `most` of them, no more; returns for how many jobs.
local function drop_notes(job_ids, most)
  local dropped = 0
  for i, noted in ipairs(values_of(NOTED, job_ids)) do
    if most and dropped >= most then return i - 1 end
    local id = job_ids[i]
    put(to_zrem, NOTED_AT, id)
    if noted then
      local runs = unpacked(noted)
      for at = 1, #runs, 2 do put(to_hdel, NOTES, attempt_of(id, runs[at])) end
      put(to_hdel, NOTED, id)
      dropped = dropped + #runs / 2
    end
  end
  return #job_ids
end
