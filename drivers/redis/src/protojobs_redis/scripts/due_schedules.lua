-- Up to ARGV[2] schedules that are due, by when; with ARGV[3], a score, those behind the one of that score and of the id
-- ARGV[4]. Returns {now, entries, when the first that is not due will be or '', and the score and the id of the last one,
-- or '' when no more are due}. All by DUE, so what it costs depends on how many are due, and not on how many there are.

-- Byte by byte, as the server orders the ids of one score. The < of Lua goes by the server's locale.
local function is_before(one, other)
  for at = 1, min(#one, #other) do
    local left, right = byte(one, at), byte(other, at)
    if left ~= right then return left < right end
  end
  return #one < #other
end

-- How many stand before the first one behind that score and id. Many may have one score, so it is looked for by halves.
local function rank_behind(its_score, id)
  local exact = format('%.17g', its_score)
  local first, last = call('ZCOUNT', DUE, '-inf', '(' .. exact), call('ZCOUNT', DUE, '-inf', exact)
  while first < last do
    local middle = floor((first + last) / 2)
    if is_before(id, call('ZRANGE', DUE, middle, middle)[1]) then last = middle else first = middle + 1 end
  end
  return first
end

local first = ARGV[3] ~= '' and rank_behind(tonumber(ARGV[3]), ARGV[4]) or 0
local limit = tonumber(ARGV[2])
local members, ids = call('ZRANGEBYSCORE', DUE, '-inf', now, 'WITHSCORES', 'LIMIT', first, limit + 1), {}
for i = 1, min(#members, 2 * limit), 2 do ids[#ids + 1] = members[i] end
local entries = entries_of(ids, math.huge)  -- none is left out, or the cursor would pass it over
local ahead = call('ZRANGEBYSCORE', DUE, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local next_due_at = ''
if ahead[1] then
  local schedule = step_of(call('HGET', SCHEDULES, ahead[1]))
  next_due_at = schedule and schedule[NEXT] or text(tonumber(ahead[2]))
end
local has_more = limit > 0 and #members > 2 * limit
local score_of_last, last_id = has_more and text(tonumber(members[2 * limit])) or '', has_more and ids[limit] or ''
return '\149' .. pack(now) .. list(entries) .. pack(next_due_at) .. pack(score_of_last) .. bytes_as(last_id)
