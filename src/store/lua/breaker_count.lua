-- breaker_count: how many breakers a namespace has. Changes nothing.
--
-- ARGV	[1] prefix  [2] NS:, encoded  [3] look at so many at most
-- Reply how many there are, how many of them are open, and half-open
local found = redis.call('ZRANGEBYLEX', ARGV[1] .. ':breakers', '[' .. ARGV[2], '+', 'LIMIT', 0, ARGV[3])
local counts = { 0, 0, 0 }
for i = 1, #found do
	if string.sub(found[i], 1, #ARGV[2]) ~= ARGV[2] then
		break
	end
	local state = tonumber(redis.call('HGET', ARGV[1] .. ':k:' .. found[i], 'state') or 0)
	counts[1] = counts[1] + 1
	if state > 0 then
		counts[state + 1] = counts[state + 1] + 1
	end
end
return counts
