-- Up to ARGV[2] workers: {id, info as in register.lua and when it started, end of its lease, how many jobs it holds}.

local leases = call('ZRANGE', LEASES, 0, ARGV[2] - 1, 'WITHSCORES')
local ids, workers = {}, {}
for i = 1, #leases, 2 do ids[#ids + 1] = leases[i] end
local infos = values_of(WORKERS, ids)
for i, id in ipairs(ids) do
  workers[i] = '\148' .. pack(id) .. infos[i] .. pack(tonumber(leases[2 * i])) .. pack(call('SCARD', held_by(id)))
end
return list(workers)
