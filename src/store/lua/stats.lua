-- stats: the numbers of queues.
--
-- KEYS	none
-- ARGV	[1] prefix  [2] namespace, '' each name's own  [3] this broker  [4...] of each queue (at most 200) its name and its
--	size in the broker's configuration
-- Reply for each >I7I7I7I7I7I7I7I7I7BI5I4: ready 9, 5, 1, delayed, reserved, dead, bytes, enqueued-at of the oldest head
--	(0 none), time, 1 when paused, capacity, receivers that wait at other brokers
local call = redis.call
local P, ns = ARGV[1], ARGV[2]
local t = call('TIME')
local now = t[1] * 1000000 + t[2]
local out = {}
for i = 4, #ARGV, 2 do
	local base = P .. ':q:' .. ARGV[i]
	local n = {}
	local oldest = 0
	for p, list in ipairs({ ':9', ':5', ':1' }) do
		n[p] = call('LLEN', base .. list)
		local head = n[p] > 0 and call('LRANGE', base .. list, 0, 0)[1]
		if head and #head >= 9 then
			local at = struct.unpack('>I7', head, 3)
			if oldest == 0 or at < oldest then
				oldest = at
			end
		end
	end
	local s = call('GET', base .. ':s')
	local flags, reserved, bytes = 0, 0, 0
	if s then
		local _, f, _, r, w, h = struct.unpack('>BBI7I4I7I7', s)
		flags, reserved, bytes = f, r, w + h
	end
	local capacity = ARGV[i + 1]
	local over = call('HMGET', P .. ':settings', ns ~= '' and ns or string.match(ARGV[i], '^[^:]*'), ARGV[i])
	for j = 1, 2 do
		local size = over[j] and string.match(over[j], '^%d+')
		capacity = size or capacity
	end
	local elsewhere = 0
	local brokers = call('HGETALL', base .. ':w')
	for j = 1, #brokers, 2 do
		if brokers[j] ~= ARGV[3] and #brokers[j + 1] == 16 then
			local _, count, noted = struct.unpack('>I7HI7', brokers[j + 1])
			elsewhere = elsewhere + (noted > now - 3000000 and count or 0)
		end
	end
	out[#out + 1] = struct.pack('>I7I7I7I7I7I7I7I7I7BI5I4', n[1], n[2], n[3], call('ZCARD', base .. ':d'), reserved,
		call('ZCARD', base .. ':x'), bytes, oldest, now, bit.band(flags, 1), tonumber(capacity), elsewhere)
end
return out
