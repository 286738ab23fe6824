-- Transitions: the states that begin, which proposal wins, and the events.

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

local function is_manual(state)
  return state == 'forced-open' or state == 'disabled' or state == 'metrics-only'
end

-- Writes a lost record back. No older state ends an override, and an older closed state ends no other state:
-- the present one goes on in the epoch after the lost one.
local function write_back(b, known)
  local age = b.since and max(now - b.since, 0) or 0
  local outlasts_older = is_manual(b.state) or (known.state == 'closed' and b.state ~= 'closed')
  if outlasts_older and age < known.since then
    begin(b, {
      epoch = known.epoch + 1, state = b.state, reason = b.reason, by = b.by, remaining = remaining(b),
      since = age, reset = b.reset, attempt = b.attempt, actor = b.actor,
    })
  else
    begin(b, known)
  end
end

-- Whether a state begins in the future, or ends later than its whole span from now: the clock was set back.
-- (A state that was written back may begin in the past and end later than its span after that.)
local function is_ahead(b)
  local ends_late = b.reset > 0 and b.ends and b.ends > now + b.reset
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
  local bound = is_manual(b.state) or (b.state == 'open' and p.state == 'half-open')
  return e.known ~= nil and e.known.epoch == b.epoch and (not bound or left == 0)
end

-- The number of events to keep, and for how many seconds.
local retention

local function announce(e, b, from, evidence)
  place.number = place.number + 1
  announced = true
  retention = retention or batch.retention or { stored_retention(meta) }
  local fields = {
    'incarnation', place.incarnation, 'number', whole(place.number),
    'name', e.name, 'from', from, 'state', b.state, 'epoch', whole(b.epoch),
    'reason', b.reason, 'by', b.by, 'actor', b.actor, 'at_us', whole(now),
    'remaining_us', b.ends and whole(b.ends - now) or '',
    'reset_timeout_us', whole(b.reset), 'attempt', whole(b.attempt),
    'successes', whole(evidence[1]), 'failures', whole(evidence[2]), 'slow', whole(evidence[3]),
  }
  local id = mended(events, function()
    return redis.pcall('XADD', events, 'MAXLEN', '~', whole(retention[1]), '*', unpack(fields))
  end)
  if id then
    place.id = id
    redis.call('EXPIRE', events, whole(retention[2]))
    warnings[#warnings + 1] = publish(events, id, fields)
  end
end
