-- deregister: an agent is there no longer; what it stored as its state waits for the next of that name.
--
-- KEYS	[1] PREFIX:a:NAME
-- ARGV	[1] prefix  [2] namespace, encoded  [3] NAME  [4] forget it after so many microseconds, 0: ten times its ttl
-- Reply [1] 1, or 0 when it was not registered  [2] time  [3] 1 when queues have become due
-- include clock
local P, pcall, format = ARGV[1], redis.pcall, string.format
-- include look_at
local key, agent = KEYS[1], ARGV[3]
local old = redis.call('HMGET', key, 'reg', 'ttl', 'name', 'state')
if old[1] ~= '1' then
	return { 0, now, 0 }
end
-- include event
-- include end_leases
-- include unsubscribe_all
local woke = end_leases(agent, 'released')
unsubscribe_all(agent)
pcall('ZREM', P .. ':agents', agent)
if old[4] and old[4] ~= '' then
	local ttl = tonumber(old[2] or 0) or 0
	local after = tonumber(ARGV[4])
	pcall('HSET', key, 'reg', 0, 'live', 0, 'gone', format('%d', now))
	pcall('HDEL', key, 'name', 'status', 'caps', 'meta', 'can')
	pcall('ZADD', P .. ':beats', look_at(now + (after > 0 and after or 10 * ttl), ttl), agent)
else
	pcall('DEL', key)
	pcall('ZREM', P .. ':beats', agent)
end
event(ARGV[2], 'agent_deregistered', agent, old[3] or '', '', '')
return { 1, now, woke and 1 or 0 }
