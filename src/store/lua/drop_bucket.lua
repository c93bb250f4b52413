-- drop_bucket: a bucket that holds nothing any more leaves the index of its queue, and that of its lease. Included only, behind common.
local function drop_bucket(bucket)
	pcall('ZREM', base .. ':b', bucket)
	pcall('DEL', base .. ':e' .. bucket)
	local lease = string.match(bucket, '^%d+%.%d+%.%d+%.%d+%.(%d+)$')
	if lease and pcall('SREM', P .. ':l:' .. lease, bucket .. ' ' .. name) == 1 and pcall('EXISTS', P .. ':l:' .. lease) == 0 then
		pcall('HDEL', P .. ':ended', lease)
	end
end
