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
-- leave_lease(lease, place): one of its buckets, 'BUCKET QUEUE', is no more. mark_ended(lease, most): up to `most` of the buckets of an ended lease are due now; sweep does the rest in the same way.
local function leave_lease(lease, place)
	if pcall('SREM', P .. ':l:' .. lease, place) == 1 and pcall('EXISTS', P .. ':l:' .. lease) == 0 then
		pcall('HDEL', P .. ':ended', lease)
	end
end

local function mark_ended(lease, most)
	local at = format('%d', now)
	local places = pcall('SRANDMEMBER', P .. ':l:' .. lease, most)
	for i = 1, #places do
		local bucket, name = string.match(places[i], '^(%S+) (.*)$')
		if bucket and pcall('ZSCORE', P .. ':q:' .. name .. ':b', bucket) then
			pcall('ZADD', P .. ':q:' .. name .. ':b', 'LT', at, bucket)
			pcall('ZADD', P .. ':due', 'LT', at, name)
		else
			leave_lease(lease, places[i])
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
