-- tick: all that one turn of a broker asks of one queue, in one call.
--
-- First what settles reservations, then sends, then receives, each in the order of arrival. That is
-- in keeping with the protocol, section 1: a request sees what its connection asked before, and may
-- see what it asked later while it is unanswered.
--
-- KEYS	[1] base
-- ARGV	[1] header >HHHBI7I7I7I4: settles, sends, runs (and 32768 where one is of a heartbeat lease), flags (1 delays follow, 2 sends are of one priority, 4 settles other
--	than acks, 8 receivers of this broker will go on waiting: note it, 16 look whether others were passed over, 32 there
--	are settings, 64 some sends have a ttl, 128 acks alone: Redis's clock is not needed), the broker's estimate of the
--	time (0: and of the epoch it is not sure), bytes of all acks, bytes of all sends, epoch of the sweep; then >c18I7HI4: this broker, how long it has waited,
--	how many of its receivers do, bytes that an answer adds to an item
--	[2] prefix  [3] namespace  [4] policy, see POLICY
--	[5] random bytes, 16 for each message that may be handed out  [6] runs, >I7BHI4 each: visibility timeout, bucket
--	width as a power of two, how many, byte limit (0 none). Of a heartbeat lease the width is 128 more, and >I7Hc0
--	follows: the holder's incarnation (0: whichever), its NAME
--	then what settles, in order: kind (a small letter: the bucket is of a heartbeat lease), number of fields less one, bucket; the fields; and for all but A (of which alone there
--	can be more than one) one more: N >BI7d and the error text (1 permanent, 2 with delay, 4 with error; delay; factor
--	of jitter), R delay or '', X >I7I7 timeout and the deadline so far, F error
--	then the digests (when the window is not 0), the items, the delays ('' for none)
-- Reply [1] >I7I7I7I4H: time, fence before the first, next wake, ready, flags (1 more are ready than fitted in the reply,
--	2 paused, 4 others were passed over: nothing was handed out, they are rung; 8 to 256 the last elements are there);
--	then >H for each run: how many it got
--	[2...] what is handed out, in the order of the runs: an item, or, where it is one of this call's sends, its number
--	then (8) a character for each settle: 1 done, 0 no such token; else all are done
--	(16) a character for each send: 0 stored, 1 queue full, 2 duplicate; else all are stored
--	(32) >I7 for each X: the deadline in force, 0 none
--	(64) >I4 the epoch, where it is not the one that was told
--	(128) >I7I7 for each run of a heartbeat lease: the holder's incarnation (0: it is not there, not alive, or in another), and the
--	number of its lease where it got something
--	(256) >HHH how many became dead letters: permanent, attempts, expired
--
-- This is the hot path: no function and no table is made that the common case does not need, and no number is written
-- out where text is at hand.
local nsettle, nsend, nrun, how, estimate, acked_bytes, sent_bytes, epoch, head_end = struct.unpack('>HHHBI7I7I7I4', ARGV[1])
local leased = nrun >= 32768
if leased then
	nrun = nrun - 32768
end
local now = estimate
if how < 128 then
	local t = redis.call('TIME')
	now = t[1] * 1000000 + t[2]
end
-- include common
local LEAST, LEAST_TTL = 14, 21 -- the shortest items; what is shorter was not put there by us
local promotes = wake ~= 0 and now >= wake and how < 128

if promotes or how % 8 >= 4 or how % 2 == 1 then
-- include helpers
end
if promotes then
	promote(200)
end

local policy
if how % 64 >= 32 or how % 8 >= 4 then
	policy = { unpk(POLICY, ARGV[4]) }
	if how % 64 >= 32 then
		-- As settings() does; its functions may not be there.
		local over = pcall('HMGET', P .. ':settings', ARGV[3], name)
		local place = { 1, 4, 5, 6, 7, 8 }
		for i = 1, 2 do
			local n = 0
			for word in string.gmatch(over[i] or '', '([^;]*);') do
				n = n + 1
				policy[place[n]] = tonumber(word) or policy[place[n]]
			end
		end
	end
end

-- Settle -------------------------------------------------------------------------------------------------

local arg = 7
local misses, deadlines, back, emptied
local settle = 1

while settle <= nsettle do
	local bucket = ARGV[arg]
	local kind, n = byte(bucket, 1, 2)
	local key = base .. ':r' .. sub(bucket, 3)
	if kind >= 97 then
		kind = kind - 32
		emptied = emptied or {}
		emptied[#emptied + 1] = sub(bucket, 3)
	end
	if kind == 65 then -- A
		for i = settle, settle + n do
			if pcall('HDEL', key, ARGV[arg + 1]) == 1 then
				reserved = reserved - 1
				changed = true
			else
				acked_bytes = acked_bytes - unpk('>I4', ARGV[arg + 1], 2)
				misses = misses or {}
				misses[i] = true
			end
			arg = arg + 1
		end
		arg = arg + 1
		settle = settle + n
	else
		local field, extra = ARGV[arg + 1], ARGV[arg + 2]
		arg = arg + 3
		deadlines = deadlines or {}
		misses = misses or {}
		local item = pcall('HGET', key, field)
		if type(item) ~= 'string' then
			misses[settle] = true
			if kind == 88 then
				deadlines[#deadlines + 1] = pack('>I7', 0)
			end
		elseif kind == 88 then -- X
			local timeout, first = unpk('>I7I7', extra)
			local longer = base .. ':e' .. sub(bucket, 3)
			local before = pcall('ZSCORE', longer, field)
			before = type(before) == 'string' and tonumber(before) or first
			if timeout > 0 and now + timeout > before then
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
				elseif policy[5] == 0 then
					delay = 0 -- times infinity would be no number
				else
					delay = math.min(policy[5] * policy[6] ^ (attempts - 1), policy[7]) * (1 + policy[8] * unit)
					delay = math.floor(delay)
				end
			end
			if permanent then
				bury(item, 1)
			elseif attempts and attempts > policy[4] then
				bury(item, 2)
			else
				waiting = waiting + #item
				if to_head then
					back = back or {}
					back[#back + 1] = { string.match(bucket, '%d+', 3) * 256 + byte(field), item }
				elseif delay <= 0 then
					push_each('RPUSH', { [list_of(item)] = { item } })
				else
					put_delayed(item, now + delay)
				end
			end
		end
	end
	settle = settle + 1
end
held = held - acked_bytes

if emptied then
	-- With many holders each has buckets of its own, and these last for long: the names of empty ones would pile up.
-- include end_leases
-- include drop_bucket
	for i = 1, #emptied do
		if pcall('EXISTS', base .. ':r' .. emptied[i]) == 0 then
			drop_bucket(emptied[i])
			if told == emptied[i] then
				told = ''
			end
		end
	end
end

if back then
	-- The last handed out goes first, so that the first one ends at the head.
	table.sort(back, function(x, y)
		return x[1] > y[1]
	end)
	for i = 1, #back do
		push_each('LPUSH', { [list_of(back[i][2])] = { back[i][2] } })
	end
end

-- Send ---------------------------------------------------------------------------------------------------

local sent, dead
-- What was sent just now and waits to be handed out or stored: of each priority values[from .. to].
local from2, to2, from1, to1, from0, to0 = 1, 0, 1, 0, 1, 0
local values2, values1, values0
local first = 0

if nsend > 0 then
	local size, window, forget = unpk('>I5I7I7', ARGV[4])
	if policy then
		size = policy[1]
	end
	local room = size - (nhigh + nnormal + nlow + ndelayed + reserved)
	if room < nsend and band(flags, 4) ~= 0 then
		-- It looks full: what has expired at the heads makes room.
		for which, list in ipairs({ base .. ':9', base .. ':5', base .. ':1' }) do
			for _ = 1, 200 do
				local head = pcall('LINDEX', list, 0)
				if type(head) ~= 'string' or #head < LEAST_TTL or band(byte(head, 2), 16) == 0 or
						unpk('>I7', head, 10) > now then
					break
				end
				pcall('LPOP', list)
				dead = dead or {}
				dead[#dead + 1] = head
				waiting = waiting - #head
				room = room + 1
				nhigh = nhigh - (which == 1 and 1 or 0)
				nnormal = nnormal - (which == 2 and 1 or 0)
				nlow = nlow - (which == 3 and 1 or 0)
			end
		end
	end
	local plain = room >= nsend
	local first_digest = arg
	local number, now_set, known
	first = arg
	if window > 0 then
		first = arg + nsend
		number = math.floor(now / window)
		now_set = base .. ':m' .. format('%d', number)
		-- In the window in which something was remembered last it is known whether there is a set of the one before.
		local is_known = exists and dedup_no == number
		local before = not is_known or band(flags, 8) ~= 0
		if before then
			known = pcall('SMISMEMBER', base .. ':m' .. format('%d', number - 1), unpack(ARGV, first_digest, first - 1))
		end
		if nsend > 1 or not plain then
			local also = pcall('SMISMEMBER', now_set, unpack(ARGV, first_digest, first - 1))
			known = known or {}
			for i = 1, nsend do
				known[i] = (known[i] or 0) + (also[i] or 0)
			end
		end
		if known then
			for i = 1, nsend do
				plain = plain and (known[i] or 0) == 0
			end
		end
		if plain then
			local added = pcall('SADD', now_set, unpack(ARGV, first_digest, first - 1))
			plain = added == nsend -- else the same message is there twice
			known = known or {}
			if added == 0 and nsend == 1 then
				known[1] = 1
			end
		end
	end
	local delays = first + nsend
	local stored = plain
	if plain and how % 4 == 2 then
		-- All of one priority, none refused, none delayed: the arguments are the list.
		local priority = byte(ARGV[first], 2) % 4
		if priority == 1 then
			values1, from1, to1 = ARGV, first, delays - 1
		elseif priority == 2 then
			values2, from2, to2 = ARGV, first, delays - 1
		else
			values0, from0, to0 = ARGV, first, delays - 1
		end
		waiting = waiting + sent_bytes
		changed = true
	else
		local seen, remember = {}, {}
		sent = {}
		values2, values1, values0 = {}, {}, {}
		for i = 1, nsend do
			local item = ARGV[first + i - 1]
			local digest = not plain and window > 0 and ARGV[first_digest + i - 1]
			if digest and ((known[i] or 0) ~= 0 or seen[digest]) then
				sent[i] = '2'
			elseif room <= 0 then
				sent[i] = '1'
			else
				sent[i] = '0'
				room = room - 1
				changed, stored = true, true
				waiting = waiting + #item
				if digest then
					seen[digest] = true
					remember[#remember + 1] = digest
				end
				local priority = byte(item, 2) % 4
				if how % 2 == 1 and ARGV[delays + i - 1] ~= '' then
					put_delayed(item, now + ARGV[delays + i - 1])
				elseif how % 128 >= 64 and #item >= LEAST_TTL and band(byte(item, 2), 16) ~= 0 and
						unpk('>I7', item, 10) <= now then
					dead = dead or {} -- a ttl of 0: nobody can be handed that
					dead[#dead + 1] = item
					waiting = waiting - #item
					room = room + 1
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
	if stored then
		if window > 0 and not (exists and dedup_no == number) then
			flags = flags - band(flags, 8) + 8 * pcall('EXISTS', base .. ':m' .. format('%d', number - 1))
			dedup_no = number
			pcall('PEXPIRE', now_set, math.ceil(window / 500)) -- it is looked at for two windows
		end
		if how % 128 >= 64 then
			flags = bit.bor(flags, 4)
		end
		if not exists then
			pcall('ZADD', P .. ':queues', 0, name)
			if wake == 0 or now + forget < wake then
				wake = now + forget
				pcall('ZADD', P .. ':due', format('%d', wake), name)
			end
		end
	end
end

-- Receive ------------------------------------------------------------------------------------------------

local fence, more = counter, 0
local reply, counts = { '' }, ''
local yields = false
local other_epoch
local leases = ''

if nrun > 0 and now - estimate > 500000 then
	-- This call was long on its way, or its broker has not led nor followed for a while: there may have been an outage, which
	-- the next who leads will find.
	local s = pcall('HMGET', P .. ':sweep', 'epoch', 'stamp')
	local stamp = tonumber(s[2] or 0) or 0
	local now_epoch = (tonumber(s[1] or 0) or 0) + (stamp ~= 0 and now - stamp > 1000000 and 1 or 0)
	other_epoch = now_epoch ~= epoch
	epoch = now_epoch
end

if how % 32 >= 16 then
	-- Another broker whose receivers have waited for half a second, and longer than ours, goes first.
	local me, age = unpk('>c18I7', ARGV[1], head_end)
	local others = pcall('HGETALL', base .. ':w')
	for i = 1, #others, 2 do
		if others[i] ~= me and #others[i + 1] == 16 then
			local since, _, noted = unpk('>I7HI7', others[i + 1])
			yields = yields or since < now - math.max(500000, age) and noted > now - 3000000
		end
	end
end

local can = nrun > 0 and flags % 2 == 0 and not yields and
	(nhigh > 0 or nnormal > 0 or nlow > 0 or from1 <= to1 or from2 <= to2 or from0 <= to0)
if can or leased then
	local runs, random = ARGV[6], ARGV[5]
	local has_ttl, budget, handed, pos = band(flags, 4) ~= 0, 1048576, 0, 1
	for _ = 1, nrun do
		local timeout, k, count, limit
		timeout, k, count, limit, pos = unpk('>I7BHI4', runs, pos)
		local holder, inc, lease
		if k >= 128 then
			inc, holder, pos = unpk('>I7Hc0', runs, pos)
			k = k - 128
			local a = pcall('HMGET', P .. ':a:' .. holder, 'live', 'beat', 'ttl', 'inc', 'lease')
			if a[1] == '1' and now - (tonumber(a[2]) or 0) <= (tonumber(a[3]) or 0) and (inc == 0 or a[4] == format('%d', inc)) then
				inc, lease = tonumber(a[4]) or 0, tonumber(a[5] or 0) or 0
			else
				inc, lease, count = 0, 0, 0
			end
		end
		if not can then
			count = 0
		end
		local overhead = limit > 0 and unpk('>I4', ARGV[1], head_end + 27) or 0
		local n, used, full = 0, 0, more == 1
		local fields, nfields, of = {}, 0, math.floor((counter + 1) / 256)
		local low_byte = counter % 256
		local buckets

		while n < count and not full do
			-- The next some of the highest priority: stored before those that came just now.
			local items, i, j, list, asked
			local want = count - n
			if nhigh > 0 then
				list, j = base .. ':9', nhigh
			elseif from2 <= to2 then
				items, i, j = values2, from2, to2
			elseif nnormal > 0 then
				list, j = base .. ':5', nnormal
			elseif from1 <= to1 then
				items, i, j = values1, from1, to1
			elseif nlow > 0 then
				list, j = base .. ':1', nlow
			elseif from0 <= to0 then
				items, i, j = values0, from0, to0
			else
				break
			end
			if list then
				-- Never far more than fits, as what does not goes back.
				i, j = 1, math.min(want, j, limit > 0 and 32 or 256)
				asked = j
				items = pcall('LPOP', list, format('%d', j))
				if type(items) ~= 'table' or items.err then
					items = {}
				end
				j = #items
			elseif j - i >= want then
				j = i + want - 1
			end
			while i <= j do
				local item = items[i]
				local length = #item
				if length < LEAST or (has_ttl and length >= LEAST_TTL and band(byte(item, 2), 16) ~= 0 and
						unpk('>I7', item, 10) <= now) then
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
					n = n + 1
					low_byte = low_byte + 1
					if low_byte == 256 then
						if nfields > 0 then
							buckets = buckets or {}
							buckets[#buckets + 1] = { of, fields }
							fields, nfields = {}, 0
						end
						low_byte, of = 0, counter / 256
					end
					fields[nfields + 1] = pack('>BI4c16', low_byte, length, sub(random, handed * 16 + 1, handed * 16 + 16))
					fields[nfields + 2] = item
					nfields = nfields + 2
					handed = handed + 1
					reply[1 + handed] = items == ARGV and i - first or item
					held = held + length
				end
				waiting = waiting - length
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
				if nhigh > 0 then
					nhigh = math.max(0, nhigh - gone)
				elseif nnormal > 0 then
					nnormal = math.max(0, nnormal - gone)
				else
					nlow = math.max(0, nlow - gone)
				end
			end
		end
		if nfields > 0 then
			local unit = 2 ^ k
			local ends = math.floor((now + timeout + unit - 1) / unit)
			if lease == 0 then
				lease = pcall('INCR', P .. ':leases')
				lease = type(lease) == 'number' and lease or now
				pcall('HSET', P .. ':a:' .. holder, 'lease', format('%d', lease))
			end
			if buckets then
				buckets[#buckets + 1] = { of, fields }
			end
			for b = 1, buckets and #buckets or 1 do
				if buckets then
					of, fields = buckets[b][1], buckets[b][2]
				end
				local bucket = format('%d.%d.%d.%d', of, epoch, k, ends)
				if lease then
					bucket = bucket .. format('.%d', lease)
				end
				pcall('HSET', base .. ':r' .. bucket, unpack(fields))
				if bucket ~= told then
					if lease then
						pcall('SADD', P .. format(':l:%d', lease), bucket .. ' ' .. name)
					end
					pcall('ZADD', base .. ':b', format('%d', ends * unit), bucket)
					told = bucket
					if of % 64 == 0 then
						-- Names of buckets that were settled empty pile up where timeouts are long: the sweep drops them.
						wake = now
						pcall('ZADD', P .. ':due', format('%d', wake), name)
					end
				end
			end
			if wake == 0 or ends * unit < wake then
				wake = ends * unit
				pcall('ZADD', P .. ':due', format('%d', wake), name)
			end
			reserved = reserved + n
			changed = true
		end
		counts = counts .. char(math.floor(n / 256), n % 256)
		if lease then
			leases = leases .. pack('>I7I7', inc, lease)
		end
	end
elseif nrun > 0 then
	counts = string.rep(char(0, 0), nrun)
end

if from2 <= to2 or from1 <= to1 or from0 <= to0 then
	-- What nobody waited for is stored.
	for p = 2, 0, -1 do
		local values, from, to, list = values2, from2, to2, ':9'
		if p == 1 then
			values, from, to, list = values1, from1, to1, ':5'
		elseif p == 0 then
			values, from, to, list = values0, from0, to0, ':1'
		end
		if from <= to then
			local n = to - from + 1
			if type(pcall('RPUSH', base .. list, unpack(values, from, to))) ~= 'number' then
				-- Something else has the name of the list: they wait with the dead letters.
				dead = dead or {}
				for i = from, to do
					waiting = waiting - #values[i]
					dead[#dead + 1] = values[i]
				end
				n = 0
			end
			if p == 2 then
				nhigh = nhigh + n
			elseif p == 1 then
				nnormal = nnormal + n
			else
				nlow = nlow + n
			end
		end
	end
end
local left = nhigh + nnormal + nlow

-- Who waits elsewhere is rung when something is left; who waits here is noted, in the same call. Only a queue that
-- exists can say whether somebody waits: a new one has to look.
if not exists and changed and pcall('EXISTS', base .. ':w') == 1 then
	flags = bit.bor(flags, 2)
end
if left > 0 and flags % 4 == 2 then
	local me = sub(ARGV[1], head_end, head_end + 17)
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
if how % 16 >= 8 then
	local me, age, count = unpk('>c18I7H', ARGV[1], head_end)
	pcall('HSET', base .. ':w', me, pack('>I7HI7', now - age, count, now))
	pcall('PEXPIRE', base .. ':w', 3000)
	if exists and band(flags, 2) == 0 then
		flags = flags + 2
		changed = true
	end
end

if dead then
	local function is_late(item)
		return #item >= LEAST_TTL and band(byte(item, 2), 16) ~= 0 and unpk('>I7', item, 10) <= now
	end
	changed = true
	buried = buried or {}
	for i = 1, #dead do
		local reason = is_late(dead[i]) and 3 or 1
		counter = counter + 1
		local id = format('%d', counter)
		pcall('ZADD', base .. ':x', id, id)
		pcall('HSET', base .. ':X', id, pack('>I7B', now, reason) .. dead[i])
		buried[#buried + 1] = dead[i]
		buried[#buried + 1] = reason
	end
end
-- include buried

if changed then
	if not exists then
		pcall('ZADD', P .. ':queues', 0, name)
	end
	if left == 0 and reserved == 0 and ndelayed == 0 then
		flags = flags - band(flags, 4)
	end
	call('SET', base .. ':s', pack(STATE, version, flags, counter, reserved, waiting, held, wake, now, dedup_no,
		nhigh, nnormal, nlow, ndelayed) .. told)
end
local tail = #reply
local what = more + flags % 2 * 2 + (yields and 4 or 0)
if misses then
	local chars = {}
	for i = 1, nsettle do
		chars[i] = misses[i] and '0' or '1'
	end
	reply[tail + 1] = table.concat(chars)
	tail, what = tail + 1, what + 8
end
if sent then
	reply[tail + 1] = table.concat(sent)
	tail, what = tail + 1, what + 16
end
if deadlines then
	reply[tail + 1] = table.concat(deadlines)
	tail, what = tail + 1, what + 32
end
if other_epoch then
	reply[tail + 1] = pack('>I4', epoch)
	tail, what = tail + 1, what + 64
end
if leased then
	reply[tail + 1] = leases
	tail, what = tail + 1, what + 128
end
if told_buried then
	reply[tail + 1] = told_buried
	what = what + 256
end
reply[1] = pack('>I7I7I7I4H', how < 128 and now or 0, fence, wake, left, what) .. counts
return reply
