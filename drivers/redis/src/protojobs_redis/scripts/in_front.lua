-- How many due jobs of its queue would be claimed before the pending job ARGV[2]; at most ARGV[3].

local row = rows_of({ARGV[2]})[ARGV[2]]
if not row or row[STATE] ~= PENDING then return 0 end
local most, count, due = tonumber(ARGV[3]), 0, text(now)
for _, priority in ipairs(try('ZRANGE', lanes_of(row[QUEUE]), 0, -1)) do
  local lane = lane_of(row[QUEUE], priority)
  local ready = tonumber(try('ZCOUNT', lane, '-inf', due)) or 0
  if tonumber(priority) == row[PRIORITY] then
    count = count + min(ready, tonumber(try('ZRANK', lane, ARGV[2])) or 0)
    break
  end
  count = count + ready
  if count >= most then break end
end
return min(count, most)
