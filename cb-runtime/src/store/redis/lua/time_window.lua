-- Time windows. A bucket of all breakers' windows of one shape is a hash: "<epoch>:<breaker>" holds counts.
-- A bucket leaves the window by expiring. Counts of different epochs are never added.
--
-- Fields are read in one command per bucket, for all entries of a call, and written in one. A field
-- that cannot be read is lost: a window fills again faster than an operator could repair it.

-- Counts are "<successes>,<failures>,<slow>", or "<successes>" where the others are 0: most counts are, and
-- reading and writing one number costs half as much.
-- They may be larger than MAX_COUNT. Counts that cannot be read are 0.
local function counts_of(text)
  local successes, failures, slow = match(text, '^(%d+),?(%d*),?(%d*)$')
  if slow == '' then
    return failures == '' and tonumber(successes) or 0, 0, 0
  end
  return tonumber(successes) or 0, tonumber(failures) or 0, tonumber(slow) or 0
end

local COUNTS = INTEGER .. ',' .. INTEGER .. ',' .. INTEGER

local function counts_text(successes, failures, slow)
  if failures == 0 and slow == 0 then
    return whole(min(successes, MAX_COUNT))
  end
  return format(COUNTS, min(successes, MAX_COUNT), min(failures, MAX_COUNT), min(slow, MAX_COUNT))
end

-- Adds counts to stored ones.
local function sum_of(text, successes, failures, slow)
  if failures == 0 and slow == 0 then
    local sum = (tonumber(text) or -1) + successes
    if sum >= successes and sum <= MAX_COUNT and sum % 1 == 0 then
      return format(INTEGER, sum)
    end
  end
  local s, f, l = counts_of(text)
  return counts_text(s + successes, f + failures, l + slow)
end

local function window_of(length, width, prefix)
  local w = { length = length, width = width, prefix = prefix }
  w.count = math.ceil(length / width)
  w.current = floor(now / width)
  w.first = max(w.current + 1 - w.count, 0)
  w.keys, w.ages = {}, {}
  return w
end

-- Windows of one shape share their buckets: each bucket is read and written once. Length and width are texts.
local shapes = {}
local function shape_of(length, width, prefix)
  local shape = length .. '/' .. width .. ':'
  local w = shapes[shape]
  if not w then
    w = window_of(tonumber(length), tonumber(width), prefix .. shape)
    shapes[shape] = w
  end
  return w
end

-- By key: the window and the bucket, the fields to read, those that were read, and those to write.
local buckets = {}

local function bucket_of(w, bucket)
  local b = w.keys[bucket]
  if not b then
    local text = whole(bucket)
    b = { key = w.prefix .. text, head = text .. ':', wanted = {}, values = {}, changed = {} }
    -- Kept for a minute beyond its use: clocks may be set back a little.
    b.life = min(max((bucket + 1) * w.width + w.length - now, 0) / 1000 + 60000, MAX_SPAN / 1000)
    w.keys[bucket] = b
    buckets[#buckets + 1] = b
  end
  return b
end

-- The names of a bucket's fields that will be read together. Others are read one by one.
local function wanted_in(w, bucket)
  return (w.keys[bucket] or bucket_of(w, bucket)).wanted
end

local function read_fields(b, fields)
  return mended(b.key, function() return redis.pcall('HMGET', b.key, unpack(fields)) end) or {}
end

local function fetch(b, fields)
  local found, values = read_fields(b, fields), b.values
  for i = 1, #fields do
    values[fields[i]] = found[i] or false
  end
end

local function fetch_buckets()
  for _, b in ipairs(buckets) do
    if #b.wanted > 0 then
      fetch(b, b.wanted)
    end
  end
end

-- The bucket of an age before `base`; false if the window has none. Most entries of a call have one age.
local function bucket_at(w, base, age)
  local b = w.ages[age]
  if b == nil then
    local bucket = floor(max(base - age, 0) / w.width)
    b = bucket >= w.first and bucket <= w.current and bucket_of(w, bucket)
    w.ages[age] = b
  end
  return b
end

-- A breaker's counts in one bucket; false if there are none.
local function counts_in(b, field)
  local counts = b.values[field]
  if counts == nil then
    fetch(b, { field })
    counts = b.values[field]
  end
  return counts
end

-- b: false if the window has no such bucket.
local function add_to(b, field, successes, failures, slow)
  if b then
    b.values[field] = sum_of(counts_in(b, field) or 0, successes, failures, slow)
    b.changed[#b.changed + 1] = field
  end
end

-- Fields that have been read are not read again.
local function forget_wanted_buckets()
  for _, b in ipairs(buckets) do
    b.wanted = {}
  end
end

-- `set`: fields and their values.
local function put_bucket(b, set)
  redis.pcall('HSET', b.key, unpack(set))
  redis.pcall('PEXPIRE', b.key, whole(b.life))
end

local function write_buckets()
  for _, b in ipairs(buckets) do
    local set, changed, values = {}, b.changed, b.values
    for i = 1, #changed do
      local field = changed[i]
      set[2 * i - 1], set[2 * i] = field, values[field]
    end
    if #set > 0 then
      put_bucket(b, set)
    end
  end
end

-- "<bucket>:<counts>;" for each bucket that has counts. The instance ignores what it cannot read.
local function seen_buckets(w, since, field)
  local text = ''
  for bucket = max(w.first, since), w.current do
    local b = w.keys[bucket] or bucket_of(w, bucket)
    local counts = counts_in(b, field)
    if counts then
      text = text .. b.head .. counts .. ';'
    end
  end
  return text
end
