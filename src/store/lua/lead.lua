-- lead: may this broker sweep, queues and agents, and what is due? Notices an outage.
--
-- KEYS	[1] PREFIX:sweep, a hash: stamp, epoch, grace (until), found (the last outage), owner, until, others (seen
--	until)  [2] PREFIX:due  [3] PREFIX:settings  [4] PREFIX:beats
-- ARGV	[1] our instance id  [2] length of a lease (0: we lead no longer), [3] grace, both microseconds  [4] most queues
--	wanted  [5] the bell of all
-- Reply [1] >I7BI7I4I4: time, 1 when we lead (with 2: other brokers are there, 4: agents are due), when to ask again (0: nothing
--	is due that is known of), epoch, how many settings there are
--	[2...] the names of due queues
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000000 + t[2]
local h = call('HMGET', KEYS[1], 'stamp', 'epoch', 'grace', 'owner', 'until', 'others')
local stamp, leased = tonumber(h[1] or 0), tonumber(h[5] or 0)

local function text(n)
	return string.format('%.0f', n)
end

if ARGV[2] == '0' then
	if h[4] == ARGV[1] then
		call('HDEL', KEYS[1], 'owner', 'until')
		redis.pcall('PUBLISH', ARGV[5], 'lead')
	end
	return {}
end
if h[4] and h[4] ~= ARGV[1] and leased > now and leased <= now + ARGV[2] then
	call('HSET', KEYS[1], 'others', text(now + 2 * ARGV[2]))
	if tonumber(h[6] or 0) <= now then
		redis.pcall('PUBLISH', ARGV[5], 'lead') -- who leads sleeps shorter from now on
	end
	return { struct.pack('>I7BI7I4I4', now, 0, leased, tonumber(h[2] or 0), call('HLEN', KEYS[3])) }
end
local agents = call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
local due = call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, ARGV[4])
local following = call('ZRANGEBYSCORE', KEYS[2], '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if stamp ~= 0 and (now - stamp > 1000000 or stamp > now + 1000000) then
	h[2] = tonumber(h[2] or 0) + 1
	call('HSET', KEYS[1], 'epoch', h[2], 'grace', text(now + ARGV[3]), 'found', text(now))
end
call('HSET', KEYS[1], 'stamp', text(now), 'owner', ARGV[1], 'until', text(now + ARGV[2]))
local again = following[2] and tonumber(following[2]) or 0
if #due == tonumber(ARGV[4]) then
	again = now
end
local lead = tonumber(h[6] or 0) > now and 3 or 1
if agents[2] and tonumber(agents[2]) <= now then
	lead = lead + 4
elseif agents[2] and (again == 0 or tonumber(agents[2]) < again) then
	again = tonumber(agents[2])
end
table.insert(due, 1, struct.pack('>I7BI7I4I4', now, lead, again, tonumber(h[2] or 0), call('HLEN', KEYS[3])))
return due
