-- Keeps sessions of one shard in mind: of two units that both serve a client the one with the newer CONNECT has it.
--
-- KEYS: sessions
-- ARGV: unit, ms for which they are remembered from now on, then for each session since when it is the unit's
-- Output: for each session its fate and the unit before, '' for none. 0: it is the unit's. 1: it is again, or only now.
--         2: another unit has it.

local reply = {}
for at, key in ipairs(KEYS) do
  local unit, since, before = string.match(redis.call('GET', key) or '', '^(%S+) (%d+) (%S*)$')
  local ours, fate = ARGV[2 + at], 0
  if unit and unit ~= ARGV[1] and tonumber(since) >= tonumber(ours) then
    fate = 2
  else
    if unit ~= ARGV[1] then
      fate, before = 1, unit or ''
    elseif tonumber(since) > tonumber(ours) then
      -- It has connected once more meanwhile.
      ours = since
    end
    redis.call('SET', key, ARGV[1] .. ' ' .. ours .. ' ' .. before, 'PX', ARGV[2])
  end
  reply[2 * at - 1] = fate
  reply[2 * at] = before
end
return reply
