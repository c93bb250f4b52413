-- buried: tell of the messages that became dead letters in this call; `buried` has each and its reason, in turn. Included only, behind
-- the last of them: it takes what a function of helpers costs for what is rare.
if buried then
	if not parts_of then
-- include helpers
	end
-- include event
-- include message_id
	local reasons = { 'permanent', 'attempts', 'expired' }
	local uuid = '%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x'
	for i = 1, #buried, 2 do
		local id = message_id(buried[i])
		if byte(id) == 116 then
			id = sub(id, 2)
		else
			id = #id == 17 and format(uuid, byte(id, 2, 17)) or ''
		end
		event(ARGV[3], 'message_dead', name, '', reasons[buried[i + 1]] or '', id)
	end
end
