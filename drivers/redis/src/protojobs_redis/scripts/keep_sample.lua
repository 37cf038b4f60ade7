-- Store the samples of the minute ARGV[2]; the queues and their values are the arguments from the third on.

for first = 3, #ARGV, CHUNK do
  call('HSET', DEPTH .. ARGV[2], unpack(ARGV, first, min(first + CHUNK - 1, #ARGV)))
end
return 1
