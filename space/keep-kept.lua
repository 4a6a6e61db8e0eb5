-- Keeps records of one shard, also in a Redis that has lost them; see `open-kept.lua`.
--
-- KEYS: sorted set of the shard, then kept
-- ARGV: ms until they expire, ms for which a client is taken to be connected, the most of a shard, then for each its name, since when
--       the connection has it, its token, the record, and 1 when its client is connected, 0 when it has left
-- Output: for each 1 when it is kept, 0 when another connection has it
--
-- One that is brought back is kept also when only connected clients are left to make room: each had its room before.

local SEEN = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most = tonumber(ARGV[3])
local OWN_ARGS, ARGS_EACH = 3, 5

local function makeRoom(beforeName)
  if redis.call('ZCARD', SEEN) < most then return end
  for _, longest in ipairs(redis.call('ZRANGE', SEEN, '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, 1)) do
    redis.call('DEL', beforeName .. longest)
    redis.call('ZREM', SEEN, longest)
  end
end

local reply = {}
for at = 2, #KEYS do
  local key, first = KEYS[at], OWN_ARGS + (at - 2) * ARGS_EACH + 1
  local name, since, token, record, isIn = unpack(ARGV, first, first + ARGS_EACH - 1)
  local keptSince, keptToken = string.match(redis.call('GET', key) or '', '^(%d+) (%S+) ')
  local isKept = not keptSince or keptToken == token or tonumber(keptSince) < tonumber(since)
  if not keptSince then makeRoom(string.sub(key, 1, #key - #name)) end
  if isKept then
    redis.call('SET', key, since .. ' ' .. token .. ' ' .. record, 'PX', ARGV[1])
    local seen = now
    if isIn == '1' then seen = now + ARGV[2] end
    redis.call('ZADD', SEEN, string.format('%.0f', seen), name)
  end
  reply[at - 1] = isKept and 1 or 0
end
return reply
