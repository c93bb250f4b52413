-- pause: a queue hands out nothing any more, or does so again.
--
-- KEYS	[1] base
-- ARGV	[1] 1 pause, 0 resume  [2] prefix  [3] namespace  [4] after how many microseconds an idle queue is forgotten
-- Reply 1 when that changed something, else 0
-- include clock
-- include common
-- include helpers
-- include event
local want = tonumber(ARGV[1])

if band(flags, 1) == want then
	return 0
end
flags = flags - band(flags, 1) + want
last = now
wake_by(now + ARGV[4]) -- a queue that is made by this is to be forgotten some day, too
if want == 0 then
	ring() -- whoever waits may find something now
end
save()
event(ARGV[3], want == 1 and 'queue_paused' or 'queue_resumed', name, '', '', '')
return 1
