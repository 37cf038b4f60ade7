-- What all scripts share but enqueue.lua, which every job passes and which is to cost as little as it can.

local RUNNING, LEASES, HELD, MARKS = PREFIX .. 'running', PREFIX .. 'leases', PREFIX .. 'held:', PREFIX .. 'marks:'
local ENDED = PREFIX .. 'ended:'

-- As `call`, for keys of one queue: where somebody has put another type of value there, it returns a table with nothing
-- but `err`, and that queue alone has no such jobs.
local try = redis.pcall

-- The values of many fields of a hash, in order; false where there is none.
local function values_of(hash, fields)
  local count = #fields
  if count == 0 then return {} end
  if count <= CHUNK then return call('HMGET', hash, unpack(fields)) end
  local values = {}
  for first = 1, count, CHUNK do
    local last = min(first + CHUNK - 1, count)
    local part = call('HMGET', hash, unpack(fields, first, last))
    for i = 1, last - first + 1 do values[first + i - 1] = part[i] end
  end
  return values
end

-- One command with many arguments: in as few as Lua's stack allows.
local function send(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    call(command, key, unpack(arguments, first, min(first + CHUNK - 1, #arguments)))
  end
end

-- A moment that was sent as text: a number where that is exact.
local function moment(text)
  local number = tonumber(text)
  return number <= EXACT and number or text
end

-- A number is a delay from now, text a moment.
local function due_at(due)
  if type(due) == 'number' then return now + due end
  return moment(due)
end

-- A moment as a score, never earlier than it is.
local function score(at)
  local number = tonumber(at)
  if number > EXACT then number = number * (1 + 2 ^ -52) end
  return number
end

-- A moment as it stands in a row and in a reply: a MessagePack timestamp.
local function timestamp(at)
  local seconds, micros
  if type(at) == 'string' and #at > 6 then
    seconds, micros = tonumber(sub(at, 1, -7)), tonumber(sub(at, -6))
  else
    seconds = floor(at / 1000000)
    micros = at - seconds * 1000000
    if micros < 0 then seconds, micros = seconds - 1, micros + 1000000 end  -- the quotient was rounded up
  end
  return TIMESTAMP .. bytes_of('>I4i8', micros * 1000, seconds)
end

-- A reply is one MessagePack value in one string. What is stored is MessagePack already, so most of a reply is
-- bytes as they are: nothing is unpacked to be packed again.

local function head(count)
  return count < 16 and char(0x90 + count) or char(0xdc, floor(count / 256), count % 256)
end

local function list(items)
  return head(#items) .. concat(items)
end
