-- Handles any entry.

-- The name of a breaker's field in windows.
local function field_of(e, b)
  return e.of_epoch == b.epoch and e.field or whole(b.epoch) .. ':' .. e.name
end

local function read_entry(e, key)
  local roles = e.role or (e.proposal and e.proposal.token)
  local asks_notice = e.notice or not e.known
  if not (roles or e.settings or e.failing or asks_notice) then
    return read_breaker(key, FIELDS)
  end
  local b = read_breaker(key, joined(FIELDS, e.failing and FAILING_FIELDS or NONE, roles and ROLE_FIELDS or NONE,
    e.settings and SETTINGS_FIELDS or NONE, asks_notice and NOTICE_FIELDS or NONE))
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
  local q = quiet_of(e.name)
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
        if bucket[1] >= window.first and bucket[1] <= window.current then
          add_to(bucket_of(window, bucket[1]), field_of(e, b), bucket[2], bucket[3], bucket[4])
        end
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
  -- A late release may arrive after a later request, which has taken the lease again.
  if e.role and not e.role.want and not retry then
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
