-- Takes devices of one shard out of the online ones that a lost unit has left there.
--
-- Their presence stays as it was told: its tag lives no more, so it reads as offline, and the unit, should it wake, can tell
-- the same presence again under its next tag.
--
-- KEYS: meta, online, then the device hashes
-- ARGV: tag of the unit, ids of the devices as JSON
-- Output: {1 when others watch, {devices that are offline by it, by number, from 1}}

local META, ONLINE, TAG = KEYS[1], KEYS[2], ARGV[1]
local OWN_KEYS = 2

-- As `online-member.ts` has it.
local function memberOf(id)
  if string.find(id, ' ', 1, true) then id = string.gsub(id, ' ', ' ~') end
  return id .. ' ' .. TAG
end

local changed, watched, left = {}, 0, 0
for at, id in ipairs(cjson.decode(ARGV[2])) do
  local key = KEYS[OWN_KEYS + at]
  local online, tag = string.match(redis.call('HGET', key, '@') or '', '^%S+ (%d) (.*)$')
  left = left + redis.call('ZREM', ONLINE, memberOf(id))
  if online == '1' and tag == TAG then
    changed[#changed + 1] = at
  end
end
if left > 0 then redis.call('HINCRBY', META, 'n:' .. TAG, -left) end
local until_ = redis.call('HGET', META, 'w')
if until_ then
  local time = redis.call('TIME')
  if tonumber(until_) > time[1] * 1000 + time[2] / 1000 then watched = 1 end
end
return { watched, changed }
