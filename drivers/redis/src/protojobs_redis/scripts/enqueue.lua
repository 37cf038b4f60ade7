-- Store the new jobs of ARGV[2], each {id, queue, priority, max_retries, size, due}; their blobs are the arguments from
-- the third on. Answers a letter for each: s (stored) or d (duplicate: the id is known, or came twice).

local jobs, ids, answers = unpacked(ARGV[2]), {}, {}
for place, job in ipairs(jobs) do ids[place] = job[1] end
local known = values_of(ROWS, ids)
for place, job in ipairs(jobs) do
  local id = job[1]
  if known[place] or dirty[id] then
    answers[place] = 'd'
  else
    add_pushed(job, ARGV[place + 2])
    answers[place] = 's'
  end
end
commit()
return concat(answers)
