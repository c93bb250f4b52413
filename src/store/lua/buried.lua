-- buried: tell of the messages that became dead letters in this call; `buried` has each and its reason, in turn. `told_buried` says
-- afterwards how many there were of each reason. Included only, behind the last of them: it takes what a function of helpers costs for what is rare.
if buried then
	if not parts_of then
-- include helpers
	end
-- include event
-- include message_id
	local each = { 0, 0, 0 }
	local reasons = { 'permanent', 'attempts', 'expired' }
	local uuid = '%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x'
	local function tell(kind, item, reason)
		local id = message_id(item)
		if byte(id) == 116 then
			id = sub(id, 2)
		else
			id = #id == 17 and format(uuid, byte(id, 2, 17)) or ''
		end
		event(ARGV[3], kind, name, '', reasons[reason] or '', id)
	end
	for i = 1, #buried, 2 do
		each[buried[i + 1]] = each[buried[i + 1]] + 1
		tell('message_dead', buried[i], buried[i + 1])
	end
	told_buried = pack('>HHH', math.min(each[1], 65535), math.min(each[2], 65535), math.min(each[3], 65535))
	-- More than are to be kept: the oldest leave, and twice as many as came, until the limit holds where it was lowered.
	local most = select(9, unpk(POLICY, ARGV[4]))
	local count = most > 0 and pcall('ZCARD', base .. ':x')
	if type(count) == 'number' and count > most then
		local old = pcall('ZRANGE', base .. ':x', 0, math.min(count - most, #buried) - 1)
		for i = 1, #old do
			local raw = pcall('HGET', base .. ':X', old[i])
			pcall('HDEL', base .. ':X', old[i])
			pcall('ZREM', base .. ':x', old[i])
			if type(raw) == 'string' and #raw > 8 then
				tell('dead_letter_dropped', sub(raw, 9), byte(raw, 8))
			end
		end
	end
end
