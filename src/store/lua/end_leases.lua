-- end_leases: what an agent holds by heartbeat ends. Included only.
--
-- Needs of the script around it the locals `P` (prefix of all keys), `now`, `pcall` (redis.pcall) and `format`. Nothing here raises.
--
-- end_leases(agent, reason)
--	agent	its NAME
--	reason	'died': what it held counts as failed, "holder died" (its heartbeats stopped, or a new incarnation begins);
--		'released': it goes back without counting (it deregistered)
-- Call it when an incarnation ends, before PREFIX:a:NAME is deleted: the field `lease` there is what this is about. Only tick (which makes it)
-- and this (which removes it) touch that field; who writes the other fields leaves it alone. A revived agent gets a new one.
-- Returns true when queues have become due by this: the broker looks at them at once then.
--
-- mark_ended(lease, most): up to `most` of the buckets of an ended lease are due now; sweep does the rest in the same way.
local function mark_ended(lease, most)
	local at = format('%d', now)
	local places = pcall('SRANDMEMBER', P .. ':l:' .. lease, most)
	for i = 1, #places do
		local bucket, name = string.match(places[i], '^(%S+) (.*)$')
		if bucket then
			pcall('ZADD', P .. ':q:' .. name .. ':b', 'XX', at, bucket)
			pcall('ZADD', P .. ':due', 'LT', at, name)
		end
	end
	return #places > 0
end

local function end_leases(agent, reason)
	local key = P .. ':a:' .. agent
	local lease = pcall('HGET', key, 'lease')
	if type(lease) ~= 'string' then
		return false
	end
	pcall('HDEL', key, 'lease')
	if pcall('EXISTS', P .. ':l:' .. lease) ~= 1 then
		return false
	end
	pcall('HSET', P .. ':ended', lease, reason)
	return mark_ended(lease, 1000)
end
