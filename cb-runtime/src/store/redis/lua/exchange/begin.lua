-- One exchange: see Store::exchange, and Batch for what the fields mean. KEYS: meta, events, held, names, the
-- instance's sequence, quiet; then for each entry its breaker, its leases and, if it asks for them, its last
-- calls. ARGV[1]: the batch, as JSON. No more but for an opening, because an empty batch has to have ten
-- arguments at most: a server that wants a password first says so only up to there.
local retry, refused = settle_sequence(sequence, batch.seq)
if refused then
  return refused
end
local place = stand(meta, events, batch.fresh)
local announced = false
local shared_due = place.due
local base = base_of(batch.as_of)

local NONE = {}

-- Announces the fields that the entries will read, so that few commands read them: the entries of a batch
-- mostly have windows of one shape.
local shapes, latest = {}, {}
local function shape_of(ask)
  if ask.length == latest.length and ask.width == latest.width then
    return latest
  end
  local shape = whole(ask.length) .. '/' .. whole(ask.width) .. ':'
  shapes[shape] = shapes[shape] or window_of(ask.length, ask.width, batch.windows .. shape)
  latest = shapes[shape]
  return latest
end
local all, without_quiet = {}, {}
for i, e in ipairs(batch.entries) do
  all[i] = e.name
  if e.window then
    e.of_epoch = e.known and e.known.epoch or 0
    local w, field = shape_of(e.window), whole(e.of_epoch) .. ':' .. e.name
    e.shape, e.field = w, field
    for bucket = max(w.first, e.window.since), w.current do
      want_bucket(w, bucket, field)
    end
    for _, bucket in ipairs(e.buckets or NONE) do
      bucket[1] = floor(max(base - bucket[1], 0) / w.width)
      if bucket[1] >= w.first and bucket[1] < e.window.since then
        want_bucket(w, bucket[1], field)
      end
    end
  end
end
parse_all_quiet(quiet, all)
fetch_quiet_windows(quiet, batch.entries)
fetch_buckets()
