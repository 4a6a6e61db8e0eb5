#!lua flags=allow-oom
-- Who lives: renews the lease of a unit, and lists the units that have one. By the clock of Redis alone.
--
-- A unit whose tag was given out for repair, or went with an emptied Redis, is not renewed: it must come back under a new
-- tag, and tell its devices anew. The tag that it had before is given out for repair a last time then.
--
-- A process also leaves a mark of what it knows, for as long as a lease: one of a newer version looks for those that have none.
--
-- Also out of memory: without their leases all devices would show as offline, and it takes a few fields for each unit.
--
-- KEYS: leases, merged through, lost, marks
-- ARGV: tag of the unit, '' for a process that only asks
--       ms of the lease
--       up to when all that the unit took is merged, ms
--       '1' to begin with this tag
--       the tag that the unit had before, '' for none
--       name of the process, and ms for which the lost units that it has are its own
--       mark of the process
-- Output: {1 when renewed, living tags...}

local LEASES, MERGED, LOST, MARKS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local TAG, LEASE_MS, THROUGH, BEGINS, BEFORE, PROCESS, OWN_MS, MARK = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]

-- Lua's stack holds 8000.
local UNITS_MAX = 4000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function after(ms)
  return string.format('%.0f', now + tonumber(ms))
end

if BEFORE ~= '' and redis.call('ZREM', LEASES, BEFORE) == 1 then
  redis.call('HSET', LOST, BEFORE, after(0) .. ' 0 ')
  redis.call('HSETNX', MERGED, BEFORE, THROUGH)
end
local renewed = 0
if BEGINS == '1' and redis.call('ZCARD', LEASES) >= UNITS_MAX then
  -- So many ended and no reader has run since: the one that ended longest ago is forgotten.
  redis.call('HDEL', MERGED, redis.call('ZPOPMIN', LEASES)[1])
end
-- One that began without hearing so may be lost already.
local begins = BEGINS == '1' and redis.call('HEXISTS', LOST, TAG) == 0
if TAG ~= '' and (begins or redis.call('ZSCORE', LEASES, TAG)) then
  redis.call('ZADD', LEASES, after(LEASE_MS), TAG)
  redis.call('HSET', MERGED, TAG, THROUGH)
  renewed = 1
end
redis.call('ZADD', MARKS, after(LEASE_MS), MARK)
redis.call('ZREMRANGEBYSCORE', MARKS, '-inf', after(0))
local lost = redis.call('HGETALL', LOST)
for at = 1, #lost, 2 do
  local since, _, holder = string.match(lost[at + 1], '^(%S+) (%S+) (.*)$')
  if holder == PROCESS then redis.call('HSET', LOST, lost[at], since .. ' ' .. after(OWN_MS) .. ' ' .. holder) end
end
return { renewed, unpack(redis.call('ZRANGE', LEASES, '(' .. string.format('%.0f', now), '+inf', 'BYSCORE', 'LIMIT', 0, UNITS_MAX)) }
