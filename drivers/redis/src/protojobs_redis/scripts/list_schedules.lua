-- Up to ARGV[3] schedules after the id ARGV[2] ('' from the first), by id. Returns {id of the last one, or '' when no
-- more follow, entries}.

local ids = call('ZRANGEBYLEX', SCHEDULE_IDS, ARGV[2] == '' and '-' or '(' .. ARGV[2], '+', 'LIMIT', 0, ARGV[3] + 1)
local following = table.remove(ids, ARGV[3] + 1)
local entries, read = entries_of(ids, BATCH_BYTES_MAX)
return '\146' .. pack((following or read < #ids) and ids[read] or '') .. list(entries)
