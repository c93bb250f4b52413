-- look_at: when the agents' sweep looks at an agent. Included only.
--
-- Needs of the script around it the local `format`. Returns the score in PREFIX:beats for something that is due at `at`: a little later, so
-- that it looks at many at once.
local function look_at(at, ttl)
	local step = math.max(1, math.min(100000, math.floor(ttl / 10)))
	return format('%d', math.ceil(at / step) * step)
end
