-- A client has discarded what was kept of it; see `open-kept.lua`. A connection that had it, and does not know, brings it back no
-- more for a while.
--
-- KEYS: kept, sorted set of the shard
-- ARGV: name, token, ms for which that is remembered, and up to when a connection may have opened it to lose it, ms since 1970 UTC,
--       '' for any; one with this token loses it always
-- Output: 1

local since, token = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%S+) ')
if not since then return 1 end
if ARGV[4] ~= '' and token ~= ARGV[2] and tonumber(since) > tonumber(ARGV[4]) then return 1 end
local time = redis.call('TIME')
local from = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(since) + 1)
redis.call('SET', KEYS[1], string.format('%.0f', from) .. ' ' .. ARGV[2] .. ' ', 'PX', ARGV[3])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
