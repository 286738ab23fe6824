-- The functions that all scripts share. Scripts merge counts, compare epochs and hand out leases; they make
-- no decisions.
--
-- Instants are microseconds since 1970. They have 16 digits, more than tostring() writes, so whole() writes
-- them. Every value that is read is checked, because other clients can write to the same Redis.

-- Library functions as locals: a look-up in a global table costs as much as a call.
local format, sub, match, find = string.format, string.sub, string.match, string.find
local abs, floor, max, min = math.abs, math.floor, math.max, math.min

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local MAX_COUNT = 9007199254740991
local MAX_SPAN = 3155760000000000
local MAX_EPOCH = 1000000000000000
local MAX_EVENTS = 1000
local MAX_STREAK = 64
local MAX_REASON = 200
local MAX_FAILING = 32
local MAX_ROLE_TERM = 300000000
local MAX_SETTINGS = 600
local IDLE = 3600
-- `meta` lives for this long after its last use, so that an instance that was away can tell what has expired
-- from what was lost.
local REMEMBERED = 604800
local SAID_FOR = 180
local NOTICE = 10
local NOTICE_PAUSE = 100000
-- The shortest interval between two renewals of a key's time to live, in microseconds.
local RENEW = 300000000

local STATES = {
  ['closed'] = true, ['open'] = true, ['half-open'] = true,
  ['forced-open'] = true, ['disabled'] = true, ['metrics-only'] = true,
}

local function whole(number)
  return format('%.0f', number)
end

-- Writes a count. tostring() is faster than whole(), and exact for counts that are not huge.
local function count_text(number)
  return number < 1e14 and number .. '' or whole(number)
end

local function failure(reply)
  return type(reply) == 'table' and reply.err
end

-- Deletes a key whose value cannot be read: its data counts as lost.
local function damaged(text)
  error({ text = text, lost = true }, 0)
end

local function use(key, reply)
  local err = failure(reply)
  if err then
    if find(err, '^WRONGTYPE') then
      damaged(key .. ' holds a value of another type, which is lost')
    end
    error({ text = key .. ' cannot be used: ' .. err }, 0)
  end
  return reply
end

local function shown(text)
  return format('%q', sub(text, 1, 40))
end

local function odd(key, field, text, right)
  damaged(key .. ' has the ' .. field .. ' ' .. shown(text) .. ', which is not ' .. right ..
    '; the value of the key is lost')
end

-- A field that is missing is nil.
local function number(key, field, text, limit)
  if not text or text == '' then
    return nil
  end
  local value = tonumber(text)
  -- NaN fails both comparisons.
  if not value or not (value >= 0 and value <= limit) or value % 1 ~= 0 then
    odd(key, field, text, 'a whole number up to ' .. whole(limit))
  end
  return value
end

-- Milliseconds with at most three decimals, as microseconds.
local function span(key, field, text)
  if not text or text == '' then
    return nil
  end
  local value = tonumber(text)
  if not value or not (value >= 0 and value * 1000 <= MAX_SPAN) then
    odd(key, field, text, 'a number of milliseconds up to ' .. whole(MAX_SPAN / 1000))
  end
  return floor(value * 1000 + 0.5)
end

local function milliseconds(us)
  if us % 1000 == 0 then
    return whole(us / 1000)
  end
  return format('%.3f', us / 1000)
end

