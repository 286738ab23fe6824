-- Handles the entries that have only counts of a breaker that is closed in the epoch that the instance knows.
-- They are most entries of a fleet in trouble. Therefore they are arguments, read only the fields that they
-- need, and come before the functions for all others are set up.
--
-- Groups of entries: length and width of the window ('' = none), the first bucket to answer, settings ('' =
-- none), the number of pairs of the streak to keep, and the number of entries; for each: name, epoch, counts
-- ('' = none), age of the latest success ('' = none), the streak's failures ("<age>*<count>;" for each), the
-- buckets as in a report, and the known record as JSON ('' if the epoch is 0).
local GROUP, ENTRY = 6, 7

-- The fields of the breaker's hash that they need, and those of its record, which are empty if it has never
-- left its first state.
local COUNTED = {
  'state', 'epoch', 'successes', 'failures', 'slow', 'run', 'touched_at', 'settings', 'settings_before',
}
local RECORDED = joined(COUNTED, { 'since_us', 'attempt', 'reset_timeout_ms', 'reason', 'by', 'actor' })

-- The record of a closed state, from RECORDED; nil if the general path has to read it.
local function closed_record(f, epoch)
  local since, attempt, reset = tonumber(f[10] or 0), tonumber(f[11] or 0), tonumber(f[12] or 0)
  local actor = f[15] or ''
  if actor ~= '' then
    local written, rest = match(actor, '^(%d+)|(.*)$')
    actor = written == epoch and #rest <= MAX_REASON and rest or nil
  end
  if not (is_count(since) and is_count(attempt) and reset and actor) or since > now or attempt > 4294967295
    or not (reset >= 0 and reset * 1000 <= MAX_SPAN) then
    return nil
  end
  return {
    tonumber(epoch), 'closed', sub(f[13] or '', 1, MAX_REASON), sub(f[14] or '', 1, 1000), actor, -1,
    f[10] and now - since or 0, floor(reset * 1000 + 0.5), attempt,
  }
end

-- As merge_run, for a stored streak and an entry's with one pair of failures each. Returns the new text, its
-- sum and its success; nil if the general path has to merge them.
local function merged_run(text, reported, success, failed, pairs_kept)
  local latest, at, older, rest = match(text, '^(%d*)|(%d*)%*?(%d*);?(.*)$')
  local from, more, others
  if failed ~= '' then
    from, more, others = match(failed, '^(%d+)%*(%d+);(.*)$')
  end
  if rest ~= '' or (others or '') ~= '' then
    return nil
  end
  latest, at, older = tonumber(latest), tonumber(at), tonumber(older) or 0
  from, more = tonumber(from), tonumber(more) or 0
  if (latest or 0) > now or (at or 0) > now or (at == nil) ~= (older == 0) or older + more > MAX_COUNT then
    return nil
  end
  if reported and reported > (latest or 0) then
    latest = reported
    at = at and at >= latest and at or nil
  end
  if success ~= '' then
    latest = max(base - success, latest or 0)
  end
  from = from and max(base - from, 0)
  if latest then
    at = at and at >= latest and at or nil
    from = from and from >= latest and from or nil
  end
  local head = latest and format(INTEGER, latest) or ''
  if not (at or from) then
    return head .. '|', 0, latest
  elseif not at then
    return format(ONE_PAIR, head, from, more), more, latest
  elseif not from then
    return format(ONE_PAIR, head, at, older), older, latest
  elseif at == from or pairs_kept == 1 then
    return format(ONE_PAIR, head, max(at, from), older + more), older + more, latest
  elseif at < from then
    return format(TWO_PAIRS, head, at, older, from, more), older + more, latest
  end
  return format(TWO_PAIRS, head, from, more, at, older), older + more, latest
end

