-- drop_bucket: a bucket that holds nothing any more leaves the index of its queue, and that of its lease. Included only, behind common and end_leases.
local function drop_bucket(bucket)
	pcall('ZREM', base .. ':b', bucket)
	pcall('DEL', base .. ':e' .. bucket)
	local lease = string.match(bucket, '^%d+%.%d+%.%d+%.%d+%.(%d+)$')
	if lease then
		leave_lease(lease, bucket .. ' ' .. name)
	end
end
