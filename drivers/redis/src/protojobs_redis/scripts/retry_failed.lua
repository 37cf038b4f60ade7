-- Requeue failed jobs by the ids of failed_jobs in ARGV[2]: the same job, due now, as if it had never run. Answers a
-- letter for each: r (requeued), c (conflict: not failed any more), m (missing).

local failed_ids, answers = unpacked(ARGV[2]), {}
local job_of, rows = jobs_of(failed_ids)
for place, failed_id in ipairs(failed_ids) do
  local id = job_of[failed_id]
  local row, answer = rows[id or false], 'm'
  if row and row[FAILED_ID] == failed_id then
    answer = 'c'
    if row[STATE] == FAILING then
      drop_failure(row)
      row[ATTEMPTS], row[CRASHES], row[RETURNS], row[RECLAIMS] = 0, 0, 0, 0
      row[SEQ] = row[SEQ] + 1
      move(id, row, PENDING, now)
      answer = 'r'
    end
  end
  answers[place] = answer
end
commit()
return concat(answers)
