-- The counts of the queue ARGV[2].

return counted(ARGV[2])
