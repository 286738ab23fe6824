-- One exchange: see Store::exchange, and Batch for what the fields mean. KEYS: meta, events, held, names, the
-- instance's sequence, quiet; then for each entry its breaker, its leases and, if it asks for them, its last
-- calls. ARGV[1]: the batch, as JSON. No more, because an empty batch has to have ten arguments at most: a
-- server that wants a password first says so only up to there.
local meta, events, held, names, sequence, quiet = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local batch = cjson.decode(ARGV[1])

local retry, refused = settle_sequence(sequence, batch.seq)
if refused then
  return refused
end
local retention = batch.retention or { MAX_EVENTS, IDLE }
local place = stand(meta, events, batch.fresh)
local announced = false
local shared_due = place.due
local base = base_of(batch.as_of)

local NONE = {}

-- Announces the fields that the entries will read, so that few commands read them: the entries of a batch
-- mostly have windows of one shape.
local shapes, latest = {}, {}
local function shape_of(ask)
  if ask.length == latest.length and ask.width == latest.width then
    return latest
  end
  local shape = whole(ask.length) .. '/' .. whole(ask.width) .. ':'
  shapes[shape] = shapes[shape] or window_of(ask.length, ask.width, batch.windows .. shape)
  latest = shapes[shape]
  return latest
end
local all, without_quiet = {}, {}
for i, e in ipairs(batch.entries) do
  all[i] = e.name
  if e.window then
    e.of_epoch = e.known and e.known.epoch or 0
    local w, field = shape_of(e.window), count_text(e.of_epoch) .. ':' .. e.name
    e.shape, e.field = w, field
    for bucket = max(w.first, e.window.since), w.current do
      want_bucket(w, bucket, field)
    end
    for _, bucket in ipairs(e.buckets or NONE) do
      bucket[1] = floor(max(base - bucket[1], 0) / w.width)
      if bucket[1] >= w.first and bucket[1] < e.window.since then
        want_bucket(w, bucket[1], field)
      end
    end
  end
end
parse_all_quiet(quiet, all)
fetch_quiet_windows(quiet, batch.entries)
fetch_buckets()

local function instant(age)
  return max(base - age, 0)
end

-- Begins a state, without counts.
local function begin(b, record)
  local reset = min(record.reset, MAX_SPAN)
  local left = fitted(record.state, record.remaining, reset)
  b.leases_end = b.leases_end or b.state == 'half-open' or record.state == 'half-open'
  b.epoch, b.state, b.reason, b.by = record.epoch, record.state, record.reason, record.by
  b.since, b.ends, b.reset = max(now - record.since, 0), left and now + left, reset
  b.attempt, b.actor = record.attempt, record.actor or ''
  b.successes, b.failures, b.slow = 0, 0, 0
  b.failing = b.failing and ''
  b.run = { failures = {}, sum = 0 }
  b.begun = true
  b.touched = now
  b.reported = nil
end

-- Writes a lost record back. A closed state that is older than one that has begun since must not end that
-- one, whose epoch then continues from the lost one.
local function write_back(b, known)
  local age = b.since and max(now - b.since, 0) or 0
  if known.state == 'closed' and b.state ~= 'closed' and age < known.since then
    begin(b, {
      epoch = known.epoch + 1, state = b.state, reason = b.reason, by = b.by, remaining = remaining(b),
      since = age, reset = b.reset, attempt = b.attempt, actor = b.actor,
    })
  else
    begin(b, known)
  end
end

-- Whether a state begins in the future, or is open beyond its reset timeout: the clock was set back. (A state
-- that was written back may begin in the past and end later than its reset timeout after that.)
local function is_ahead(b)
  local ends_late = b.state == 'open' and b.reset > 0 and b.ends and b.ends > now + b.reset
  return b.since and b.since > now or ends_late
end

local function wins(b, e)
  local p = e.proposal
  if p.token and not (has_role(b.role, batch.instance) and b.role.token == p.token) then
    return false
  end
  local left = remaining(b)
  if p.force then
    local nothing_counted = b.successes + b.failures + b.slow == 0 and #b.run.failures == 0
    return b.state ~= p.state or b.reason ~= p.reason or left ~= nil
      or fitted(p.state, p.remaining, min(p.reset, MAX_SPAN)) ~= nil
      or (b.state == 'closed' and not nothing_counted)
  end
  local bound = b.state == 'forced-open' or b.state == 'disabled' or b.state == 'metrics-only'
    or (b.state == 'open' and p.state == 'half-open')
  return e.known ~= nil and e.known.epoch == b.epoch and (not bound or left == 0)
