-- events: what happened in a namespace after an event. Changes nothing.
--
-- ARGV	[1] prefix  [2] namespace, encoded  [3] id of an event  [4] `since`, as told with it  [5] at most so many, 0: none
-- Reply [1] since when events are counted, '' before the first one; another one than ARGV[4]: all are after that event
--	[2] id of the last one; then of each its id, kind, NAME, name, reason, message id and time, in turn
local head = redis.call('HMGET', ARGV[1] .. ':events', ARGV[2] .. ':since', ARGV[2])
local since, last = head[1] or '', head[2] or '0'
local after = since == ARGV[4] and ARGV[3] or '0'
local out = { since, last }
if ARGV[5] ~= '0' and after ~= last then
	local found = redis.pcall('XRANGE', ARGV[1] .. ':e:' .. ARGV[2], '(' .. after .. '-0', '+', 'COUNT', ARGV[5])
	for i = 1, #found do
		local fields, n = found[i][2], #out
		out[n + 1] = string.match(found[i][1], '^%d+')
		for f = 1, 6 do
			out[n + 1 + f] = fields[2 * f] or ''
		end
	end
end
return out
