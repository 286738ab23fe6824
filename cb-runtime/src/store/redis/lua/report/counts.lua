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
local place = read_position(meta, events, ARGV[3])
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

local names_told, texts, changed, answered = {}, {}, {}, {}
each_group(function(_, first, last)
  local count = #names_told
  for a = first, last, ENTRY do
    count = count + 1
    names_told[count] = ARGV[a]
  end
end)
local found = fetch_quiet(quiet, names_told)
for i = 1, #found do
  texts[names_told[i]] = found[i]
end

-- Looks up a breaker without a field in `quiet`: counts are added only to a closed breaker in the same epoch.
local function is_closed_in(name, epoch)
  local f = redis.pcall('HMGET', breakers .. name, 'epoch', 'state')
  if failure(f) then
    return false
  end
  return (f[2] or 'closed') == 'closed' and tonumber(f[1] or 0) == tonumber(epoch)
end

-- The later of an age and a stored instant.
local function latest(age, before)
  if age == '' then
    return before
  end
  local at = max(base - age, 0)
  if before ~= '' then
    at = max(at, min(tonumber(before), now))
  end
  return whole(at)
end

-- The beginning of the field of a breaker without a streak, up to the latest success, by epoch.
local heads = {}
local now_text = whole(now)

-- The new text of a breaker with successes only, which most are, without decoding the old text. nil if it has
-- more than that.
local function more_successes(text, epoch, counts, age)
  local head = heads[epoch]
  if not head then
    head = epoch .. '|0|'
    heads[epoch] = head
  end
  local length = #head
  if sub(text, 1, length) ~= head or sub(text, length + 17, length + 18) ~= '||' then
    return nil
  end
  local before, sum = sub(text, length + 1, length + 16), (tonumber(sub(text, length + 19)) or -1) + counts
  local success = format(INTEGER, base - age)
  -- Instants have 16 digits, so their texts compare as they do.
  if #success ~= 16 or not (sum >= counts and sum < 1e14 and sum % 1 == 0) then
    return nil
  elseif before > success and before <= now_text then
    success = before
  end
  return head .. success .. '||' .. format(INTEGER, sum)
end

local function note(b, field, successes, failures, slow)
  if b then
    if not b.count then
      b.count, b.successes, b.failures, b.slow = 0, {}, {}, {}
    end
    local count = b.count + 1
    b.count = count
    b.wanted[count], b.successes[count], b.failures[count], b.slow[count] = field, successes, failures, slow
  end
end

-- Groups whose windows are of one shape share its buckets: each bucket is read and written once.
local shapes = {}
local function shape_of(length, width)
  local shape = length .. '/' .. width .. ':'
  local w = shapes[shape]
  if not w then
    w = window_of(tonumber(length), tonumber(width), windows .. shape)
    shapes[shape] = w
  end
  return w
end

local count = 0
each_group(function(head, first, last)
  local length, width, by_streak = ARGV[head], ARGV[head + 1], ARGV[head + 2] == '1'
  local w = length ~= '' and shape_of(length, width)
  for a = first, last, ENTRY do
    local name, epoch, counts, success, failed = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
    local text, added = texts[name], not retry
    count = count + 1
    local successes, failures, slow = tonumber(counts), 0, 0
    local simple = successes and added and text and failed == '' and success ~= ''
      and more_successes(text, epoch, successes, success)
    if not successes then
      successes, failures, slow = counts_of(counts)
    end
    if simple then
      texts[name] = simple
    else
      local told, streak, success_at, failed_at, before
      if text then
        told, streak, success_at, failed_at, before = split_quiet(text)
      end
      if not told and is_closed_in(name, epoch) then
        told, streak, success_at, failed_at, before = epoch, '0', '', '', 0
      end
      if told ~= epoch or (by_streak and streak == '1') then
        answered[#answered + 1] = count
      end
      added = added and told == epoch
      if added then
        texts[name] = quiet_text(epoch, streak, latest(success, success_at), latest(failed, failed_at),
          sum_of(before, successes, failures, slow))
      end
    end
    if added then
      changed[#changed + 1] = name
      local fallen = ARGV[a + 5]
      if w and fallen ~= '' then
        local field = epoch .. ':' .. name
        if find(fallen, ':', 1, true) then
          for age, some in string.gmatch(fallen, '(%d+):([%d,]+);') do
            note(bucket_at(w, base, age), field, counts_of(some))
          end
        else
          note(bucket_at(w, base, fallen), field, successes, failures, slow)
        end
      end
    end
  end
end)

fetch_buckets()
for _, b in ipairs(buckets) do
  local values, wanted, successes, failures, slow = b.values, b.wanted, b.successes, b.failures, b.slow
  for i = 1, #wanted do
    local field = wanted[i]
    values[field] = sum_of(values[field] or 0, successes[i], failures[i], slow[i])
  end
  b.changed = wanted
end
write_buckets()
local set = {}
for i = 1, #changed do
  local name = changed[i]
  set[2 * i - 1], set[2 * i] = name, texts[name]
end
if #set > 0 then
  put_quiet(quiet, set)
end
-- No instance reports a breaker that stays open. Every report therefore checks that the hash of one of them
-- exists and can be read.
local sample = redis.pcall('ZRANDMEMBER', held)

local function answer(suspects)
  return { now, { place.incarnation, place.id, place.number }, warnings, answered, suspects }
end

if type(sample) ~= 'string' and not place.due then
  return answer({})
end
