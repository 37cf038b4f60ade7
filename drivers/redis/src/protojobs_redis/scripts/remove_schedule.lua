-- Forget the schedule ARGV[2]; its jobs stay. Returns 0 when there was none.

local id = ARGV[2]
local is_known = call('HEXISTS', SCHEDULES, id)
put(to_zrem, SCHEDULE_IDS, id)
put(to_zrem, DUE, id)
put(to_hdel, SCHEDULES, id)
put(to_hdel, PLANS, id)
commit()
return is_known
