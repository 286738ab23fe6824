-- Breakers as they are. KEYS: theirs. Answers each with its record and counts, an error's text, or
-- nil where there is none.
local rows = {}
for i, key in ipairs(KEYS) do
  local ok, result = pcall(read_breaker, key, FIELDS)
  if not ok then
    rows[i] = result.text or tostring(result)
  else
    rows[i] = result.exists and { answer(result) }
  end
end
return { now, rows }
