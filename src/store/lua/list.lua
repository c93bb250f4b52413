-- list: the names of queues, in the order of their bytes.
--
-- KEYS	[1] PREFIX:queues
-- ARGV	[1] every name begins with this  [2] and is after this ('' from the start)  [3] at most so many
-- Reply the names
local from = '[' .. ARGV[1]
if ARGV[2] > ARGV[1] then
	from = '(' .. ARGV[2]
end
local found = redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, ARGV[3])
local out = {}
for i = 1, #found do
	if string.sub(found[i], 1, #ARGV[1]) ~= ARGV[1] then
		break
	end
	out[i] = found[i]
end
return out
