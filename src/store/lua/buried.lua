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
	for i = 1, #buried, 2 do
		local id = message_id(buried[i])
		if byte(id) == 116 then
			id = sub(id, 2)
		else
			id = #id == 17 and format(uuid, byte(id, 2, 17)) or ''
		end
		each[buried[i + 1]] = each[buried[i + 1]] + 1
		event(ARGV[3], 'message_dead', name, '', reasons[buried[i + 1]] or '', id)
	end
	told_buried = pack('>HHH', math.min(each[1], 65535), math.min(each[2], 65535), math.min(each[3], 65535))
end
