-- Reads devices of one shard, and whether they may be believed.
--
-- KEYS: meta, then the device hashes
-- ARGV: fields that are read at most, more only if the first device alone has more
-- Output: {epoch or '', {field, value, ...}, ...} of the first devices of KEYS, as many as have so few fields together

local OWN_KEYS = 1
local fieldsMax, fields = tonumber(ARGV[1]), 0
local answer = { redis.call('HGET', KEYS[1], 'e') or '' }
for at = OWN_KEYS + 1, #KEYS do
  fields = fields + redis.call('HLEN', KEYS[at])
  if at > OWN_KEYS + 1 and fields > fieldsMax then break end
  answer[at] = redis.call('HGETALL', KEYS[at])
end
return answer