-- As merged_run, for any streaks.
local function merged_streaks(key, text, reported, success, failed, pairs_kept)
  local ok, run = pcall(read_run, key, text)
  if not ok then
    return nil
  end
  if reported then
    merge_run(run, reported, NONE, MAX_STREAK)
  end
  local failures = {}
  for age, more in string.gmatch(failed, '(%d+)%*(%d+);') do
    failures[#failures + 1] = { max(base - age, 0), tonumber(more) }
  end
  -- Successes alone join no failures.
  merge_run(run, success ~= '' and max(base - success, 0), failures, failed ~= '' and pairs_kept or MAX_STREAK)
  return written_run(run), run.sum, run.success
end

local function add_at(w, age, field, successes, failures, slow)
  local b = bucket_at(w, base, age)
  if b then
    add_to(b, field, successes, failures, slow)
  end
end

-- Adds the view of the entry at ARGV[a] to `views`. Returns false, before any write, if the entry needs the
-- general path.
local function count_entry(a, w, since, settings, pairs_kept)
  local name, epoch, counts, success, failed, fallen = unpack(ARGV, a, a + 5)
  local key = batch.prefix .. name
  local f = redis.pcall('HMGET', key, unpack(epoch == '0' and COUNTED or RECORDED))
  if f.err or f[1] ~= 'closed' or f[2] ~= epoch or settings ~= '' and not agrees(settings, f[8], f[9]) then
    return false
  end
  local successes, failures, slow = tonumber(f[3] or 0), tonumber(f[4] or 0), tonumber(f[5] or 0)
  local touched = tonumber(f[7])
  if not (is_count(successes) and is_count(failures) and is_count(slow) and is_count(touched))
    or abs(now - touched * 1000) > RENEW then
    return false
  end
  local record = epoch ~= '0' and closed_record(f, epoch) or nil
  if epoch ~= '0' and not record then
    return false
  end
  if retry then
    counts, success, failed, fallen = '', '', '', ''
  end
  local q = quiet_fields[name]
  q = q and q.epoch == tonumber(epoch) and q
  local run, sum, success_at = merged_run(f[6] or '|', q and q.success, success, failed, pairs_kept)
  if not run then
    run, sum, success_at = merged_streaks(key, f[6], q and q.success, success, failed, pairs_kept)
  end
  if not run then
    return false
  end
  local field = epoch .. ':' .. name
  local successes_more, failures_more, slow_more = tonumber(counts) or 0, 0, 0
  if find(counts, ',', 1, true) then
    successes_more, failures_more, slow_more = counts_of(counts)
  end
  local set, last = {}, 0
  if successes_more > 0 then
    successes = min(successes + successes_more, MAX_COUNT)
    set[1], set[2], last = 'successes', format(INTEGER, successes), 2
  end
  if failures_more > 0 then
    failures = min(failures + failures_more, MAX_COUNT)
    set[last + 1], set[last + 2], last = 'failures', format(INTEGER, failures), last + 2
  end
  if slow_more > 0 then
    slow = min(slow + slow_more, MAX_COUNT)
    set[last + 1], set[last + 2], last = 'slow', format(INTEGER, slow), last + 2
  end
  if (success ~= '' or failed ~= '') and run ~= f[6] then
    set[last + 1], set[last + 2] = 'run', run
    set[last + 3], set[last + 4], last = 'consecutive_failures', format(INTEGER, sum), last + 4
  end
  if failures_more > 0 or failed ~= '' then
    local age = failed ~= '' and match(failed, '(%d+)%*%d+;$') or 0
    set[last + 1], set[last + 2], last = 'last_failure_at', whole((base - age) / 1000), last + 2
  end
  if last > 0 then
    redis.call('HSET', key, unpack(set))
  end
  if w and fallen ~= '' then
    if not find(fallen, ':', 1, true) then
      add_at(w, fallen, field, successes_more, failures_more, slow_more)
    else
      for age, some in string.gmatch(fallen, '(%d+):([%d,]+);') do
        add_at(w, age, field, counts_of(some))
      end
    end
  end
  if (q and q.streak or false) ~= (sum > 0) then
    q = q or new_quiet(tonumber(epoch))
    q.success, q.streak, q.changed = success_at, sum > 0, true
    quiet_fields[name] = q
  end
  if q then
    successes = min(successes + q.successes, MAX_COUNT)
    failures = min(failures + q.failures, MAX_COUNT)
    slow = min(slow + q.slow, MAX_COUNT)
  end
  views[count + 1], views[count + 2] = record and 3 or 2, success_at and max(now - success_at, 0) or -1
  views[count + 3] = w and seen_buckets(w, since, field) or false
  views[count + 4], views[count + 5], views[count + 6], views[count + 7] = successes, failures, slow, sum
  count = count + 7
  for i = 1, record and #record or 0 do
    views[count + i] = record[i]
  end
  count = count + (record and #record or 0)
  return true
end

-- Calls visit(a, w, since, settings, pairs_kept) for each entry.
local function each_counted(visit)
  local at = ARGV[2] == 'count' and 3 or #ARGV + 1
  while ARGV[at] do
    local length, width, since, settings, pairs_kept, entries = unpack(ARGV, at, at + GROUP - 1)
    local w = length ~= '' and shape_of(length, width)
    local next_at = at + GROUP + ENTRY * entries
    for a = at + GROUP, next_at - 1, ENTRY do
      visit(a, w, tonumber(since), settings, tonumber(pairs_kept))
    end
    at = next_at
  end
end

local told = {}
each_counted(function(a, w, since)
  local name = ARGV[a]
  told[#told + 1] = name
  if w then
    local field = ARGV[a + 1] .. ':' .. name
    for bucket = max(w.first, since), w.current do
      want_bucket(w, bucket, field)
    end
  end
end)
parse_all_quiet(quiet, told)
fetch_buckets()
-- The places of those that need the general path.
local left_over = {}
each_counted(function(a, w, since, settings, pairs_kept)
  if not count_entry(a, w, since, settings, pairs_kept) then
    count = count + 1
    views[count] = 0
    left_over[#left_over + 1] = { a, w, since, settings, pairs_kept }
  end
end)
if #left_over == 0 and #batch.entries == 0 and not shared_due
  and not (place.noticed and sub(place.noticed, -1) ~= '|') then
  write_buckets()
  write_quiet(quiet, NONE, {})
  return answer()
end

-- The entries that are left over, as those of the batch. Their views come after all others.
for _, left in ipairs(left_over) do
  local a, w, since, settings, pairs_kept = unpack(left)
  local name, epoch, counts, success, failed, fallen, record = unpack(ARGV, a, a + ENTRY - 1)
  local e = {
    name = name, known = record ~= '' and cjson.decode(record) or { epoch = tonumber(epoch) },
    something = counts ~= '' or success ~= '' or failed ~= '' or fallen ~= '',
    counts = counts ~= '' and { counts_of(counts) } or nil, success = tonumber(success), failures = {},
    keep = failed ~= '' and pairs_kept or nil, settings = settings ~= '' and settings or nil, is_left_over = true,
  }
  for age, more in string.gmatch(failed, '(%d+)%*(%d+);') do
    e.failures[#e.failures + 1] = { tonumber(age), tonumber(more) }
  end
  if w then
    e.window, e.buckets = { length = w.length, width = w.width, since = since }, {}
    if find(fallen, ':', 1, true) then
      for age, some in string.gmatch(fallen, '(%d+):([%d,]+);') do
        e.buckets[#e.buckets + 1] = { tonumber(age), counts_of(some) }
      end
    elseif fallen ~= '' then
      e.buckets[1] = { tonumber(fallen), counts_of(counts) }
    end
  end
  batch.entries[#batch.entries + 1] = e
end
