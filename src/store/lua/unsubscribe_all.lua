-- unsubscribe_all: an agent that deregisters or is forgotten is subscribed to nothing any more. Included only.
--
-- Needs of the script around it the local `P` (prefix of all keys). Nothing here raises.
-- unsubscribe_all(agent): the agent's NAME
local function unsubscribe_all(agent)
	if redis.pcall('DEL', P .. ':subs:' .. agent) ~= 1 then
		return
	end
	local ns = string.match(agent, '^[^:]*')
	for _, kind in ipairs({ 'event', 'request', 'response' }) do
		redis.pcall('ZREM', P .. ':sub:' .. ns .. ':' .. kind, agent)
	end
end
