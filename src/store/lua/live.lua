-- live: which agents live, in the order of their names. Changes nothing.
--
-- KEYS	[1] PREFIX:agents
-- ARGV	[1] prefix  [2] every NAME begins with this  [3] and is after this ('' from the start)  [4] look at so many at most
-- Reply [1] the last one looked at, '' when there are no more; then the NAMEs of those that live
-- include clock
local from = '[' .. ARGV[2]
if ARGV[3] > ARGV[2] then
	from = '(' .. ARGV[3]
end
local found = redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, ARGV[4])
local out = { #found == tonumber(ARGV[4]) and found[#found] or '' }
for i = 1, #found do
	if string.sub(found[i], 1, #ARGV[2]) ~= ARGV[2] then
		out[1] = ''
		break
	end
	local agent = redis.call('HMGET', ARGV[1] .. ':a:' .. found[i], 'live', 'beat', 'ttl')
	if agent[1] == '1' and now - (tonumber(agent[2]) or 0) <= (tonumber(agent[3]) or 0) then
		out[#out + 1] = found[i]
	end
end
return out
