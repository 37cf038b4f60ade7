-- A page of jobs that move under a token. ARGV: offset, token, cursor ('' from the first), how many. Jobs get a number
-- as they begin to move, and a cursor is such a number: so it shows the same jobs for as long as they are here. Returns
-- {cursor or '', jobs as {entry, state that it had, id of failed_jobs or '', row of failed_jobs or ''}}.

local moving, cursor, limit = PREFIX .. 'moving:' .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local ids, numbers, bytes, has_more = {}, {}, 0, false

local function is_full()
  return #ids >= limit or bytes > BATCH_BYTES_MAX
end

-- Those already moving come first ...
local members = call('ZRANGEBYSCORE', moving, cursor == '' and '-inf' or '(' .. cursor, '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 1)
for i = 1, #members, 2 do
  has_more = is_full()
  if has_more then break end
  local id = members[i]
  ids[#ids + 1] = id
  numbers[#ids] = members[i + 1]
  local row = readable(call('HGET', ROWS, id))
  bytes = bytes + (row and row[SIZE] or 0)
end

-- ... then as many as the page still has room for begin to move.
local numbered = tonumber(call('GET', PREFIX .. 'exports') or 0)
local number = numbered
local function begin(id, row)
  number = number + 1
  row[MOVED_FROM] = row[STATE]
  row[SEQ] = row[SEQ] + 1
  move(id, row, MOVING)
  put(to_zadd, moving, number, id)
  ids[#ids + 1] = id
  numbers[#ids] = text(number)
  bytes = bytes + row[SIZE]
end

-- Returns whether one more job could not begin.
local function begin_from(key)
  local candidates = try('ZRANGE', key, 0, limit - #ids)
  local rows = rows_in(key, candidates, to_zrem)
  for _, id in ipairs(candidates) do
    if is_full() then return true end
    if rows[id] then begin(id, rows[id]) end
  end
  return false
end

local function begin_in(queue)
  for _, priority in ipairs(try('ZRANGE', lanes_of(queue), 0, -1)) do
    if begin_from(lane_of(queue, priority)) then return true end
  end
  return begin_from(ended_of(queue, FAILING))
end

local after = '-'
while not has_more do
  local queues = call('ZRANGEBYLEX', QUEUES, after, '+', 'LIMIT', 0, CHUNK)
  for _, queue in ipairs(queues) do
    has_more = begin_in(queue)
    if has_more then break end
  end
  if #queues < CHUNK then break end
  after = '(' .. queues[#queues]
end
commit()
if number > numbered then call('SET', PREFIX .. 'exports', text(number)) end

local rows, blobs, jobs = values_of(ROWS, ids), values_of(DATA, ids), {}
for i, id in ipairs(ids) do
  local row = readable(rows[i])
  if row then
    local failure = row[FAILED_ID] ~= '' and call('HGET', FAILED, row[FAILED_ID])
    jobs[#jobs + 1] = '\148' .. entry(id, rows[i], blobs[i]) .. pack(row[MOVED_FROM]) .. pack(row[FAILED_ID])
      .. binary(failure or '')
  end
end
return '\146' .. pack(has_more and numbers[#ids] or '') .. list(jobs)
