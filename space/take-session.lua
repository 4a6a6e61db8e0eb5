-- A unit serves an MQTT client from now on. A session is the text `<unit> <since> <unit before, or nothing>`.
--
-- KEYS: session
-- ARGV: unit, ms since 1970 of the CONNECT, ms for which it is remembered
-- Output: {the unit that had it, '' for none; since when it is the unit's; the unit before it, '' for none}

local unit, since, before = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+) (%S*)$')
local from = tonumber(ARGV[2])
-- A CONNECT is newer than what was there, whatever the clocks of two units say.
if unit and tonumber(since) >= from then from = tonumber(since) + 1 end
if unit ~= ARGV[1] then before = unit or '' end
local text = string.format('%.0f', from)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. text .. ' ' .. before, 'PX', ARGV[3])
return { unit or '', text, before }
