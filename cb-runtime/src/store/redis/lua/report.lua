-- Handles a report: see Store::report. It reads a breaker's hash only if `quiet` has no field of that
-- breaker. KEYS: meta, events, held, names, the instance's sequence, quiet. ARGV: sequence number, the
-- store's time of the ages, a fresh incarnation, the prefix of breakers' keys, the prefix of windows' keys;
-- then groups of entries. A group: length and width of the window ('' = none), 1 if these entries are
-- judged by failures in a row, the number of entries, and for each: name, epoch, counts, age of the latest
-- success and age of the latest failure ('' = none), and the buckets: '' = none, the age of the one that
-- all these counts fell into, or "<age>:<counts>;" for each.
local meta, events, held, names, sequence, quiet = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local breakers, windows = ARGV[4], ARGV[5]
local FIRST, GROUP, ENTRY = 6, 4, 6

local retry, refused = settle_sequence(sequence, tonumber(ARGV[1]))
if refused then
  return refused
end
local place = stand(meta, events, ARGV[3])
local base = base_of(tonumber(ARGV[2]))

-- Calls visit(group, first, last) with the place of a group's head, and those of its entries.
local function each_group(visit)
  local at = FIRST
  while ARGV[at] do
    local first = at + GROUP
    local next_at = first + ENTRY * ARGV[at + 3]
    visit(at, first, next_at - 1)
    at = next_at
  end
end

local all, texts, changed, answered = {}, {}, {}, {}
each_group(function(_, first, last)
  for a = first, last, ENTRY do
    all[#all + 1] = ARGV[a]
  end
end)
for i, text in ipairs(fetch_quiet(quiet, all)) do
  texts[all[i]] = text
end

-- A breaker of which nothing is known here is looked up: only a closed one of this very epoch is reported.
local function is_closed_in(name, epoch)
  local f = redis.pcall('HMGET', breakers .. name, 'epoch', 'state')
  if failure(f) then
    return false
  end
  return (f[2] or 'closed') == 'closed' and tonumber(f[1] or 0) == tonumber(epoch)
end

-- The later of an age and an instant as it stands in Redis.
local function latest(age, before)
  if age == '' then
    return before
  end
  local at = math.max(base - age, 0)
  if before ~= '' then
    at = math.max(at, math.min(tonumber(before), now))
  end
  return whole(at)
end

local function note(w, age, field, counts)
  local bucket = math.floor(math.max(base - age, 0) / w.width)
  if bucket >= w.first and bucket <= w.current then
    local b = bucket_of(w, bucket)
    b.wanted[#b.wanted + 1] = field
    b.changed[#b.wanted] = counts
  end
end

-- Groups whose windows are of one shape share its buckets: each bucket is read and written once.
local shapes = {}
local function shape_of(length, width)
  local shape = length .. '/' .. width .. ':'
  shapes[shape] = shapes[shape] or window_of(tonumber(length), tonumber(width), windows .. shape)
  return shapes[shape]
end

local count = 0
each_group(function(head, first, last)
  local length, width, by_streak = ARGV[head], ARGV[head + 1], ARGV[head + 2] == '1'
  local w = length ~= '' and shape_of(length, width)
  for a = first, last, ENTRY do
    local name, epoch, counts = ARGV[a], ARGV[a + 1], ARGV[a + 2]
    local told, streak, success, failed, before
    count = count + 1
    if texts[name] then
      told, streak, success, failed, before = split_quiet(texts[name])
    end
    if not told and is_closed_in(name, epoch) then
      told, streak, success, failed, before = epoch, '0', '', '', 0
    end
    if told ~= epoch or (by_streak and streak == '1') then
      answered[#answered + 1] = count
    end
    if told == epoch and not retry then
      changed[#changed + 1] = name
      texts[name] = quiet_text(epoch, streak, latest(ARGV[a + 3], success), latest(ARGV[a + 4], failed),
        sum_of(before, counts))
      local fallen = ARGV[a + 5]
      if w and fallen ~= '' then
        local field = epoch .. ':' .. name
        if tonumber(fallen) then
          note(w, fallen, field, counts)
        else
          for age, some in string.gmatch(fallen, '(%d+):([%d,]+);') do
            note(w, age, field, some)
          end
        end
      end
    end
  end
end)

fetch_buckets()
for _, b in ipairs(buckets) do
  for i, field in ipairs(b.wanted) do
    b.values[field] = sum_of(b.values[field] or 0, b.changed[i])
  end
  b.changed = b.wanted
end
write_buckets()
local set = {}
for i, name in ipairs(changed) do
  set[2 * i - 1], set[2 * i] = name, texts[name]
end
if #set > 0 then
  put_quiet(quiet, set)
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
