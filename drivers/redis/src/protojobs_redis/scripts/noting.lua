-- Part of the scripts about notes: where they are kept. A note is a value that observing.py packs and reads; here it is
-- only handed through.

local COUNTS, COUNTED = PREFIX .. 'counts:', PREFIX .. 'counted:'  -- rollups of one beginning; the beginnings there are
local NOTES, NOTED, NOTED_AT = PREFIX .. 'notes', PREFIX .. 'noted:', PREFIX .. 'noted_at'  -- attempts; of one job; by end
local DEPTH, DEPTHS = PREFIX .. 'depth:', PREFIX .. 'depths'  -- samples of one minute; the minutes there are
local ACTIONS, ACTION_IDS, ACTED_AT = PREFIX .. 'actions', PREFIX .. 'action_ids', PREFIX .. 'acted_at'

-- The rollups of one beginning are two hashes: those of all jobs, which most charts want and which are few, and those of
-- each queue and job. A field is queue, job name, result and worker with NUL between them, which no name holds.
local ALL, EACH = 'all', 'each'

local function counts_of(kind, period, began)
  return COUNTS .. kind .. ':' .. period .. ':' .. began
end

local function attempt_of(job_id, seq)
  return job_id .. '\0' .. seq
end
