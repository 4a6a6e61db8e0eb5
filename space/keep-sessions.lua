-- Keeps sessions of one shard in mind, and finds those that another unit serves by now.
--
-- KEYS: sessions
-- ARGV: unit, ms for which they are remembered from now on
-- Output: {sessions that another unit has, by number, from 1}. One that nobody has becomes the unit's own.

local taken = {}
for at, key in ipairs(KEYS) do
  local unit = redis.call('GET', key)
  if unit and unit ~= ARGV[1] then taken[#taken + 1] = at else redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end
end
return taken
