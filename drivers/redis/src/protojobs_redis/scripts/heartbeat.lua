-- Prolong a lease whose row stands, however late. ARGV: offset, worker, progress as {id, claim_seq, holder, share}.
-- Returns nothing when the row is gone; else {claims to cancel, time to the first end of another's lease or '', now}.

local worker, shares = ARGV[2], unpacked(ARGV[3])
if not call('ZSCORE', LEASES, worker) then return false end

local ids, cancels = {}, {}
for i, share in ipairs(shares) do ids[i] = share[1] end
local rows = rows_of(ids)
for _, share in ipairs(shares) do
  local row = rows[share[1]]
  if row and row[BY] ~= '' and row[SEQ] == share[2] and row[BY] == share[3] then
    row[PROGRESS] = share[4]
    dirty[share[1]] = row
  end
end
begin_by_giving()  -- without leases nobody works, and nobody gives memory back
commit()
call('ZADD', LEASES, now + unpacked(call('HGET', WORKERS, worker))[5], worker)

local marked = call('SMEMBERS', marks_of(worker))
rows = rows_of(marked)
for _, id in ipairs(marked) do
  if rows[id] then cancels[#cancels + 1] = pack({id, rows[id][SEQ]}) end
end

local ends_in, first = '', call('ZRANGE', LEASES, 0, 1, 'WITHSCORES')
for i = 1, #first, 2 do
  if first[i] ~= worker then
    ends_in = text(first[i + 1] - now)
    break
  end
end
return '\147' .. list(cancels) .. pack(ends_in) .. pack(now)
