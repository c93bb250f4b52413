-- purge: drop what is ready and delayed; what is reserved stays.
--
-- KEYS	[1] base
-- ARGV	[1] ''  [2] prefix  [3] namespace
-- Reply how many
-- include clock
-- include common
-- include helpers
local n = call('LLEN', base .. ':9') + call('LLEN', base .. ':5') + call('LLEN', base .. ':1') +
	call('ZCARD', base .. ':d')
if n > 0 then
	pcall('UNLINK', base .. ':9', base .. ':5', base .. ':1', base .. ':d')
	waiting = 0
	recount()
	last = now
	save()
end
return n
