-- sweep: take back what is past its deadline, let what is due join, forget what is idle.
--
-- KEYS	[1] base
-- ARGV	[1] 1: now, in spite of the grace (recover_pending), else 0  [2] prefix  [3] namespace  [4] policy, as in tick
-- Reply [1] >I7I7I4I4B: time, next wake, reservations taken back, ready, flags (1 there is more to do now,
--	2 nobody has swept for a second: ask to lead first)  [2] >HHH how many became dead letters, if any did: permanent, attempts, expired
-- include clock
-- include common
-- include helpers
-- include end_leases
-- include drop_bucket
local force = ARGV[1] == '1'
local LIMIT, BYTES = 200, 4194304
local s = call('HMGET', P .. ':sweep', 'stamp', 'epoch', 'grace')
local stamp, epoch, grace = tonumber(s[1] or 0), tonumber(s[2] or 0), tonumber(s[3] or 0)

if not force and stamp ~= 0 and now - stamp > 1000000 then
	return { pack('>I7I7I4I4B', now, now, 0, 0, 2) }
end
if not force then
	call('HSET', P .. ':sweep', 'stamp', now)
end
if not exists then
	call('ZREM', P .. ':due', name)
	return { pack('>I7I7I4I4B', now, 0, 0, 0, 0) }
