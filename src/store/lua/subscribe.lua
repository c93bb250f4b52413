-- subscribe: an agent wants what is published of some message types.
--
-- KEYS	[1] PREFIX:subs:NAME
-- ARGV	[1] prefix  [2] namespace, encoded  [3] NAME of the agent  [4] the types, each once, in order, joined by ','
-- Reply the id: the same for the same agent and types
local id = string.sub(redis.sha1hex(ARGV[3] .. ' ' .. ARGV[4]), 1, 24)
redis.call('HSET', KEYS[1], id, ARGV[4])
for kind in string.gmatch(ARGV[4], '[^,]+') do
	redis.pcall('ZADD', ARGV[1] .. ':sub:' .. ARGV[2] .. ':' .. kind, 0, ARGV[3])
end
return id
