-- Which instances have reported failures: " <instance>*<at> <instance>*<at> …", each with the instant (or the place
-- among the last calls) of its latest failure, the latest first. Instances are percent-encoded: no blank, no asterisk.
local FAILING_FIELDS = { 'failing' }

local function check_failing(key, field, text)
  if text == '' then
    return text
  end
  local rest, count = string.gsub(text, ' [^ *]*%*%d+', '')
  if rest ~= '' or count > MAX_FAILING or #text > 100000 then
    odd(key, field, text, 'what this library writes there')
  end
  return text
end

-- What is later than `latest` was noted before a clock was set back.
local function note_failing(text, instance, at, latest)
  local from, to = string.find(text, ' ' .. instance .. '*', 1, true)
  if from then
    local before, past = string.match(text, '^(%d+)()', to + 1)
    at = math.max(at, math.min(tonumber(before), latest))
    text = string.sub(text, 1, from - 1) .. string.sub(text, past)
  end
  local place = #text + 1
  for start, other in string.gmatch(text, '() [^ *]*%*(%d+)') do
    if tonumber(other) <= at then
      place = start
      break
    end
  end
  text = string.sub(text, 1, place - 1) .. ' ' .. instance .. '*' .. whole(at) .. string.sub(text, place)
  local _, count = string.gsub(text, ' ', ' ')
  if count > MAX_FAILING then
    text = string.match(text, '^(.*) ')
  end
  return text
end
