-- Store jobs as they were elsewhere: each of ARGV[2] is {id, row, row of failed_jobs or ''}; their blobs are the
-- arguments from the third on. Returns a letter for each: s (stored) or d (duplicate).

local jobs, ids, results = unpacked(ARGV[2]), {}, {}
for i, job in ipairs(jobs) do ids[i] = job[1] end
local known = values_of(ROWS, ids)
for i, job in ipairs(jobs) do
  local id, row, failure = job[1], opened(job[2]), job[3]
  if known[i] or dirty[id] then
    results[i] = 'd'
  else
    for _, field in ipairs({CREATED_AT, AVAILABLE_AT, RESERVED_AT, PROCESSED_AT, CANCEL_AT}) do
      row[field] = moment(row[field])
    end
    add(id, row, ARGV[i + 2])
    if failure ~= '' then
      add_failure(id, row, row[FAILED_ID], moment(failure[2]), failure[3], failure[4], row[FINGERPRINT])
    end
    results[i] = 's'
  end
end
commit()
return concat(results)
