-- namespaces: which there are, in the order of the bytes of their names, and how much is in each. Changes nothing.
--
-- ARGV	[1] prefix  [2] only after this one, encoded, '' from the start  [3] tell at most so many, 0: only that one
-- Reply of each its name, encoded, and how many queues, agents and breakers it has
local P, out = ARGV[1], {}
local sets = { P .. ':queues', P .. ':agents', P .. ':breakers' }
local from = ARGV[2] == '' and '-' or '[' .. ARGV[2] .. ';' -- all that begins with it and a colon is before this

-- By bytes: `<` would ask the locale.
local function is_before(a, b)
	for i = 1, #a do
		local x, y = string.byte(a, i), string.byte(b, i)
		if x ~= y then
			return y and x < y
		end
	end
	return false
end

local function tell(ns)
	local encoded = string.sub(ns, 1, -2)
	from = '[' .. encoded .. ';'
	out[#out + 1] = encoded
	for s = 1, 3 do
		out[#out + 1] = redis.call('ZLEXCOUNT', sets[s], '[' .. ns, '(' .. encoded .. ';')
	end
end

if ARGV[3] == '0' then
	tell(ARGV[2] .. ':')
end
for i = 1, ARGV[3] do
	local first
	for s = 1, 3 do
		local name = redis.call('ZRANGEBYLEX', sets[s], from, '+', 'LIMIT', 0, 1)[1]
		local ns = name and string.match(name, '^[^:]*:')
		if ns and (not first or is_before(ns, first)) then
			first = ns
		end
	end
	if not first then
		break
	end
	tell(first)
end
return out
