-- The rows of failed_jobs that exist among the ids in ARGV[2], each of a row or of its job, until the reply is full.
-- Returns {how many ids were read, rows as {id, row of failed_jobs, entry of the job}}.

local ids, entries, bytes, read = unpacked(ARGV[2]), {}, 0, 0
local jobs = rows_of(ids)
for i, id in ipairs(ids) do
  if bytes > BATCH_BYTES_MAX then break end
  local failed_id = jobs[id] and jobs[id][FAILED_ID] or ''
  if failed_id == '' then failed_id = id end
  local job_id, row = failure_of(failed_id)  -- one by one: see failed.lua
  if job_id then
    entries[#entries + 1] = shown(failed_id, row, job_id, call('HGET', ROWS, job_id), '')
    bytes = bytes + #entries[#entries]
  end
  read = i
end
return '\146' .. pack(read) .. list(entries)
