-- Part of turn_any, which is turn.lua with this and jobs.lua: settlements that are not just completions. Each is {id,
-- claim_seq, reserved_by, verb, due, error, reason, counts_return, counts_crash, failed_id, fingerprint}.

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

settle_others = function(settlements)
  local ids, results = {}, {}
  for i, settlement in ipairs(settlements) do ids[i] = settlement[1] end
  local rows = rows_of(ids)
  for i, settlement in ipairs(settlements) do
    local id = settlement[1]
    local row, status = rows[id], STALE
    if row and row[SEQ] == settlement[2] then  -- the fence: id, claim_seq and holder, all three
      if row[BY] == '' then
        status = REPEATED
      elseif row[BY] == settlement[3] then
        apply(id, row, settlement)
        status = APPLIED
      end
    end
    local state = row and (NAMES[row[STATE]] or NO_STATE) .. timestamp(row[AVAILABLE_AT]) or NOWHERE
    results[i] = '\148' .. pack(id) .. status .. state
  end
  commit()
  return list(results)
end
