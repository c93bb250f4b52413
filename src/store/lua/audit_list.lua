-- audit_list: what operators did, the last first. Changes nothing.
--
-- KEYS	[1] PREFIX:audit
-- ARGV	[1] only before the one of this id, '' all  [2] at most so many  [3...] names of what is wanted of each
-- Reply of each its id and the wanted values, '' where it has none
local found = redis.call('XREVRANGE', KEYS[1], ARGV[1] == '' and '+' or '(' .. ARGV[1], '-', 'COUNT', ARGV[2])
local out = {}
for i = 1, #found do
	local fields, has = found[i][2], {}
	for f = 1, #fields, 2 do
		has[fields[f]] = fields[f + 1]
	end
	out[#out + 1] = found[i][1]
	for f = 3, #ARGV do
		out[#out + 1] = has[ARGV[f]] or ''
	end
end
return out
