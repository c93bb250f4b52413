-- agents: registered agents, in the order of their names.
--
-- KEYS	[1] PREFIX:agents
-- ARGV	[1] prefix  [2] every NAME begins with this  [3] and is not before this ('[NAME') or after it ('(NAME')  [4] look at so many at most
--	[5] tell at most so many, 0: only count  [6] and about so many bytes, one at least  [7] '1' only who is alive, '0' only who is not, '' both
--	[8] only who has this capability, encoded and between colons, '' any  [9] an alive one that is silent for longer is late
-- Reply [1] the last one looked at, '' when there are no more  [2] how many were looked at  [3] how many of them are alive  [4] time  [5] how many of the alive are late
--	then of each that is told NAME, incarnation, last heartbeat, ttl, 1 when alive, name, status, capabilities, metadata
-- include clock
local P, call = ARGV[1], redis.call
local prefix, most, told, room = ARGV[2], tonumber(ARGV[5]), 0, tonumber(ARGV[6])
local found = call('ZRANGEBYLEX', KEYS[1], ARGV[3], '+', 'LIMIT', 0, ARGV[4])
local out = { #found == tonumber(ARGV[4]) and found[#found] or '', 0, 0, now, 0 }

for i = 1, #found do
	local agent = found[i]
	if string.sub(agent, 1, #prefix) ~= prefix then
		out[1] = ''
		break
	end
	local key = P .. ':a:' .. agent
	local a = call('HMGET', key, 'reg', 'live', 'beat', 'ttl', 'inc')
	if a[1] ~= '1' then
		redis.pcall('ZREM', KEYS[1], agent) -- somebody took the agent away and left its name
	else
		local alive = a[2] == '1' and now - (tonumber(a[3]) or 0) <= (tonumber(a[4]) or 0) and '1' or '0'
		out[2], out[3] = out[2] + 1, out[3] + alive
		if alive == '1' and now - a[3] > tonumber(ARGV[9]) then
			out[5] = out[5] + 1
		end
		if most > 0 and (ARGV[7] == '' or ARGV[7] == alive) and
				(ARGV[8] == '' or string.find(call('HGET', key, 'can') or '', ARGV[8], 1, true)) then
			local b = call('HMGET', key, 'name', 'status', 'caps', 'meta')
			local n = #out
			out[n + 1], out[n + 2], out[n + 3], out[n + 4], out[n + 5] = agent, a[5] or '', a[3] or '', a[4] or '', alive
			for j = 1, 4 do
				out[n + 5 + j] = b[j] or ''
				room = room - #out[n + 5 + j]
			end
			told = told + 1
			room = room - #agent - 200
		end
		if most > 0 and (told == most or room <= 0) then
			out[1] = agent
			break
		end
	end
end
return out
