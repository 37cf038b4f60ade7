-- Take out of their lanes what a claim found there and could not read. Each of ARGV[2] is {id, queue, priority, id for
-- failed_jobs, what to say}. Of a job whose row is spoilt a failed one is left, so that people see it; one that is in
-- another state than pending stays as it is, and of an id without a job nothing is left.

local FINGERPRINT = 'unreadable'  -- as protojobs.port.unreadable_rows has it

local spoilt = unpacked(ARGV[2])
local ids = {}
for i, each in ipairs(spoilt) do ids[i] = each[1] end
local packed, blobs = values_of(ROWS, ids), values_of(DATA, ids)
for i, each in ipairs(spoilt) do
  local id, queue, priority, failed_id, why = unpack(each)
  local lane, row = lane_of(queue, priority), readable(packed[i])
  local is_mended = row and row[STATE] == PENDING and row[QUEUE] == queue and row[PRIORITY] == priority
  if not is_mended and score_in(lane, id) then
    put(to_zrem, lane, id)
    if not row and (packed[i] or blobs[i]) then
      if not score_in(IDS, id) then
        put(to_zadd, IDS, 0, id)
        count(jobs_moved, queue, 1)
      end
      row = opened({queue, priority, 0, #(blobs[i] or ''), now, now, FAILING})
      row[PROCESSED_AT] = now
      enter(id, row)
      dirty[id] = row
      add_failure(id, row, failed_id, now, 0, why, FINGERPRINT)
    elseif not row then
      put(to_zrem, IDS, id)
    end
  end
end
commit()
return 1
