-- Keeps or gives up a lock that was taken with SET NX PX.
--
-- KEYS: the lock
-- ARGV: our token, ms that it holds from now on; 0 gives it up
-- Output: 1 when it was ours, 0 when not

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) else redis.call('DEL', KEYS[1]) end
return 1
