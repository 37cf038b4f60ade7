-- Part of the scripts that show jobs: long texts cut to as many characters as are to be shown. '' is no bound.

local function is_short(value, chars_max)
  return chars_max == '' or #value <= tonumber(chars_max)
end

local function first_chars(value, chars_max)
  if is_short(value, chars_max) then return value end
  local at = 1
  for _ = 1, chars_max do
    local first = byte(value, at)
    if not first then return value end
    at = at + (first < 0x80 and 1 or first < 0xe0 and 2 or first < 0xf0 and 3 or 4)
  end
  return sub(value, 1, at - 1)
end

local function last_chars(value, chars_max)
  if is_short(value, chars_max) then return value end
  local at = #value + 1
  for _ = 1, chars_max do
    repeat at = at - 1 until at < 1 or byte(value, at) < 0x80 or byte(value, at) >= 0xc0
    if at < 1 then return value end
  end
  return sub(value, at)
end

-- A blob with its data, the fourth of its values, cut.
local function cut(blob, chars_max)
  if chars_max == '' or not blob then return blob end
  local begins = 0
  local is_cut, shortened = pcall(function()
    for _ = 1, 3 do begins = cmsgpack.unpack_one(blob, begins) end
    local ends, data = cmsgpack.unpack_one(blob, begins)
    return sub(blob, 1, begins) .. pack(first_chars(data, chars_max)) .. sub(blob, ends + 1)
  end)
  return is_cut and shortened or blob
end
