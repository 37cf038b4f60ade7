-- Take this minute's sample of the depths upon oneself, and delete notes that have outlived their time, at most
-- EXPIRED_MAX of each kind. ARGV: offset, for how long rollups by the minute (and depths), rollups by the hour, attempts
-- and actions are kept, and 'on' to go on deleting. Returns {the minute, or '' where another has it, is there more}.

local EXPIRED_MAX = 2000  -- everybody waits for it: 10,000 took 85 ms

local minute = text(now - now % 60000000)
if ARGV[6] ~= 'on' and call('ZSCORE', DEPTHS, minute) then return pack({'', false}) end
local has_more = false

local function outlived(index, kept)
  local members = call('ZRANGEBYSCORE', index, '-inf', '(' .. text(now - kept), 'LIMIT', 0, EXPIRED_MAX)
  has_more = has_more or #members == EXPIRED_MAX
  return members
end

for period, kept in pairs({['60'] = ARGV[2], ['3600'] = ARGV[3]}) do
  local gone = 0
  for _, began in ipairs(outlived(COUNTED .. period, kept)) do
    if gone >= EXPIRED_MAX then
      has_more = true
      break
    end
    for _, kind in ipairs({ALL, EACH}) do
      gone = gone + call('HLEN', counts_of(kind, period, began))
      call('UNLINK', counts_of(kind, period, began))
    end
    call('ZREM', COUNTED .. period, began)
  end
end
for _, at in ipairs(outlived(DEPTHS, ARGV[2])) do
  call('UNLINK', DEPTH .. at)
  put(to_zrem, DEPTHS, at)
end
local noted = outlived(NOTED_AT, ARGV[4])
has_more = drop_notes(noted, EXPIRED_MAX) < #noted or has_more
for _, id in ipairs(outlived(ACTED_AT, ARGV[5])) do
  put(to_zrem, ACTED_AT, id)
  put(to_zrem, ACTION_IDS, id)
  put(to_hdel, ACTIONS, id)
end
commit()
-- Last: a server at its memory limit lets that pass which begins with deleting.
if ARGV[6] ~= 'on' then call('ZADD', DEPTHS, minute, minute) end
return pack({minute, has_more})
