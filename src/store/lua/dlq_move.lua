-- dlq_move: put dead letters back to the tail of their queue, or drop them. At most 200 looked at in a call.
--
-- KEYS	[1] base
-- ARGV	[1] redrive or purge  [2] prefix  [3] namespace  [4] policy, as in tick  [5] after this id (0 from the start)
--	[6] at most so many are moved  [7] how many ids follow, then these, then message ids; none of either: all
-- Reply [1] how many were moved  [2] the last id looked at  [3] 1 when there is more to look at
-- include clock
-- include common
-- include helpers
local redrive, after, limit, nids = ARGV[1] == 'redrive', ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local room = limit
if redrive then
	local policy = settings(unpk(POLICY, ARGV[4]))
	local size = call('LLEN', base .. ':9') + call('LLEN', base .. ':5') + call('LLEN', base .. ':1') +
		call('ZCARD', base .. ':d') + reserved
	room = math.min(limit, math.max(0, policy[1] - size))
end

local wanted, any = {}, #ARGV == 7
for i = 8, #ARGV do
	wanted[(i <= 7 + nids and 'i' or 'm') .. ARGV[i]] = true
end
local only_ids = nids > 0 and #ARGV == 7 + nids

-- include message_id

-- As it was sent: no attempts, no error, no ttl.
local function revived(item)
	local _, body = parts_of(item)
	return sub(item, 1, 1) .. char(band(byte(item, 2), 207)) .. sub(item, 3, 9) .. sub(item, body)
end

local ids
if only_ids then
	ids = {}
	local named = {}
	for i = 8, #ARGV do
		if not named[ARGV[i]] and call('ZSCORE', base .. ':x', ARGV[i]) then
			named[ARGV[i]] = true
			ids[#ids + 1] = ARGV[i]
		end
	end
else
	ids = call('ZRANGEBYSCORE', base .. ':x', '(' .. after, '+inf', 'LIMIT', 0, 200)
end
local moved, lists, gone = 0, {}, {}
local seen = 0
for i = 1, #ids do
	if moved >= room then
		break
	end
	seen = i
	after = ids[i]
	local record = call('HGET', base .. ':X', ids[i])
	local item = record and sub(record, 9)
	if any or wanted['i' .. ids[i]] or (item and wanted['m' .. message_id(item)]) then
		gone[#gone + 1] = ids[i]
		if item then
			moved = moved + 1
			if redrive then
				item = revived(item)
				local key = list_of(item)
				lists[key] = lists[key] or {}
				table.insert(lists[key], item)
				waiting = waiting + #item
			end
		end
	end
end
if #gone > 0 then
	push_each('RPUSH', lists)
	if redrive and band(flags, 1) == 0 then
		ring()
	end
	pcall('ZREM', base .. ':x', unpack(gone))
	pcall('HDEL', base .. ':X', unpack(gone))
	last = now
	recount()
	save()
end
local more = not only_ids and seen == #ids and #ids == 200 and moved < limit
return { moved, after, more and 1 or 0 }
