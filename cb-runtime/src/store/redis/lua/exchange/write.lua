-- Writes what an entry has changed.

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
  local has_counts = q and q.successes + q.failures + q.slow > 0
  if has_counts then
    merged = merged or {}
    merged.successes = merged.successes or q.successes > 0
    merged.failures = merged.failures or q.failures > 0
    merged.slow = merged.slow or q.slow > 0
    merged.run = merged.run or q.success ~= nil
    b.last_failure = q.failure and max(b.last_failure or q.failure, q.failure) or b.last_failure
  end
  if has_counts or (q and q.streak or false) ~= streak then
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
