-- Mark the namespace with the version of its layout (ARGV[2]), unless it has a mark; returns the mark.

local mark = call('GET', PREFIX .. 'layout')
if mark then return mark end  -- and so a server at its memory limit is not asked to write
call('SET', PREFIX .. 'layout', ARGV[2])
return ARGV[2]
