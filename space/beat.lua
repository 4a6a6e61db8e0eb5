#!lua flags=allow-oom
-- The heartbeat of a process at one shard: is the state still what was rebuilt?
--
-- A state is believed by the run of the Redis that it was rebuilt in. One that was started again, or another that took
-- over, may hold less than was answered: its state is cold, whatever it holds. Out of memory it must be told so, too: what
-- this writes, a few fields of the shard, needs next to none.
--
-- KEYS: meta
-- ARGV: tag of the unit, '' for none
--       the number of its last flush to this shard that was answered
--       '1' when readings of any shard were let go or are not taken, so that the state must be rebuilt
--       ms for which the shard is watched from now on, 0 for not
-- Output: {epoch or '', marker of the rebuild under way or '', 1 when a flush was lost,
--          1 when nobody had watched until now: changes were published to none}

local META, TAG, ACKED, LET_GO, WATCH_MS = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local held = redis.call('HMGET', META, 'e', 'b', 'r', 'f:' .. TAG)
local epoch, rebuild = held[1] or '', held[2] or ''
local rolledBack = TAG ~= '' and tonumber(held[4] or '0') < ACKED
if rolledBack or LET_GO == '1' or held[3] ~= run then
  if epoch ~= '' or rebuild ~= '' then redis.call('HDEL', META, 'e', 'b') end
  epoch, rebuild = '', ''
end
local unwatched = 0
if WATCH_MS > 0 then
  local time = redis.call('TIME')
  local watchedUntil = tonumber(redis.call('HGET', META, 'w') or '0')
  if watchedUntil < time[1] * 1000 + time[2] / 1000 then unwatched = 1 end
  redis.call('HSET', META, 'w', string.format('%.0f', time[1] * 1000 + WATCH_MS))
end
return { epoch, rebuild, rolledBack and 1 or 0, unwatched }
