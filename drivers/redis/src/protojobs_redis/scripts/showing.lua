-- Part of the scripts that show rows of failed_jobs: one as {id, row of failed_jobs, entry of the job}, of whose texts at
-- most so many characters are shown.

local function shown(id, packed, job_id, row, chars_max)
  if chars_max ~= '' then
    local failure = unpacked(packed)
    failure[4] = last_chars(failure[4], chars_max)
    packed = pack(failure)
  end
  return '\147' .. pack(id) .. packed .. entry(job_id, row, cut(call('HGET', DATA, job_id), chars_max))
end
