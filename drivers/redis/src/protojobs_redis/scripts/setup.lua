-- Mark the namespace with the version of its layout (ARGV[2]), unless it has a mark; answers the mark.

call('SETNX', PREFIX .. 'layout', ARGV[2])
return call('GET', PREFIX .. 'layout')
