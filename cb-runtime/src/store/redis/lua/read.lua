-- Reads breakers. KEYS: quiet, then one per breaker. ARGV: the prefix of leases' keys, then the breakers'
-- names. Answers each with its counts, its record and details for display, with an error's text, or with nil
-- if it does not exist.
local quiet, leases = KEYS[1], ARGV[1]
local BESIDE = { 'opened_at', 'last_failure_at', 'leader', 'leader_until_us' }
local fields = joined(FIELDS, BESIDE)

-- Only a half-open circuit hands leases out.
local function probes(b, name)
  if b.state ~= 'half-open' then
    return 0
  end
  local count = redis.pcall('ZCOUNT', leases .. name, '(' .. whole(now), '+inf')
  return type(count) == 'number' and count or 0
end

fetch_all_quiet(quiet, { unpack(ARGV, 2, #KEYS) })
local rows = {}
for i = 2, #KEYS do
  local key, name = KEYS[i], ARGV[i]
  local ok, b = pcall(read_breaker, key, fields)
  if not ok then
    rows[i - 1] = b.text or tostring(b)
  else
    local q = quiet_of(name)
    local failed_at = ''
    if q and q.epoch == b.epoch and b.state == 'closed' then
      b.exists = true
      b.successes = min(b.successes + q.successes, MAX_COUNT)
      b.failures = min(b.failures + q.failures, MAX_COUNT)
      b.slow = min(b.slow + q.slow, MAX_COUNT)
      failed_at = q.failure and whole(q.failure) or ''
      if q.success then
        merge_run(b.run, q.success, {}, MAX_STREAK)
      end
    end
    local row = b.exists and { b.successes, b.failures, b.slow, b.run.sum, record_of(b) }
    if row then
      row[#row + 1] = probes(b, name)
      row[#row + 1] = failed_at
      for _, field in ipairs(BESIDE) do
        row[#row + 1] = sub(b[field] or '', 1, 1000)
      end
    end
    rows[i - 1] = row
  end
end
return { now, rows }
