-- Rollups of a span, the latest first. ARGV: offset, period, all or each, since, until (itself not), queue and job name
-- ('' for any), where to go on as beginning and position in it ('' from the latest), how many to read. Returns {beginning,
-- position (where to go on, or ''), how many were read, rows as {beginning, field, value}}. A row may come twice.

local period, kind, queue, job_name = ARGV[2], ARGV[3], ARGV[6], ARGV[7]
local upper, position, budget = ARGV[8] == '' and '(' .. ARGV[5] or ARGV[8], ARGV[9], tonumber(ARGV[10])
local rows, read, at = {}, 0, ''
local begins = call('ZREVRANGEBYSCORE', COUNTED .. period, upper, ARGV[4], 'LIMIT', 0, CHUNK)

local function is_wanted(field)
  local queue_ends = field:find('\0', 1, true)
  local job_ends = field:find('\0', queue_ends + 1, true)
  return (queue == '' or sub(field, 1, queue_ends - 1) == queue)
    and (job_name == '' or sub(field, queue_ends + 1, job_ends - 1) == job_name)
end

for _, began in ipairs(begins) do
  at = began
  if read >= budget then break end
  repeat
    local page = call('HSCAN', counts_of(kind, period, began), position, 'COUNT', CHUNK)
    position = page[1]
    for pair = 1, #page[2], 2 do
      local field = page[2][pair]
      if is_wanted(field) then rows[#rows + 1] = '\147' .. pack(began) .. pack(field) .. page[2][pair + 1] end
    end
    read = read + #page[2] / 2
  until position == '0' or read >= budget
  if position ~= '0' then break end
  at = ''
end
if at == '' and #begins == CHUNK then at = '(' .. begins[CHUNK] end
return '\148' .. pack(at) .. pack(position) .. pack(read) .. list(rows)
