-- Part of stats.lua and queues.lua. All counts are the sizes of what is kept, so they cannot be wrong.

local function counted(queue)
  local pending, scheduled = 0, 0
  for _, priority in ipairs(call('ZRANGE', lanes_of(queue), 0, -1)) do
    local lane = lane_of(queue, priority)
    pending = pending + call('ZCARD', lane)
    scheduled = scheduled + call('ZCOUNT', lane, '(' .. text(now), '+inf')
  end
  return pack({
    queue,
    call('SISMEMBER', PAUSED, queue) == 1,
    pending,
    tonumber(call('HGET', RUNNING, queue) or 0),
    call('ZCARD', ended_of(queue, COMPLETED)),
    call('ZCARD', ended_of(queue, FAILING)),
    call('ZCARD', ended_of(queue, CANCELLED)),
    scheduled,
  })
end
