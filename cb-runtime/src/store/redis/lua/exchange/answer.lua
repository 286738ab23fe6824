-- Handles all entries, and answers.

local function tells_counts_only(e)
  return e.known and not (e.proposal or e.leases or e.role or e.failing or e.leaves or e.last or e.notice)
end

-- One list for all: each table in an answer costs Redis as much as a dozen numbers.
local views, count = {}, 0
local at = 7
for _, e in ipairs(batch.entries) do
  local last_key
  local key, leases_key = KEYS[at], KEYS[at + 1]
  at = at + 2
  if e.last then
    last_key = KEYS[at]
    at = at + 1
  end
  count = count + 1
  local age, window, successes, failures, slow, sum, record
  if tells_counts_only(e) then
    age, window, successes, failures, slow, sum, record = exchange_counts(e, key)
  end
  local ok, result = true, nil
  if not age then
    ok, result = pcall(exchange, e, key, leases_key, last_key)
  end
  if age then
    views[count], views[count + 1], views[count + 2] = record and 3 or 2, age, window
    views[count + 3], views[count + 4], views[count + 5], views[count + 6] = successes, failures, slow, sum
    count = count + 6
    for i = 1, record and #record or 0 do
      views[count + i] = record[i]
    end
    count = count + (record and #record or 0)
  elseif ok then
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
return { now, { place.incarnation, place.id, place.number }, warnings, views }
