-- tick: all that one turn of a broker asks of one queue, in one call.
--
-- First what settles reservations, then sends, then receives, each in the order of arrival. That is
-- in keeping with the protocol, section 1: a request sees what its connection asked before, and may
-- see what it asked later while it is unanswered.
--
-- KEYS	[1] base
-- ARGV	[1] header >HHHBI7I4c18I7H: settles, sends, runs, flags (1 delays follow, 2 one priority, 4 settles other than
--	acks, 8 receivers of this broker will go on waiting: note it, 16 look whether others were passed over, 32 there are
--	settings), bytes of all acks, epoch of the sweep, this broker, how long it has waited, how many of its receivers do
--	[2] prefix  [3] namespace  [4] policy, see POLICY
--	[5] random bytes, 16 for each message that may be handed out  [6] runs, >I7BHI4I4 each: visibility
--	timeout, bucket width as a power of two, how many, byte limit (0 none), bytes to add per message
--	then each settle: kind and bucket, field, and for all but A one more: N >BI7d and the error text
--	(1 permanent, 2 with delay, 4 with error; delay; factor of jitter), R delay or '', X >I7I7 timeout and the
--	deadline so far, F error
--	then the digests (when the window is not 0), the items, the delays ('' for none)
-- Reply [1] >I7I7I4I7I4B: time, fence before the first, epoch, next wake, ready, flags (1 more are ready
--	than fitted in the reply, 2 paused, 4 others were passed over: nothing was handed out, they are rung); then >H for each run: how many it got
--	[2] a character for each settle: 1 done, 0 no such token; '' when all are done
--	[3] a character for each send: 0 stored, 1 queue full, 2 duplicate; '' when all are stored
--	[4] >I7 for each X: the deadline in force, 0 none
--	[5...] the items handed out, in the order of the runs
--
-- This is the hot path: no function and no table is made that the common case does not need.
-- include common
local LEAST = 16 -- the shortest item; what is shorter was not put there by us
local nsettle, nsend, nrun, how, acked_bytes, epoch = unpk('>HHHBI7I4', ARGV[1])

if band(how, 4) ~= 0 or (wake ~= 0 and now >= wake) or band(how, 1) ~= 0 then
-- include helpers
end
if wake ~= 0 and now >= wake then
	promote(200)
end

local size, retries, backoff_base, factor, backoff_max, jitter, window, forget
if nsend > 0 or band(how, 4) ~= 0 then
	size, retries, backoff_base, factor, backoff_max, jitter, window, forget = unpk(POLICY, ARGV[4])
	local over = band(how, 32) ~= 0 and pcall('HMGET', P .. ':settings', ns, name)
	if over and (over[1] or over[2]) then
		local v = { size, retries, backoff_base, factor, backoff_max, jitter }
		for i = 1, 2 do
			local n = 0
			for word in string.gmatch(over[i] or '', '([^;]*);') do
				n = n + 1
				v[n] = tonumber(word) or v[n]
			end
		end
		size, retries, backoff_base, factor, backoff_max, jitter = unpack(v)
	end
end

-- Settle -------------------------------------------------------------------------------------------------

local arg = 7
local misses, deadlines, back
local last_bucket, key

