-- Part of retry_failed.lua and forget_failed.lua: from ids of failed_jobs to jobs.

local function jobs_of(failed_ids)
  local job_ids, of = {}, {}
  for i, packed in ipairs(values_of(FAILED, failed_ids)) do
    local is_ours, failure = pcall(unpacked, packed or '')
    local id = is_ours and type(failure) == 'table' and failure[1]
    if type(id) == 'string' then
      job_ids[#job_ids + 1] = id
      of[failed_ids[i]] = id
    end
  end
  return of, rows_of(job_ids)
end
