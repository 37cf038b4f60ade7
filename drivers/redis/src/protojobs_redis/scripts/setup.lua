-- Mark the namespace with ARGV[2] (connecting/layout.py says what that is), unless it has another mark than ARGV[3];
-- returns the mark. ARGV[3] is empty, or the mark of an older layout that is to become this one.

local mark = call('GET', PREFIX .. 'layout')
if mark and mark ~= ARGV[3] then return mark end  -- and so a server at its memory limit is not asked to write
call('SET', PREFIX .. 'layout', ARGV[2])
return ARGV[2]
