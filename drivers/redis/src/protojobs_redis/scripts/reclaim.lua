-- Delete the rows of workers whose lease has ended, and reclaim their jobs and those of workers that left before.
-- ARGV: offset, how many jobs, until when (or 0): one that was held up by an outage comes too late and does nothing.
-- Returns {jobs as {holder, entry}, workers, is there more, seconds to the next end or ''}.

local WORKERS_MAX = 100  -- rows deleted in one round

if ARGV[3] ~= '0' and now > tonumber(ARGV[3]) then return '\148' .. list({}) .. list({}) .. pack(true) .. pack('') end

local limit, bytes, is_full = tonumber(ARGV[2]), 0, false
local lapsed = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, WORKERS_MAX + 1)
local has_more = #lapsed > WORKERS_MAX
lapsed[WORKERS_MAX + 1] = nil
local is_isolating, holders = {}, {}
for i, worker in ipairs(lapsed) do
  is_isolating[worker] = unpacked(call('HGET', WORKERS, worker))[6]
  holders[i] = worker
end
-- Jobs of the workers that lapsed just now come first: only of those it is known how their worker ran them.
for _, worker in ipairs(call('SRANDMEMBER', GONE, WORKERS_MAX)) do
  if is_isolating[worker] == nil then holders[#holders + 1] = worker end
end

local function reclaim(id, row)
  local holder = row[BY]
  if is_isolating[holder] == false and row[RECLAIMS] >= SUSPECT_RECLAIMS then
    row[CRASHES] = row[CRASHES] + 1  -- it ran alone there, so the worker's death is its doing
  elseif row[RETURNS] < RETURNS_FREE then
    row[ATTEMPTS] = row[ATTEMPTS] - 1
  end
  row[RETURNS] = row[RETURNS] + 1
  row[RECLAIMS] = row[RECLAIMS] + 1
  row[SEQ] = row[SEQ] + 1
  if row[CANCEL_AT] ~= 0 then move(id, row, CANCELLED, now) else move(id, row, PENDING, row[AVAILABLE_AT]) end
end

local ids, from = {}, {}
for _, holder in ipairs(holders) do
  if is_full then break end
  local held = call('SRANDMEMBER', held_by(holder), limit - #ids)
  local rows = rows_in(held_by(holder), held, to_srem)
  for _, id in ipairs(held) do
    if rows[id] then
      bytes = bytes + rows[id][SIZE]  -- the reply carries the blobs, for their names
      is_full = bytes > BATCH_BYTES_MAX and #ids > 0
      if is_full then break end
      ids[#ids + 1] = id
      from[#ids] = holder
      reclaim(id, rows[id])
    end
  end
  is_full = is_full or #ids >= limit
end

for _, worker in ipairs(lapsed) do
  put(to_zrem, LEASES, worker)
  put(to_hdel, WORKERS, worker)
end
commit()
for _, holder in ipairs(holders) do
  local is_left = call('EXISTS', held_by(holder)) == 1
  call(is_left and 'SADD' or 'SREM', GONE, holder)
end
has_more = has_more or call('EXISTS', GONE) == 1

local blobs, jobs, workers = values_of(DATA, ids), {}, {}
for i, id in ipairs(ids) do jobs[i] = '\146' .. pack(from[i]) .. entry(id, saved[id], blobs[i]) end
for i, worker in ipairs(lapsed) do workers[i] = pack(worker) end
local first = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
return '\148' .. list(jobs) .. list(workers) .. pack(has_more) .. pack(first[2] and text(first[2] - now) or '')
