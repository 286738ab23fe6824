-- Leases of probes: a sorted set of "<instance>/<id>" by deadline.

-- Splits a call into pieces, because Lua passes only some thousand arguments.
local function in_pieces(list, call)
  for start = 1, #list, 1000 do
    call(unpack(list, start, min(start + 999, #list)))
  end
end

-- Ids are strings, because they may exceed the exact integers of Lua.
local function lease(instance, id)
  return instance .. '/' .. id
end

local function settle_leases(key, instance, ask)
  -- A lease that ends so far ahead was taken before the clock was set back: it ends after one more term.
  local far = {}
  local ahead = ask.term > 0 and redis.call('ZRANGEBYSCORE', key, '(' .. whole(now + 2 * ask.term), '+inf') or {}
  for _, member in ipairs(ahead) do
    far[#far + 1], far[#far + 2] = whole(now + ask.term), member
  end
  if #far > 0 then
    in_pieces(far, function(...) redis.call('ZADD', key, ...) end)
  end
  if #ask.release > 0 then
    local members = {}
    for i, id in ipairs(ask.release) do
      members[i] = lease(instance, id)
    end
    in_pieces(members, function(...) redis.call('ZREM', key, ...) end)
  end
  if #ask.renew > 0 then
    local changes = {}
    for _, id in ipairs(ask.renew) do
      changes[#changes + 1] = whole(now + ask.term)
      changes[#changes + 1] = lease(instance, id)
    end
    in_pieces(changes, function(...) redis.call('ZADD', key, 'XX', ...) end)
  end
end

local function hand_out(key, instance, ask)
  local granted, wait = {}, -1
  if #ask.want > 0 then
    local out = redis.call('ZCARD', key)
    local mine, added = {}, {}
    for _, id in ipairs(ask.want) do
      if mine[id] == nil then
        mine[id] = out > 0 and redis.call('ZSCORE', key, lease(instance, id)) and true or false
      end
      if mine[id] or out < ask.limit then
        if not mine[id] then
          out = out + 1
          mine[id] = true
        end
        granted[#granted + 1] = id
        added[#added + 1] = whole(now + ask.term)
        added[#added + 1] = lease(instance, id)
      end
    end
    in_pieces(added, function(...) redis.call('ZADD', key, ...) end)
    if #granted < #ask.want then
      local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
      wait = first and min(max(tonumber(first) - now, 0), MAX_SPAN) or -1
    end
  end
  if #ask.want > 0 or #ask.renew > 0 then
    local latest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
    if latest then
      local left = min(max(tonumber(latest) - now, 0), MAX_SPAN)
      redis.call('PEXPIRE', key, whole(left / 1000 + 1000))
    end
  end
  return granted, wait
end
