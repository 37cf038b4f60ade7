-- Delete the jobs among the ids in ARGV[3] that move under the token ARGV[2]; returns how many there were.

local moving, dropped = PREFIX .. 'moving:' .. ARGV[2], 0
for id, row in pairs(rows_of(unpacked(ARGV[3]))) do
  if row[STATE] == MOVING and call('ZSCORE', moving, id) then
    put(to_zrem, moving, id)
    remove(id, row)
    dropped = dropped + 1
  end
end
commit_removed()
return dropped
