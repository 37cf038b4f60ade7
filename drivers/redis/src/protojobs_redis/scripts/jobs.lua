-- What the verbs need that look at jobs one by one or bring them to another state: a row as a table, and `move`, the one
-- way in which a job changes its state. These scripts decide first, and write in `commit` alone.

local FAILED, FAILURES = PREFIX .. 'failed', PREFIX .. 'failures'
local ALIKE, CAUSES = PREFIX .. 'alike:', PREFIX .. 'causes'  -- failures by fingerprint; fingerprints by last failure
local WORKERS, GONE = PREFIX .. 'workers', PREFIX .. 'gone'
local RESULTS = PREFIX .. 'results'  -- by job; of those whose rows say that they have one

-- As a table a row has these fields; packing.Row has the same list. Fields that are missing are what NOTHING says.

local QUEUE, PRIORITY, MAX_RETRIES, SIZE, CREATED_AT, AVAILABLE_AT, STATE, ATTEMPTS, SEQ, BY = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local RESERVED_AT, PROCESSED_AT, CRASHES, RETURNS, RECLAIMS, PROGRESS = 11, 12, 13, 14, 15, 16
local CANCEL_AT, REASON, FAILED_ID, MOVED_FROM, FINGERPRINT, HAS_RESULT, FIELDS = 17, 18, 19, 20, 21, 22, 22
local NOTHING = {false, false, false, false, false, false, PENDING, 0, 0, '', 0, 0, 0, 0, 0, -1, 0, '', '', '', '', 0}
local DEFAULTS = {__index = NOTHING}  -- filling each row up would cost as much as reading it

local function opened(row)
  return setmetatable(row, DEFAULTS)
end

local function open(packed)
  local seq, attempts, nanos, seconds, crashes, returns, reclaims, max_retries, size, priority, created_at, length =
    fields_of('>xxI4xI2xxxI4i8I2I2I2I2I4i1i8I1', packed)
  local micros = nanos / 1000
  local available_at = seconds * 1000000 + micros
  if available_at > EXACT then available_at = format('%.0f%06d', seconds, micros) end
  local tail = QUEUE_AT + length
  local row = {
    sub(packed, QUEUE_AT, tail - 1), priority, max_retries, size, created_at, available_at, sub(packed, 1, 1), attempts,
    seq, '', 0, 0, crashes, returns, reclaims,
  }
  local holder = byte(packed, tail)
  if holder then
    row[BY] = sub(packed, tail + 1, tail + holder)
    row[RESERVED_AT], row[PROCESSED_AT], tail = fields_of('>i8i8', packed, tail + 1 + holder)
    if tail <= #packed then
      for i, value in ipairs(unpacked(sub(packed, tail))) do row[RECLAIMS + i] = value end
    end
  end
  return setmetatable(row, DEFAULTS)
end

-- What few jobs have.
local function rest_of(row)
  local last = FIELDS
  while last > RECLAIMS and row[last] == NOTHING[last] do last = last - 1 end
  if last == RECLAIMS then return '' end
  local rest = {}
  for field = PROGRESS, last do rest[field - RECLAIMS] = row[field] end
  return pack(rest)
end

