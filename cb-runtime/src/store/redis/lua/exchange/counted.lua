-- Handles the entries that have only counts of a breaker that is closed in the epoch that the instance knows.
-- They are most entries of a fleet in trouble. Therefore they are arguments, read only the fields that they
-- need, and come before the functions for all others are set up.
--
-- Groups of entries: length and width of the window ('' = none), the first bucket to answer, settings ('' =
-- none), the number of pairs of the streak to keep, and the number of entries; for each: name, epoch, counts
-- ('' = none), age of the latest success ('' = none), the streak's failures ("<age>*<count>;" for each), the
-- buckets as in a report, and the known record as JSON ('' if the epoch is 0).
--
-- All of it is in a block, because a chunk has at most 200 local names.
do
  local GROUP, ENTRY = 6, 7

  -- The fields of the breaker's hash that they need. Those of its record follow, which are empty if it has
  -- never left its first state.
  local COUNTED = {
    'state', 'epoch', 'successes', 'failures', 'slow', 'run', 'touched_at', 'settings', 'settings_before',
    'since_us', 'attempt', 'reset_timeout_ms', 'reason', 'by', 'actor',
  }
  local WITHOUT_RECORD = 9

  -- Whether all of these counts are whole and not too large.
  local function are_counts(successes, failures, slow)
    if not (successes and failures and slow and successes >= 0 and failures >= 0 and slow >= 0) then
      return false
    end
    local sum = successes + failures + slow
    return sum <= MAX_COUNT and sum % 1 == 0
  end

  -- The record of a closed state, from COUNTED; nil if the general path has to read it.
  local function closed_record(f, epoch)
    local since, attempt, reset = tonumber(f[10] or 0), tonumber(f[11] or 0), tonumber(f[12] or 0)
    local actor = f[15] or ''
    if actor ~= '' then
      local written, rest = match(actor, '^(%d+)|(.*)$')
      actor = written == epoch and #rest <= MAX_REASON and rest or nil
    end
    if not (are_counts(since, attempt, 0) and reset and actor) or since > now or attempt > 4294967295
      or not (reset >= 0 and reset * 1000 <= MAX_SPAN) then
      return nil
    end
    return {
      tonumber(epoch), 'closed', sub(f[13] or '', 1, MAX_REASON), sub(f[14] or '', 1, 1000), actor, -1,
      f[10] and now - since or 0, floor(reset * 1000 + 0.5), attempt,
    }
  end

  -- Instants have 16 digits, so their texts compare as they do.
  local now_text = whole(now)

  -- A stored instant, or an empty text.
  local function is_instant(text)
    return text == '' or (#text == 16 and text <= now_text)
  end

  -- As merge_run, for a stored streak and an entry's with one pair of failures each. Returns the new text,
  -- its sum, its success and the entry's latest failure ('' = none); nil if they have more pairs, or cannot
  -- be read.
  local function merged_run(text, reported, success, failed, pairs_kept)
    local latest, at, older, rest = match(text, '^(%d*)|(%d*)%*?(%d*);?(.*)$')
    if rest ~= '' or not (is_instant(latest) and is_instant(at)) or (at == '') ~= (older == '') then
      return nil
    end
    local failed_at, more = '', '0'
    if failed ~= '' then
      failed_at, more, rest = match(failed, '^(%d+)%*(%d+);(.*)$')
      if rest ~= '' then
        return nil
      end
      failed_at = whole(base - failed_at)
    end
    success = success ~= '' and whole(base - success) or ''
    if not (is_instant(success) and is_instant(failed_at) and is_instant(reported)) then
      return nil
    end
    latest = reported > latest and reported or latest
    latest = success > latest and success or latest
    -- Failures before the latest success are dropped.
    at = at >= latest and at or ''
    local later = failed_at >= latest and failed_at or ''
    local sum = (at ~= '' and older or 0) + (later ~= '' and more or 0)
    if sum > MAX_COUNT then
      return nil
    end
    if at == '' and later == '' then
      text = latest .. '|'
    elseif at == '' or later == '' or at == later or pairs_kept == 1 then
      text = latest .. '|' .. (at > later and at or later) .. '*' .. format(INTEGER, sum) .. ';'
    elseif at < later then
      text = latest .. '|' .. at .. '*' .. older .. ';' .. later .. '*' .. more .. ';'
    else
      text = latest .. '|' .. later .. '*' .. more .. ';' .. at .. '*' .. older .. ';'
    end
    return text, sum, latest, failed_at
  end

  -- As merged_run, for any streaks.
  local function merged_streaks(key, text, reported, success, failed, pairs_kept)
    local ok, run = pcall(read_run, key, text)
    if not ok then
      return nil
    end
    if reported ~= '' then
      merge_run(run, tonumber(reported), NONE, MAX_STREAK)
    end
    local failures, failed_at = {}, ''
    for age, more in string.gmatch(failed, '(%d+)%*(%d+);') do
      failed_at = max(base - age, 0)
      failures[#failures + 1] = { failed_at, tonumber(more) }
    end
    -- Successes alone join no failures.
    local succeeded_at = success ~= '' and max(base - success, 0)
    merge_run(run, succeeded_at, failures, failed ~= '' and pairs_kept or MAX_STREAK)
    return written_run(run), run.sum, run.success or '', failed_at
  end

  -- Adds the view of the entry at ARGV[a] to `views`. Returns false, before any write, if the entry needs the
  -- general path.
  local function count_entry(a, group)
    local name, epoch, counts, success, failed, fallen = unpack(ARGV, a, a + 5)
    local key, w, settings = batch.prefix .. name, group.window, group.settings
    local f = redis.pcall('HMGET', key, unpack(COUNTED, 1, epoch == '0' and WITHOUT_RECORD or nil))
    if f[1] ~= 'closed' or f[2] ~= epoch or settings ~= '' and not agrees(settings, f[8], f[9]) then
      return false
    end
    local successes, failures, slow = tonumber(f[3] or 0), tonumber(f[4] or 0), tonumber(f[5] or 0)
    local touched = tonumber(f[7])
    if not (are_counts(successes, failures, slow) and touched and abs(now - touched * 1000) <= RENEW) then
      return false
    end
    local record = epoch ~= '0' and closed_record(f, epoch) or nil
    if epoch ~= '0' and not record then
      return false
    end
    if retry then
      counts, success, failed, fallen = '', '', '', ''
    end
    -- Most that have a field in `quiet` only have the mark of a streak there, and need not be parsed.
    local text, q = quiet_texts[name], quiet_fields[name]
    local reported = text and q == nil and match(text, '^' .. epoch .. '|1|(%d*)||0$')
    local is_marked = reported and is_instant(reported)
    if not is_marked then
      q = quiet_of(name)
      q = q and q.epoch == tonumber(epoch) and q or nil
      is_marked = q ~= nil and q.streak
      reported = q and q.success and whole(q.success) or ''
    end
    local stored, pairs_kept = f[6] or '|', group.pairs_kept
    local run, sum, success_at, failed_at = merged_run(stored, reported, success, failed, pairs_kept)
    if not run then
      run, sum, success_at, failed_at = merged_streaks(key, stored, reported, success, failed, pairs_kept)
    end
    if not run then
      return false
    end
    local successes_more, failures_more, slow_more = 0, 0, 0
    if counts ~= '' then
      successes_more, failures_more, slow_more = counts_of(counts)
      successes = min(successes + successes_more, MAX_COUNT)
      failures = min(failures + failures_more, MAX_COUNT)
      slow = min(slow + slow_more, MAX_COUNT)
    end
    if failures_more > 0 or failed ~= '' then
      redis.call('HSET', key, 'successes', format(INTEGER, successes), 'failures', format(INTEGER, failures),
        'slow', slow_more == 0 and f[5] or format(INTEGER, slow), 'run', run,
        'consecutive_failures', format(INTEGER, sum),
        'last_failure_at', whole((failed_at ~= '' and failed_at or base) / 1000))
    elseif counts ~= '' or run ~= stored then
      redis.call('HSET', key, 'successes', format(INTEGER, successes),
        'slow', slow_more == 0 and f[5] or format(INTEGER, slow), 'run', run,
        'consecutive_failures', sum == 0 and '0' or format(INTEGER, sum))
    end
    local field = epoch .. ':' .. name
    if w and fallen ~= '' then
      local b = w.ages[fallen]
      if b == nil and find(fallen, ':', 1, true) then
        for age, some in string.gmatch(fallen, '(%d+):([%d,]+);') do
          add_to(bucket_at(w, base, age), field, counts_of(some))
        end
      else
        add_to(b or bucket_at(w, base, fallen), field, successes_more, failures_more, slow_more)
      end
    end
    if q then
      successes = min(successes + q.successes, MAX_COUNT)
      failures = min(failures + q.failures, MAX_COUNT)
      slow = min(slow + q.slow, MAX_COUNT)
    end
    if is_marked ~= (sum > 0) then
      q = q or new_quiet(tonumber(epoch))
      q.success, q.streak, q.changed = tonumber(success_at), sum > 0, true
      quiet_fields[name] = q
    end
    views[count + 1], views[count + 2] = record and 3 or 2, success_at ~= '' and now - success_at or -1
    views[count + 3] = w and seen_buckets(w, group.since, field) or false
    views[count + 4], views[count + 5], views[count + 6], views[count + 7] = successes, failures, slow, sum
    count = count + 7
    if record then
      for i = 1, #record do
        views[count + i] = record[i]
      end
      count = count + #record
    end
    return true
  end

  -- Returns the groups, after what their entries share has been read.
  local function read_groups()
    local groups, all, at = {}, {}, ARGV[2] == 'count' and 3 or #ARGV + 1
    while ARGV[at] do
      local length, width, since, settings, pairs_kept, entries = unpack(ARGV, at, at + GROUP - 1)
      local group = {
        first = at + GROUP, last = at + GROUP + ENTRY * entries - 1,
        window = length ~= '' and shape_of(length, width, batch.windows), since = tonumber(since),
        settings = settings, pairs_kept = tonumber(pairs_kept),
      }
      groups[#groups + 1] = group
      local w, fields = group.window, {}
      for a = group.first, group.last, ENTRY do
        local name = ARGV[a]
        all[#all + 1] = name
        fields[#fields + 1] = w and ARGV[a + 1] .. ':' .. name
      end
      for bucket = w and max(w.first, group.since) or 1, w and w.current or 0 do
        local wanted = wanted_in(w, bucket)
        for i = 1, #fields do
          wanted[#wanted + 1] = fields[i]
        end
      end
      at = group.last + 1
    end
    fetch_all_quiet(quiet, all)
    fetch_buckets()
    return groups
  end

  -- The places of those that need the general path, and their groups.
  local left_over = {}
  for _, group in ipairs(read_groups()) do
    for a = group.first, group.last, ENTRY do
      if not count_entry(a, group) then
        count = count + 1
        views[count] = 0
        left_over[#left_over + 1] = { a, group }
      end
    end
  end
  if #left_over == 0 and #batch.entries == 0 and not shared_due
    and not (place.noticed and sub(place.noticed, -1) ~= '|') then
    write_buckets()
    write_quiet(quiet, NONE, {})
    return answer()
  end

  -- The entries that are left over, as those of the batch. Their views come after all others.
  for _, left in ipairs(left_over) do
    local a, group = left[1], left[2]
    local w, since, settings, pairs_kept = group.window, group.since, group.settings, group.pairs_kept
    local name, epoch, counts, success, failed, fallen, record = unpack(ARGV, a, a + ENTRY - 1)
    local e = {
      name = name, known = record ~= '' and cjson.decode(record) or { epoch = tonumber(epoch) },
      something = counts ~= '' or success ~= '' or failed ~= '' or fallen ~= '',
      counts = counts ~= '' and { counts_of(counts) } or nil, success = tonumber(success), failures = {},
      keep = failed ~= '' and pairs_kept or nil, settings = settings ~= '' and settings or nil,
      is_left_over = true,
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
end
