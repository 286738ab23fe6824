-- A breaker's hash: its fields, read and checked, and its record in an answer.

local FIELDS = {
  'state', 'epoch', 'reason', 'by', 'attempt', 'reset_timeout_ms', 'since_us', 'until_us',
  'successes', 'failures', 'slow', 'consecutive_failures', 'run', 'touched_at', 'actor',
}

local function joined(...)
  local all = {}
  for _, list in ipairs({ ... }) do
    for _, one in ipairs(list) do
      all[#all + 1] = one
    end
  end
  return all
end

-- A field with its epoch: "<epoch>|<text>". An instance of a version without such a field begins an epoch
-- without clearing it, so a field of another epoch counts as absent.
local function of_epoch(key, field, text, epoch)
  if not text or text == '' then
    return ''
  end
  local written, rest = match(text, '^(%d+)|(.*)$')
  if not written then
    invalid(key, field, text, 'what this library writes there')
  end
  return number(key, field, written, MAX_EPOCH) == epoch and rest or ''
end

local function read_actor(key, text, epoch)
  local actor = of_epoch(key, 'actor', text, epoch)
  if #actor > MAX_REASON then
    invalid(key, 'actor', actor, 'at most ' .. MAX_REASON .. ' bytes long')
  end
  return actor
end

-- When an unused state lapses; nil: never. A manual override without an expiry is durable, and a closed
-- breaker's keys expire.
local function lapse_of(b)
  local is_durable = b.state ~= 'open' and b.state ~= 'half-open' and not b.ends
  if b.state == 'closed' or is_durable then
    return nil
  end
  return max(b.ends or 0, b.touched, b.since or 0) + IDLE * 1000000
end

-- A breaker without keys.
local function untouched()
  return {
    exists = false, state = 'closed', epoch = 0, reason = '', by = '', attempt = 0, reset = 0,
    successes = 0, failures = 0, slow = 0, run = { failures = {}, sum = 0 }, touched = 0, actor = '',
  }
end

-- `fields`: FIELDS, followed by fields that are passed on unread.
local function read_breaker(key, fields)
  local f = use(key, redis.pcall('HMGET', key, unpack(fields)))
  local exists = f[1]
  for i = 2, exists and 0 or #fields do
    exists = exists or f[i]
  end
  local state = f[1] or 'closed'
  if not STATES[state] then
    invalid(key, 'state', state, 'one of closed, open, half-open, forced-open, disabled, metrics-only')
  end
  local sum = number(key, 'consecutive_failures', f[12], MAX_COUNT) or 0
  local epoch = number(key, 'epoch', f[2], MAX_EPOCH) or 0
  local b = {
    exists = exists and true or false,
    state = state,
    epoch = epoch,
    reason = sub(f[3] or '', 1, MAX_REASON),
    by = sub(f[4] or '', 1, 1000),
    attempt = number(key, 'attempt', f[5], 4294967295) or 0,
    reset = span(key, 'reset_timeout_ms', f[6]) or 0,
    since = number(key, 'since_us', f[7], MAX_COUNT),
    ends = number(key, 'until_us', f[8], MAX_COUNT),
    successes = number(key, 'successes', f[9], MAX_COUNT) or 0,
    failures = number(key, 'failures', f[10], MAX_COUNT) or 0,
    slow = number(key, 'slow', f[11], MAX_COUNT) or 0,
    run = read_run(key, f[13], sum),
    touched = (number(key, 'touched_at', f[14], MAX_COUNT / 1000) or 0) * 1000,
    actor = f[15] and read_actor(key, f[15], epoch) or '',
    actor_written = f[15],
  }
  local lapse = lapse_of(b)
  if lapse and lapse <= now then
    b = untouched()
    b.lapsed = true
    return b
  end
  if fields ~= FIELDS then
    for i = #FIELDS + 1, #fields do
      b[fields[i]] = f[i]
    end
  end
  return b
end

-- See Record::remaining_us.
local function fitted(state, remaining, reset)
  if state == 'closed' or state == 'half-open' then
    return nil
  elseif state == 'open' or remaining then
    return min(remaining or 0, reset > 0 and reset or MAX_SPAN)
  end
  return nil
end

local function remaining(b)
  return fitted(b.state, b.ends and max(b.ends - now, 0), b.reset)
end

-- A breaker's record in an answer. Rust decodes it by position.
local function record_of(b)
  return b.epoch, b.state, b.reason, b.by, b.actor, remaining(b) or -1,
    b.since and max(now - b.since, 0) or 0, b.reset, b.attempt
end
