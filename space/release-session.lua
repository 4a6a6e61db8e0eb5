-- The last connection of a client has ended at a unit: the session is remembered for a while, for a client that comes back.
--
-- KEYS: session
-- ARGV: unit, since when it is the unit's, ms for which it is remembered from now on
-- Output: 1 when nobody served the client after this unit, 0 when another one does, -1 when it is not known any more

local unit, since, before = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+) (%S*)$')
if not unit then return -1 end
if unit ~= ARGV[1] then
  if tonumber(since) >= tonumber(ARGV[2]) then return 0 end
  before = unit
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. before, 'PX', ARGV[3])
return 1
