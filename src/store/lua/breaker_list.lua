-- breaker_list: the breakers of a namespace, in the order of the bytes of their ids.
--
-- ARGV	[1] prefix  [2] after how many microseconds without use a breaker is forgotten  [3] NS:, encoded
--	[4] the id of the last one seen, ''  [5] at most so many
-- Reply [1] the id to go on after, '' when there are no more; then of each its name, not encoded, and its 17 numbers as in
--	breaker, in turn
-- include clock
local P, keep = ARGV[1], tonumber(ARGV[2])
-- include breaker_state
local from = #ARGV[4] > #ARGV[3] and '(' .. ARGV[4] or '[' .. ARGV[3]
local found = redis.call('ZRANGEBYLEX', P .. ':breakers', from, '+', 'LIMIT', 0, ARGV[5])
local rows = { #found == tonumber(ARGV[5]) and found[#found] or '' }
for i = 1, #found do
	if string.sub(found[i], 1, #ARGV[3]) ~= ARGV[3] then
		rows[1] = ''
		break
	end
	load(found[i])
	if b then
		save()
		local numbers, n = info(), #rows
		rows[n + 1] = name
		for k = 1, #numbers do
			rows[n + 1 + k] = numbers[k]
		end
	end
end
return rows
