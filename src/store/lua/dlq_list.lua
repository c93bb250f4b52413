-- dlq_list: dead letters, oldest first.
--
-- KEYS	[1] base
-- ARGV	[1] after this id (0 from the start)  [2] at most so many  [3] at most so many bytes (one always fits)  [4] bytes to
--	add for each
-- Reply [1] 1 when there are more behind these; then id and record, in turn. A record: >I7B dead-at, reason; then the item
local base = KEYS[1]
local ids = redis.call('ZRANGEBYSCORE', base .. ':x', '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])
local out, room = { #ids == tonumber(ARGV[2]) and 1 or 0 }, tonumber(ARGV[3])
for i = 1, #ids do
	local record = redis.call('HGET', base .. ':X', ids[i])
	if record then
		room = room - #record - ARGV[4]
		if room < 0 and #out > 1 then
			out[1] = 1
			break
		end
		out[#out + 1] = ids[i]
		out[#out + 1] = record
	end
end
return out
