-- Microseconds until the first job of the queues in ARGV[2] is (or was) due; '' when none is in sight. For `wait`.

local first
for _, queue in ipairs(unpacked(ARGV[2])) do
  if call('SISMEMBER', PAUSED, queue) == 0 then
    for _, priority in ipairs(try('ZRANGE', lanes_of(queue), 0, -1)) do
      local head = try('ZRANGE', lane_of(queue, priority), 0, 0, 'WITHSCORES')
      local at = head[2] and tonumber(head[2])
      if at and (not first or at < first) then first = at end
    end
  end
end
return first and text(first - now) or ''
