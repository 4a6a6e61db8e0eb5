-- Merges what one process has gathered of devices of one shard, by the order of [G4]. May run again, in any order.
--
-- KEYS: meta, ids, online, strangers, stranger times, then one device hash for each entry
-- ARGV: tag of the unit, '' for none
--       the number of its last flush to this shard that was answered, and of this one
--       '1' when the caller wants to know what changed, though nobody else watches
--       strangers that are remembered at most
--       entries as JSON: [[id, heard at or '', least ts, greatest ts, claimed 0|1, presence at or '', online 0|1,
--                          [field, moment, field, moment, ...]], ...]
-- Output: {epoch or '', 1 when Redis has lost a flush it answered, 1 when others watch, {changed entries}, {failed entries}, first error}
--         Entries are told by their number, from 1. One that failed has no effect that a repetition would not have.

local META, IDS, ONLINE, STRANGERS, STRANGER_TIMES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local OWN_KEYS = 5
local TAG, ACKED, NUMBER, TELL, STRANGERS_MAX = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
-- Fields of one HMGET or HSET: Lua's stack holds 8000.
local AT_ONCE = 1000

local onlineChange = {}

local function whole(number)
  return string.format('%.0f', number)
end

-- `<` between strings would go by the server's locale.
local function isAfterBytewise(a, b)
  for at = 1, math.min(#a, #b) do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then return x > y end
  end
  return #a > #b
end

local function partsOf(moment)
  local ts, delay, kind, value = string.match(moment, '^(%S+) (%S+) (%d):(.*)$')
  return tonumber(ts), tonumber(delay), tonumber(kind), value
end

-- The order of `isNewer` in model/reading.ts. Kinds: 1 number, 2 integer, 3 bool, 4 text, 5 null.
local function isNewer(a, b)
  if a == b then return false end
  local tsA, delayA, kindA, valueA = partsOf(a)
  local tsB, delayB, kindB, valueB = partsOf(b)
  if tsA ~= tsB then return tsA > tsB end
  if delayA ~= delayB then return delayA > delayB end
  if kindA ~= kindB then return kindA > kindB end
  if kindA >= 4 then return isAfterBytewise(valueA, valueB) end
  local numberA, numberB = tonumber(valueA), tonumber(valueB)
  if numberA ~= numberB then return numberA > numberB end
  if kindA == 2 then return isAfterBytewise(valueA, valueB) end
  return 1 / numberA > 1 / numberB -- -0 is before 0
end

-- Returns the fields and values that must be written.
local function winners(key, readings, leastTs, newestTs)
  if leastTs > newestTs then return readings end
  local won = {}
  for from = 1, #readings, 2 * AT_ONCE do
    local fields = {}
    for at = from, math.min(from + 2 * AT_ONCE - 1, #readings), 2 do fields[#fields + 1] = readings[at] end
    local held = redis.call('HMGET', key, unpack(fields))
    for i = 1, #fields do
      local moment = readings[from + 2 * i - 1]
      if not held[i] or isNewer(moment, held[i]) then
        won[#won + 1] = fields[i]
        won[#won + 1] = moment
      end
    end
  end
  return won
end

local function presenceOf(text)
  if not text then return -math.huge, false, '' end
  local at, online, tag = string.match(text, '^(%S+) (%d) (.*)$')
  return tonumber(at), online == '1', tag
end

-- The newer of two by `at`, offline at the same; of two units that both have it online the one that tells it last.
local function mergePresence(held, at, online)
  local heldAt, heldOnline = presenceOf(held)
  if at < heldAt or (at == heldAt and not heldOnline) then return held end
  return whole(at) .. (online and ' 1 ' or ' 0 ') .. TAG
end

local function rememberStranger(id, at, online)
  local held = redis.call('HGET', STRANGERS, id)
  local merged = mergePresence(held, at, online)
  if merged == held then return end
  redis.call('HSET', STRANGERS, id, merged)
  redis.call('ZADD', STRANGER_TIMES, whole(at), id)
  while redis.call('ZCARD', STRANGER_TIMES) > STRANGERS_MAX do
    redis.call('HDEL', STRANGERS, redis.call('ZPOPMIN', STRANGER_TIMES)[1])
  end
end

-- As `online-member.ts` has it.
local function memberOf(id, tag)
  if string.find(id, ' ', 1, true) then id = string.gsub(id, ' ', ' ~') end
  return id .. ' ' .. tag
end

-- Keeps the set of online devices as `@` has it, and counts them by tag.
local function moveOnline(id, wasOnline, tagBefore, isOnline, tag)
  if wasOnline == isOnline and tagBefore == tag then return false end
  if wasOnline and redis.call('ZREM', ONLINE, memberOf(id, tagBefore)) == 1 then
    onlineChange[tagBefore] = (onlineChange[tagBefore] or 0) - 1
  end
  if isOnline and redis.call('ZADD', ONLINE, 0, memberOf(id, tag)) == 1 then
    onlineChange[tag] = (onlineChange[tag] or 0) + 1
  end
  return wasOnline or isOnline
end

-- Returns true when the device's state changed. Times are compared as numbers and written as the text they came in: most entries
-- tell of no presence and only newer readings, and their cost is that of this script, not of the hash.
local function applyEntry(key, entry)
  local id, heardAt, leastTs, greatestTs, claimed = entry[1], tonumber(entry[2]), tonumber(entry[3]), tonumber(entry[4]), entry[5]
  local presenceAt, online, readings = tonumber(entry[6]), entry[7] == 1, entry[8]
  local held = redis.call('HMGET', key, '~', '@')
  local newestTs, newestText, lastSeen, seenText, presence = -math.huge, '-', -math.huge, '', held[2]
  local isListed = held[1] and true or false
  if isListed then
    newestText, seenText = string.match(held[1], '^(%S+) (%S+)$')
    newestTs, lastSeen = tonumber(newestText) or -math.huge, tonumber(seenText)
  elseif heardAt or claimed == 1 then
    presence = redis.call('HGET', STRANGERS, id)
    if not (presence or heardAt or presenceAt) then return false end
    if presence then
      redis.call('HDEL', STRANGERS, id)
      redis.call('ZREM', STRANGER_TIMES, id)
      lastSeen = presenceOf(presence)
      seenText = whole(lastSeen)
    end
    redis.call('ZADD', IDS, 0, id)
  else
    if presenceAt then rememberStranger(id, presenceAt, online) end
    return false
  end

  local write = winners(key, readings, leastTs or math.huge, newestTs)
  local changed = not isListed or #write > 0
  local isStale = not isListed
  if greatestTs and greatestTs > newestTs then newestText, isStale = entry[4], true end
  if heardAt and heardAt > lastSeen then lastSeen, seenText, isStale, changed = heardAt, entry[2], true, true end
  if presenceAt and presenceAt > lastSeen then lastSeen, seenText, isStale, changed = presenceAt, entry[6], true, true end

  local own = {}
  if presenceAt or not isListed then
    local _, wasOnline, tagBefore = presenceOf(held[2])
    local merged = presence
    if presenceAt then merged = mergePresence(presence, presenceAt, online) end
    local _, isOnline, tagNow = presenceOf(merged)
    if moveOnline(id, wasOnline, tagBefore, isOnline, tagNow) then changed = true end
    if merged and merged ~= held[2] then own = { '@', merged } end
  end
  if isStale then
    own[#own + 1] = '~'
    own[#own + 1] = newestText .. ' ' .. seenText
  end
  if #write + #own <= 2 * AT_ONCE then
    for at = 1, #own do write[#write + 1] = own[at] end
    if #write > 0 then redis.call('HSET', key, unpack(write)) end
    return changed
  end
  for from = 1, #write, 2 * AT_ONCE do
    redis.call('HSET', key, unpack(write, from, math.min(from + 2 * AT_ONCE - 1, #write)))
  end
  if #own > 0 then redis.call('HSET', key, unpack(own)) end
  return changed
end

local meta = redis.call('HMGET', META, 'e', 'f:' .. TAG, 'w')
local epoch, watched = meta[1] or '', 0
local stored = tonumber(meta[2] or '0')
local rolledBack = 0
if TAG ~= '' then
  if stored < ACKED then
    -- It lost a flush that it had answered: what else it lost, nobody knows.
    redis.call('HDEL', META, 'e', 'b')
    -- The number stays as it is, so that this is told until the unit has heard it.
    epoch, rolledBack = '', 1
  elseif NUMBER > stored then
    redis.call('HSET', META, 'f:' .. TAG, NUMBER)
  end
end
if meta[3] then
  local time = redis.call('TIME')
  if tonumber(meta[3]) > time[1] * 1000 + time[2] / 1000 then watched = 1 end
end

local changed, failed, firstError = {}, {}, ''
for at, entry in ipairs(cjson.decode(ARGV[6])) do
  local key = KEYS[OWN_KEYS + at]
  local ok, result = pcall(applyEntry, key, entry)
  if not ok then
    failed[#failed + 1] = at
    local why = type(result) == 'table' and result.err or tostring(result)
    if firstError == '' then firstError = why end
    -- Not a hash, so not ours: the rebuild that follows finds it gone.
    if string.find(why, 'WRONGTYPE', 1, true) then redis.call('DEL', key) end
  elseif result and (watched == 1 or TELL == '1') then
    changed[#changed + 1] = at
  end
end
for tag, change in pairs(onlineChange) do
  if change ~= 0 then redis.call('HINCRBY', META, 'n:' .. tag, change) end
end
return { epoch, rolledBack, watched, changed, failed, firstError }
