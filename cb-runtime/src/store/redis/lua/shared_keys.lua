-- The keys that all breakers of a namespace share: the stream's position, the lists of names, and each
-- instance's sequence number.

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

-- The retention of the stream as it was last set: the number of events, and the seconds for which they stay.
local function stored_retention(meta)
  local text = redis.pcall('HGET', meta, 'retention')
  local count, seconds = match(type(text) == 'string' and text or '', '^(%d+)|(%d+)$')
  count, seconds = tonumber(count), tonumber(seconds)
  if not count or count < 1 or count > MAX_COUNT or seconds < 1 or seconds > MAX_SPAN / 1000000 then
    return MAX_EVENTS, IDLE
  end
  return count, seconds
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
  local _, kept_for = stored_retention(meta)
  for key, life in pairs({ [meta] = max(REMEMBERED, kept_for), [names] = IDLE, [held] = 1 }) do
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
