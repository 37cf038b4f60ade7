-- Up to ARGV[3] lines of the audit log below the id ARGV[2] ('' from the newest), newest id first.

local before = ARGV[2] == '' and '+' or '(' .. ARGV[2]
return list(values_of(ACTIONS, call('ZREVRANGEBYLEX', ACTION_IDS, before, '-', 'LIMIT', 0, ARGV[3])))
