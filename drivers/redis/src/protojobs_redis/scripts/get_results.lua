-- How the jobs stand that exist among the ids in ARGV[2], and what came of them, until the reply is full. Returns {how many
-- ids were read, jobs as {entry without its blob, name, result or nil, last line of the error}}. A job's name and payload
-- are one value, so both are read here; but no payload goes into the reply.

-- What protojobs.port.results has by Python's means: what ends a line, and what is blank, beyond one byte.
local LONG_ENDS = {'\194\133', '\226\128\168', '\226\128\169'}
local LONG_SPACES = {'\194\160', '\225\154\128', '\226\128[\128-\138\175]', '\226\129\159', '\227\128\128'}

local function is_blank(line)
  if line:find('[!-~]') then return false end
  line = line:gsub('[\t\31 ]', '')
  for _, space in ipairs(LONG_SPACES) do line = line:gsub(space, '') end
  return line == ''
end

local function is_end(code)
  return code >= 10 and code <= 13 or code >= 28 and code <= 30
end

-- The last line of a text that is not blank. From the end, since a traceback may be long.
local function last_line(said)
  for _, mark in ipairs(LONG_ENDS) do
    if said:find(mark, 1, true) then said = said:gsub(mark, '\n') end
  end
  local at = #said
  while at > 0 do
    local ends = at
    while at > 0 and not is_end(byte(said, at)) do at = at - 1 end
    local line = sub(said, at + 1, ends)
    if not is_blank(line) then return first_chars(line, ERROR_CHARS_MAX) end
    at = at - 1
  end
  return ''
end

-- The name of a job, the second of its blob's values; '' where it cannot be read.
local function name_of(blob)
  local is_read, name = pcall(function()
    local _, value = cmsgpack.unpack_one(blob, (cmsgpack.unpack_one(blob, 0)))
    return value
  end)
  return is_read and type(name) == 'string' and name or ''
end

local ids, jobs, bytes, read = unpacked(ARGV[2]), {}, 0, 0
local rows = values_of(ROWS, ids)
for i, id in ipairs(ids) do
  if bytes > BATCH_BYTES_MAX then break end
  if rows[i] then
    local row, blob, result, said = readable(rows[i]), call('HGET', DATA, id) or '', false, ''
    if row and row[STATE] == COMPLETED and row[HAS_RESULT] ~= 0 then result = call('HGET', RESULTS, id) end
    if row and row[FAILED_ID] ~= '' then
      local job_id, failure = failure_of(row[FAILED_ID])  -- one by one: see failed.lua
      if job_id then said, bytes = unpacked(failure)[4], bytes + #failure end
    end
    jobs[#jobs + 1] = '\148' .. entry(id, rows[i]) .. binary(name_of(blob)) .. (result and binary(result) or '\192')
      .. binary(type(said) == 'string' and last_line(said) or '')
    bytes = bytes + #blob + #(result or '')
  end
  read = i
end
return '\146' .. pack(read) .. list(jobs)