end
local policy = settings(unpk(POLICY, ARGV[4]))
-- More than it takes back: of many small ones the last handed out must be known to go back first.
local due = call('ZRANGEBYSCORE', base .. ':b', '-inf', now, 'LIMIT', 0, 5 * LIMIT)
local more = #due == 5 * LIMIT
if force and grace > now and not more then
	-- Those that only the grace holds back.
	local held_back = call('ZRANGEBYSCORE', base .. ':b', grace, grace, 'LIMIT', 0, LIMIT)
	for i = 1, #held_back do
		due[#due + 1] = held_back[i]
	end
	more = #held_back == LIMIT
end

local _, more_delayed = promote(LIMIT)
more = more or more_delayed

-- Buckets -------------------------------------------------------------------------------------------------

local buckets = {}
for i = 1, #due do
	local of, e, k, ends, lease = string.match(due[i], '^(%d+)%.(%d+)%.(%d+)%.(%d+)%.?(%d*)$')
	local b = of and { text = due[i], of = tonumber(of), ends = ends * 2 ^ k }
	if b and lease ~= '' then
		local reason = pcall('HGET', P .. ':ended', lease)
		b.lease, b.reason = lease, type(reason) == 'string' and reason
	end
	if not b then
		pcall('ZREM', base .. ':b', due[i]) -- somebody else's
	elseif b.reason then
		buckets[#buckets + 1] = b -- the holder is no more: that needs no grace
	elseif not force and tonumber(e) < epoch and now < grace then
		pcall('ZADD', base .. ':b', grace, b.text) -- reserved before an outage
	elseif b.ends <= now then
		buckets[#buckets + 1] = b
	elseif b.lease then
		pcall('ZADD', base .. ':b', b.ends, b.text)
	end
end
-- The last handed out goes back first, so that the first one ends at the head.
table.sort(buckets, function(x, y)
	return x.of > y.of
end)

local taken, bytes = 0, 0

local function take_back(key, field, reason)
	local item = pcall('HGET', key, field)
	if type(item) ~= 'string' then
		return
	end
	local again, attempts = item, 0
	if reason ~= 'released' then
		again, attempts = failed_once_more(item, reason and 'holder died' or 'visibility timeout expired')
	end
	if attempts > policy[4] then
		bury(again, 2)
	else
		waiting = waiting + #again
		push_each('LPUSH', { [list_of(again)] = { again } })
	end
	pcall('HDEL', key, field)
	reserved = reserved - 1
	held = held - #item
	bytes = bytes + #item
	taken = taken + 1
end

-- Take back what is due of buckets[from .. to], which are of the same 256 fences: with different ends, or of different leases. False when
-- the call has done enough.
local function sweep_buckets(from, to)
	local all = {}
	for i = from, to do
		local b = buckets[i]
		b.key, b.longer, b.kept = base .. ':r' .. b.text, base .. ':e' .. b.text, 0
		b.has_longer = not b.reason and pcall('EXISTS', b.longer) == 1
		local fields = pcall('HKEYS', b.key)
		for j = 1, #fields do
			all[#all + 1] = { b, fields[j] }
		end
	end
	table.sort(all, function(x, y)
		return byte(x[2]) > byte(y[2])
	end)
	for i = 1, #all do
		local b, field = all[i][1], all[i][2]
		local at = b.has_longer and pcall('ZSCORE', b.longer, field)
		if type(at) == 'string' and tonumber(at) > now then
			b.kept = b.kept + 1
		elseif taken >= LIMIT or bytes >= BYTES then
			return false
		else
			take_back(b.key, field, b.reason)
		end
	end
	for i = from, to do
		local b = buckets[i]
		if b.has_longer then
			pcall('ZREMRANGEBYSCORE', b.longer, '-inf', now)
		end
		if b.kept > 0 then
			pcall('ZADD', base .. ':b', pcall('ZRANGE', b.longer, 0, 0, 'WITHSCORES')[2], b.text)
		else
			drop_bucket(b.text)
			-- The lease's other buckets, of which there may be more than were marked when it ended.
			if b.reason then
				mark_ended(b.lease, 10)
			end
		end
	end
	return true
end

local from = 1
while from <= #buckets do
	local to = from
	while to < #buckets and buckets[to + 1].of == buckets[from].of do
		to = to + 1
	end
	if not sweep_buckets(from, to) then
		more = true
		break
	end
	from = to + 1
end

-- Buckets whose every message was settled leave their name behind. Where there are many, drop some at random, so that there never
-- are many more than of those that hold something.
local some = pcall('ZRANDMEMBER', base .. ':b', LIMIT)
for i = 1, #some == LIMIT and LIMIT or 0 do
	if pcall('EXISTS', base .. ':r' .. some[i]) == 0 then
		drop_bucket(some[i])
	end
end
-- And those in front, so that a queue whose messages are acked in time is looked at once per timeout and not once per bucket.
local next_bucket = 0
for i = 1, 100 do
	more = more or i == 100
	local first = pcall('ZRANGE', base .. ':b', 0, 0, 'WITHSCORES')
	if not first[1] then
		break
	end
	next_bucket = tonumber(first[2])
	if pcall('EXISTS', base .. ':r' .. first[1]) == 1 then
		break
	end
	drop_bucket(first[1])
	next_bucket = 0
end
if next_bucket == 0 and reserved ~= 0 and pcall('ZCARD', base .. ':b') == 0 then
	reserved, held = 0, 0
end
-- include buried

-- When next? ------------------------------------------------------------------------------------------------

recount()
local ready = nhigh + nnormal + nlow
-- The bucket that was told last may have been dropped above: tell it again.
told = ''
if ready > 0 and band(flags, 1) == 0 then
	ring()
end
local delayed = pcall('ZRANGE', base .. ':d', 0, 0, 'WITHSCORES')
local forget_at = last + policy[3]
if ready == 0 and reserved == 0 and not delayed[1] and pcall('ZCARD', base .. ':x') == 0 and band(flags, 1) == 0 then
	if forget_at <= now and next_bucket == 0 and pcall('ZCARD', base .. ':b') == 0 then
		pcall('DEL', base .. ':s', base .. ':b')
		pcall('ZREM', P .. ':queues', name)
		pcall('ZREM', P .. ':due', name)
		return { pack('>I7I7I4I4B', now, 0, taken, 0, 0), told_buried }
	end
elseif forget_at <= now then
	forget_at = now + policy[3]
end
wake = forget_at
if next_bucket ~= 0 and next_bucket < wake then
	wake = next_bucket
end
if delayed[2] and tonumber(delayed[2]) < wake then
	wake = tonumber(delayed[2])
end
if wake <= now and not more then
	wake = now + 1000
end
if more then
	wake = now
end
pcall('ZADD', P .. ':due', wake, name)
save()
return { pack('>I7I7I4I4B', now, wake, taken, ready, more and 1 or 0), told_buried }
