-- Gives out the units that are lost, because their lease ended without a word, to one process at a time.
--
-- Nobody can tell whether such a unit has ended, or is only cut off from here and goes on making readings durable. So it stays
-- lost, and is given out again and again, until it is back under its next tag, or for KEPT_MS.
--
-- KEYS: leases, merged through, lost
-- ARGV: name of the process, ms for which the units are its own, renewed with its lease
--       ms for which a unit that does not come back is kept
--       how many are kept: while there are more, each is given out once
-- Output: {{tag, up to when all that it made durable is merged, 1 when this is the last time}, ...}

local LEASES, MERGED, LOST = KEYS[1], KEYS[2], KEYS[3]
local PROCESS, OWN_MS, KEPT_MS, KEPT = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number)
  return string.format('%.0f', number)
end
local function unitOf(tag)
  return string.match(tag, '^(.*)%.')
end

for _, tag in ipairs(redis.call('ZRANGE', LEASES, '-inf', whole(now), 'BYSCORE', 'LIMIT', 0, 1000)) do
  redis.call('ZREM', LEASES, tag)
  redis.call('HSET', LOST, tag, whole(now) .. ' 0 ')
end
local lost, given, isBack = redis.call('HGETALL', LOST), {}, {}
if #lost == 0 then return given end
for _, tag in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do isBack[unitOf(tag)] = true end
for at = 1, #lost, 2 do
  local tag = lost[at]
  local since, owned, holder = string.match(lost[at + 1], '^(%S+) (%S+) (.*)$')
  if holder == PROCESS or tonumber(owned) <= now then
    redis.call('HSET', LOST, tag, since .. ' ' .. whole(now + OWN_MS) .. ' ' .. PROCESS)
    local isOver = isBack[unitOf(tag)] or now - tonumber(since) >= KEPT_MS or #lost > 2 * KEPT
    given[#given + 1] = { tag, redis.call('HGET', MERGED, tag) or since, isOver and 1 or 0 }
  end
end
return given
