-- Move schedules on, and store the jobs of their times. Each of ARGV[2] is {schedule, time that it waits for, time that
-- is due, next time or '', job as in enqueue.lua or ''}; the blobs of the jobs are the arguments from the third on.
-- Returns a letter for each: f (fired), s (skipped), d (duplicate: the job is known), l (lost: nothing was done).

local ALLOW, SKIP = 'a', 's'

local firings, results, moved = unpacked(ARGV[2]), {}, {}
local schedules, ids, job_ids = {}, {}, {}
for i, firing in ipairs(firings) do
  ids[i] = firing[1]
  if firing[5] ~= '' then job_ids[#job_ids + 1] = firing[5][1] end
end
for i, packed in ipairs(values_of(SCHEDULES, ids)) do
  local id = ids[i]
  local schedule = not schedules[id] and step_of(packed)
  if schedule then
    schedules[id] = schedule
    if schedule[OVERLAP] ~= ALLOW and schedule[LAST_JOB] ~= '' then job_ids[#job_ids + 1] = schedule[LAST_JOB] end
  end
end
local rows = rows_of(job_ids)

-- A job as it stands in this step: one that a firing before this one has stored is there, and waits.
local function row_of(job_id)
  return dirty[job_id] or rows[job_id]
end

local function is_lost(schedule, expected_next, due)
  if not schedule or schedule[IS_PAUSED] or schedule[NEXT] ~= expected_next or score(due) > now then return true end
  return schedule[LAST] ~= '' and not is_later(due, schedule[LAST])  -- no time ever fires again
end

local function is_held_up(schedule)
  local row = schedule[OVERLAP] ~= ALLOW and row_of(schedule[LAST_JOB])
  if not row then return false end
  local state = row[STATE]
  return state == PENDING or state == MOVING or (schedule[OVERLAP] == SKIP and state == PROCESSING)
end

local function fire(schedule, firing, blob)
  local due, job = moment(firing[3]), firing[5]
  if is_lost(schedule, moment(firing[2]), due) then return 'l' end
  local result = 's'
  if job ~= '' and not is_held_up(schedule) then
    result = row_of(job[1]) and 'd' or 'f'
    if result == 'f' then add_pushed(job, blob) end
    schedule[LAST_JOB] = job[1]
  end
  schedule[NEXT], schedule[LAST] = moment_or_none(firing[4]), due
  schedule[VERSION] = schedule[VERSION] + 1
  moved[firing[1]] = schedule
  return result
end

for i, firing in ipairs(firings) do results[i] = fire(schedules[firing[1]], firing, ARGV[i + 2]) end
for id, schedule in pairs(moved) do keep(id, schedule) end
commit()
-- Behind what needs memory: as the first write it would let this step through on a server that is at its limit.
for id, schedule in pairs(moved) do leave_due(id, schedule) end
commit()
return concat(results)
