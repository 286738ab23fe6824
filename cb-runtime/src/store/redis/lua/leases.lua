-- Leases of probes: a sorted set of "<instance>/<id>" by deadline.

-- Splits a call into pieces, because Lua passes only some thousand arguments.
local function in_pieces(list, call)
  for start = 1, #list, 1000 do
    call(unpack(list, start, math.min(start + 999, #list)))
  end
end

-- Ids are strings, because they may exceed the exact integers of Lua.
local function lease(instance, id)
  return instance .. '/' .. id
end

local function settle_leases(key, instance, ask)
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
      wait = first and math.min(math.max(tonumber(first) - now, 0), MAX_SPAN) or -1
    end
  end
  if #ask.want > 0 or #ask.renew > 0 then
    local latest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
    if latest then
      local left = math.min(math.max(tonumber(latest) - now, 0), MAX_SPAN)
      redis.call('PEXPIRE', key, whole(left / 1000 + 1000))
    end
  end
  return granted, wait
end
