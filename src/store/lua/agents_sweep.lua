-- agents_sweep: who has not beaten for its ttl is dead, and is forgotten later.
--
-- KEYS	[1] PREFIX:beats
-- ARGV	[1] prefix  [2] forget after so many microseconds, 0: ten times the agent's ttl  [3] look at so many at most
-- Reply [1] time  [2] when to look next, 0 never  [3] flags: 1 there is more to do now, 2 nobody has swept for a second: ask to lead
--	first, 4 queues have become due  [4...] the NAMEs of those that were found dead
--
-- PREFIX:beats tells when an agent may be dead at the earliest: a heartbeat leaves that alone, and here it is moved.
-- include clock
local P, pcall, format = ARGV[1], redis.pcall, string.format
-- include look_at
local s = redis.call('HMGET', P .. ':sweep', 'stamp', 'grace', 'found')
local stamp, grace, found = tonumber(s[1] or 0), tonumber(s[2] or 0), tonumber(s[3] or 0)
if stamp ~= 0 and now - stamp > 1000000 then
	return { now, now, 2 }
end
local most, after = tonumber(ARGV[3]), tonumber(ARGV[2])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', format('%d', now), 'LIMIT', 0, most)
local more, ended = #due == most, 0
local reply = { now, 0, 0 }
-- include event
-- include end_leases
-- include unsubscribe_all

for i = 1, #due do
	local agent = due[i]
	local key = P .. ':a:' .. agent
	local a = pcall('HMGET', key, 'reg', 'live', 'beat', 'ttl', 'gone', 'name')
	local beat, ttl, gone = tonumber(a[3] or 0) or 0, tonumber(a[4] or 0) or 0, tonumber(a[5] or 0) or 0
	local forget_in = after > 0 and after or 10 * ttl
	-- Who beat last before an outage is left alone, so that it can say that it lives.
	local spared = beat < found and math.max(grace, found + ttl) or 0
	if not a[1] then
		pcall('ZREM', P .. ':agents', agent)
		pcall('ZREM', KEYS[1], agent)
	elseif a[2] == '1' then
		local at = math.max(beat + ttl + 1, spared)
		if now < at then
			pcall('ZADD', KEYS[1], look_at(at, ttl), agent)
		else
			pcall('HSET', key, 'live', 0, 'gone', format('%d', now))
			reply[#reply + 1] = agent
			pcall('ZADD', KEYS[1], look_at(now + forget_in, ttl), agent)
			event(string.match(agent, '^[^:]*'), 'agent_expired', agent, a[6] or '', '', '')
			if end_leases(agent, 'died') then
				ended = ended + 1
			end
		end
	elseif now < math.max(gone + forget_in, spared) then
		pcall('ZADD', KEYS[1], look_at(math.max(gone + forget_in, spared), ttl), agent)
	else
		-- Who had deregistered was subscribed to nothing then; what it subscribed to since stays.
		if a[1] == '1' then
			unsubscribe_all(agent)
		end
		pcall('DEL', key)
		pcall('ZREM', P .. ':agents', agent)
		pcall('ZREM', KEYS[1], agent)
	end
	if ended == 20 then
		more = more or i < #due
		break
	end
end
local first = pcall('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
reply[2], reply[3] = tonumber(first[2] or 0), (more and 1 or 0) + (ended > 0 and 4 or 0)
return reply
