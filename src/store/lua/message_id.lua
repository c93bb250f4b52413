-- message_id: the id of a message as its item keeps it: 'u' and 16 bytes, or 't' and the text. Included only, behind helpers. Nothing
-- here raises, whatever the bytes.
local function message_id(item)
	local _, p = parts_of(item)
	local lengths = byte(item, p) or 0 -- of the sender's type and instance, a half byte each; 15: a byte of its own behind it
	p = p + 1
	local names = 0
	for _, n in ipairs({ (lengths - lengths % 16) / 16, lengths % 16 }) do
		if n == 15 then
			n = byte(item, p) or 0
			p = p + 1
		end
		names = names + n
	end
	p = p + names
	if (byte(item) or 0) % 2 == 1 then
		return 'u' .. sub(item, p, p + 15)
	end
	return 't' .. sub(item, p + 1, p + (byte(item, p) or 0))
end
