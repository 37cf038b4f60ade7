-- Rows of failed_jobs, newest first. ARGV: offset, queue ('' for all), the last one seen as score and id ('' from the
-- newest), how many to find, how many to examine, how many characters to show ('' for all), and as ARGV[8], where only
-- those of one fingerprint are meant, that. Returns {cursor as score and id, how many were examined, rows as {id, row of
-- failed_jobs, entry of the job}}.

local queue, cursor_score, cursor_id = ARGV[2], ARGV[3], ARGV[4]
local wanted, limit = tonumber(ARGV[5]), tonumber(ARGV[6])
local index = ARGV[8] and ALIKE .. ARGV[8] or FAILURES

-- Below the cursor: by score, then by id. Those of one batch have one score, so a page may end between them.
local ids, scores, skipped = {}, {}, 0
while #ids < limit do
  local asked = min(limit, CHUNK)
  local members = call('ZREVRANGEBYSCORE', index, cursor_score == '' and '+inf' or cursor_score, '-inf', 'WITHSCORES',
                     'LIMIT', skipped, asked)
  for i = 1, #members, 2 do
    local id, at = members[i], members[i + 1]
    if cursor_score == '' or at ~= cursor_score or id < cursor_id then
      ids[#ids + 1] = id
      scores[#ids] = at
    end
  end
  skipped = skipped + asked
  if #members < 2 * asked then break end
end

-- One by one, since each may hold a long traceback: a thousand of them at once would be more than everybody can wait for.
local entries, bytes, read, examined = {}, 0, 0, 0
for i, id in ipairs(ids) do
  if #entries >= wanted or bytes > BATCH_BYTES_MAX or read > BATCH_BYTES_MAX or examined >= limit then break end
  local job_id, failure = failure_of(id)
  if job_id then
    local packed = call('HGET', ROWS, job_id)
    local row = queue ~= '' and readable(packed)
    if queue == '' or (row and row[QUEUE] == queue) then
      entries[#entries + 1] = shown(id, failure, job_id, packed, ARGV[7])
      bytes = bytes + #entries[#entries]
    end
    read = read + #failure
  end
  examined = i
end
if examined == #ids and #ids < limit then return '\148' .. pack('') .. pack('') .. pack(examined) .. list(entries) end
return '\148' .. pack(scores[examined] or cursor_score) .. pack(ids[examined] or cursor_id) .. pack(examined)
  .. list(entries)
