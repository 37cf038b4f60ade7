-- The ids of the jobs that worker ARGV[2] holds.

local ids = {}
for i, id in ipairs(call('SMEMBERS', held_by(ARGV[2]))) do ids[i] = pack(id) end
return list(ids)
