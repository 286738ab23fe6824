-- One exchange: see Store::exchange, and Batch for what the fields mean. KEYS: meta, events, held, names, the
-- instance's sequence, quiet; then for each entry of the batch its breaker, its leases and, if it asks for
-- them, its last calls. ARGV[1]: the batch, as JSON. Then follow, if there are any, 'open' and what an
-- opening takes, or 'count' and the entries that only have counts. No more, because an empty batch has to
-- have ten arguments at most: a server that wants a password first says so only up to there.
local retry, refused = settle_sequence(sequence, batch.seq)
if refused then
  return refused
end
local place = read_position(meta, events, batch.fresh)
local announced = false
local shared_due = place.due
local base = base_of(batch.as_of)

local NONE = {}
-- Breakers whose reported counts have ended with their epoch, or have moved.
local without_quiet = {}

-- One list for all: each table in an answer costs Redis as much as a dozen numbers.
local views, count = {}, 0

local function answer()
  return { now, { place.incarnation, place.id, place.number }, warnings, views }
end
