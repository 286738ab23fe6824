-- Answers the names of breakers that are held, for a new instance, or of all breakers (ARGV[3] = 'all').
-- KEYS: meta, events, held, names, quiet, notices. ARGV: a fresh incarnation, the prefix of breakers' keys,
-- 'held' or 'all'.
local meta, events, held, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local fresh, prefix, asked = ARGV[1], ARGV[2], ARGV[3]

local place = read_position(meta, events, fresh)
keep(meta, held, names, prefix)
for _, stream in ipairs({ events, KEYS[6] }) do
  mended(stream, function() return redis.pcall('XLEN', stream) end)
end
local found = mended(held, function() return redis.pcall('ZRANGE', held, 0, -1) end,
  function() find_held(held, names, prefix) end) or {}
if asked == 'all' then
  local known = mended(names, function() return redis.pcall('ZRANGE', names, 0, -1) end) or {}
  local reported = mended(KEYS[5], function() return redis.pcall('HKEYS', KEYS[5]) end) or {}
  local seen = {}
  for _, name in ipairs(found) do
    seen[name] = true
  end
  for _, list in ipairs({ known, reported }) do
    for _, name in ipairs(list) do
      -- A field that begins with a space is a count window.
      if not seen[name] and sub(name, 1, 1) ~= ' ' then
        seen[name] = true
        found[#found + 1] = name
      end
    end
  end
end
return { now, { place.incarnation, place.id, place.number }, warnings, found }
