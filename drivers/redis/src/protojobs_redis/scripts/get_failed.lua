-- The rows of failed_jobs that exist among the ids in ARGV[2], until the answer is full. Answers {how many ids were
-- read, rows as {id, row of failed_jobs, entry of the job}}.

local ids, entries, bytes, read = unpacked(ARGV[2]), {}, 0, 0
local rows = values_of(FAILED, ids)
for place, id in ipairs(ids) do
  if bytes > BATCH_BYTES_MAX then break end
  if rows[place] then
    local job_id = unpacked(rows[place])[1]
    local blob = call('HGET', DATA, job_id)
    entries[#entries + 1] = '\147' .. pack(id) .. rows[place] .. entry(job_id, call('HGET', ROWS, job_id), blob)
    bytes = bytes + #blob + #rows[place]
  end
  read = place
end
return '\146' .. pack(read) .. list(entries)
