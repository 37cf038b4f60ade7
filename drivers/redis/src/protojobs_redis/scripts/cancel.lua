-- Cancel the pending jobs among the ids in ARGV[2], and those in no state that a job can be in, and mark the processing
-- ones; ARGV[3] says why. Returns a letter for each: x (cancelled), r (requested), f (finished before), m (missing).

-- A row in place of one that cannot be read. Its queue is that of the blob, if that can be read.
local function anew(id)
  local blob = call('HGET', DATA, id) or ''
  put(to_hdel, RESULTS, id)
  local is_read, _, queue = pcall(cmsgpack.unpack_one, blob, 0)
  return opened({is_read and type(queue) == 'string' and queue or 'unreadable', 0, 0, #blob, now, now, NO_STATE})
end

local ids, results = unpacked(ARGV[2]), {}
local rows, packed = rows_of(ids), values_of(ROWS, ids)
for i, id in ipairs(ids) do
  if packed[i] and not rows[id] then rows[id] = anew(id) end
  local row, result = rows[id], 'f'
  if not row then
    result = 'm'
  elseif row[STATE] == PENDING or is_lost(id, row) then
    if ARGV[3] ~= '' then row[REASON] = ARGV[3] end
    move(id, row, CANCELLED, now)
    result = 'x'
  elseif row[STATE] == PROCESSING then  -- its worker decides; the mark outlives it
    if ARGV[3] ~= '' then row[REASON] = ARGV[3] end
    dirty[id] = row
    if row[CANCEL_AT] == 0 then
      row[CANCEL_AT] = now
      put(to_sadd, marks_of(row[BY]), id)
    end
    result = 'r'
  end
  results[i] = result
end
begin_by_giving()  -- to mark a job that runs takes little
commit()
return concat(results)
