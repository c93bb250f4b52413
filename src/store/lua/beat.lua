-- beat: agents live. All heartbeats of one turn of a broker.
--
-- ARGV	[1] prefix; then of each its NAME, incarnation, status and state (MessagePack), '' where not given
-- Reply of each the agent's ttl in microseconds, or '' when it is not registered in that incarnation
--
-- It runs when Redis is out of memory, too, so that nobody is taken for dead: nearly all replace a number by another.
-- include clock
local P, pcall, format = ARGV[1], redis.pcall, string.format
local time = format('%d', now)
local out, happened, n = {}, nil, 0

for i = 2, #ARGV, 4 do
	local key = P .. ':a:' .. ARGV[i]
	local a = pcall('HMGET', key, 'reg', 'inc', 'live', 'ttl', 'beat')
	n = n + 1
	out[n] = ''
	if a[1] == '1' and a[4] and (ARGV[i + 1] == '' or ARGV[i + 1] == a[2]) then
		out[n] = a[4]
		if a[5] ~= time then
			pcall('HSET', key, 'beat', time)
		end
		if a[3] ~= '1' then
-- include look_at
			pcall('HSET', key, 'live', 1)
			pcall('ZADD', P .. ':beats', look_at(now + a[4] + 1, a[4]), ARGV[i])
			happened = happened or {}
			happened[#happened + 1] = { ARGV[i], 'agent_revived', key }
		end
		if ARGV[i + 2] ~= '' and ARGV[i + 2] ~= pcall('HGET', key, 'status') then
			pcall('HSET', key, 'status', ARGV[i + 2])
			happened = happened or {}
			happened[#happened + 1] = { ARGV[i], 'agent_status', key }
		end
		if ARGV[i + 3] ~= '' then
			pcall('HSET', key, 'state', ARGV[i + 3])
		end
	end
end
if happened then
-- include event
	for i = 1, #happened do
		local agent, kind, key = unpack(happened[i])
		event(string.match(agent, '^[^:]*'), kind, agent, pcall('HGET', key, 'name') or '', '', '')
	end
end
return out
