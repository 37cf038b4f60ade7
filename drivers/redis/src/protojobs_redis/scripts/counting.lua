-- Part of stats.lua and queues.lua: {name, is it paused, five states, how many of the pending are scheduled, for how
-- long the oldest due job has waited or ''}. All counts are the sizes of what is kept, so they cannot be wrong.

local function number(reply)
  return tonumber(reply) or 0
end

local function counted(queue)
  local pending, scheduled, first = 0, 0, now + 1
  for _, priority in ipairs(try('ZRANGE', lanes_of(queue), 0, -1)) do
    local lane = lane_of(queue, priority)
    pending = pending + number(try('ZCARD', lane))
    scheduled = scheduled + number(try('ZCOUNT', lane, '(' .. text(now), '+inf'))
    first = min(first, try('ZRANGE', lane, 0, 0, 'WITHSCORES')[2] or first)
  end
  return pack({
    queue,
    call('SISMEMBER', PAUSED, queue) == 1,
    pending,
    tonumber(call('HGET', RUNNING, queue) or 0),
    number(try('ZCARD', ended_of(queue, COMPLETED))),
    number(try('ZCARD', ended_of(queue, FAILING))),
    number(try('ZCARD', ended_of(queue, CANCELLED))),
    scheduled,
    first <= now and text(now - first) or '',
  })
end
