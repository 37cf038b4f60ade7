-- The notes of up to ARGV[3] runs of the job ARGV[2], the latest ones, by claim_seq.

local noted, fields = call('HGET', NOTED, ARGV[2]), {}
if not noted then return list({}) end
local runs = unpacked(noted)
for at = math.max(1, #runs + 1 - 2 * ARGV[3]), #runs, 2 do fields[#fields + 1] = attempt_of(ARGV[2], runs[at]) end
return list(values_of(NOTES, fields))
