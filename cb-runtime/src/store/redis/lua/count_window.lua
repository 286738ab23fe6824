-- Count windows: one letter per call, oldest first. s = success, f = failure, capital = slow.
--
-- A breaker that has only succeeded has no key of its own. Of its window, the number of its calls is enough:
-- `quiet` has it as " <calls>:<name>" = "<epoch>|<place>|<last use in ms>". Names do not begin with a space.
-- The first other outcome moves the window to its key.
local quiet_windows, quiet_windows_changed = {}, {}

local function quiet_window_field(ask, name)
  return ' ' .. whole(ask.calls) .. ':' .. name
end

local function fetch_quiet_windows(key, entries)
  local fields = {}
  for _, e in ipairs(entries) do
    if e.last then
      fields[#fields + 1] = quiet_window_field(e.last, e.name)
    end
  end
  for i, text in ipairs(fetch_quiet(key, fields)) do
    quiet_windows[fields[i]] = text
  end
end

local function put_quiet_window(field, text)
  quiet_windows[field], quiet_windows_changed[field] = text, true
end

-- Reads the window from `quiet` if it has no key. One that cannot be read is lost.
local function read_quiet_window(l, name, epoch)
  l.field = quiet_window_field(l, name)
  local written, place, used = match(quiet_windows[l.field] or '', '^(%d+)|(%d+)|(%d+)$')
  place, used = tonumber(place), tonumber(used)
  if l.fresh and tonumber(written) == epoch and place <= MAX_COUNT and abs(now - used * 1000) < IDLE * 1000000 then
    l.place, l.outcomes, l.touched, l.is_quiet = place, string.rep('s', min(place, l.calls)), used * 1000, true
  end
end

local function are_successes(calls)
  for _, run in ipairs(calls) do
    if run[1] ~= 's' then
      return false
    end
  end
  return true
end

local function read_last(key, ask, epoch)
  local l = { key = key, calls = ask.calls, since = ask.since, place = 0, outcomes = '', failing = '', touched = 0 }
  local f = use(key, redis.pcall('HMGET', key, 'epoch', 'place', 'outcomes', 'failing', 'touched_at'))
  l.fresh = number(key, 'epoch', f[1], MAX_EPOCH) ~= epoch
  if l.fresh then
    return l
  end
  l.place = number(key, 'place', f[2], MAX_COUNT) or 0
  l.outcomes = f[3] or ''
  if not find(l.outcomes, '^[sfSF]*$') then
    invalid(key, 'outcomes', l.outcomes, 'a row of the letters s, f, S and F')
  elseif #l.outcomes ~= min(l.place, l.calls) then
    invalid(key, 'outcomes', l.outcomes, 'as long as place says')
  end
  l.failing = check_failing(key, 'failing', f[4] or '')
  l.touched = (number(key, 'touched_at', f[5], MAX_COUNT / 1000) or 0) * 1000
  return l
end

-- Appends calls, each { letter, count }, oldest first. `noted`: the instance, if its latest failure is kept.
local function append_calls(l, calls, noted)
  local failed
  for _, run in ipairs(calls) do
    l.place = min(l.place + run[2], MAX_COUNT)
    if run[1] == 'f' or run[1] == 'F' then
      failed = l.place
    end
  end
  local parts, first, room = {}, #calls + 1, l.calls
  while first > 1 and room > 0 do
    first = first - 1
    local count = min(calls[first][2], room)
    parts[first] = string.rep(calls[first][1], count)
    room = room - count
  end
  l.outcomes = (room > 0 and sub(l.outcomes, -room) or '') .. table.concat(parts, '', first, #calls)
  if failed and noted then
    l.failing = note_failing(l.failing, noted, failed, l.place)
  end
  l.changed = true
end

local function write_last(l, epoch)
  if l.fresh and not l.changed then
    return
  end
  local set = {}
  if l.changed then
    set = { 'place', whole(l.place), 'outcomes', l.outcomes, 'failing', l.failing }
  end
  if l.fresh then
    redis.call('DEL', l.key)
    set[#set + 1], set[#set + 2] = 'epoch', whole(epoch)
  end
  local due = math.abs(now - l.touched) > RENEW
  if due then
    set[#set + 1], set[#set + 2] = 'touched_at', whole(now / 1000)
  end
  if #set > 0 then
    redis.call('HSET', l.key, unpack(set))
  end
  if due then
    redis.call('EXPIRE', l.key, IDLE)
  end
end

-- `kept`: the breaker has a key of its own.
local function write_window(l, epoch, kept)
  if not l.fresh or kept then
    if quiet_windows[l.field] then
      put_quiet_window(l.field, false)
    end
    if l.is_quiet then
      l.changed, l.touched = true, 0
    end
    write_last(l, epoch)
  elseif l.changed or l.is_quiet and abs(now - l.touched) > RENEW then
    put_quiet_window(l.field, whole(epoch) .. '|' .. whole(l.place) .. '|' .. whole(now / 1000))
  end
end

local function seen_calls(l, failing)
  local count = #l.outcomes
  if l.since <= l.place then
    count = min(l.place - l.since, count)
  end
  return { l.place, sub(l.outcomes, #l.outcomes - count + 1), failing and l.failing or false }
end
