-- Notices: a stream of the names of breakers of which all instances are to report without delay. A breaker's
-- hash holds noticed_us, when the latest one is or was given; meta holds noticed, "<when the latest was
-- given>|<names that wait for the next>". An exchange gives the next one, if it is due.
local NOTICE_FIELDS = { 'noticed_us' }
local KEPT_NOTICES = 100
-- In bytes.
local MAX_WAITING = 16000

-- When the next notice is due.
local function next_notice(place)
  if not place.notice_at then
    local latest, waiting = match(place.noticed or '', '^(%d+)|([^|]*)$')
    latest = tonumber(latest) or 0
    place.noticed_at = latest <= now and latest or 0
    place.notice_at = max(now, place.noticed_at + NOTICE_PAUSE)
    place.waiting = waiting or ''
  end
  return place.notice_at
end

-- Adds a breaker to the next notice, unless there was one recently. Returns when it is given.
local function request_notice(place, name, noticed)
  local age, at = now - (tonumber(noticed) or 0), next_notice(place)
  if (age >= -NOTICE_PAUSE and age < NOTICE * 500000) or #place.waiting > MAX_WAITING then
    return nil
  end
  place.waiting = place.waiting == '' and name or place.waiting .. ' ' .. name
  place.asked = true
  return at
end

local function give_notice(meta, notices, place)
  if not place.noticed and not place.asked then
    return
  end
  local at = next_notice(place)
  if place.waiting ~= '' and at <= now then
    local names = place.waiting
    local id = mended(notices, function()
      return redis.pcall('XADD', notices, 'MAXLEN', '~', KEPT_NOTICES, '*', 'names', names)
    end)
    warnings[#warnings + 1] = id and publish(notices, id, { 'names', names })
    redis.pcall('EXPIRE', notices, IDLE)
    redis.pcall('HSET', meta, 'noticed', whole(now) .. '|')
  elseif place.asked then
    redis.pcall('HSET', meta, 'noticed', whole(place.noticed_at) .. '|' .. place.waiting)
  end
end
