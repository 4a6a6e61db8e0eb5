-- A client connects with clean=0: what is kept of it, or a new record.
--
-- What is kept is the text `<since> <token> <record>`: since when the connection that has it has it, ms since 1970 UTC by the clock of
-- Redis, its token, and the record, '' when the client has discarded it. The sorted set holds the names of a shard by when each
-- client was last known to be connected; of one that is connected, until when it is taken to be.
--
-- KEYS: kept, sorted set of the shard
-- ARGV: name, token, new record, ms until it expires, ms for which it is taken to be connected, the most of a shard
-- Output: {0} when there is no room; {1, since, record} when it was there; {2, since} when it was not

local KEPT, SEEN, NAME = KEYS[1], KEYS[2], ARGV[1]
local BEFORE_NAME = string.sub(KEPT, 1, #KEPT - #NAME)
local REMOVED_AT_ONCE = 10
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry, most = tonumber(ARGV[4]), tonumber(ARGV[6])

local function remove(names)
  for _, name in ipairs(names) do
    redis.call('DEL', BEFORE_NAME .. name)
    redis.call('ZREM', SEEN, name)
  end
  return #names
end

local since, _, record = string.match(redis.call('GET', KEPT) or '', '^(%d+) (%S+) (.*)$')
local from = now
-- Whoever opens it last has it, whatever the clocks of two nodes say.
if since and tonumber(since) >= now then from = tonumber(since) + 1 end
from = string.format('%.0f', from)

local isPresent = record ~= nil and record ~= ''
if not isPresent then
  record = ARGV[3]
  local expired = string.format('%.0f', now - expiry)
  remove(redis.call('ZRANGE', SEEN, '-inf', expired, 'BYSCORE', 'LIMIT', 0, REMOVED_AT_ONCE))
  local over = redis.call('ZCARD', SEEN) + 1 - most
  if over > 0 and not redis.call('ZSCORE', SEEN, NAME) then
    local atOnce = math.min(over, REMOVED_AT_ONCE)
    local longest = redis.call('ZRANGE', SEEN, '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, atOnce)
    if #longest == 0 then return { 0 } end
    remove(longest)
  end
end
redis.call('SET', KEPT, from .. ' ' .. ARGV[2] .. ' ' .. record, 'PX', ARGV[4])
redis.call('ZADD', SEEN, string.format('%.0f', now + ARGV[5]), NAME)
if isPresent then return { 1, from, record } end
return { 2, from }
