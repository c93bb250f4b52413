-- What scripts of a queue do to it. Include common before this.
LISTS = { [0] = ':1', ':5', ':9' }

function save()
	if not exists then
		exists = true
		pcall('ZADD', P .. ':queues', 0, name)
	end
	call('SET', base .. ':s', pack(STATE, version, flags, counter, reserved, waiting, held, wake, last, dedup_no,
		nhigh, nnormal, nlow, ndelayed) .. told)
end

-- Something happens to this queue at `at`: the sweep must look then.
function wake_by(at)
	if wake == 0 or at < wake then
		wake = at
		changed = true
		pcall('ZADD', P .. ':due', format('%d', at), name)
	end
end

-- The policy: the broker's own values, then the namespace's, then the queue's (protocol: configure). May raise.
function settings(...)
	local v = { ... }
	local over = call('HMGET', P .. ':settings', ARGV[3], name)
	local place = { 1, 4, 5, 6, 7, 8 }
	for i = 1, 2 do
		local n = 0
		for word in string.gmatch(over[i] or '', '([^;]*);') do
			n = n + 1
			v[place[n]] = tonumber(word) or v[place[n]]
		end
	end
	return v
end

-- Items: format, flags, enqueued, [due by], [attempts, length of the error (65535: none), error], body.
-- Where the attempts stand or would stand, where the body begins, and how many attempts there were.
function parts_of(item)
	local f, p = byte(item, 2) or 0, 10
	if band(f, 16) ~= 0 then
		p = 17
	end
	if band(f, 32) == 0 or #item < p + 3 then
		return p, p, 0
	end
	local attempts, n = unpk('>HH', item, p)
	return p, p + 4 + n % 65535, attempts
end

function failed_once_more(item, err)
	local p, body, attempts = parts_of(item)
	attempts = math.min(attempts + 1, 65535)
	local head = sub(item, 1, 1) .. char(bit.bor(byte(item, 2) or 0, 32)) .. sub(item, 3, p - 1)
	return head .. pack('>HH', attempts, err and #err or 65535) .. (err or '') .. sub(item, body), attempts
end

function is_expired(item)
	return #item >= 16 and band(byte(item, 2), 16) ~= 0 and unpk('>I7', item, 10) <= now
end

function list_of(item)
	return base .. (LISTS[band(byte(item, 2) or 1, 3)] or ':5')
end

-- Reasons: 1 permanent, 2 attempts, 3 expired.
function bury(item, reason)
	counter = counter + 1
	local id = format('%d', counter)
	pcall('ZADD', base .. ':x', id, id)
	pcall('HSET', base .. ':X', id, pack('>I7B', now, reason) .. item)
	buried = buried or {}
	buried[#buried + 1] = item
	buried[#buried + 1] = reason
	changed = true
end

function put_delayed(item, at)
	counter = counter + 1
	pcall('ZADD', base .. ':d', format('%d', at), pack('>I7', counter) .. item)
	ndelayed = ndelayed + 1
	wake_by(at)
end

function count_ready(list, n)
	if list == base .. ':9' then
		nhigh = nhigh + n
	elseif list == base .. ':5' then
		nnormal = nnormal + n
	else
		nlow = nlow + n
	end
end

-- What the state counts, counted again.
function recount()
	local function count(command, key)
		local n = pcall(command, base .. key)
		return type(n) == 'number' and n or 0
	end
	nhigh, nnormal, nlow = count('LLEN', ':9'), count('LLEN', ':5'), count('LLEN', ':1')
	ndelayed = count('ZCARD', ':d')
end

-- Where something else has the name of a list, they wait with the dead letters.
function push_each(command, lists)
	for key, items in pairs(lists) do
		for i = 1, #items, 1000 do
			local to = math.min(i + 999, #items)
			if type(pcall(command, key, unpack(items, i, to))) == 'number' then
				count_ready(key, to - i + 1)
			else
				for j = i, to do
					waiting = waiting - #items[j]
					bury(items[j], 1)
				end
			end
		end
	end
end

-- What is due by now joins the tail. Returns how many, and whether there may be more.
function promote(limit)
	local due = call('ZRANGEBYSCORE', base .. ':d', '-inf', format('%d', now), 'LIMIT', 0, limit)
	if #due == 0 then
		return 0, false
	end
	local lists = {}
	for i = 1, #due do
		local item = sub(due[i], 8)
		local key = list_of(item)
		local list = lists[key]
		if not list then
			list = {}
			lists[key] = list
		end
		list[#list + 1] = item
	end
	push_each('RPUSH', lists)
	pcall('ZREMRANGEBYRANK', base .. ':d', 0, #due - 1)
	ndelayed = ndelayed - #due
	changed = true
	return #due, #due == limit
end

-- Every broker whose receivers wait here has something to look for.
function ring()
	local waiting_brokers = pcall('HKEYS', base .. ':w')
	for i = 1, #waiting_brokers do
		pcall('PUBLISH', P .. ':bell:' .. waiting_brokers[i], name)
	end
	if #waiting_brokers > 0 then
		pcall('DEL', base .. ':w')
	end
	flags = flags - band(flags, 2)
end
