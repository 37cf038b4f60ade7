-- Part of the scripts about schedules: how one is kept. Its small part changes with every step, so it is apart from its
-- plan, which may be large and which scripts only hand through. schedules.py has the same list.

local SCHEDULES, PLANS = PREFIX .. 'schedules', PREFIX .. 'plans'
local SCHEDULE_IDS = PREFIX .. 'schedule_ids'  -- all with one score, so by id
local DUE = PREFIX .. 'due'  -- those that wait for a time and are not paused, by that time

local NEXT, LAST, LAST_JOB, VERSION, OVERLAP, IS_PAUSED = 1, 2, 3, 4, 5, 6

-- A moment that may be missing: ''. (0 is a moment: somebody may count an interval from it.)
local function moment_or_none(text)
  return text ~= '' and moment(text) or ''
end

-- Exactly, also where both are text: then they have as many digits as they are far ahead.
local function is_later(one, other)
  if type(one) ~= type(other) then return type(one) == 'string' end
  if type(one) == 'number' then return one > other end
  return #one > #other or (#one == #other and one > other)
end

-- Give the schedule its new small part, and its place among those that wait for a time.
local function keep(id, schedule)
  put(to_hset, SCHEDULES, id, pack(schedule))
  if schedule[NEXT] ~= '' and not schedule[IS_PAUSED] then put(to_zadd, DUE, score(schedule[NEXT]), id) end
end

-- One that is paused or has ended waits for none.
local function leave_due(id, schedule)
  if schedule[NEXT] == '' or schedule[IS_PAUSED] then put(to_zrem, DUE, id) end
end

-- The small part as it is stored, or nil where there is none that can be read.
local function step_of(packed)
  local is_read, schedule = pcall(unpacked, packed or '')
  if is_read and type(schedule) == 'table' and type(schedule[VERSION]) == 'number' then return schedule end
  return nil
end

-- As MessagePack bytes: whatever they hold, the reply around them can be read.
local function bytes_as(stored)
  return '\198' .. bytes_of('>I4', #stored) .. stored
end

-- The schedules that exist among the ids, as they are sent, until there are more than `bytes_max` bytes of them; and how
-- many ids were read.
local function entries_of(ids, bytes_max)
  local entries, bytes, read = {}, 0, 0
  local schedules, plans = values_of(SCHEDULES, ids), values_of(PLANS, ids)
  for i, id in ipairs(ids) do
    if bytes > bytes_max then break end
    if schedules[i] then
      local plan = plans[i] or ''
      entries[#entries + 1] = '\147' .. bytes_as(id) .. bytes_as(schedules[i]) .. bytes_as(plan)
      bytes = bytes + #plan
    end
    read = i
  end
  return entries, read
end
