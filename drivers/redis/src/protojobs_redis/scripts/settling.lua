-- Part of turn_any, which is turn.lua with this and jobs.lua: settlements that are not just completions. Each is {id,
-- claim_seq, reserved_by, verb, due, error, reason, counts_return, counts_crash, failed_id, fingerprint}; and, where a
-- completion carries something, {..., result or nil, the jobs that come next}. Those are six values for each, as in
-- enqueue.lua, in one array; their blobs are the arguments from the ninth on, in the order of all of them.

local BLOBS_AT = 9

-- Apply the settlement of the current claim, unless a person has asked to cancel the job.
local function apply(id, row, settlement)
  local verb, due, reason, counts_return = settlement[4], settlement[5], settlement[7], settlement[8]
  local to = SETTLES_TO[verb]  -- as protojobs.port.rules has it: scripting.py puts it here
  local is_unspent = verb == 'snooze' or verb == 'release'
  if verb == 'release' and counts_return then
    is_unspent = row[RETURNS] < RETURNS_FREE
    row[RETURNS] = row[RETURNS] + 1
  end
  if is_unspent then row[ATTEMPTS] = row[ATTEMPTS] - 1 end
  if settlement[9] then row[CRASHES] = row[CRASHES] + 1 end
  local is_marked = row[CANCEL_AT] ~= 0
  if reason and reason ~= '' and not is_marked then row[REASON] = reason end
  if is_marked and to ~= COMPLETED then to = CANCELLED end
  move(id, row, to, to == PENDING and due_at(due) or now)
  if to == FAILING then add_failure(id, row, settlement[10], now, row[ATTEMPTS], settlement[6], settlement[11]) end
end

local lanes_carried = {}  -- keys of the lanes to which jobs come that come next

-- Keep what the settlement that completed this job has brought along. `known`: ids of jobs that the store has had before;
-- `blob_at`: where the blobs of its jobs begin.
local function keep_carried(id, row, result, jobs, known, blob_at)
  if result then
    row[HAS_RESULT] = 1
    put(to_hset, RESULTS, id, result)
  end
  for i = 0, #jobs / 6 - 1 do
    local job = {unpack(jobs, 6 * i + 1, 6 * i + 6)}
    if not known[job[1]] and not dirty[job[1]] then
      add_pushed(job, ARGV[blob_at + i])
      lanes_carried[lane_of(job[2], job[3])], lanes_carried[lanes_of(job[2])] = true, true
    end
  end
end

-- Which of the jobs that come next the store has.
local function known_among(settlements)
  local ids, known = {}, {}
  for _, settlement in ipairs(settlements) do
    local jobs = settlement[13] or {}
    for i = 1, #jobs, 6 do ids[#ids + 1] = jobs[i] end
  end
  for i, packed in ipairs(values_of(ROWS, ids)) do known[ids[i]] = packed and true end
  return known
end

settle_others = function(settlements)
  local ids, results, blob_at = {}, {}, BLOBS_AT
  for i, settlement in ipairs(settlements) do ids[i] = settlement[1] end
  local rows, known = rows_of(ids), known_among(settlements)
  for i, settlement in ipairs(settlements) do
    local id = settlement[1]
    local row, status = rows[id], STALE
    if row and row[SEQ] == settlement[2] then  -- the fence: id, claim_seq and holder, all three
      if row[BY] == '' then
        status = REPEATED
      elseif row[BY] == settlement[3] then
        apply(id, row, settlement)
        if settlement[13] then keep_carried(id, row, settlement[12], settlement[13], known, blob_at) end
        status = APPLIED
      end
    end
    blob_at = blob_at + #(settlement[13] or '') / 6
    local state = row and (NAMES[row[STATE]] or NO_STATE) .. timestamp(row[AVAILABLE_AT]) or NOWHERE
    results[i] = '\148' .. pack(id) .. status .. state
  end
  -- A key of another type must break its own queue alone, and not this step in its middle: its job is in no list then,
  -- and is shown so.
  for lane in pairs(lanes_carried) do
    if type(try('ZCARD', lane)) == 'table' then to_zadd[lane] = nil end
  end
  commit()
  return list(results)
end
