-- Samples of a span, the latest first. ARGV: offset, since, until (itself not), queue ('' for all), how many to read.
-- Whole minutes, so that the next call can go on before the last one. Returns {that minute or '', values}.

local samples, at, budget = {}, '', tonumber(ARGV[5])
local minutes = call('ZREVRANGEBYSCORE', DEPTHS, '(' .. ARGV[3], ARGV[2], 'LIMIT', 0, CHUNK)
for _, minute in ipairs(minutes) do
  local values = ARGV[4] == '' and call('HVALS', DEPTH .. minute) or {call('HGET', DEPTH .. minute, ARGV[4]) or nil}
  for _, sample in ipairs(values) do samples[#samples + 1] = sample end
  if #samples >= budget then
    at = minute
    break
  end
end
if #minutes == CHUNK and at == '' then at = minutes[CHUNK] end
return '\146' .. pack(at) .. list(samples)
