-- The names of breakers that are not closed, and how long the keys live that all breakers share.

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
