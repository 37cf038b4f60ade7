-- Part of turn.lua: lend due jobs to a worker whose row stands.

-- Take from one lane what may be lent. The claim is full when `is_full` is set.
local function take(claim, queue, priority)
  local lane, seen = lane_of(queue, priority), 0
  while true do
    local wanted = min(claim.limit - #claim.ids, CHUNK)
    local ids = call('ZRANGEBYSCORE', lane, '-inf', now, 'LIMIT', seen, wanted)
    local rows = rows_of(ids)
    for _, id in ipairs(ids) do
      local row = rows[id]
      if #claim.ids >= claim.slots and row[ATTEMPTS] + 1 > row[MAX_RETRIES] then
        claim.passed = claim.passed + 1  -- its last attempt must not wait in a worker's memory
      else
        claim.bytes = claim.bytes + row[SIZE]
        if claim.bytes > BATCH_BYTES_MAX and #claim.ids > 0 then
          claim.is_full = true
          return
        end
        claim.ids[#claim.ids + 1] = id
        claim.rows[id] = row
      end
    end
    seen = seen + #ids
    claim.is_full = #claim.ids >= claim.limit or claim.passed >= PASSED_OVER_MAX
    if claim.is_full or #ids < wanted then break end
  end
  if seen == 0 and call('EXISTS', lane) == 0 then put(to_zrem, lanes_of(queue), priority) end
end

local function choose(queues, slots, limit)
  local claim = {ids = {}, rows = {}, slots = slots, limit = limit, bytes = 0, passed = 0, is_full = limit <= 0}
  for _, queue in ipairs(queues) do
    if claim.is_full then break end
    if call('SISMEMBER', PAUSED, queue) == 0 then
      for _, priority in ipairs(call('ZRANGE', lanes_of(queue), 0, -1)) do
        take(claim, queue, priority)
        if claim.is_full then
          rings[queue] = true  -- perhaps there is more: the next idle worker shall look
          break
        end
      end
    end
  end
  return claim
end

local function lend(worker, queues, slots, limit)
  local claim = choose(queues, slots, limit)
  for _, id in ipairs(claim.ids) do
    local row = claim.rows[id]
    row[ATTEMPTS] = row[ATTEMPTS] + 1
    row[SEQ] = row[SEQ] + 1
    if row[PROGRESS] ~= -1 then row[PROGRESS] = -1 end
    move(id, row, PROCESSING, now, worker)
  end
  commit()
  local blobs, lent = values_of(DATA, claim.ids), {}
  for place, id in ipairs(claim.ids) do lent[place] = entry(id, saved[id], blobs[place]) end
  return lent
end
