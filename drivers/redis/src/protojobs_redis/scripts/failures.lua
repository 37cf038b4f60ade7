-- Part of retry_failed.lua and forget_failed.lua: from ids of failed_jobs to jobs.

local function jobs_of(failed_ids)
  local job_ids, of = {}, {}
  for place, packed in ipairs(values_of(FAILED, failed_ids)) do
    if packed then
      local id = unpacked(packed)[1]
      job_ids[#job_ids + 1] = id
      of[failed_ids[place]] = id
    end
  end
  return of, rows_of(job_ids)
end
