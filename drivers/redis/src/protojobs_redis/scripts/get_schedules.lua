-- The schedules that exist among the ids in ARGV[2], until the reply is full. Returns {how many ids were read, entries}.

local entries, read = entries_of(unpacked(ARGV[2]), BATCH_BYTES_MAX)
return '\146' .. pack(read) .. list(entries)