end

local function announce(e, b, from, evidence)
  place.number = place.number + 1
  announced = true
  local id = mended(events, function()
    return redis.pcall('XADD', events, 'MAXLEN', '~', retention[1], '*',
      'incarnation', place.incarnation, 'number', whole(place.number),
      'name', e.name, 'from', from, 'state', b.state, 'epoch', whole(b.epoch),
      'reason', b.reason, 'by', b.by, 'actor', b.actor, 'at_us', whole(now),
      'remaining_us', b.ends and whole(b.ends - now) or '',
      'reset_timeout_us', whole(b.reset), 'attempt', whole(b.attempt),
      'successes', whole(evidence[1]), 'failures', whole(evidence[2]), 'slow', whole(evidence[3]))
  end)
  if id then
    place.id = id
    redis.call('EXPIRE', events, retention[2])
  end
end

-- Whether a breaker needs a key of its own. One that has only succeeded needs none.
local function is_kept(b, e, merged)
  return b.exists or b.begun or (b.role and b.role.taken) or b.state ~= 'closed'
    or (merged and (merged.failed or merged.in_window)) or (e.settings and (merged or b.reported))
    or e.notice
end

-- Moves the reported counts to the breaker's own hash, if there is one; otherwise this exchange's counts are
-- added to the reported ones. Returns the changes of the breaker's hash.
local function settle_quiet(b, merged, kept)
  local q = b.reported
  if b.begun then
    without_quiet[#without_quiet + 1] = b.name
    quiet_fields[b.name] = false
  end
  if b.state ~= 'closed' then
    return merged
  elseif not kept then
    if merged then
      q = q or new_quiet(b.epoch)
      quiet_fields[b.name] = q
      add_quiet(q, merged.counts[1], merged.counts[2], merged.counts[3], b.run.success)
    end
    return nil
  end
  local streak = #b.run.failures > 0
  local told = q and q.successes + q.failures + q.slow > 0
  if told then
    merged = merged or {}
    merged.successes = merged.successes or q.successes > 0
    merged.failures = merged.failures or q.failures > 0
    merged.slow = merged.slow or q.slow > 0
    merged.run = merged.run or q.success ~= nil
    b.last_failure = q.failure and max(b.last_failure or q.failure, q.failure) or b.last_failure
  end
  if told or (q and q.streak or false) ~= streak then
    local fresh = new_quiet(b.epoch)
    fresh.success, fresh.streak, fresh.changed = b.run.success, streak, true
    quiet_fields[b.name] = fresh
  end
  return merged
end

local function write_breaker(key, e, b, merged)
  local set = {}
  local function put(field, value)
    set[#set + 1], set[#set + 2] = field, value
  end
  local kept = is_kept(b, e, merged)
  merged = settle_quiet(b, merged, kept)
  local is_used = b.used
  if b.state == 'closed' then
    is_used = kept
  end
  local due = is_used and math.abs(now - b.touched) > RENEW
  if b.begun or (kept and not b.exists) then
    put('state', b.state)
    put('epoch', whole(b.epoch))
  end
  if b.retimed then
    put('since_us', whole(b.since))
    put('until_us', b.ends and whole(b.ends) or '')
  end
  if b.begun then
    put('reason', b.reason)
    put('by', b.by)
    put('attempt', whole(b.attempt))
    put('reset_timeout_ms', milliseconds(b.reset))
    put('since_us', whole(b.since))
    put('until_us', b.ends and whole(b.ends) or '')
    if b.state == 'open' then
      put('opened_at', whole(b.since / 1000))
    end
    if b.actor ~= '' then
      put('actor', whole(b.epoch) .. '|' .. b.actor)
    elseif b.actor_written then
      put('actor', '')
    end
  end
  if b.notified then
    put('noticed_us', whole(b.notified))
  end
  if b.noted and kept then
    put('failing', b.failing ~= '' and whole(b.epoch) .. '|' .. b.failing or '')
  end
  if b.role then
    put_role(b.role, put)
  end
  if b.said and kept then
    say_settings(b.said, e.settings)
    put_settings(b.said, put)
  end
  if b.begun or merged then
    if b.begun or merged.failures then
      put('failures', whole(b.failures))
    end
    if b.begun or merged.successes then
      put('successes', whole(b.successes))
    end
    if b.begun or merged.slow then
      put('slow', whole(b.slow))
    end
    if b.begun or merged.run then
      put('consecutive_failures', whole(b.run.sum))
      put('run', written_run(b.run))
    end
    if b.last_failure then
      put('last_failure_at', whole(b.last_failure / 1000))
    end
  end
  if due or b.begun then
    b.touched = now
    put('touched_at', whole(now / 1000))
  end
  if #set > 0 then
    redis.call('HSET', key, unpack(set))
  end

  if (b.begun or due) and b.state ~= 'closed' then
    local lapse = lapse_of(b)
    if lapse then
      redis.call('PEXPIRE', key, whole((lapse - now) / 1000))
    else
      redis.call('PERSIST', key)
    end
    mended(held, function() return hold(held, e.name, b) end,
      function() find_held(held, names, batch.prefix) end)
    mended(names, function() return redis.pcall('ZADD', names, '+inf', e.name) end)
    shared_due = true
  elseif b.begun or due then
    redis.call('EXPIRE', key, IDLE)
    mended(names, function() return redis.pcall('ZADD', names, whole(now / 1000), e.name) end)
    redis.pcall('ZREMRANGEBYSCORE', names, '-inf', whole((now - RENEW) / 1000 - IDLE * 1000))
    if b.begun then
      mended(held, function() return redis.pcall('ZREM', held, e.name) end,
        function() find_held(held, names, batch.prefix) end)
    end
    shared_due = true
  end
end

-- The name of a breaker's field in windows.
local function field_of(e, b)
  return e.of_epoch == b.epoch and e.field or whole(b.epoch) .. ':' .. e.name
end

local function read_entry(e, key)
  local roles = e.role or (e.proposal and e.proposal.token)
  if not (roles or e.settings or e.failing or e.notice) then
    return read_breaker(key, FIELDS)
  end
  local b = read_breaker(key, joined(FIELDS, e.failing and FAILING_FIELDS or NONE, roles and ROLE_FIELDS or NONE,
    e.settings and SETTINGS_FIELDS or NONE, (e.notice or e.settings) and NOTICE_FIELDS or NONE))
  b.failing = e.failing and check_failing(key, 'failing', of_epoch(key, 'failing', b.failing, b.epoch))
  b.role = roles and read_role(key, b)
  b.said = e.settings and read_settings(key, b)
  return b
end

-- Reads a key of a breaker. One that cannot be read is reported and deleted, and counts as absent.
local function read_or_lose(key, read, ...)
  local ok, found = pcall(read, ...)
  if ok then
    return found, false
  elseif type(found) ~= 'table' or not found.lost then
    error(found, 0)
  end
  warnings[#warnings + 1] = found.text
  redis.call('DEL', key)
  return read(...), true
end

local function expire_leases(key)
  return use(key, redis.pcall('ZREMRANGEBYSCORE', key, '-inf', whole(now)))
end

-- Everything is read before the first write.
local function exchange(e, key, leases_key, last_key)
  local b, lost = read_or_lose(key, read_entry, e, key)
  if lost then
    begin(b, { epoch = 0, state = 'closed', reason = '', by = '', since = 0, reset = 0, attempt = 0 })
  end
  -- The previous state in the event that makes instances write a lost breaker back; nil if there is no event.
  local restored = lost and '' or nil
  b.name = e.name
  local q = quiet_fields[e.name]
  if q and q.epoch == b.epoch and b.state == 'closed' then
    b.reported = q
    b.successes = min(b.successes + q.successes, MAX_COUNT)
    b.failures = min(b.failures + q.failures, MAX_COUNT)
    b.slow = min(b.slow + q.slow, MAX_COUNT)
    if q.success then
      merge_run(b.run, q.success, NONE, MAX_STREAK)
    end
  end
  if b.lapsed then
    redis.call('DEL', key)
    redis.pcall('ZREM', held, e.name)
  end
  if e.known and e.known.epoch > b.epoch then
    local before = b.state
    write_back(b, e.known)
    if b.state == 'closed' and before ~= 'closed' then
      -- For instances in the previous state, its end is a transition.
      restored = before
    elseif lost or b.state ~= 'closed' then
      restored = ''
    end
  elseif e.known and e.known.epoch == b.epoch and e.known.state == b.state and is_ahead(b) then
    -- The clock was set back after this state began. The instance has measured the age on its own clock.
    local left = fitted(b.state, e.known.remaining, b.reset)
    b.since, b.ends = max(now - e.known.since, 0), left and now + left
    b.retimed = true
  end
  local failed, buckets, asks = e.failures or NONE, e.buckets or NONE, e.leases
  for _, pair in ipairs(failed) do
    pair[1] = instant(pair[1])
  end
  local window = e.shape
  local last = e.last and read_or_lose(last_key, read_last, last_key, e.last, b.epoch)
  if last then
    read_quiet_window(last, e.name, b.epoch)
  end
  local leases = asks and b.state == 'half-open'
  if leases and not b.leases_end then
    read_or_lose(leases_key, expire_leases, leases_key)
  end

  local merged
  local timely
  if e.known then
    timely = e.known.epoch == b.epoch
  else
    timely = b.state == 'closed' or b.state == 'metrics-only'
  end
  if timely and not retry and e.something then
    local counts = e.counts or { 0, 0, 0 }
    local successes, failures, slow = counts[1], counts[2], counts[3]
    merged = {
      successes = successes > 0, failures = failures > 0, slow = slow > 0,
      run = e.success ~= nil or #failed > 0, failed = failures > 0 or #failed > 0, counts = counts,
    }
    b.successes = min(b.successes + successes, MAX_COUNT)
    b.failures = min(b.failures + failures, MAX_COUNT)
    b.slow = min(b.slow + slow, MAX_COUNT)
    if merged.run then
      merge_run(b.run, e.success and instant(e.success), failed, e.keep or MAX_STREAK)
    end
    if #failed > 0 then
      b.last_failure = failed[#failed][1]
    elseif failures > 0 then
      b.last_failure = base
    end
    if b.failing and b.last_failure then
      local at = b.last_failure
      for _, pair in ipairs(failed) do
        at = max(at, pair[1])
      end
      b.failing = note_failing(b.failing, batch.node, at, now)
      b.noted = true
    end
    if window then
      for _, bucket in ipairs(buckets) do
        add_to_bucket(window, bucket[1], field_of(e, b), bucket[2], bucket[3], bucket[4])
      end
    end
    if last and e.calls then
      append_calls(last, e.calls, e.failing and batch.node)
      merged.in_window = not are_successes(e.calls)
    end
  end

  if e.leaves then
    if b.failing then
      b.failing, b.noted = without_failing(b.failing, batch.node), true
    end
    if last and last.failing ~= '' then
      last.failing, last.changed = without_failing(last.failing, batch.node), true
    end
  end
  if leases and not b.leases_end then
    settle_leases(leases_key, batch.instance, asks)
  end
  -- Written last: everything has been read, so no error can follow.
  if restored then
    announce(e, b, restored, { 0, 0, 0 })
  end
  if e.role and e.role.want then
    take_role(b.role, batch.instance, e.role.term)
  end
  local won = false
  if e.proposal and wins(b, e) then
    won = true
    local from = b.state
    local p = e.proposal
    begin(b, {
      epoch = b.epoch + 1, state = p.state, reason = p.reason, by = batch.instance,
      remaining = p.remaining, since = 0, reset = p.reset, attempt = p.attempt, actor = p.actor,
    })
    announce(e, b, from, p.evidence)
  end
  if e.role and not e.role.want then
    give_role_up(b.role, batch.instance)
  end
  if b.leases_end then
    redis.call('DEL', leases_key)
  end
  b.used = merged or (asks and #asks.want + #asks.renew > 0) or (e.role and e.role.want)
  local granted, wait = {}, -1
  if asks and b.state == 'half-open' then
    granted, wait = hand_out(leases_key, batch.instance, asks)
  end
  if won and last then
    last.place, last.outcomes, last.failing = 0, '', ''
  elseif last then
    write_window(last, b.epoch, is_kept(b, e, merged))
  end
  if e.notice and b.state == 'closed' and is_kept(b, e, merged) then
    b.notified = request_notice(place, e.name, b.noticed_us)
  end
  write_breaker(key, e, b, merged)
  local noticed = b.notified or tonumber(b.noticed_us)

  return {
    won and 1 or 0, table.concat(granted, ','), wait,
    b.run.success and max(now - b.run.success, 0) or -1,
    window and seen_buckets(window, e.window.since, field_of(e, b)) or false,
    b.failing or false,
    last and seen_calls(last, e.failing) or false,
    e.role and seen_role(b.role, batch.instance) or false,
    b.said and seen_settings(b.said) or false,
    noticed and noticed >= 0 and noticed <= now and now - noticed or -1,
    b.successes, b.failures, b.slow, b.run.sum,
    record_of(b)
  }
end

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

-- Whether an instance's summary of its settings is the stored one, and no other one is recent.
local function agrees(said, latest, before)
  if said ~= latest then
    return false
  end
  local ends = before and before ~= '' and tonumber(match(before, '^(%d+)|') or now)
  return not ends or now - ends >= SAID_FOR * 1000000
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
        set[1], set[2], count = 'successes', count_text(successes), 2
      end
      if counts[2] > 0 then
        failures = min(failures + counts[2], MAX_COUNT)
        set[count + 1], set[count + 2], count = 'failures', count_text(failures), count + 2
      end
      if counts[3] > 0 then
        slow = min(slow + counts[3], MAX_COUNT)
        set[count + 1], set[count + 2], count = 'slow', count_text(slow), count + 2
      end
    end
    if e.success or #failed > 0 then
      set[count + 1], set[count + 2] = 'consecutive_failures', count_text(run.sum)
      set[count + 3], set[count + 4] = 'run', written_run(run)
      count = count + 4
    end
    local failed_at = #failed > 0 and failed[#failed][1] or counts and counts[2] > 0 and base
    if failed_at then
      set[count + 1], set[count + 2] = 'last_failure_at', count_text(floor(failed_at / 1000 + 0.5))
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

local function tells_counts_only(e)
  return e.known and not (e.proposal or e.leases or e.role or e.failing or e.leaves or e.last or e.notice)
end

-- One list for all: each table in an answer costs Redis as much as a dozen numbers.
local views, count = {}, 0
local at = 7
for _, e in ipairs(batch.entries) do
  local last_key
  local key, leases_key = KEYS[at], KEYS[at + 1]
  at = at + 2
  if e.last then
    last_key = KEYS[at]
    at = at + 1
  end
  count = count + 1
  local age, window, successes, failures, slow, sum, record
  if tells_counts_only(e) then
    age, window, successes, failures, slow, sum, record = exchange_counts(e, key)
  end
  local ok, result = true, nil
  if not age then
    ok, result = pcall(exchange, e, key, leases_key, last_key)
  end
  if age then
    views[count], views[count + 1], views[count + 2] = record and 3 or 2, age, window
    views[count + 3], views[count + 4], views[count + 5], views[count + 6] = successes, failures, slow, sum
    count = count + 6
    for i = 1, record and #record or 0 do
      views[count + i] = record[i]
    end
    count = count + (record and #record or 0)
  elseif ok then
    views[count] = 1
    for place_of, value in ipairs(result) do
      views[count + place_of] = value
    end
    count = count + #result
  elseif type(result) == 'table' then
    views[count] = result.text or result.err
  else
    views[count] = key .. ' could not be used: ' .. tostring(result)
  end
end

give_notice(meta, batch.notices, place)
write_buckets()
local set = {}
for field in pairs(quiet_windows_changed) do
  if quiet_windows[field] then
    set[#set + 1], set[#set + 2] = field, quiet_windows[field]
  else
    without_quiet[#without_quiet + 1] = field
  end
end
write_quiet(quiet, without_quiet, set)
if announced then
  redis.call('HSET', meta, 'number', whole(place.number), 'last_id', place.id)
  if batch.retention then
    redis.call('HSET', meta, 'kept_for', whole(retention[2]))
  end
end
if shared_due then
  keep(meta, held, names, batch.prefix)
end
return { now, { place.incarnation, place.id, place.number }, warnings, views }
