-- Store the new jobs of ARGV[2], six values for each: id, queue, priority, max_retries, size, due (see `due_at` in
-- ways.lua); their blobs are the arguments from the third on. Returns a letter for each: s (stored) or d (duplicate:
-- the id is known, or came twice).
--
-- Most calls bring one job. So tables begin with room for it: each that has to grow costs as much as a command.

local jobs, results, is_new = unpacked(ARGV[2]), {false}, {}
local rows, blobs, index, lanes = {false, false}, {false, false}, {false, false}, {}  -- arguments of commands
local count, stored = #jobs / 6, 0

for i = 1, count do index[i] = jobs[6 * i - 5] end
local known = call('HMGET', ROWS, unpack(index, 1, min(CHUNK, count)))
for first = CHUNK + 1, count, CHUNK do
  local more = call('HMGET', ROWS, unpack(index, first, min(first + CHUNK - 1, count)))
  for i = 1, #more do known[first + i - 1] = more[i] end
end

-- Neighbours mostly differ in id and size alone: then the rest of a row, and the lane, are those of the one before.
local queue, priority, max_retries, due, before_size, behind_size, lane, at

for i = 1, count do
  local first = 6 * i - 5
  local id = jobs[first]
  if known[i] or is_new[id] then
    results[i] = 'd'
  else
    if jobs[first + 5] ~= due or jobs[first + 3] ~= max_retries or jobs[first + 2] ~= priority
      or jobs[first + 1] ~= queue then
      queue, priority, max_retries, due = jobs[first + 1], jobs[first + 2], jobs[first + 3], jobs[first + 5]
      local is_far = type(due) == 'string' and #due > 6  -- and perhaps too far for a number
      at = type(due) == 'string' and tonumber(due) or now + due
      local seconds = is_far and tonumber(sub(due, 1, -7)) or floor(at / 1000000)
      local micros = is_far and tonumber(sub(due, -6)) or at - seconds * 1000000
      if micros < 0 then seconds, micros = seconds - 1, micros + 1000000 end  -- the quotient was rounded up
      if at > EXACT then at = at * (1 + 2 ^ -52) end  -- never earlier than it is
      at = format('%.17g', at)
      before_size = bytes_of('>c1BI4BI2BBBI4i8c6I2', PENDING, 0xce, 0, 0xcd, 0, 0xc7, 12, 0xff, micros * 1000, seconds,
                             NO_TROUBLE, max_retries)
      behind_size = bytes_of('>i1i8B', priority, now, #queue) .. queue
      local name = LANE .. priority .. ':' .. queue
      lane = lanes[name]
      if not lane then
        lane = {false, false, queue = queue, priority = priority, jobs = 0, is_new = call('ZCARD', name) == 0}
        lanes[name] = lane
      end
      if due == 0 then lane.has_due = true end
    end
    local pair, last = 2 * stored + 1, 2 * lane.jobs + 1
    if count > 1 then is_new[id] = true end
    rows[pair], rows[pair + 1] = id, before_size .. bytes_of('>I4', jobs[first + 4]) .. behind_size
    blobs[pair], blobs[pair + 1] = id, ARGV[i + 2]
    index[pair], index[pair + 1] = '0', id  -- all with one score, so by id: the order in which `find` shows them
    lane[last], lane[last + 1] = at, id
    lane.jobs = lane.jobs + 1
    results[i] = 's'
    stored = stored + 1
  end
end

-- A server at its memory limit refuses the first write here, and with it the whole call.
for first = 1, 2 * stored, CHUNK do
  local last = min(first + CHUNK - 1, 2 * stored)
  call('HSET', ROWS, unpack(rows, first, last))
  call('HSET', DATA, unpack(blobs, first, last))
  call('ZADD', IDS, unpack(index, first, last))
end
for name, lane in pairs(lanes) do
  local size = 2 * lane.jobs
  if lane.is_new then call('ZADD', LANES .. lane.queue, -lane.priority, lane.priority) end
  for first = 1, size, CHUNK do call('ZADD', name, unpack(lane, first, min(first + CHUNK - 1, size))) end
  if call('HINCRBY', JOBS, lane.queue, lane.jobs) == lane.jobs then call('ZADD', QUEUES, '0', lane.queue) end
  if call('SISMEMBER', PAUSED, lane.queue) == 0 then
    redis.pcall('ZADD', BELL .. lane.queue, '0', lane.has_due and TAKE or LOOK)  -- all is stored, whatever that key is
  end
end
return concat(results)
