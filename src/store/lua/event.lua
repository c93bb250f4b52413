-- event: what watchers are told of. Included only.
--
-- Needs of the script around it the locals `P` (prefix of all keys) and `now` (Redis's clock, microseconds). Nothing here raises.
-- Include it in the very block that needs it: to make a function costs as much as a command.
--
-- event(ns, kind, a, n, r, m)
--	ns	namespace, encoded as in a NAME
--	kind	agent_registered, breaker_opened, message_dead, ...
--	a	NAME of an agent or a queue; '' none, as for all that follow
--	n	name of the agent or the breaker, not encoded
--	r	reason
--	m	message id
-- Ids are dense, so that who reads them sees what he missed; `since` tells a counter that was begun anew from the one before.
local rung = {}

local function event(ns, kind, a, n, r, m)
	local counters, stream = P .. ':events', P .. ':e:' .. ns
	local id = redis.pcall('HINCRBY', counters, ns, 1)
	if type(id) ~= 'number' then
		return
	end
	if id == 1 then
		redis.pcall('HSET', counters, ns .. ':since', string.format('%d', now))
	end
	redis.pcall('XADD', stream, 'MAXLEN', '~', 4096, string.format('%d-0', id), 'k', kind, 'a', a, 'n', n, 'r', r, 'm', m,
		't', string.format('%d', now))
	redis.pcall('PEXPIRE', stream, 3600000)
	if not rung[ns] then
		rung[ns] = true
		redis.pcall('PUBLISH', P .. ':bell', 'e:' .. ns)
	end
end
