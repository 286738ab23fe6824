-- Handles an entry that has only counts.

-- The fields of a closed breaker that an exchange of counts needs, and those of its record, which are empty
-- if the breaker has never left its first state.
local COUNTED = {
  'state', 'epoch', 'successes', 'failures', 'slow', 'consecutive_failures', 'run', 'touched_at',
  'settings', 'settings_before',
}
local RECORDED = joined(COUNTED, { 'since_us', 'attempt', 'reset_timeout_ms', 'reason', 'by', 'actor' })

local function is_count(text)
  local count = tonumber(text or 0)
  return count and count >= 0 and count <= MAX_COUNT and count % 1 == 0 and count
end

-- The streak in its stored form; nil if the general path has to read it.
local function simple_run(text, sum)
  if not text or text == '|' then
    return sum == 0 and { failures = {}, sum = 0 }
  end
  local success, at, count = match(text, '^(%d*)|(%d*)%*?(%d*);?$')
  success, at, count = tonumber(success), tonumber(at), tonumber(count)
  if (success or 0) > now or (at or 0) > now or (count or 0) ~= sum or (at == nil) ~= (count == nil) then
    return nil
  end
  return success and { success = success, failures = at and { { at, count } } or {}, sum = sum }
end

-- The record of a closed state, from RECORDED; nil if the general path has to read it.
local function closed_record(f, epoch)
  local since, attempt, reset = is_count(f[11]), is_count(f[12]), tonumber(f[13] or 0)
  local actor = f[16] or ''
  if actor ~= '' then
    local written, rest = match(actor, '^(%d+)|(.*)$')
    actor = tonumber(written) == epoch and #rest <= MAX_REASON and rest or nil
  end
  if not (since and attempt and reset and actor) or since > now or attempt > 4294967295
    or not (reset >= 0 and reset * 1000 <= MAX_SPAN) then
    return nil
  end
  return {
    epoch, 'closed', sub(f[14] or '', 1, MAX_REASON), sub(f[15] or '', 1, 1000), actor, -1,
    f[11] and now - since or 0, floor(reset * 1000 + 0.5), attempt,
  }
end

-- Handles the most frequent entry, which has only counts of a breaker that is closed in the epoch that the
-- instance knows. It reads only the fields for that. Returns nil, before any write, if the entry needs the
-- general path.
local function exchange_counts(e, key)
  local epoch = e.known.epoch
  local f = redis.pcall('HMGET', key, unpack(epoch == 0 and COUNTED or RECORDED))
  if f.err or f[1] ~= 'closed' or tonumber(f[2]) ~= epoch then
    return nil
  end
  local successes, failures, slow, sum = is_count(f[3]), is_count(f[4]), is_count(f[5]), is_count(f[6])
  local touched = is_count(f[8])
  if e.settings and not agrees(e.settings, f[9], f[10]) then
    return nil
  end
  if not (successes and failures and slow and sum and touched) or abs(now - touched * 1000) > RENEW then
    return nil
  end
  local record = epoch > 0 and closed_record(f, epoch) or nil
  if epoch > 0 and not record then
    return nil
  end
  local run = simple_run(f[7], sum)
  if not run then
    local ok, read = pcall(read_run, key, f[7], sum)
    if not ok then
      return nil
    end
    run = read
  end
  local q = quiet_fields[e.name]
  if q and q.epoch ~= epoch then
    q = nil
  end
  local failed = e.failures or NONE
  for i = 1, #failed do
    failed[i][1] = instant(failed[i][1])
  end
  -- The reported success comes first: pairs are joined only after those before it have gone.
  if q and q.success then
    merge_run(run, q.success, NONE, MAX_STREAK)
  end
  local told = e.something and not retry
  if told and (e.success or #failed > 0) then
    merge_run(run, e.success and instant(e.success), failed, e.keep or MAX_STREAK)
  end
  if told then
    local set, count = {}, 0
    local counts = e.counts
    if counts then
      if counts[1] > 0 then
        successes = min(successes + counts[1], MAX_COUNT)
        set[1], set[2], count = 'successes', whole(successes), 2
      end
      if counts[2] > 0 then
        failures = min(failures + counts[2], MAX_COUNT)
        set[count + 1], set[count + 2], count = 'failures', whole(failures), count + 2
      end
      if counts[3] > 0 then
        slow = min(slow + counts[3], MAX_COUNT)
        set[count + 1], set[count + 2], count = 'slow', whole(slow), count + 2
      end
    end
    if e.success or #failed > 0 then
      set[count + 1], set[count + 2] = 'consecutive_failures', whole(run.sum)
      set[count + 3], set[count + 4] = 'run', written_run(run)
      count = count + 4
    end
    local failed_at = #failed > 0 and failed[#failed][1] or counts and counts[2] > 0 and base
    if failed_at then
      set[count + 1], set[count + 2] = 'last_failure_at', whole(failed_at / 1000)
      count = count + 2
    end
    if count > 0 then
      redis.call('HSET', key, unpack(set))
    end
    local window, of_window = e.shape, e.buckets
    if window and of_window then
      for i = 1, #of_window do
        local bucket = of_window[i]
        add_to_bucket(window, bucket[1], e.field, bucket[2], bucket[3], bucket[4])
      end
    end
  end
  local streak = #run.failures > 0
  if (q and q.streak or false) ~= streak then
    q = q or new_quiet(epoch)
    q.success, q.streak, q.changed = run.success, streak, true
    quiet_fields[e.name] = q
  end
  if q then
    successes = min(successes + q.successes, MAX_COUNT)
    failures = min(failures + q.failures, MAX_COUNT)
    slow = min(slow + q.slow, MAX_COUNT)
  end
  return run.success and max(now - run.success, 0) or -1,
    e.shape and seen_buckets(e.shape, e.window.since, e.field) or false, successes, failures, slow, run.sum, record
end
