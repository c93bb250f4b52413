-- unsubscribe: take a subscription back.
--
-- KEYS	[1] PREFIX:subs:NAME
-- ARGV	[1] prefix  [2] namespace, encoded  [3] NAME of the agent  [4] id
-- Reply 1, or 0 when the agent has none of that id
local types = redis.call('HGET', KEYS[1], ARGV[4])
if not types then
	return 0
end
local left = ''
redis.call('HDEL', KEYS[1], ARGV[4])
for _, others in ipairs(redis.pcall('HVALS', KEYS[1])) do
	left = left .. ',' .. others
end
left = left .. ','
for kind in string.gmatch(types, '[^,]+') do
	if not string.find(left, ',' .. kind .. ',', 1, true) then
		redis.pcall('ZREM', ARGV[1] .. ':sub:' .. ARGV[2] .. ':' .. kind, ARGV[3])
	end
end
return 1
