-- The jobs that exist among the ids in ARGV[2], until the reply is full. Returns {how many ids were read, entries}.

local ids, entries, bytes, read = unpacked(ARGV[2]), {}, 0, 0
local rows = values_of(ROWS, ids)
for i, id in ipairs(ids) do
  if bytes > BATCH_BYTES_MAX then break end
  if rows[i] then
    local blob = call('HGET', DATA, id)
    entries[#entries + 1] = entry(id, rows[i], blob)
    bytes = bytes + #(blob or '')
  end
  read = i
end
return '\146' .. pack(read) .. list(entries)