-- Reads a streak: "<success>|<failure>*<count>;<failure>*<count>;…", instants ascending. Instants in the
-- future are limited to now: they come from a clock that was set back (a failover), and no later one could
-- follow them.
local function read_run(key, text, sum)
  local run = { failures = {}, sum = 0 }
  if not text or text == '' or text == '|' then
    text = '|'
    if sum == 0 then
      return run
    end
  end
  local success, rest = match(text, '^(%d*)|([%d*;]*)$')
  if not success or #text > 5000 then
    odd(key, 'run', text, 'what this library writes there')
  end
  success = number(key, 'run', success, MAX_COUNT)
  run.success = success and min(success, now)
  local length = 0
  for at, count in string.gmatch(rest, '(%d+)%*(%d+);') do
    length = length + #at + #count + 2
    at = min(number(key, 'run', at, MAX_COUNT), now)
    count = number(key, 'run', count, MAX_COUNT)
    run.failures[#run.failures + 1] = { at, count }
    run.sum = min(run.sum + count, MAX_COUNT)
  end
  if length ~= #rest or run.sum ~= sum then
    odd(key, 'run', text, 'complete: its sum and consecutive_failures differ')
  end
  return run
end

local function written_run(run)
  local parts = { run.success and whole(run.success) or '', '|' }
  for _, pair in ipairs(run.failures) do
    parts[#parts + 1] = whole(pair[1]) .. '*' .. whole(pair[2]) .. ';'
  end
  return table.concat(parts)
end

-- Merges another streak, with instants, into this one. At most `pairs_kept` pairs stay.
local function merge_run(run, success, failures, pairs_kept)
  if success then
    run.success = max(run.success or success, success)
  end
  local all = run.failures
  local count = #all
  for i = 1, #failures do
    local at, more = failures[i][1], failures[i][2]
    local place = count
    while place > 0 and all[place][1] > at do
      place = place - 1
    end
    if place > 0 and all[place][1] == at then
      all[place] = { at, min(all[place][2] + more, MAX_COUNT) }
    else
      table.insert(all, place + 1, { at, more })
      count = count + 1
    end
  end
  -- Failures before the latest success are dropped. The oldest pairs beyond the limit become one.
  local first = 1
  while run.success and first <= count and all[first][1] < run.success do
    first = first + 1
  end
  local older = 0
  while count - first + 1 > pairs_kept do
    older = min(older + all[first][2], MAX_COUNT)
    first = first + 1
  end
  local kept, sum = {}, 0
  for i = first, count do
    local pair = all[i]
    if older > 0 then
      pair = { pair[1], min(pair[2] + older, MAX_COUNT) }
      older = 0
    end
    kept[#kept + 1] = pair
    sum = min(sum + pair[2], MAX_COUNT)
  end
  run.failures, run.sum = kept, sum
end

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
    odd(key, field, text, 'what this library writes there')
  end
  return number(key, field, written, MAX_EPOCH) == epoch and rest or ''
end

local function read_actor(key, text, epoch)
  local actor = of_epoch(key, 'actor', text, epoch)
  if #actor > MAX_REASON then
    odd(key, 'actor', actor, 'at most ' .. MAX_REASON .. ' bytes long')
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
    odd(key, 'state', state, 'one of closed, open, half-open, forced-open, disabled, metrics-only')
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
  elseif state == 'open' then
    return min(remaining or 0, reset > 0 and reset or MAX_SPAN)
  end
  return remaining and min(remaining, MAX_SPAN)
end

local function remaining(b)
  return fitted(b.state, b.ends and max(b.ends - now, 0), b.reset)
end

-- A breaker's record in an answer. Rust decodes it by position.
local function record_of(b)
  return b.epoch, b.state, b.reason, b.by, b.actor, remaining(b) or -1,
    b.since and max(now - b.since, 0) or 0, b.reset, b.attempt
end

-- Keys that all breakers share hold only data that can be rebuilt. A damaged one is therefore repaired and
-- reported once.
local warnings = {}

local function mended(key, doing, mend)
  local reply = doing()
  local err = failure(reply)
  if err and (find(err, '^WRONGTYPE') or find(err, '^ERR The ID specified in XADD')
    or find(err, '^ERR The stream has exhausted')) then
    warnings[#warnings + 1] = key .. ' could not be used (' .. err .. ') and has been made anew'
    redis.pcall('DEL', key)
    if mend then
      mend()
    end
    reply = doing()
    err = failure(reply)
  end
  if err then
    warnings[#warnings + 1] = key .. ' cannot be used: ' .. err
    return nil
  end
  return reply
end

-- The position of the stream. An incarnation begins if there is none: at first, and after a loss of data.
local function stand(meta, events, fresh)
  local function begin(problem)
    if problem then
      warnings[#warnings + 1] = meta .. ' could not be used (' .. problem .. ') and has been made anew'
    end
    redis.pcall('DEL', meta, events)
    redis.call('HSET', meta, 'incarnation', fresh, 'number', 0, 'last_id', '0-0',
      'touched_at', whole(now / 1000))
    return { incarnation = fresh, number = 0, id = '0-0', due = true }
  end
  local f = redis.pcall('HMGET', meta, 'incarnation', 'number', 'last_id', 'touched_at', 'noticed')
  if failure(f) then
    return begin(f.err)
  elseif not (f[1] or f[2] or f[3]) then
    return begin(nil)
  end
  local ok, place = pcall(function()
    return {
      incarnation = f[1],
      number = number(meta, 'number', f[2], MAX_EPOCH),
      id = f[3],
      touched = (number(meta, 'touched_at', f[4], MAX_COUNT / 1000) or 0) * 1000,
      noticed = f[5],
    }
  end)
  if not ok or not place.incarnation or not place.number or #place.incarnation > 100
    or not place.id or #place.id > 50 or not find(place.id, '^%d+%-%d+$') then
    return begin(not ok and place.text or 'an incarnation, a number or a last_id is missing or odd')
  end
  place.due = math.abs(now - place.touched) > RENEW
  if place.due then
    redis.pcall('HSET', meta, 'touched_at', whole(now / 1000))
  end
  return place
end

-- Adds a breaker that is not closed to `held`. Its score is when its state lapses, in milliseconds.
local function hold(held, name, b)
  local lapse = lapse_of(b)
  return redis.pcall('ZADD', held, lapse and whole(lapse / 1000) or '+inf', name)
end

-- Rebuilds `held` from `names`, where breakers that are held have an infinite score.
local function find_held(held, names, prefix)
  local known = redis.pcall('ZRANGEBYSCORE', names, '+inf', '+inf')
  if failure(known) then
    return
  end
  for _, name in ipairs(known) do
    local ok, b = pcall(read_breaker, prefix .. name, FIELDS)
    if not ok or b.state ~= 'closed' then
      hold(held, name, ok and b or { state = 'disabled' })
    else
      redis.pcall('ZADD', names, whole(now / 1000), name)
    end
  end
end

-- The number of seconds for which the stream is kept, if it was ever set to another one than IDLE.
local function stream_kept_for(meta)
  local kept_for = redis.pcall('HGET', meta, 'kept_for')
  return type(kept_for) == 'string' and tonumber(kept_for) or 0
end

-- Scores may be damaged, so the breaker's own hash determines whether its state has lapsed.
local function forget_lapsed(held, names, prefix)
  local lapsed = redis.pcall('ZRANGEBYSCORE', held, '-inf', whole(now / 1000), 'LIMIT', 0, 1000)
  if failure(lapsed) then
    return
  end
  for _, name in ipairs(lapsed) do
    local ok, b = pcall(read_breaker, prefix .. name, FIELDS)
    if not ok or b.state ~= 'closed' then
      hold(held, name, ok and b or { state = 'disabled' })
    else
      redis.pcall('ZREM', held, name)
      if not b.exists then
        redis.pcall('ZREM', names, name)
      end
    end
  end
end

-- The shared keys expire an hour after the last breaker has left `held`; `meta`, which holds the position
-- of the stream, a week after.
local function keep(meta, held, names, prefix)
  forget_lapsed(held, names, prefix)
  local count = mended(held, function() return redis.pcall('ZCARD', held) end,
    function() find_held(held, names, prefix) end)
  -- Another client may have removed one name, or all of them.
  local expected = redis.pcall('ZCOUNT', names, '+inf', '+inf')
  if count and type(expected) == 'number' and count < expected then
    find_held(held, names, prefix)
  end
  local last = redis.pcall('ZRANGE', held, -1, -1, 'WITHSCORES')
  local ends = not failure(last) and last[2] and tonumber(last[2]) or 0
  local left = math.ceil(max(ends / 1000 - now / 1000000, 0))
  for key, life in pairs({ [meta] = max(REMEMBERED, stream_kept_for(meta)), [names] = IDLE, [held] = 1 }) do
    if left > MAX_SPAN then
      redis.pcall('PERSIST', key)
    else
      redis.pcall('EXPIRE', key, whole(left + life))
    end
  end
end

-- Notes the number of a batch or report. Returns whether it is a retry, and an error if Redis refuses writes
-- (a replica, out of memory). This is a script's first write, so the error comes before any effect.
local function settle_sequence(sequence, seq)
  local function remember(number_of)
    return redis.pcall('SET', sequence, whole(number_of), 'EX', IDLE, 'GET')
  end
  local last = remember(seq)
  if failure(last) then
    if not find(last.err, '^WRONGTYPE') then
      return false, last
    end
    warnings[#warnings + 1] = sequence .. ' could not be used (' .. last.err .. ') and has been made anew'
    redis.call('DEL', sequence)
    last = remember(seq)
  end
  if type(last) ~= 'string' then
    return false
  end
  local ok, before = pcall(number, sequence, 'value', last, MAX_COUNT)
  if not ok or not before then
    warnings[#warnings + 1] = sequence .. ' was not a number and has been made anew'
    return false
  end
  if seq < before then
    remember(before)
  end
  return seq <= before
end

-- The time that ages are subtracted from: the instance's estimate of the store's time, if it is credible.
local function base_of(as_of)
  if as_of and as_of <= now and as_of >= now - 1000000 then
    return as_of
  end
  return now
end
