-- Part of the scripts that delete jobs: with a job go its row of failed_jobs and the notes of its runs.

local removed_ids = {}

local function remove(id, row)
  leave(id, row)
  drop_failure(row)
  put(to_hdel, ROWS, id)
  put(to_hdel, DATA, id)
  put(to_zrem, IDS, id)
  count(jobs_moved, row[QUEUE], -1)
  removed_ids[#removed_ids + 1] = id
end

-- Delete what stands in a place as a job and cannot be read as one.
local function erase(id, place)
  put(to_zrem, place, id)
  put(to_hdel, ROWS, id)
  put(to_hdel, DATA, id)
  put(to_zrem, IDS, id)
end

local function commit_removed()
  drop_notes(removed_ids)
  removed_ids = {}
  commit()
end
