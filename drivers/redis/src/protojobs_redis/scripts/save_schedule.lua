-- Store the schedule ARGV[2] in place of the one whose version is ARGV[3] (0: there is none). ARGV[4] is its small part,
-- with times as text, ARGV[5] its plan. Returns 0 when that is not its version (any more), and does nothing.

local id, version = ARGV[2], tonumber(ARGV[3])
local known = call('HGET', SCHEDULES, id)
local before = step_of(known)
if (known and not before) or (before and before[VERSION] or 0) ~= version then return 0 end

local schedule = unpacked(ARGV[4])
schedule[NEXT], schedule[LAST] = moment_or_none(schedule[NEXT]), moment_or_none(schedule[LAST])
schedule[VERSION] = version + 1
put(to_hset, PLANS, id, ARGV[5])
put(to_zadd, SCHEDULE_IDS, 0, id)
keep(id, schedule)
leave_due(id, schedule)
commit()
return 1
