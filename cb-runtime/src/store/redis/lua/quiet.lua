-- The reported counts of closed breakers, until an exchange moves them to the breaker's own hash. One hash
-- has a field for each breaker: "<epoch>|<streak>|<latest success>|<latest failure>|<counts>". Instants are
-- microseconds, empty = none; streak is 1 while the breaker's hash holds failures after the latest success,
-- else 0; counts are as in windows.
--
-- A field exists only for the breaker's current epoch, because a transition removes it. A report therefore
-- need not read the breaker's hash. A field that cannot be read is lost.
local MAX_QUIET = 20000

-- By name: the fields as they were read, and as they have been parsed or changed.
local quiet_texts, quiet_fields = {}, {}

local function split_quiet(text)
  return match(text, '^(%d+)|([01])|(%d*)|(%d*)|([%d,]+)$')
end

local function quiet_text(epoch, streak, success, failed, counts)
  return epoch .. '|' .. streak .. '|' .. success .. '|' .. failed .. '|' .. counts
end

local function parse_quiet(text)
  if not text then
    return false
  end
  local epoch, streak, success, failed, counts = split_quiet(text)
  epoch = tonumber(epoch)
  if not epoch or epoch > MAX_EPOCH then
    return false
  end
  local q = { epoch = epoch, streak = streak == '1' }
  q.successes, q.failures, q.slow = counts_of(counts)
  q.success = success ~= '' and min(tonumber(success), now) or nil
  q.failure = failed ~= '' and min(tonumber(failed), now) or nil
  -- A success in the future was noted before the clock was set back. It is written anew: as it stands, it
  -- would end failures once the clock has passed it.
  q.changed = success ~= '' and tonumber(success) > now
  return q
end

local function new_quiet(epoch)
  return { epoch = epoch, successes = 0, failures = 0, slow = 0, streak = false }
end

-- Reads the fields of these breakers: once per script call.
local function fetch_quiet(key, names)
  if #names == 0 then
    return {}
  end
  return mended(key, function() return redis.pcall('HMGET', key, unpack(names)) end) or {}
end

local function fetch_all_quiet(key, names)
  local found = fetch_quiet(key, names)
  for i = 1, #found do
    quiet_texts[names[i]] = found[i]
  end
end

-- What was reported of a breaker; false if that is nothing.
local function quiet_of(name)
  if quiet_fields[name] == nil then
    quiet_fields[name] = parse_quiet(quiet_texts[name])
  end
  return quiet_fields[name]
end

local function add_quiet(q, successes, failures, slow, success)
  q.successes = min(q.successes + successes, MAX_COUNT)
  q.failures = min(q.failures + failures, MAX_COUNT)
  q.slow = min(q.slow + slow, MAX_COUNT)
  q.success = success and max(q.success or success, success) or q.success
  q.changed = true
end

-- `set`: fields and their values. Beyond MAX_QUIET fields the hash is deleted, which loses the counts of the
-- last minute: names that are called once each must not fill the server.
local function put_quiet(key, set)
  redis.pcall('HSET', key, unpack(set))
  redis.pcall('EXPIRE', key, IDLE)
  local length = redis.pcall('HLEN', key)
  if type(length) == 'number' and length > MAX_QUIET then
    redis.pcall('DEL', key)
  end
end

-- `gone`: names whose fields are removed. `set`: other fields and their values.
local function write_quiet(key, gone, set)
  if #gone > 0 then
    redis.pcall('HDEL', key, unpack(gone))
  end
  for name, q in pairs(quiet_fields) do
    if q and q.changed then
      set[#set + 1], set[#set + 2] = name, quiet_text(whole(q.epoch), q.streak and '1' or '0',
        q.success and whole(q.success) or '', q.failure and whole(q.failure) or '',
        counts_text(q.successes, q.failures, q.slow))
    end
  end
  if #set > 0 then
    put_quiet(key, set)
  end
end
