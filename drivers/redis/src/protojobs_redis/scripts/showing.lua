-- Part of the scripts that show rows of failed_jobs: one as {id, row of failed_jobs, entry of the job}, of whose texts at
-- most so many characters are shown. What cannot be read is shown as in `entry`.

-- The row of failed_jobs `id`: its job's id, and itself; both nothing where it is none of ours.
local function failure_of(id)
  local packed = call('HGET', FAILED, id)
  local is_ours, failure = pcall(unpacked, packed or '')
  if not is_ours or type(failure) ~= 'table' or type(failure[1]) ~= 'string' then return nil end
  return failure[1], packed
end

local function shown(id, packed, job_id, row, chars_max)
  if chars_max ~= '' then
    local failure = unpacked(packed)
    if type(failure[4]) == 'string' then failure[4] = last_chars(failure[4], chars_max) end
    packed = pack(failure)
  end
  return '\147' .. pack(id) .. binary(packed) .. entry(job_id, row, cut(call('HGET', DATA, job_id), chars_max))
end
