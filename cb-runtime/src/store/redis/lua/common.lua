-- The functions that all scripts share.

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

local function invalid(key, field, text, right)
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
    invalid(key, field, text, 'a whole number up to ' .. whole(limit))
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
    invalid(key, field, text, 'a number of milliseconds up to ' .. whole(MAX_SPAN / 1000))
  end
  return floor(value * 1000 + 0.5)
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
