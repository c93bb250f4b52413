-- census: how many agents of each type there are, or how circuit breakers are, in all namespaces. Changes nothing.
--
-- KEYS	[1] PREFIX:agents or PREFIX:breakers
-- ARGV	[1] prefix  [2] after this one, '' from the start  [3] look at so many at most  [4] agents or breakers
-- Reply [1] the last one looked at, '' when there are no more; then
--	agents: of each type NS:TYPE, how many live, how many do not
--	breakers: of each NS:NAME, its state (0 closed, 1 open, 2 half-open), calls that succeeded, failed, were rejected; changes of state
-- include clock
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local found = redis.call('ZRANGEBYLEX', KEYS[1], from, '+', 'LIMIT', 0, ARGV[3])
local out, n = { #found == tonumber(ARGV[3]) and found[#found] or '' }, 1

for i = 1, #found do
	if ARGV[4] == 'breakers' then
		local b = redis.call('HMGET', ARGV[1] .. ':k:' .. found[i], 'state', 'succeeded', 'failed', 'rejected', 'changes')
		out[n + 1] = found[i]
		for j = 1, 5 do
			out[n + 1 + j] = tonumber(b[j] or 0) or 0
		end
		n = n + 6
	else
		local kind = string.match(found[i], '^[^:]*:[^:]*') or found[i]
		if out[n - 2] ~= kind then
			out[n + 1], out[n + 2], out[n + 3] = kind, 0, 0
			n = n + 3
		end
		local a = redis.call('HMGET', ARGV[1] .. ':a:' .. found[i], 'live', 'beat', 'ttl')
		local lives = a[1] == '1' and now - (tonumber(a[2]) or 0) <= (tonumber(a[3]) or 0)
		local at = lives and n - 1 or n
		out[at] = out[at] + 1
	end
end
return out
