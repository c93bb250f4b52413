-- peek: what would be received, in order; nothing is reserved.
--
-- KEYS	[1] base
-- ARGV	[1] at most so many  [2] prefix  [3] namespace  [4] at most so many bytes (one message always fits)  [5] bytes to
--	add for each
-- Reply the items
-- include clock
-- include common
-- include helpers
local limit, room = tonumber(ARGV[1]), tonumber(ARGV[4])
if wake ~= 0 and now >= wake then
	call('LLEN', base .. ':9')
	promote(200)
	if changed then
		save()
	end
end
local out = {}
for p = 2, 0, -1 do
	local from = 0
	while #out < limit do
		local some = call('LRANGE', base .. LISTS[p], from, from + 15)
		for i = 1, #some do
			if #out < limit and not is_expired(some[i]) then
				room = room - #some[i] - ARGV[5]
				if room < 0 and #out > 0 then
					return out
				end
				out[#out + 1] = some[i]
			end
		end
		from = from + 16
		if #some < 16 or from > 4096 then
			break
		end
	end
end
return out
