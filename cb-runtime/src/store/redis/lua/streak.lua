-- The failure streak of a breaker.

-- Reads a streak: "<success>|<failure>*<count>;<failure>*<count>;…", instants ascending. Instants in the
-- future are limited to now: they come from a clock that was set back (a failover), and no later one could
-- follow them. `sum`: consecutive_failures, if that has been read.
local function read_run(key, text, sum)
  local run = { failures = {}, sum = 0 }
  if not text or text == '' or text == '|' then
    text = '|'
    if (sum or 0) == 0 then
      return run
    end
  end
  local success, rest = match(text, '^(%d*)|([%d*;]*)$')
  if not success or #text > 5000 then
    invalid(key, 'run', text, 'what this library writes there')
  end
  success = number(key, 'run', success, MAX_COUNT)
  run.success = success and min(success, now)
  local length = 0
  for at, count in string.gmatch(rest, '(%d+)%*(%d+);') do
    length = length + #at + #count + 2
    at = min(number(key, 'run', at, MAX_COUNT), now)
    count = number(key, 'run', count, MAX_COUNT)
    run.failures[#run.failures + 1] = { at, count }
    run.sum = min(run.sum + count, MAX_COUNT)
  end
  if length ~= #rest or sum and run.sum ~= sum then
    invalid(key, 'run', text, 'complete: its sum and consecutive_failures differ')
  end
  return run
end

local ONE_PAIR = '%s|' .. INTEGER .. '*' .. INTEGER .. ';'
local TWO_PAIRS = ONE_PAIR .. INTEGER .. '*' .. INTEGER .. ';'

local function written_run(run)
  local parts = { run.success and whole(run.success) or '', '|' }
  for _, pair in ipairs(run.failures) do
    parts[#parts + 1] = whole(pair[1]) .. '*' .. whole(pair[2]) .. ';'
  end
  return table.concat(parts)
end

-- Merges another streak, with instants, into this one. At most `pairs_kept` pairs stay.
local function merge_run(run, success, failures, pairs_kept)
  if success then
    run.success = max(run.success or success, success)
  end
  local all = run.failures
  local count = #all
  for i = 1, #failures do
    local at, more = failures[i][1], failures[i][2]
    local place = count
    while place > 0 and all[place][1] > at do
      place = place - 1
    end
    if place > 0 and all[place][1] == at then
      all[place] = { at, min(all[place][2] + more, MAX_COUNT) }
    else
      table.insert(all, place + 1, { at, more })
      count = count + 1
    end
  end
  -- Failures before the latest success are dropped. The oldest pairs beyond the limit become one.
  local first = 1
  while run.success and first <= count and all[first][1] < run.success do
    first = first + 1
  end
  local older = 0
  while count - first + 1 > pairs_kept do
    older = min(older + all[first][2], MAX_COUNT)
    first = first + 1
  end
  local kept, sum = {}, 0
  for i = first, count do
    local pair = all[i]
    if older > 0 then
      pair = { pair[1], min(pair[2] + older, MAX_COUNT) }
      older = 0
    end
    kept[#kept + 1] = pair
    sum = min(sum + pair[2], MAX_COUNT)
  end
  run.failures, run.sum = kept, sum
end
