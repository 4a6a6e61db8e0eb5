-- The two ends of a rebuild at one shard. In between anybody may merge: readings are merged by [G4] in any order.
--
-- The marker is the fence: it goes with the shard's data when Redis is emptied, and with every doubt about them.
--
-- KEYS: meta
-- ARGV: 'begin' or 'finish', token of the rebuild
-- Output: 1 when done, 0 when the shard was emptied, or another rebuild began, since `begin`

local META, STEP, TOKEN = KEYS[1], ARGV[1], ARGV[2]

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if STEP == 'begin' then
  redis.call('HDEL', META, 'e')
  redis.call('HSET', META, 'b', TOKEN, 'r', run)
  return 1
end
local held = redis.call('HMGET', META, 'b', 'r', 'e')
if held[3] == TOKEN then return 1 end
if held[1] ~= TOKEN or held[2] ~= run then return 0 end
redis.call('HDEL', META, 'b')
redis.call('HSET', META, 'e', TOKEN)
return 1
