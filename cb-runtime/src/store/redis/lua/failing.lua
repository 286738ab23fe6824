-- Instances that have reported failures: " <instance>*<at> <instance>*<at> …", each with the time (or the
-- place in the count window) of its latest failure, latest first. Instances are percent-encoded, so they have
-- no blank or asterisk.
local FAILING_FIELDS = { 'failing' }

local function check_failing(key, field, text)
  if text == '' then
    return text
  end
  local rest, count = string.gsub(text, ' [^ *]*%*%d+', '')
  if rest ~= '' or count > MAX_FAILING or #text > 100000 then
    invalid(key, field, text, 'what this library writes there')
  end
  return text
end

local function without_failing(text, node)
  local from, to = find(text, ' ' .. node .. '*', 1, true)
  if not from then
    return text
  end
  local past = match(text, '^%d+()', to + 1)
  return sub(text, 1, from - 1) .. sub(text, past)
end

-- A time after `latest` was noted before the clock was set back.
local function note_failing(text, node, at, latest)
  local from, to = find(text, ' ' .. node .. '*', 1, true)
  if from then
    local before, past = match(text, '^(%d+)()', to + 1)
    at = max(at, min(tonumber(before), latest))
    text = sub(text, 1, from - 1) .. sub(text, past)
  end
  local place = #text + 1
  for start, other in string.gmatch(text, '() [^ *]*%*(%d+)') do
    if tonumber(other) <= at then
      place = start
      break
    end
  end
  text = sub(text, 1, place - 1) .. ' ' .. node .. '*' .. whole(at) .. sub(text, place)
  local _, count = string.gsub(text, ' ', ' ')
  if count > MAX_FAILING then
    text = match(text, '^(.*) ')
  end
  return text
end
