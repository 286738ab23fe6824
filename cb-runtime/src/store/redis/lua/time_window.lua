-- Time windows. Buckets come as { number, successes, failures, slow }.

-- A window is a ring: slot i mod n holds bucket i as "<i>:<successes>,<failures>,<slow>".
local function read_window(key, ask, epoch, buckets)
  local w = { key = key, slots = {}, changed = {}, late = 0, touched = 0 }
  w.count = math.ceil(ask.length / ask.width)
  w.current = math.floor(now / ask.width)
  w.first = math.max(w.current + 1 - w.count, 0)
  w.since = math.max(w.first, ask.since)
  local fields, seen = { 'epoch', 'late', 'touched_at' }, {}
  local function want(bucket)
    local slot = bucket % w.count
    if not seen[slot] then
      seen[slot] = true
      fields[#fields + 1] = whole(slot)
    end
  end
  for bucket = w.since, w.current do
    want(bucket)
  end
  for _, b in ipairs(buckets) do
    if b[1] >= w.first then
      want(b[1])
    end
  end
  local f = use(key, redis.pcall('HMGET', key, unpack(fields)))
  w.fresh = number(key, 'epoch', f[1], MAX_EPOCH) ~= epoch
  if w.fresh then
    return w
  end
  w.late = number(key, 'late', f[2], MAX_COUNT) or 0
  w.touched = (number(key, 'touched_at', f[3], MAX_COUNT / 1000) or 0) * 1000
  for i = 4, #fields do
    local text = f[i]
    if text then
      local bucket, successes, failures, slow = string.match(text, '^(%d+):(%d+),(%d+),(%d+)$')
      if not bucket or (tonumber(bucket) or 0) % w.count ~= tonumber(fields[i]) then
        odd(key, 'bucket', text, 'what this library writes there')
      end
      bucket = number(key, 'bucket', bucket, MAX_COUNT)
      if bucket >= w.first and bucket <= w.current then
        w.slots[bucket] = {
          number(key, 'bucket', successes, MAX_COUNT),
          number(key, 'bucket', failures, MAX_COUNT),
          number(key, 'bucket', slow, MAX_COUNT),
        }
      end
    end
  end
  return w
end

local function merge_buckets(w, buckets)
  local late = false
  for _, b in ipairs(buckets) do
    local bucket = b[1]
    if bucket >= w.first then
      local sums = w.slots[bucket] or { 0, 0, 0 }
      for i = 1, 3 do
        sums[i] = math.min(sums[i] + b[i + 1], MAX_COUNT)
      end
      w.slots[bucket] = sums
      w.changed[bucket] = true
      late = late or bucket + 1 < w.current
    end
  end
  if late then
    w.late = w.late + 1
  end
end

local function write_window(w, ask, epoch)
  local set = {}
  for bucket in pairs(w.changed) do
    local sums = w.slots[bucket]
    set[#set + 1] = whole(bucket % w.count)
    set[#set + 1] = whole(bucket) .. ':' .. whole(sums[1]) .. ',' .. whole(sums[2]) .. ',' .. whole(sums[3])
  end
  if #set == 0 then
    return
  end
  if w.fresh then
    redis.call('DEL', w.key)
    set[#set + 1], set[#set + 2] = 'epoch', whole(epoch)
  end
  set[#set + 1], set[#set + 2] = 'late', whole(w.late)
  local due = math.abs(now - w.touched) > RENEW
  if due then
    set[#set + 1], set[#set + 2] = 'touched_at', whole(now / 1000)
  end
  redis.call('HSET', w.key, unpack(set))
  if due then
    redis.call('PEXPIRE', w.key, whole(math.min(ask.length, MAX_SPAN) / 1000 + 600000))
  end
end

local function seen_buckets(w)
  local list = {}
  for bucket = w.since, w.current do
    local sums = w.slots[bucket]
    if sums then
      list[#list + 1] = { bucket, sums[1], sums[2], sums[3] }
    end
  end
  return { w.late, list }
end
