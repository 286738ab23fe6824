-- Notices: a stream of the names of breakers of which all instances are to report without delay. A breaker's
-- hash holds noticed_us, the time of its latest notice; meta holds noticed, "<second>|<notices in it>".
local NOTICE_FIELDS = { 'noticed_us' }
local KEPT_NOTICES = 100

local function may_notify(meta)
  local text = redis.pcall('HGET', meta, 'noticed')
  local second, given = match(type(text) == 'string' and text or '', '^(%d+)|(%d+)$')
  local this = whole(floor(now / 1000000))
  given = second == this and tonumber(given) or 0
  if given >= MAX_NOTICES then
    return false
  end
  redis.pcall('HSET', meta, 'noticed', this .. '|' .. whole(given + 1))
  return true
end

-- Returns whether all instances have been asked.
local function notify(meta, notices, name, noticed)
  local age = now - (tonumber(noticed) or 0)
  if (age >= 0 and age < NOTICE * 500000) or not may_notify(meta) then
    return false
  end
  mended(notices, function() return redis.pcall('XADD', notices, 'MAXLEN', '~', KEPT_NOTICES, '*', 'name', name) end)
  redis.pcall('EXPIRE', notices, IDLE)
  return true
end
