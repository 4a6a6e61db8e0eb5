-- Gives out a unit whose lease ended without a word, to one process at a time.
--
-- KEYS: leases, merged through, lost
-- ARGV: name of the process, ms for which the unit is its own, renewed with its lease
-- Output: {tag, up to when all that it took is merged}, or {} when there is none

local LEASES, MERGED, LOST = KEYS[1], KEYS[2], KEYS[3]
local PROCESS, OWN_MS = ARGV[1], tonumber(ARGV[2])

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, tag in ipairs(redis.call('ZRANGE', LEASES, '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, 1000)) do
  redis.call('ZREM', LEASES, tag)
  redis.call('HSET', LOST, tag, (redis.call('HGET', MERGED, tag) or '0') .. ' 0 ')
  redis.call('HDEL', MERGED, tag)
end
local lost = redis.call('HGETALL', LOST)
for at = 1, #lost, 2 do
  local through, owned, holder = string.match(lost[at + 1], '^(%S+) (%S+) (.*)$')
  if holder == PROCESS or tonumber(owned) <= now then
    redis.call('HSET', LOST, lost[at], through .. ' ' .. string.format('%.0f', now + OWN_MS) .. ' ' .. PROCESS)
    return { lost[at], through }
  end
end
return {}
