-- The position of a namespace's stream, and each instance's sequence number.

-- The position of the stream. An incarnation begins if there is none: at first, and after a loss of data.
local function read_position(meta, events, fresh)
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
    return begin(not ok and place.text or 'an incarnation, a number or a last_id is missing or invalid')
  end
  place.due = math.abs(now - place.touched) > RENEW
  if place.due then
    redis.pcall('HSET', meta, 'touched_at', whole(now / 1000))
  end
  return place
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
