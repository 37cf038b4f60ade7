-- Part of the scripts that delete jobs: with a job go its row of failed_jobs, its result and the notes of its runs.

local removed_ids = {}

local function remove(id, row)
  leave(id, row)
  drop_failure(row)
  if row[HAS_RESULT] ~= 0 then put(to_hdel, RESULTS, id) end
  put(to_hdel, ROWS, id)
  put(to_hdel, DATA, id)
  put(to_zrem, IDS, id)
  count(jobs_moved, row[QUEUE], -1)
  removed_ids[#removed_ids + 1] = id
end

-- Delete what the set `key` holds as a job and what cannot be read as one.
local function erase(id, key)
  put(to_zrem, key, id)
  put(to_hdel, ROWS, id)
  put(to_hdel, DATA, id)
  put(to_hdel, RESULTS, id)
  put(to_zrem, IDS, id)
end

local function commit_removed()
  drop_notes(removed_ids)
  removed_ids = {}
  commit()
end
