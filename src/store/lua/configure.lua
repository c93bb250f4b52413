-- configure: settings of a namespace's queues, or of one queue.
--
-- KEYS	[1] PREFIX:settings
-- ARGV	[1] namespace  [2] name of a queue, or ''  [3...8] queue size, retries, backoff base (microseconds), factor, max,
--	jitter: '' leaves it, '-' takes it back  [9] the bell of all
-- Reply [1] the namespace's values, [2] the queue's: each a text of six words, every one ended by ';', '' where not set
local field = ARGV[2] ~= '' and ARGV[2] or ARGV[1]
local old, words, set = redis.call('HGET', KEYS[1], field) or '', {}, false
for word in string.gmatch(old, '([^;]*);') do
	words[#words + 1] = word
end
for i = 1, 6 do
	local v = ARGV[i + 2]
	if v == '-' then
		words[i] = ''
	elseif v ~= '' then
		words[i] = v
	end
	words[i] = words[i] or ''
	set = set or words[i] ~= ''
end
-- Every broker is told at once; who does not hear it learns it from lead.
redis.pcall('PUBLISH', ARGV[9], '')
local text = table.concat(words, ';') .. ';'
if not set then
	redis.call('HDEL', KEYS[1], field)
elseif text ~= old then
	redis.call('HSET', KEYS[1], field, text)
end
return { redis.call('HGET', KEYS[1], ARGV[1]) or '', ARGV[2] ~= '' and redis.call('HGET', KEYS[1], ARGV[2]) or '' }
