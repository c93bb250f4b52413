-- held: which of these reservations are still there? Changes nothing.
--
-- KEYS	[1] base
-- ARGV	in turn a bucket, and the fields looked for in it, 21 bytes each, one after another
-- Reply a character for each field, in that order: 1 it is there, 0 it was settled or taken back
local there = {}
for i = 1, #ARGV, 2 do
	local key, fields = KEYS[1] .. ':r' .. ARGV[i], ARGV[i + 1]
	for at = 1, #fields, 21 do
		there[#there + 1] = redis.call('HEXISTS', key, string.sub(fields, at, at + 20))
	end
end
return table.concat(there)
