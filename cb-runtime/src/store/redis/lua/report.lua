-- Handles a report: see Store::report. It reads a breaker's hash only if `quiet` has no field of that
-- breaker. KEYS: meta, events, held, names, the instance's sequence, quiet. ARGV: sequence number, the
-- store's time of the ages, a fresh incarnation, the prefix of breakers' keys, the prefix of windows' keys;
-- then for each entry: name, epoch, successes, failures, slow, age of the latest success, age of the latest
-- failure ('' = none), 1 if the breaker judges by consecutive failures, length and width of its window (''
-- = none), the number of its buckets, and for each bucket its age and three counts.
local meta, events, held, names, sequence, quiet = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local breakers, windows = ARGV[4], ARGV[5]

local retry, refused = settle_sequence(sequence, tonumber(ARGV[1]))
if refused then
  return refused
end
local place = stand(meta, events, ARGV[3])
local base = base_of(tonumber(ARGV[2]))

local entries, all = {}, {}
local shapes = {}
local at = 6
while ARGV[at] do
  local e = { name = ARGV[at], epoch = tonumber(ARGV[at + 1]), at = at }
  local length, width, count = tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9]), tonumber(ARGV[at + 10])
  if length then
    local shape = ARGV[at + 8] .. '/' .. ARGV[at + 9] .. ':'
    shapes[shape] = shapes[shape] or window_of({ length = length, width = width }, windows .. shape)
    e.window = shapes[shape]
    e.field = ARGV[at + 1] .. ':' .. e.name
    for i = 0, count - 1 do
      local place_of = at + 11 + i * 4
      ARGV[place_of] = math.floor(math.max(base - ARGV[place_of], 0) / width)
    end
  end
  e.buckets = count
  entries[#entries + 1], all[#all + 1] = e, e.name
  at = at + 11 + count * 4
end
fetch_quiet(quiet, all)

-- A breaker of which nothing is known here is looked up: only a closed one of this very epoch is reported.
local function present(e)
  local f = redis.pcall('HMGET', breakers .. e.name, 'epoch', 'state')
  if failure(f) then
    return false
  end
  return (f[2] or 'closed') == 'closed' and tonumber(f[1] or 0) == e.epoch
end

local answered = {}
for i, e in ipairs(entries) do
  local q = quiet_fields[e.name]
  if not q and present(e) then
    q = new_quiet(e.epoch)
    quiet_fields[e.name] = q
  end
  e.timely = q and q.epoch == e.epoch
  if not e.timely or (q.streak and ARGV[e.at + 7] == '1') then
    answered[#answered + 1] = i
  end
  if e.timely and e.window then
    for n = 0, e.buckets - 1 do
      local bucket = ARGV[e.at + 11 + n * 4]
      if bucket >= e.window.first then
        want_bucket(e.window, bucket, e.field)
      end
    end
  end
end

if not retry then
  fetch_buckets()
  for _, e in ipairs(entries) do
    if e.timely then
      local a = e.at
      local success, failed = tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6])
      add_quiet(quiet_fields[e.name], tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4]),
        success and math.max(base - success, 0), failed and math.max(base - failed, 0))
      for n = 0, e.buckets - 1 do
        local b = a + 11 + n * 4
        add_to_bucket(e.window, ARGV[b], e.field, tonumber(ARGV[b + 1]), tonumber(ARGV[b + 2]), tonumber(ARGV[b + 3]))
      end
    end
  end
  write_buckets()
  write_quiet(quiet, {})
end
if place.due then
  keep(meta, held, names, breakers)
end
-- No instance mentions a breaker that stays open, so every report checks one of them: its hash must exist
-- and be readable.
local suspects = {}
local sample = redis.pcall('ZRANDMEMBER', held)
if type(sample) == 'string' then
  local ok, b = pcall(read_breaker, breakers .. sample, FIELDS)
  if not ok or b.state == 'closed' and not b.lapsed then
    suspects[1] = sample
  end
end
return { now, { place.incarnation, place.id, place.number }, warnings, answered, suspects }
