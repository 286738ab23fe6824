-- Handles all other entries, and answers.

-- Names the fields that the entries will read, so that few commands read them.
forget_wanted_buckets()
local all = {}
for i, e in ipairs(batch.entries) do
  all[i] = e.name
  if e.window then
    e.of_epoch = e.known and e.known.epoch or 0
    local w = shape_of(whole(e.window.length), whole(e.window.width), batch.windows)
    local field = whole(e.of_epoch) .. ':' .. e.name
    e.shape, e.field = w, field
    for bucket = max(w.first, e.window.since), w.current do
      table.insert(wanted_in(w, bucket), field)
    end
    for _, bucket in ipairs(e.buckets or NONE) do
      bucket[1] = floor(max(base - bucket[1], 0) / w.width)
      if bucket[1] >= w.first and bucket[1] < e.window.since then
        table.insert(wanted_in(w, bucket[1]), field)
      end
    end
  end
end
fetch_all_quiet(quiet, all)
fetch_quiet_windows(quiet, batch.entries)
fetch_buckets()

local at = 7
for _, e in ipairs(batch.entries) do
  local key, leases_key, last_key
  if e.is_left_over then
    key, leases_key = batch.prefix .. e.name, batch.leases .. e.name
  else
    key, leases_key = KEYS[at], KEYS[at + 1]
    at = at + 2
  end
  if e.last then
    last_key = KEYS[at]
    at = at + 1
  end
  count = count + 1
  local ok, result = pcall(exchange, e, key, leases_key, last_key)
  if ok then
    views[count] = 1
    for place_of, value in ipairs(result) do
      views[count + place_of] = value
    end
    count = count + #result
  elseif type(result) == 'table' then
    views[count] = result.text or result.err
  else
    views[count] = key .. ' could not be used: ' .. tostring(result)
  end
end

give_notice(meta, batch.notices, place)
write_buckets()
local set = {}
for field in pairs(quiet_windows_changed) do
  if quiet_windows[field] then
    set[#set + 1], set[#set + 2] = field, quiet_windows[field]
  else
    without_quiet[#without_quiet + 1] = field
  end
end
write_quiet(quiet, without_quiet, set)
if announced then
  redis.call('HSET', meta, 'number', whole(place.number), 'last_id', place.id)
  if batch.retention then
    redis.call('HSET', meta, 'retention', whole(batch.retention[1]) .. '|' .. whole(batch.retention[2]))
  end
end
if shared_due then
  keep(meta, held, names, batch.prefix)
end
return answer()
