-- Jobs below an id, newest id first. ARGV: offset, states as letters ('' for all; u: in none that a job can be in), queue
-- ('' for all), cursor ('' from the newest), how many to find, how many to examine, how many characters of the data to
-- show ('' for all). Returns {cursor or '', how many were examined, entries}.

local states, queue, cursor, wanted = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local function is_wanted(id, row)
  if queue ~= '' and not (row and row[QUEUE] == queue) then return false end
  if states == '' then return true end
  local asks_state, asks_lost = row and states:find(row[STATE], 1, true), states:find(NO_STATE, 1, true)
  if not asks_state and not asks_lost then return false end
  if is_lost(id, row) then return asks_lost end
  return asks_state
end

local ids = call('ZREVRANGEBYLEX', IDS, cursor == '' and '+' or '(' .. cursor, '-', 'LIMIT', 0, ARGV[6])
local rows, entries, bytes, examined = values_of(ROWS, ids), {}, 0, 0
for i, id in ipairs(ids) do
  if #entries >= wanted or bytes > BATCH_BYTES_MAX then break end
  local row = readable(rows[i])
  if rows[i] and is_wanted(id, row) then
    local blob = cut(call('HGET', DATA, id), ARGV[7])
    entries[#entries + 1] = entry(id, rows[i], blob)
    bytes = bytes + #(blob or '')
  end
  examined = i
end
local is_last = examined == #ids and #ids < tonumber(ARGV[6])
return '\147' .. pack(is_last and '' or ids[examined] or cursor) .. pack(examined) .. list(entries)
