-- Delete failed jobs, and their rows, by the ids of failed_jobs in ARGV[2]; returns how many there were.

local failed_ids, forgotten = unpacked(ARGV[2]), 0
local job_of, rows = jobs_of(failed_ids)
for _, failed_id in ipairs(failed_ids) do
  local id = job_of[failed_id]
  local row = rows[id or false]
  if row and row[STATE] == FAILING and row[FAILED_ID] == failed_id then
    remove(id, row)
    forgotten = forgotten + 1
  end
end
commit_removed()
return forgotten
