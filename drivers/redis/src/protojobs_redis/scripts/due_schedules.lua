-- Up to ARGV[2] schedules that are due, by when. Answers {now, entries, when the first of the others will be due or ''}.
-- All by DUE, so what it costs depends on how many are due, and not on how many there are.

local ids = call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, ARGV[2])
local entries = entries_of(ids, math.huge)  -- none is left out: whoever cannot fire the first ones asks for more
local ahead = call('ZRANGEBYSCORE', DUE, '(' .. text(now), '+inf', 'LIMIT', 0, 1)
local next_due_at = ahead[1] and unpacked(call('HGET', SCHEDULES, ahead[1]))[NEXT] or ''
return '\147' .. pack(now) .. list(entries) .. pack(next_due_at)
