-- The leader lease of a breaker's health checks: leader, leader_token and leader_until_us in the breaker's
-- hash. It is independent of epochs.
local ROLE_FIELDS = { 'leader', 'leader_token', 'leader_until_us' }

local function read_role(key, b)
  local role = {
    holder = b.leader or '',
    -- Leaves room for a larger token.
    token = number(key, 'leader_token', b.leader_token, MAX_COUNT - 1) or 0,
    ends = number(key, 'leader_until_us', b.leader_until_us, MAX_COUNT) or 0,
  }
  if #role.holder > 1000 then
    invalid(key, 'leader', role.holder, 'the name of an instance')
  end
  -- A deadline beyond the longest term means that the clock was set back.
  if role.ends > now + MAX_ROLE_TERM then
    role.ends = 0
  end
  return role
end

local function has_role(role, instance)
  return role.holder == instance and role.ends > now
end

local function take_role(role, instance, term)
  if role.holder ~= '' and role.ends > now then
    if role.holder ~= instance then
      return
    end
  else
    role.token = max(role.token + 1, now)
  end
  role.holder, role.ends = instance, now + min(term, MAX_ROLE_TERM)
  role.taken, role.changed = true, true
end

local function give_role_up(role, instance)
  if role.holder == instance then
    role.holder, role.ends, role.changed = '', 0, true
  end
end

local function put_role(role, put)
  if role.changed then
    put('leader', role.holder)
    put('leader_token', whole(role.token))
    put('leader_until_us', role.holder ~= '' and whole(role.ends) or '')
  end
end

local function seen_role(role, instance)
  local held = role.holder ~= '' and role.ends > now
  return { has_role(role, instance) and 1 or 0, role.token, held and role.ends - now or 0 }
end
