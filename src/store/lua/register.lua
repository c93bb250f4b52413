-- register: an agent is there; a new incarnation begins, or the one in force goes on.
--
-- KEYS	[1] PREFIX:a:NAME
-- ARGV	[1] prefix  [2] namespace, encoded  [3] NAME  [4] incarnation to go on with, '' none
--	Then what it says of itself, '' where it does not: [5] ttl, microseconds  [6] name; as MessagePack [7] status  [8] capabilities
--	[9] metadata  [10] state
--	[11] what the capabilities are called, each encoded and between colons  [12] ttl  [13] name of an agent that names none
--	[14] how many agents there may be
-- Reply [1] incarnation  [2] the state as it was before, '' none  [3] time  [4] 1 when queues have become due  [5] ttl  [6] name;
--	-1 alone when it is new and there are as many as there may be
-- include clock
local P, pcall, format = ARGV[1], redis.pcall, string.format
-- include look_at
-- include event
local key, agent = KEYS[1], ARGV[3]
local old = redis.call('HMGET', key, 'inc', 'reg', 'live', 'state', 'ttl', 'name', 'status', 'caps', 'meta', 'can')
local goes_on = old[2] == '1' and old[1] == ARGV[4]
local woke = false

if not old[1] and redis.call('ZCARD', P .. ':agents') >= tonumber(ARGV[14]) then
	return { -1 }
end

-- An incarnation that goes on keeps what is not said anew.
local function value(i, kept, otherwise)
	return ARGV[i] ~= '' and ARGV[i] or goes_on and kept or otherwise
end

local inc = goes_on and old[1] or format('%d', math.max(now, (tonumber(old[1] or 0) or 0) + 1))
local ttl, name = value(5, tonumber(old[5] or 0) and old[5], ARGV[12]), value(6, old[6], ARGV[13])
local status = value(7, old[7], '')
if not goes_on then
-- include end_leases
	woke = end_leases(agent, 'died')
end
pcall('HSET', key, 'inc', inc, 'ttl', ttl, 'beat', format('%d', now), 'live', 1, 'reg', 1, 'name', name, 'status', status,
	'caps', value(8, old[8], ''), 'meta', value(9, old[9], ''), 'can', ARGV[8] ~= '' and ARGV[11] or goes_on and old[10] or '',
	'state', ARGV[10] ~= '' and ARGV[10] or old[4] or '')
pcall('ZADD', P .. ':agents', 0, agent)
pcall('ZADD', P .. ':beats', look_at(now + ttl + 1, ttl), agent)
if not goes_on then
	event(ARGV[2], 'agent_registered', agent, name, '', '')
elseif old[3] ~= '1' then
	event(ARGV[2], 'agent_revived', agent, name, '', '')
end
if goes_on and old[7] ~= status then
	event(ARGV[2], 'agent_status', agent, name, '', '')
end
return { inc, old[4] or '', now, woke and 1 or 0, ttl, name }
