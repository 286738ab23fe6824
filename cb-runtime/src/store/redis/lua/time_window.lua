-- Time windows. A bucket of all breakers' windows of one shape is a hash: "<epoch>:<breaker>" holds
-- "<successes>,<failures>,<slow>". A bucket leaves by expiring; an epoch's counts never meet another's.
--
-- Fields are read in one command per bucket, for all entries of a call, and written in one. What cannot be
-- read is lost: a window is counted anew faster than anybody could put it right by hand.

local buckets = { keys = {}, wanted = {}, values = {}, changed = {} }

local function window_of(shape, prefix)
  local w = { length = shape.length, width = shape.width, prefix = prefix }
  w.count = math.ceil(shape.length / shape.width)
  w.current = math.floor(now / shape.width)
  w.first = math.max(w.current + 1 - w.count, 0)
  return w
end

local function bucket_key(w, bucket)
  local key = w.prefix .. whole(bucket)
  if not buckets.keys[key] then
    -- Kept for a minute beyond its use: clocks may be set back a little.
    buckets.keys[key] = math.max((bucket + 1) * w.width + w.length - now, 0) / 1000 + 60000
    buckets.wanted[key], buckets.values[key], buckets.changed[key] = {}, {}, {}
  end
  return key
end

-- Names a field that will be read. Fields that have not been named are read one by one.
local function want_bucket(w, bucket, field)
  local wanted = buckets.wanted[bucket_key(w, bucket)]
  wanted[#wanted + 1] = field
end

local function sums_of(text)
  local successes, failures, slow = string.match(text or '', '^(%d+),(%d+),(%d+)$')
  if not successes then
    return { 0, 0, 0 }
  end
  return {
    math.min(tonumber(successes), MAX_COUNT), math.min(tonumber(failures), MAX_COUNT),
    math.min(tonumber(slow), MAX_COUNT),
  }
end

local function fetch(key, fields)
  local found = mended(key, function() return redis.pcall('HMGET', key, unpack(fields)) end) or {}
  for i, field in ipairs(fields) do
    local text = found[i]
    buckets.values[key][field] = text and sums_of(text) or false
  end
end

local function fetch_buckets()
  for key, fields in pairs(buckets.wanted) do
    if #fields > 0 then
      fetch(key, fields)
    end
  end
end

-- The sums of one bucket; false if it holds none.
local function bucket_sums(w, bucket, field)
  local key = bucket_key(w, bucket)
  if buckets.values[key][field] == nil then
    fetch(key, { field })
  end
  return buckets.values[key][field]
end

local function add_to_bucket(w, bucket, field, successes, failures, slow)
  if bucket < w.first or bucket > w.current then
    return
  end
  local key = bucket_key(w, bucket)
  local sums = bucket_sums(w, bucket, field) or { 0, 0, 0 }
  sums[1] = math.min(sums[1] + successes, MAX_COUNT)
  sums[2] = math.min(sums[2] + failures, MAX_COUNT)
  sums[3] = math.min(sums[3] + slow, MAX_COUNT)
  buckets.values[key][field], buckets.changed[key][field] = sums, sums
end

local function write_buckets()
  for key, changed in pairs(buckets.changed) do
    local set = {}
    for field, sums in pairs(changed) do
      set[#set + 1] = field
      set[#set + 1] = whole(sums[1]) .. ',' .. whole(sums[2]) .. ',' .. whole(sums[3])
    end
    if #set > 0 then
      redis.pcall('HSET', key, unpack(set))
      redis.pcall('PEXPIRE', key, whole(math.min(buckets.keys[key], MAX_SPAN / 1000)))
    end
  end
end

local function seen_buckets(w, since, field)
  local list = {}
  for bucket = math.max(w.first, since), w.current do
    local sums = bucket_sums(w, bucket, field)
    if sums then
      list[#list + 1] = { bucket, sums[1], sums[2], sums[3] }
    end
  end
  return list
end
