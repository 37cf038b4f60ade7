-- The notes of up to ARGV[3] runs of the job ARGV[2], the latest ones.

local fields = {}
for place, seq in ipairs(call('ZREVRANGE', NOTED .. ARGV[2], 0, ARGV[3] - 1)) do fields[place] = attempt_of(ARGV[2], seq) end
return list(values_of(NOTES, fields))
