-- Opens a closed breaker, which all instances wait for, before the batch is parsed and the functions for
-- other batches are set up, which takes longer than this. What was counted in a closed state ends with it, so
-- nothing has to be merged.
local meta, events, held, names, sequence, quiet = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- Whether an instance's summary of its settings is the stored one, and no other one is recent.
local function agrees(said, latest, before)
  if said ~= latest then
    return false
  end
  local ends = before and before ~= '' and tonumber(match(before, '^(%d+)|') or now)
  return not ends or now - ends >= SAID_FOR * 1000000
end

-- Sends a stream's new entry to all instances, which subscribe to the stream's key. Returns what went wrong.
local function publish(stream, id, fields)
  table.insert(fields, 1, id)
  local reply = redis.pcall('PUBLISH', stream, cjson.encode(fields))
  return type(reply) == 'table' and reply.err
    and 'a message could not be published on ' .. stream .. ': ' .. reply.err or nil
end

-- Returns nil if the batch has more than that, if the store knows another state, or if a key needs repair.
-- Only `held` and `names` may have been written then, as the rest of the script would write them.
local function open_at_once()
  if ARGV[2] ~= 'open' then
    return nil
  end
  local instance, seq, name, known, reason, left, reset, attempt, successes, failures, slow, failed, settings,
    has_window = unpack(ARGV, 3, 16)
  local key = KEYS[7]
  local f = redis.pcall('HMGET', key, 'state', 'epoch', 'actor', 'settings', 'settings_before')
  local m = redis.pcall('HMGET', meta, 'incarnation', 'number', 'last_id', 'touched_at', 'noticed', 'retention')
  if f.err or f[1] ~= 'closed' or f[2] ~= known or settings ~= '' and not agrees(settings, f[4], f[5])
    or m.err then
    return nil
  end
  local number, touched = tonumber(m[2]), tonumber(m[4])
  local is_whole = m[1] and #m[1] <= 100 and m[3] and number and number >= 0 and number < MAX_EPOCH
    and number % 1 == 0 and touched and abs(now - touched * 1000) <= RENEW
  local has_waiting_notice = m[5] and sub(m[5], -1) ~= '|'
  if not is_whole or has_waiting_notice or m[6] then
    return nil
  end
  local next_number, epoch = whole(number + 1), whole(known + 1)
  local now_us, now_ms = whole(now), whole(now / 1000)
  if type(redis.pcall('ZADD', held, whole((now + left) / 1000 + IDLE * 1000), name)) == 'table'
    or type(redis.pcall('ZADD', names, '+inf', name)) == 'table' then
    return nil
  end
  local fields = {
    'incarnation', m[1], 'number', next_number, 'name', name, 'from', 'closed', 'state', 'open',
    'epoch', epoch, 'reason', reason, 'by', instance, 'actor', '', 'at_us', now_us,
    'remaining_us', left, 'reset_timeout_us', reset, 'attempt', attempt,
    'successes', successes, 'failures', failures, 'slow', slow,
  }
  local id = redis.pcall('XADD', events, 'MAXLEN', '~', MAX_EVENTS, '*', unpack(fields))
  if type(id) == 'table' then
    return nil
  end
  local warnings = { publish(events, id, fields) }
  redis.call('EXPIRE', events, IDLE)
  redis.call('HSET', meta, 'number', next_number, 'last_id', id)
  local more = {}
  if failed ~= '' then
    more = { 'last_failure_at', whole((now - failed) / 1000) }
  end
  if (f[3] or '') ~= '' then
    more[#more + 1], more[#more + 2] = 'actor', ''
  end
  redis.call('HSET', key, 'state', 'open', 'epoch', epoch, 'reason', reason, 'by', instance,
    'attempt', attempt, 'reset_timeout_ms', milliseconds(reset),
    'since_us', now_us, 'until_us', whole(now + left), 'opened_at', now_ms, 'touched_at', now_ms,
    'successes', '0', 'failures', '0', 'slow', '0', 'consecutive_failures', '0', 'run', '|',
    unpack(more))
  redis.call('PEXPIRE', key, whole(left / 1000 + IDLE * 1000))
  redis.pcall('HDEL', quiet, name)
  local before = redis.pcall('SET', sequence, seq, 'EX', IDLE, 'GET')
  if type(before) == 'string' and not tonumber(before) then
    warnings[#warnings + 1] = sequence .. ' was not a number and has been made anew'
  elseif type(before) == 'string' and tonumber(before) > tonumber(seq) then
    redis.call('SET', sequence, before, 'EX', IDLE)
  end
  -- Otherwise another breaker is held for longer, and so are these keys.
  if redis.call('ZRANGE', held, -1, -1)[1] == name then
    local life = math.ceil(left / 1000000) + IDLE
    redis.call('EXPIRE', held, whole(life + 1))
    redis.call('EXPIRE', names, whole(life + IDLE))
    redis.call('EXPIRE', meta, whole(life + REMEMBERED))
  end
  return { now, { m[1], id, number + 1 }, warnings, {
    1, 1, '', -1, -1, has_window == '1' and '' or false, false, false, false, false, -1, 0, 0, 0, 0,
    known + 1, 'open', reason, instance, '', tonumber(left), 0, tonumber(reset), tonumber(attempt),
  } }
end

local opened = open_at_once()
if opened then
  return opened
end
local batch = cjson.decode(ARGV[1])
