-- Part of turn.lua: claim due jobs for a worker whose row stands.

-- Whether the row is what was put into this lane. A mistake of another program in one job must not be the end of a claim.
local function is_whole(row, queue)
  if not row or #row < QUEUE_AT or byte(row) ~= 112 then return false end  -- p: pending
  local tail = QUEUE_AT + byte(row, QUEUE_AT - 1)
  return sub(row, QUEUE_AT, tail - 1) == queue and (#row <= tail + 16 or values_of_end(sub(row, tail + 17)))
end

-- Choose from one lane what may be claimed. The claim is full when `is_full` is set.
local function choose_from(claim, queue, priority)
  local lane, seen, passed = LANE .. priority .. ':' .. queue, 0, 0
  local ids, rows, count, before = claim.ids, claim.rows, claim.count, claim.count
  while true do
    local wanted = min(claim.limit - count, CHUNK)
    local members = try('ZRANGEBYSCORE', lane, '-inf', claim.now, 'LIMIT', seen, wanted)
    local packed = values_of(ROWS, members)
    for i, id in ipairs(members) do
      local row = packed[i]
      if is_whole(row, queue) then
        local attempts, max_retries, size = fields_of('>I2', row, 8), fields_of('>I2I4', row, 31)
        if count >= claim.slots and attempts + 1 > max_retries then
          passed = passed + 1  -- its last attempt must not wait in a worker's memory
        else
          claim.bytes = claim.bytes + size
          claim.is_full = claim.bytes > BATCH_BYTES_MAX and count > 0
          if claim.is_full then break end
          count = count + 1
          ids[count], rows[count] = id, row
        end
      else
        passed = passed + 1
        claim.spoilt[#claim.spoilt + 1] = pack({id, queue, tonumber(priority)})
      end
    end
    seen = seen + #members
    claim.is_full = claim.is_full or count >= claim.limit or claim.passed + passed >= PASSED_OVER_MAX
    if claim.is_full or #members < wanted then break end
  end
  if seen == 0 and call('EXISTS', lane) == 0 then call('ZREM', LANES .. queue, priority) end
  if count > before then
    claim.lanes[#claim.lanes + 1] = {lane, before + 1, count, passed > 0}
    moved[queue] = (moved[queue] or 0) + count - before
  end
  claim.count, claim.passed = count, claim.passed + passed
end

local function choose(queues, slots, limit)
  local claim = {ids = {}, rows = {}, lanes = {}, count = 0, bytes = 0, passed = 0, is_full = false}
  claim.spoilt = {}
  claim.slots, claim.limit, claim.now = slots, limit, format('%.0f', now)
  for _, queue in ipairs(queues) do
    if call('SISMEMBER', PAUSED, queue) == 0 then
      for _, priority in ipairs(try('ZRANGE', LANES .. queue, 0, -1)) do
        choose_from(claim, queue, priority)
        if claim.is_full then
          claim.more = queue  -- perhaps: the next idle worker shall look
          return claim
        end
      end
    end
  end
  return claim
end

-- Take them out of their lanes: by rank, where the first ones were taken and none was passed over.
local function take_out(claim)
  for _, taken in ipairs(claim.lanes) do
    local lane, first, last, is_scattered = unpack(taken)
    if is_scattered then
      local ids = {}
      for i = first, last do ids[i - first + 1] = claim.ids[i] end
      send('ZREM', lane, ids)
    else
      call('ZREMRANGEBYRANK', lane, 0, last - first)
    end
  end
end

-- What few jobs have: where it has been in trouble, and the end of its row (see jobs.lua), which a run begins without
-- progress. Returns the part of its reply between the times and the holder, and that end.
local function unlike(row, rest)
  local crashes, returns, reclaims = fields_of('>I2I2I2', row, 25)
  local is_marked = false
  if rest ~= '' then
    local values = unpacked(rest)
    is_marked = (values[2] or 0) ~= 0
    values[1] = -1
    rest = #values > 1 and pack(values) or ''
  end
  return pack(crashes) .. pack(returns) .. pack(reclaims) .. pack(is_marked), rest
end

-- Claim the chosen jobs. Returns a packing.PackedClaim for each, one after the other, with a list's head; and what in the
-- lanes is no job that could be claimed, as {id, queue, priority}.
local function claim_for(worker, queues, slots, limit)
  local claim = choose(queues, slots, limit)
  local ids, rows, holder = claim.ids, claim.rows, char(#worker) .. worker
  local reserved, since, by = bytes_of('>i8', now) .. NO_TIME, timestamp(now), '\217' .. holder
  local usual = since .. '\0\0\0\194' .. by  -- no crash, return or reclaim; not marked to be cancelled
  local array, blobs, fields, parts, size = '\220\0\20' .. ID, values_of(DATA, ids), {}, {}, 0  -- array of twenty
  for i, id in ipairs(ids) do
    local row = rows[i]
    local seq, attempts = fields_of('>I4xI2', row, 3)
    local tail, counts = QUEUE_AT + byte(row, QUEUE_AT - 1), bytes_of('>BI4BI2', 0xce, seq + 1, 0xcd, attempts + 1)
    local rest, times = sub(row, tail + 17), usual
    if rest ~= '' or sub(row, 25, 30) ~= NO_TROUBLE then
      local trouble
      trouble, rest = unlike(row, rest)
      times = since .. trouble .. by
    end
    fields[2 * i - 1] = id
    fields[2 * i] = PROCESSING .. counts .. sub(row, 10, tail - 1) .. holder .. reserved .. rest
    parts[size + 1], parts[size + 2], parts[size + 3] = array, id, counts
    parts[size + 4], parts[size + 5], parts[size + 6] = sub(row, 10, 24), times, blobs[i] or ''
    size = size + 6
  end
  take_out(claim)
  send('HSET', ROWS, fields)
  send('SADD', HELD .. worker, ids)
  if claim.more then try('ZADD', BELL .. claim.more, 0, LOOK) end
  return head(#ids) .. concat(parts), list(claim.spoilt)
end
