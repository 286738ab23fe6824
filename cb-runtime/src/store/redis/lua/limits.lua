-- The clock and the limits of all scripts. Scripts merge counts, compare epochs and hand out leases; they
-- make no decisions.
--
-- Instants are microseconds since 1970. They have 16 digits, more than tostring() writes.
-- Scripts check what they read, because other programs can write to the same Redis.

-- Library functions as locals: a look-up in a global table costs as much as a call.
local format, sub, match, find = string.format, string.sub, string.match, string.find
local abs, floor, max, min = math.abs, math.floor, math.max, math.min

-- Lua writes an integer twice as fast as a number with a point. On a server with 32 bits, it has too few.
local INTEGER = format('%d', 9007199254740991) == '9007199254740991' and '%d' or '%.0f'

-- Writes a number that is not negative, to the nearest integer.
local function whole(number)
  return format(INTEGER, number % 1 == 0 and number or floor(number + 0.5))
end

-- Writes microseconds as milliseconds.
local function milliseconds(us)
  if us % 1000 == 0 then
    return whole(us / 1000)
  end
  return format('%.3f', us / 1000)
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local MAX_COUNT = 9007199254740991
local MAX_SPAN = 3155760000000000
local MAX_EPOCH = 1000000000000000
local MAX_EVENTS = 1000
local MAX_STREAK = 64
local MAX_REASON = 200
local MAX_FAILING = 32
local MAX_ROLE_TERM = 10000000
local MAX_SETTINGS = 600
local IDLE = 3600
-- `meta` lives for this long after its last use, so that an instance that was away can tell what has expired
-- from what was lost.
local REMEMBERED = 604800
local SAID_FOR = 180
local NOTICE = 10
local NOTICE_PAUSE = 100000
-- The shortest interval between two renewals of a key's time to live, in microseconds.
local RENEW = 300000000

local STATES = {
  ['closed'] = true, ['open'] = true, ['half-open'] = true,
  ['forced-open'] = true, ['disabled'] = true, ['metrics-only'] = true,
}