-- The row as it is stored.
local function close(row)
  local queue, rest = row[QUEUE], rest_of(row)
  local packed = concat({
    bytes_of('>c1BI4BI2', row[STATE], 0xce, row[SEQ], 0xcd, row[ATTEMPTS]), timestamp(row[AVAILABLE_AT]),
    bytes_of('>I2I2I2I2I4i1i8I1', row[CRASHES], row[RETURNS], row[RECLAIMS], row[MAX_RETRIES], row[SIZE], row[PRIORITY],
             tonumber(row[CREATED_AT]), #queue), queue,
  })
  if rest == '' and row[BY] == '' and row[RESERVED_AT] == 0 and row[PROCESSED_AT] == 0 then return packed end
  local times = bytes_of('>i8i8', tonumber(row[RESERVED_AT]), tonumber(row[PROCESSED_AT]))
  return packed .. char(#row[BY]) .. row[BY] .. times .. rest
end

-- The row, or nothing where there is none or no script of ours has written it. A foreign hand's mistake in one job must
-- not be the end of a script that is about many.
local function readable(packed)
  if not packed then return nil end
  local is_open, row = pcall(open, packed)
  return is_open and #row[QUEUE] == byte(packed, QUEUE_AT - 1) and row or nil
end

-- The readable rows that exist among the ids, by id.
local function rows_of(ids)
  local rows = {}
  for i, packed in ipairs(values_of(ROWS, ids)) do
    local id = ids[i]
    if not rows[id] then rows[id] = readable(packed) end
  end
  return rows
end

local function text(number)
  return format('%.0f', number)
end

-- Collected by command and key, so that a batch of a hundred jobs is a handful of commands, here and in the log that
-- the server writes to disk and to its replicas.

local to_zrem, to_srem, to_hdel, to_hset, to_zadd, to_sadd = {}, {}, {}, {}, {}, {}
local dirty, saved = {}, {}  -- rows by id that will be stored, and what was stored of them
local jobs_moved, running_moved, wakes = {}, {}, {}  -- by queue: changes of counts; the waiters to wake
local causes = {}  -- fingerprints of which a failure came or went

local function put(into, key, first, second)
  local arguments = into[key]
  if not arguments then
    arguments = {}
    into[key] = arguments
  end
  arguments[#arguments + 1] = first
  if second ~= nil then arguments[#arguments + 1] = second end
end

local function count(into, queue, by)
  into[queue] = (into[queue] or 0) + by
end

local function flush(command, from)
  for key, arguments in pairs(from) do
    for first = 1, #arguments, CHUNK do
      call(command, key, unpack(arguments, first, min(first + CHUNK - 1, #arguments)))
    end
  end
end

local function flush_counts()
  for queue, by in pairs(running_moved) do
    if by ~= 0 and call('HINCRBY', RUNNING, queue, by) <= 0 then call('HDEL', RUNNING, queue) end
  end
  for queue, by in pairs(jobs_moved) do
    local total = by ~= 0 and call('HINCRBY', JOBS, queue, by) or false
    if total and total <= 0 then
      call('HDEL', JOBS, queue)
      call('DEL', LANES .. queue, BELL .. queue)  -- or two keys would stay of each name that was ever used
      if call('SISMEMBER', PAUSED, queue) == 0 then call('ZREM', QUEUES, queue) end
    elseif total and total == by then
      call('ZADD', QUEUES, 0, queue)
    end
  end
end

-- Each fingerprint stands where its last failure does.
local function flush_causes()
  for fingerprint in pairs(causes) do
    local last = call('ZREVRANGE', ALIKE .. fingerprint, 0, 0, 'WITHSCORES')
    if last[1] then call('ZADD', CAUSES, last[2], fingerprint) else call('ZREM', CAUSES, fingerprint) end
  end
end

-- For a first write: it gives nothing back, but is one of those that do. So what follows is done on a server at its
-- memory limit too, see `commit`.
local function begin_by_giving()
  call('SREM', GONE, '')  -- no worker has this id
end

-- The only place that writes. What gives memory back goes first: a server at its memory limit refuses a script at its
-- first write that may need more, and no later one. So there `enqueue` is refused whole, and running jobs still settle.
local function commit()
  flush('ZREM', to_zrem)
  flush('SREM', to_srem)
  flush('HDEL', to_hdel)
  for id, row in pairs(dirty) do
    saved[id] = close(row)
    put(to_hset, ROWS, id, saved[id])
  end
  flush('HSET', to_hset)
  flush('ZADD', to_zadd)
  flush('SADD', to_sadd)
  flush_counts()
  flush_causes()
  for queue in pairs(wakes) do
    if call('SISMEMBER', PAUSED, queue) == 0 then try('ZADD', BELL .. queue, 0, LOOK) end
  end
  to_zrem, to_srem, to_hdel, to_hset, to_zadd, to_sadd, dirty = {}, {}, {}, {}, {}, {}, {}
  jobs_moved, running_moved, wakes, causes = {}, {}, {}, {}
end

-- A job is in one place for its state: a lane (queue and priority, by due time; delayed jobs too), the set of what a
-- worker holds, or the jobs of a queue that ended in a state, by when.

-- Each name is made once in a run: to put strings together and look them up anew for each job costs more than the rest.
local function remembered(head)
  return setmetatable({}, {
    __index = function(known, tail)
      local name = PREFIX .. head .. tail
      known[tail] = name
      return name
    end,
  })
end

local held_names, ended_names, lane_names = remembered('held:'), {}, {}

local function lane_of(queue, priority)
  local names = lane_names[priority]
  if not names then
    names = remembered('lane:' .. priority .. ':')
    lane_names[priority] = names
  end
  return names[queue]
end

local function lanes_of(queue)
  return PREFIX .. 'lanes:' .. queue
end

local function ended_of(queue, state)
  local names = ended_names[state]
  if not names then
    names = remembered('ended:' .. state .. ':')
    ended_names[state] = names
  end
  return names[queue]
end

local function held_by(worker)
  return held_names[worker]
end

local function marks_of(worker)
  return PREFIX .. 'marks:' .. worker
end

-- A member's score; nothing as well where somebody has put another type of value there.
local function score_in(set, member)
  local reply = try('ZSCORE', set, member)
  return type(reply) == 'string' and reply
end

-- Whether the job is not in the set in which jobs of its state are looked for.
local function is_misplaced(id, row)
  if row[STATE] == PENDING then return not score_in(lane_of(row[QUEUE], row[PRIORITY]), id) end
  return row[STATE] == PROCESSING and try('SISMEMBER', held_by(row[BY]), id) ~= 1
end

-- Whether nobody knows in what state it is: shown as `unreadable`, and `u` in find.lua.
local NO_STATE = 'u'

local function is_lost(id, row)
  return not row or not ('prcfxm'):find(row[STATE], 1, true) or is_misplaced(id, row)
end

-- The rows of the ids that the set `key` holds. Ids without a job that could be read are taken out of it (`from`: to_zrem
-- or to_srem).
local function rows_in(key, ids, from)
  local rows = rows_of(ids)
  for _, id in ipairs(ids) do
    if not rows[id] then put(from, key, id) end
  end
  return rows
end

local function binary(bytes)
  return '\198' .. bytes_of('>I4', #bytes) .. bytes
end

-- A job in a reply: an array of id, row, blob, and whether it is misplaced. Row and blob are values of their own, in
-- one string each, and empty where they cannot be read: one that is spoilt does not spoil the reply. `packed` is the row
-- as it is stored.
local function entry(id, packed, blob)
  local row = readable(packed)
  if row then
    for field = PROGRESS, FIELDS do row[field] = row[field] end
  end
  return '\148' .. pack(id) .. binary(row and pack(row) or '') .. binary(blob and '\154' .. blob or '')
    .. pack(row ~= nil and is_misplaced(id, row))
end

local function leave(id, row)
  local state, queue = row[STATE], row[QUEUE]
  if state == PENDING then
    put(to_zrem, lane_of(queue, row[PRIORITY]), id)
  elseif state == PROCESSING then
    put(to_srem, held_by(row[BY]), id)
    if row[CANCEL_AT] ~= 0 then put(to_srem, marks_of(row[BY]), id) end
    count(running_moved, queue, -1)
  elseif state ~= MOVING then
    put(to_zrem, ended_of(queue, state), id)
  end
end

local function enter(id, row)
  local state, queue = row[STATE], row[QUEUE]
  if state == PENDING then
    local lane = lane_of(queue, row[PRIORITY])
    if not to_zadd[lane] then put(to_zadd, lanes_of(queue), -row[PRIORITY], row[PRIORITY]) end
    put(to_zadd, lane, score(row[AVAILABLE_AT]), id)
    wakes[queue] = true
  elseif state == PROCESSING then
    put(to_sadd, held_by(row[BY]), id)
    count(running_moved, queue, 1)
  elseif state ~= MOVING then
    put(to_zadd, ended_of(queue, state), score(row[PROCESSED_AT]), id)
  end
end

-- Bring a job to its next state. `at` is the moment that the state asks for: when it is due, was claimed, or ended.
local function move(id, row, to, at, by)
  leave(id, row)
  row[STATE], row[BY] = to, by or ''
  if to == PROCESSING then
    row[RESERVED_AT] = at
  elseif to == PENDING then
    row[AVAILABLE_AT], row[RESERVED_AT], row[PROCESSED_AT] = at, 0, 0
  elseif to ~= MOVING then
    row[PROCESSED_AT] = at
  end
  enter(id, row)
  dirty[id] = row
end

-- Store a job that is not there yet.
local function add(id, row, blob)
  put(to_hset, DATA, id, blob)
  put(to_zadd, IDS, 0, id)  -- all with one score, so by id: that is the order in which `find` shows them
  count(jobs_moved, row[QUEUE], 1)
  enter(id, row)
  dirty[id] = row
end

-- Store a pushed job that is not there yet: {id, queue, priority, max_retries, size, due}.
local function add_pushed(job, blob)
  add(job[1], opened({job[2], job[3], job[4], job[5], now, due_at(job[6])}), blob)
end

-- The row of failed_jobs names the job; what else it shows is the job's own, which lives as long.
local function add_failure(id, row, failed_id, at, attempts, exception, fingerprint)
  row[FAILED_ID], row[FINGERPRINT] = failed_id, fingerprint
  put(to_hset, FAILED, failed_id, pack({id, at, attempts, exception}))
  put(to_zadd, FAILURES, score(at), failed_id)
  put(to_zadd, ALIKE .. fingerprint, score(at), failed_id)
  causes[fingerprint] = true
end

local function drop_failure(row)
  if row[FAILED_ID] ~= '' then
    put(to_hdel, FAILED, row[FAILED_ID])
    put(to_zrem, FAILURES, row[FAILED_ID])
    put(to_zrem, ALIKE .. row[FINGERPRINT], row[FAILED_ID])
    causes[row[FINGERPRINT]] = true
    row[FAILED_ID], row[FINGERPRINT] = '', ''
  end
end