for i = 1, nsettle do
	local bucket, field = ARGV[arg], ARGV[arg + 1]
	if bucket ~= last_bucket then
		last_bucket, key = bucket, base .. ':r' .. sub(bucket, 2)
	end
	local kind = byte(bucket)
	local item
	if kind == 65 then -- A
		arg = arg + 2
		if pcall('HDEL', key, field) == 1 then
			reserved = reserved - 1
			changed = true
		else
			acked_bytes = acked_bytes - unpk('>I4', field, 2)
			misses = misses or {}
			misses[i] = true
		end
	else
		local extra = ARGV[arg + 2]
		arg = arg + 3
		deadlines = deadlines or {}
		misses = misses or {}
		item = pcall('HGET', key, field)
		if type(item) ~= 'string' then
			item = nil
			misses[i] = true
			if kind == 88 then
				deadlines[#deadlines + 1] = pack('>I7', 0)
			end
		elseif kind == 88 then -- X
			local timeout, first = unpk('>I7I7', extra)
			local longer = base .. ':e' .. sub(bucket, 2)
			local before = pcall('ZSCORE', longer, field)
			before = type(before) == 'string' and tonumber(before) or first
			if now + timeout > before then
				before = now + timeout
				pcall('ZADD', longer, before, field)
			end
			deadlines[#deadlines + 1] = pack('>I7', before)
		else
			pcall('HDEL', key, field)
			reserved = reserved - 1
			held = held - #item
			changed = true
			local attempts, delay, to_head
			local permanent = false
			if kind == 82 then -- R
				delay = extra ~= '' and extra + 0 or nil
				to_head = not delay
			elseif kind == 70 then -- F
				item, attempts = failed_once_more(item, extra)
				to_head = true
			else -- N
				local what, given, unit, from = unpk('>BI7d', extra)
				item, attempts = failed_once_more(item, band(what, 4) ~= 0 and sub(extra, from) or nil)
				permanent = band(what, 1) ~= 0
				if band(what, 2) ~= 0 then
					delay = given
				elseif backoff_base == 0 then
					delay = 0 -- times infinity would be no number
				else
					delay = math.min(backoff_base * factor ^ (attempts - 1), backoff_max) * (1 + jitter * unit)
					delay = math.floor(delay)
				end
			end
			if permanent then
				bury(item, 1)
			elseif attempts and attempts > retries then
				bury(item, 2)
			else
				waiting = waiting + #item
				if to_head then
					back = back or {}
					back[#back + 1] = { string.match(bucket, '%d+') * 256 + byte(field), item }
				elseif delay <= 0 then
					pcall('RPUSH', list_of(item), item)
					count_ready(list_of(item), 1)
				else
					put_delayed(item, now + delay)
				end
			end
		end
	end
end
held = held - acked_bytes

if back then
	-- The last handed out goes first, so that the first one ends at the head.
	table.sort(back, function(x, y)
		return x[1] > y[1]
	end)
	for i = 1, #back do
		pcall('LPUSH', list_of(back[i][2]), back[i][2])
		count_ready(list_of(back[i][2]), 1)
	end
end

-- Send ---------------------------------------------------------------------------------------------------

local high, normal, low = base .. ':9', base .. ':5', base .. ':1'
local sent, dead
-- What was sent just now and waits to be handed out or stored: of each priority values[from .. to].
local from2, to2, from1, to1, from0, to0 = 1, 0, 1, 0, 1, 0
local values2, values1, values0

if nsend > 0 then
	local room = size - (nhigh + nnormal + nlow + ndelayed + reserved)
	if room < nsend then
		-- It looks full: what has expired at the heads makes room.
		for _, list in ipairs({ high, normal, low }) do
			for _ = 1, 200 do
				local head = pcall('LINDEX', list, 0)
				if type(head) ~= 'string' or #head < LEAST or band(byte(head, 2), 16) == 0 or
						unpk('>I7', head, 10) > now then
					break
				end
				pcall('LPOP', list)
				dead = dead or {}
				dead[#dead + 1] = head
				waiting = waiting - #head
				room = room + 1
			end
		end
		if dead then
			nhigh, nnormal, nlow = pcall('LLEN', high), pcall('LLEN', normal), pcall('LLEN', low)
		end
	end
	local plain = room >= nsend
	local first_digest, first = arg, arg
	local number, now_set, known
	if window > 0 then
		first = arg + nsend
		number = math.floor(now / window)
		now_set = base .. ':m' .. number
		known = pcall('SMISMEMBER', now_set, unpack(ARGV, first_digest, first - 1))
		local old = pcall('SMISMEMBER', base .. ':m' .. (number - 1), unpack(ARGV, first_digest, first - 1))
		for i = 1, nsend do
			if known[i] == 1 or old[i] == 1 then
				known[i] = 1
				plain = false
			end
		end
		if plain and pcall('SADD', now_set, unpack(ARGV, first_digest, first - 1)) ~= nsend then
			plain = false -- the same message twice in one call
		end
	end
	local delays = first + nsend
	local stored = plain
	if plain and how % 4 == 2 then
		-- All of one priority, none refused, none delayed: the arguments are the list.
		local priority = band(byte(ARGV[first], 2), 3)
		if priority == 1 then
			values1, from1, to1 = ARGV, first, delays - 1
		elseif priority == 2 then
			values2, from2, to2 = ARGV, first, delays - 1
		else
			values0, from0, to0 = ARGV, first, delays - 1
		end
		changed = true
	else
		local seen, remember = {}, {}
		sent = {}
		values2, values1, values0 = {}, {}, {}
		for i = 1, nsend do
			local item = ARGV[first + i - 1]
			local digest = not plain and window > 0 and ARGV[first_digest + i - 1]
			if digest and (known[i] == 1 or seen[digest]) then
				sent[i] = '2'
			elseif room <= 0 then
				sent[i] = '1'
			else
				sent[i] = '0'
				room = room - 1
				changed, stored = true, true
				if digest then
					seen[digest] = true
					remember[#remember + 1] = digest
				end
				local priority = band(byte(item, 2), 3)
				if band(how, 1) ~= 0 and ARGV[delays + i - 1] ~= '' then
					waiting = waiting + #item
					put_delayed(item, now + ARGV[delays + i - 1])
				elseif priority == 1 then
					to1 = to1 + 1
					values1[to1] = item
				elseif priority == 2 then
					to2 = to2 + 1
					values2[to2] = item
				else
					to0 = to0 + 1
					values0[to0] = item
				end
			end
		end
		if #remember > 0 then
			pcall('SADD', now_set, unpack(remember))
		end
	end
	if window > 0 and stored and number ~= dedup_no then
		dedup_no = number
		pcall('PEXPIRE', now_set, math.ceil(window / 500)) -- it is looked at for two windows
	end
	if not exists and changed then
		pcall('ZADD', P .. ':queues', 0, name)
		if wake == 0 or now + forget < wake then
			wake = now + forget
			pcall('ZADD', P .. ':due', wake, name)
		end
	end
end

-- Receive ------------------------------------------------------------------------------------------------

local reply = { '', '', '', '' }
local fence, more = counter, 0
local counts = ''
local yields = false

if band(how, 16) ~= 0 then
	-- Another broker whose receivers have waited for half a second goes first.
	local me = sub(ARGV[1], 19, 36)
	local others = pcall('HGETALL', base .. ':w')
	for i = 1, #others, 2 do
		yields = yields or (others[i] ~= me and unpk('>I7', others[i + 1]) < now - 500000)
	end
end

local fresh = to2 - from2 + to1 - from1 + to0 - from0 + 3
if nrun > 0 and band(flags, 1) == 0 and not yields and nhigh + nnormal + nlow + fresh > 0 then
	local random, budget, handed, pos = ARGV[5], 1048576, 0, 1
	for _ = 1, nrun do
		local timeout, k, count, limit, overhead
		timeout, k, count, limit, overhead, pos = unpk('>I7BHI4I4', ARGV[6], pos)
		local n, used, full = 0, 0, more == 1
		local fields, of = {}, math.floor((counter + 1) / 256)
		local buckets

		while n < count and not full do
			-- The next some of the highest priority: stored before those that came just now.
			local items, i, j, list, asked
			local want = count - n
			if nhigh > 0 then
				list, j = high, nhigh
			elseif from2 <= to2 then
				items, i, j = values2, from2, math.min(to2, from2 + want - 1)
			elseif nnormal > 0 then
				list, j = normal, nnormal
			elseif from1 <= to1 then
				items, i, j = values1, from1, math.min(to1, from1 + want - 1)
			elseif nlow > 0 then
				list, j = low, nlow
			elseif from0 <= to0 then
				items, i, j = values0, from0, math.min(to0, from0 + want - 1)
			else
				break
			end
			if list then
				-- Never far more than fits, as what does not goes back.
				i, j = 1, math.min(want, j, limit > 0 and 32 or 256)
				asked = j
				items = pcall('LPOP', list, j)
				if type(items) ~= 'table' or items.err then
					items = {}
				end
				j = #items
			end
			while i <= j do
				local item = items[i]
				local length = #item
				if length < LEAST or (band(byte(item, 2), 16) ~= 0 and unpk('>I7', item, 10) <= now) then
					dead = dead or {}
					dead[#dead + 1] = item
				elseif (limit > 0 and n > 0 and used + length + overhead > limit) then
					full = true
					break
				elseif handed > 0 and length > budget then
					full, more = true, 1
					break
				else
					used = used + length + overhead
					budget = budget - length
					counter = counter + 1
					handed = handed + 1
					n = n + 1
					local low_byte = counter % 256
					if low_byte == 0 and #fields > 0 then
						buckets = buckets or {}
						buckets[#buckets + 1] = { of, fields }
						fields = {}
					end
					if low_byte == 0 then
						of = counter / 256
					end
					fields[#fields + 1] = pack('>BI4', low_byte, length) .. sub(random, 16 * handed - 15, 16 * handed)
					fields[#fields + 1] = item
					reply[4 + handed] = item
					held = held + length
				end
				if list then
					waiting = waiting - length
				end
				i = i + 1
			end
			if not list then
				if items == values2 and from2 <= to2 then
					from2 = i
				elseif items == values1 and from1 <= to1 then
					from1 = i
				else
					from0 = i
				end
			else
				if i <= j then
					local rest = {}
					for x = j, i, -1 do
						rest[#rest + 1] = items[x]
					end
					pcall('LPUSH', list, unpack(rest))
				end
				-- Fewer than were counted: somebody else was at the list.
				local gone = #items < asked and 1e9 or i - 1
				if list == high then
					nhigh = math.max(0, nhigh - gone)
				elseif list == normal then
					nnormal = math.max(0, nnormal - gone)
				else
					nlow = math.max(0, nlow - gone)
				end
			end
		end
		if #fields > 0 then
			local ends = math.floor((now + timeout + 2 ^ k - 1) / 2 ^ k)
			local at = ends * 2 ^ k
			buckets = buckets or {}
			buckets[#buckets + 1] = { of, fields }
			for b = 1, #buckets do
				local bucket = buckets[b][1] .. '.' .. epoch .. '.' .. k .. '.' .. ends
				local where = base .. ':r' .. bucket
				pcall('HSET', where, unpack(buckets[b][2]))
				if buckets[b][1] ~= told_of or ends ~= told_ends or k ~= told_k then
					pcall('ZADD', base .. ':b', at, bucket)
					told_of, told_ends, told_k = buckets[b][1], ends, k
				end
			end
			if wake == 0 or at < wake then
				wake = at
				pcall('ZADD', P .. ':due', at, name)
			end
			reserved = reserved + n
			changed = true
		end
		counts = counts .. pack('>H', n)
	end
end
if nrun > 0 and counts == '' then
	counts = string.rep(char(0, 0), nrun)
end

local left = nhigh + nnormal + nlow
for p = 2, 0, -1 do
	local values, from, to, list = values2, from2, to2, high
	if p == 1 then
		values, from, to, list = values1, from1, to1, normal
	elseif p == 0 then
		values, from, to, list = values0, from0, to0, low
	end
	if from <= to then
		for i = from, to do
			waiting = waiting + #values[i]
		end
		local n = to - from + 1
		if type(pcall('RPUSH', list, unpack(values, from, to))) ~= 'number' then
			-- Something else has the name of the list: they wait with the dead letters.
			dead = dead or {}
			for i = from, to do
				waiting = waiting - #values[i]
				dead[#dead + 1] = values[i]
			end
			n = 0
		end
		left = left + n
		if p == 2 then
			nhigh = nhigh + n
		elseif p == 1 then
			nnormal = nnormal + n
		else
			nlow = nlow + n
		end
	end
end

-- Who waits elsewhere is rung when something is left; who waits here is noted, in the same call. Only a queue that
-- exists can say whether somebody waits: a new one has to look.
if not exists and changed and pcall('EXISTS', base .. ':w') == 1 then
	flags = bor(flags, 2)
end
if left > 0 and band(flags, 3) == 2 then
	local me = sub(ARGV[1], 19, 36)
	local others = pcall('HKEYS', base .. ':w')
	for i = 1, #others do
		if others[i] ~= me then
			pcall('PUBLISH', P .. ':bell:' .. others[i], name)
			pcall('HDEL', base .. ':w', others[i])
		end
	end
	flags = flags - 2
	changed = true
end
if band(how, 8) ~= 0 then
	local me, age, count = unpk('>c18I7H', ARGV[1], 19)
	pcall('HSET', base .. ':w', me, pack('>I7H', now - age, count))
	pcall('PEXPIRE', base .. ':w', 3000)
	if exists and band(flags, 2) == 0 then
		flags = flags + 2
		changed = true
	end
end

if dead then
	local function is_late(item)
		return #item >= LEAST and band(byte(item, 2), 16) ~= 0 and unpk('>I7', item, 10) <= now
	end
	changed = true
	for i = 1, #dead do
		counter = counter + 1
		local id = string.format('%.0f', counter)
		pcall('ZADD', base .. ':x', id, id)
		pcall('HSET', base .. ':X', id, pack('>I7B', now, is_late(dead[i]) and 3 or 1) .. dead[i])
	end
end

if changed then
	last = now
	if not exists then
		pcall('ZADD', P .. ':queues', 0, name)
	end
	call('SET', base .. ':s', pack(STATE, 1, flags, counter, reserved, waiting, held, wake, last, dedup_no,
		nhigh, nnormal, nlow, ndelayed, told_of, told_k, told_ends))
end
reply[1] = pack('>I7I7I4I7I4B', now, fence, epoch, wake, left, more + 2 * band(flags, 1) + (yields and 4 or 0)) .. counts
if misses then
	local chars = {}
	for i = 1, nsettle do
		chars[i] = misses[i] and '0' or '1'
	end
	reply[2] = table.concat(chars)
end
if sent then
	reply[3] = table.concat(sent)
end
if deadlines then
	reply[4] = table.concat(deadlines)
end
return reply
