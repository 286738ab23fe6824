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

-- A server without memory can still be read, and that is what an operator wants then. Redis 6.2 writes the
-- place in the script before the error.
local retry, refused = settle_sequence(sequence, tonumber(ARGV[1]))
if refused and (ARGV[FIRST] or not find(refused.err, 'OOM', 1, true)) then
  return refused
end
local place = read_position(meta, events, ARGV[3])
local base = base_of(tonumber(ARGV[2]))

-- The names of the entries.
local reported, at = {}, FIRST
while ARGV[at] do
  local first = at + GROUP
  at = first + ENTRY * ARGV[at + 3]
  for a = first, at - 1, ENTRY do
    reported[#reported + 1] = ARGV[a]
  end
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

-- Notes counts for a field of a bucket. Two buckets of an entry may be one here.
local function note(b, field, successes, failures, slow)
  if not b then
    return
  end
  local fields = b.wanted
  local i = #fields
  if i == 0 then
    b.successes, b.others = {}, {}
  end
  if fields[i] ~= field then
    i = i + 1
    fields[i], b.successes[i] = field, 0
  end
  b.successes[i] = b.successes[i] + successes
  if failures + slow > 0 then
    local before = b.others[i] or { 0, 0 }
    b.others[i] = { before[1] + failures, before[2] + slow }
  end
end

-- The fields of `quiet` to write, with their values; and the places of the entries that the instance is to
-- exchange.
local set, answered, count = {}, {}, 0
local texts = fetch_quiet(quiet, reported)
at = FIRST
while ARGV[at] do
  local length, width, by_streak, entries = unpack(ARGV, at, at + GROUP - 1)
  local w = length ~= '' and shape_of(length, width, windows)
  local first = at + GROUP
  at = first + ENTRY * entries
  for a = first, at - 1, ENTRY do
    local name, epoch, counts, success, failed, fallen = unpack(ARGV, a, a + ENTRY - 1)
    count = count + 1
    local text = texts[count]
    local successes, failures, slow = tonumber(counts), 0, 0
    local has_only_succeeded = successes and text and failed == '' and success ~= ''
    local sum = has_only_succeeded and more_successes(text, epoch, successes, success)
    if not successes then
      successes, failures, slow = counts_of(counts)
    end
    if not sum then
      local stored_epoch, streak, success_at, failed_at, before
      if text then
        stored_epoch, streak, success_at, failed_at, before = split_quiet(text)
      end
      if not stored_epoch and is_closed_in(name, epoch) then
        stored_epoch, streak, success_at, failed_at, before = epoch, '0', '', '', 0
      end
      if stored_epoch ~= epoch or (by_streak == '1' and streak == '1') then
        answered[#answered + 1] = count
      end
      sum = stored_epoch == epoch and quiet_text(epoch, streak, latest(success, success_at),
        latest(failed, failed_at), sum_of(before, successes, failures, slow))
    end
    if sum and not retry then
      set[#set + 1], set[#set + 2] = name, sum
      if w and fallen ~= '' then
        local field, b = epoch .. ':' .. name, w.ages[fallen]
        if b == nil and find(fallen, ':', 1, true) then
          for age, some in string.gmatch(fallen, '(%d+):([%d,]+);') do
            note(bucket_at(w, base, age), field, counts_of(some))
          end
        else
          note(b or bucket_at(w, base, fallen), field, successes, failures, slow)
        end
      end
    end
  end
end
if #set > 0 then
  put_quiet(quiet, set)
end
for _, b in ipairs(buckets) do
  local fields, found, counts = b.wanted, read_fields(b, b.wanted), {}
  for i = 1, #fields do
    local failures, slow = 0, 0
    if b.others[i] then
      failures, slow = unpack(b.others[i])
    end
    counts[2 * i - 1], counts[2 * i] = fields[i], sum_of(found[i] or 0, b.successes[i], failures, slow)
  end
  put_bucket(b, counts)
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
