-- breaker_sweep: what time alone does to breakers: lost permits, and who is not used any more.
--
-- ARGV	[1] prefix  [2] after how many microseconds without use a breaker is forgotten  [3] look at so many at most
-- Reply [1] when there is something to do again, 0 when there are no breakers; then for each change of state: id, event, reason
-- include clock
local P, keep = ARGV[1], tonumber(ARGV[2])
-- include breaker_state
local index = P .. ':breakers:due'
local due = redis.call('ZRANGEBYSCORE', index, '-inf', text(now), 'LIMIT', 0, ARGV[3])
for i = 1, #due do
	if not pcall(load, due[i]) then
		redis.pcall('ZADD', index, text(now + keep), due[i]) -- a foreign type under our key: let it not hold up others
	elseif not b then
		redis.pcall('ZREM', index, due[i])
		redis.pcall('ZREM', P .. ':breakers', due[i])
	elseif due_at() <= now then
		forget('forgotten')
	else
		b.due = 0
		save()
	end
end
local following = redis.pcall('ZRANGE', index, 0, 0, 'WITHSCORES')
table.insert(told, 1, following[2] or '0')
return told
