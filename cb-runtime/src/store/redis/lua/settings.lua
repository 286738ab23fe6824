-- Settings summaries of instances: the latest, and "<expiry>|<previous summary>".
local SETTINGS_FIELDS = { 'settings', 'settings_before' }

local function read_settings(key, b)
  local s = { latest = b.settings or '', before = b.settings_before or '' }
  if #s.latest > MAX_SETTINGS then
    invalid(key, 'settings', s.latest, 'at most ' .. MAX_SETTINGS .. ' bytes long')
  end
  if s.before ~= '' then
    local ends, text = match(s.before, '^(%d+)|(.*)$')
    if not ends or #text > MAX_SETTINGS then
      invalid(key, 'settings_before', s.before, 'what this library writes there')
    end
    s.ends, s.before = number(key, 'settings_before', ends, MAX_COUNT), text
  end
  return s
end

local function say_settings(s, said)
  if s.latest ~= said then
    s.before, s.ends = s.latest, now
    s.latest, s.changed = said, true
  end
end

local function put_settings(s, put)
  if s.changed then
    put('settings', s.latest)
    if s.before ~= '' then
      put('settings_before', whole(s.ends) .. '|' .. s.before)
    end
  end
end

local function seen_settings(s)
  return s.before ~= '' and now - s.ends < SAID_FOR * 1000000 and s.before
end
