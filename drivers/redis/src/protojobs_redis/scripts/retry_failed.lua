-- Requeue failed jobs by the ids of failed_jobs in ARGV[2]: the same job, due now, as if it had never run. Returns a
-- letter for each: r (requeued), c (conflict: not failed any more), m (missing).

local failed_ids, results = unpacked(ARGV[2]), {}
local job_of, rows = jobs_of(failed_ids)
for i, failed_id in ipairs(failed_ids) do
  local id = job_of[failed_id]
  local row, result = rows[id or false], 'm'
  if row and row[FAILED_ID] == failed_id then
    result = 'c'
    if row[STATE] == FAILING then
      drop_failure(row)
      row[ATTEMPTS], row[CRASHES], row[RETURNS], row[RECLAIMS] = 0, 0, 0, 0
      row[SEQ] = row[SEQ] + 1
      move(id, row, PENDING, now)
      result = 'r'
    end
  end
  results[i] = result
end
commit()
return concat(results)
