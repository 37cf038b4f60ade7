-- Part of turn.lua: the completions, which nearly all settlements are.

local ID = '\217\36'  -- a text of 36 bytes, in MessagePack: all ids of jobs are
local NAMES = {  -- of the states, in MessagePack
  [PENDING] = '\167pending', [PROCESSING] = '\170processing', [COMPLETED] = '\169completed', [FAILING] = '\166failed',
  [CANCELLED] = '\169cancelled', [MOVING] = '\166moving',
}
local APPLIED, REPEATED, STALE = '\167applied', '\168repeated', '\165stale'
local NO_STATE = '\192'
local NOWHERE = '\192\192'  -- neither a state nor a time
local ended_at, ended_score = bytes_of('>i8', now), format('%.0f', now)
local moved = {}  -- by queue: by how many its running jobs become more
local settle_others  -- of turn_any alone: settling.lua

-- What stands at the end of a row, see jobs.lua; nothing where a foreign hand has spoilt it.
local function values_of_end(rest)
  local is_read, values = pcall(unpacked, rest)
  return is_read and type(values) == 'table' and values
end

-- Complete jobs of `worker`: `claims` are id and claim_seq of each, in one array. Returns {id, status, state,
-- available_at} for each, one after the other.
local function complete(worker, claims)
  local mine, ids, changed, parts, done = char(#worker) .. worker, {}, {}, {}, {}
  local into, marked, count, size = {}, {}, 0, 0
  for i = 1, #claims / 2 do ids[i] = claims[2 * i - 1] end
  local rows = values_of(ROWS, ids)
  for i, id in ipairs(ids) do
    local row = changed[id] or rows[i]
    local status, state, due = STALE, NOWHERE, ''
    if row and #row >= QUEUE_AT then
      local tail = QUEUE_AT + byte(row, QUEUE_AT - 1)
      state, due = NAMES[sub(row, 1, 1)] or NO_STATE, sub(row, 10, 24)
      if fields_of('>I4', row, 3) == claims[2 * i] then  -- the fence: id, claim_seq and holder, all three
        local behind = tail + #mine
        if (byte(row, tail) or 0) == 0 then
          status = REPEATED
        elseif sub(row, tail, behind - 1) == mine then
          local queue, rest = sub(row, QUEUE_AT, tail - 1), sub(row, behind + 16)
          status, state = APPLIED, NAMES[COMPLETED]
          row = COMPLETED .. sub(row, 2, tail - 1) .. '\0' .. sub(row, behind, behind + 7) .. ended_at .. rest
          local values = rest ~= '' and values_of_end(rest)
          if values and (values[2] or 0) ~= 0 then marked[#marked + 1] = id end
          local ended = into[queue]
          if not ended then
            ended = {}
            into[queue] = ended
          end
          local last = #ended
          ended[last + 1], ended[last + 2] = ended_score, id
          changed[id] = row
          done[count + 1] = id
          count = count + 1
        end
      end
    end
    parts[size + 1], parts[size + 2], parts[size + 3] = '\148', ID, id  -- an array of four
    parts[size + 4], parts[size + 5], parts[size + 6] = status, state, due
    size = size + 6
  end
  -- What gives memory back goes first: a server at its memory limit refuses a script at its first write that may need
  -- more, and no later one. So running jobs still settle there.
  send('SREM', HELD .. worker, done)
  send('SREM', MARKS .. worker, marked)
  local fields = {}
  for i, id in ipairs(done) do fields[2 * i - 1], fields[2 * i] = id, changed[id] end
  send('HSET', ROWS, fields)
  for queue, ended in pairs(into) do
    send('ZADD', ENDED .. COMPLETED .. ':' .. queue, ended)
    moved[queue] = -#ended / 2
  end
  return head(#ids) .. concat(parts)
end
