-- A unit serves an MQTT client from now on.
--
-- KEYS: session
-- ARGV: unit, ms for which it is remembered
-- Output: the unit that had it, '' for none

local had = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return had or ''
