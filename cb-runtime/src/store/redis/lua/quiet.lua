-- What reports have told of closed breakers and no exchange has moved to the breaker's own hash yet: one hash, a field
-- for each breaker: "<epoch>|<successes>,<failures>,<slow>|<latest success>|<latest failure>|<streak>". Instants are
-- microseconds, empty = none; streak is 1 while the breaker's hash holds failures after the latest success.
--
-- A field exists only for the breaker's present epoch: a change of state removes it. So a report need not read the
-- breaker's hash. What cannot be read is lost.
local MAX_QUIET = 20000

local quiet_fields = {}

local function parse_quiet(text)
  local epoch, successes, failures, slow, success, failure_at, streak =
    string.match(text or '', '^(%d+)|(%d+),(%d+),(%d+)|(%d*)|(%d*)|([01])$')
  epoch = tonumber(epoch)
  if not epoch or epoch > MAX_EPOCH then
    return false
  end
  local function instant_of(digits)
    return digits ~= '' and math.min(tonumber(digits), now) or nil
  end
  return {
    epoch = epoch, successes = math.min(tonumber(successes), MAX_COUNT),
    failures = math.min(tonumber(failures), MAX_COUNT), slow = math.min(tonumber(slow), MAX_COUNT),
    success = instant_of(success), failure = instant_of(failure_at), streak = streak == '1',
  }
end

local function new_quiet(epoch)
  return { epoch = epoch, successes = 0, failures = 0, slow = 0, streak = false }
end

local function quiet_text(q)
  return whole(q.epoch) .. '|' .. whole(q.successes) .. ',' .. whole(q.failures) .. ',' .. whole(q.slow) .. '|' ..
    (q.success and whole(q.success) or '') .. '|' .. (q.failure and whole(q.failure) or '') .. '|' ..
    (q.streak and '1' or '0')
end

-- Reads the fields of these breakers, once for each call of a script.
local function fetch_quiet(key, names)
  if #names == 0 then
    return
  end
  local found = mended(key, function() return redis.pcall('HMGET', key, unpack(names)) end) or {}
  for i, name in ipairs(names) do
    quiet_fields[name] = parse_quiet(found[i])
  end
end

local function add_quiet(q, successes, failures, slow, success, failure_at)
  q.successes = math.min(q.successes + successes, MAX_COUNT)
  q.failures = math.min(q.failures + failures, MAX_COUNT)
  q.slow = math.min(q.slow + slow, MAX_COUNT)
  q.success = success and math.max(q.success or success, success) or q.success
  q.failure = failure_at and math.max(q.failure or failure_at, failure_at) or q.failure
  q.changed = true
end

-- `gone`: names whose fields are removed.
local function write_quiet(key, gone)
  if #gone > 0 then
    redis.pcall('HDEL', key, unpack(gone))
  end
  local set = {}
  for name, q in pairs(quiet_fields) do
    if q and q.changed then
      set[#set + 1], set[#set + 2] = name, quiet_text(q)
    end
  end
  if #set > 0 then
    redis.pcall('HSET', key, unpack(set))
    redis.pcall('EXPIRE', key, IDLE)
    -- Names that are called once each must not fill the server. What is lost are counts of the last minute.
    local length = redis.pcall('HLEN', key)
    if type(length) == 'number' and length > MAX_QUIET then
      redis.pcall('DEL', key)
    end
  end
end
