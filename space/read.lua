-- Reads devices of one shard.
--
-- KEYS: device hashes
-- ARGV: fields that are read at most, more only if the first device alone has more
-- Output: {{field, value, ...}, ...} of the first devices of KEYS, as many as have so few fields together

local fieldsMax, fields = tonumber(ARGV[1]), 0
local states = {}
for at, key in ipairs(KEYS) do
  fields = fields + redis.call('HLEN', key)
  if at > 1 and fields > fieldsMax then break end
  states[at] = redis.call('HGETALL', key)
end
return states
