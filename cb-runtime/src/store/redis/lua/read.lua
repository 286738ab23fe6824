-- Breakers as they are. KEYS: quiet, then theirs. ARGV: their names. Answers each with its record and counts,
-- an error's text, or nil where there is none.
parse_all_quiet(KEYS[1], { unpack(ARGV, 1, #KEYS - 1) })
local rows = {}
for i = 2, #KEYS do
  local key = KEYS[i]
  local ok, b = pcall(read_breaker, key, FIELDS)
  if not ok then
    rows[i - 1] = b.text or tostring(b)
  else
    local q = quiet_fields[ARGV[i - 1]]
    if q and q.epoch == b.epoch and b.state == 'closed' then
      b.exists = true
      b.successes = math.min(b.successes + q.successes, MAX_COUNT)
      b.failures = math.min(b.failures + q.failures, MAX_COUNT)
      b.slow = math.min(b.slow + q.slow, MAX_COUNT)
      if q.success then
        merge_run(b.run, q.success, {}, MAX_STREAK)
      end
    end
    rows[i - 1] = b.exists and { b.successes, b.failures, b.slow, b.run.sum, record_of(b) }
  end
end
return { now, rows }
