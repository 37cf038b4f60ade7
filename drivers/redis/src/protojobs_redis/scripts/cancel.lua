-- Cancel the pending jobs among the ids in ARGV[2], and mark the processing ones; ARGV[3] says why. Answers a letter
-- for each: x (cancelled), r (requested), f (finished before), m (missing).

local ids, answers = unpacked(ARGV[2]), {}
local rows = rows_of(ids)
for place, id in ipairs(ids) do
  local row, answer = rows[id], 'f'
  if not row then
    answer = 'm'
  elseif row[STATE] == PENDING or row[STATE] == PROCESSING then
    if ARGV[3] ~= '' then row[REASON] = ARGV[3] end
    dirty[id] = row
    if row[STATE] == PENDING then
      move(id, row, CANCELLED, now)
      answer = 'x'
    else  -- its worker decides; the mark outlives it
      if row[CANCEL_AT] == 0 then
        row[CANCEL_AT] = now
        put(to_sadd, marks_of(row[BY]), id)
      end
      answer = 'r'
    end
  end
  answers[place] = answer
end
begin_by_giving()  -- to mark a job that runs takes little
commit()
return concat(answers)
