-- Up to ARGV[2] workers: {id, info as in register.lua and when it started, end of its lease, how many jobs it holds}.

local leases = call('ZRANGE', LEASES, 0, ARGV[2] - 1, 'WITHSCORES')
local ids, workers = {}, {}
for place = 1, #leases, 2 do ids[#ids + 1] = leases[place] end
local infos = values_of(WORKERS, ids)
for place, id in ipairs(ids) do
  workers[place] = '\148' .. pack(id) .. infos[place] .. pack(tonumber(leases[2 * place])) .. pack(call('SCARD', held_by(id)))
end
return list(workers)
