-- breaker: a circuit breaker is asked, told, or managed.
--
-- ARGV	[1] prefix  [2] after how many microseconds without use a breaker is forgotten  [3] id, NS:NAME, both encoded
--	[4] what is wanted; what follows depends on that:
--	'acquire', 'configure'	[5] the permit to give, ''  [6...10] failure threshold, timeout, recovery timeout (microseconds),
--		half-open calls, success threshold of a new one  [11...15] the same as asked for, '' where not  [16] how many breakers there may be
--	'report'	[5] permit  [6] 1 success, 0 failure  [7] error, ''
--	'trip'	[5] for how many microseconds, '' its timeout
--	'get', 'reset', 'remove'
-- Reply {} when there is no such breaker, { -1 } when it would be one too many, else
--	[1] acquire: 1 permitted, 0 refused  [2] acquire: after how many microseconds to ask again, -1 nobody knows
--	[3...] state, failures, permits out, successes, calls: all, succeeded, failed, rejected; changes of state; time of the last
--	failure, success, change; then the five settings; then for each change of state: id, event, reason
-- include clock
local P, keep, op = ARGV[1], tonumber(ARGV[2]), ARGV[4]
-- include breaker_state
local SETTINGS = { 'threshold', 'timeout', 'recovery', 'calls', 'needed' }
local PERMITS_MAX, PERMITS_KEPT = 10000, 3600000000 -- of a breaker

load(ARGV[3])
if b and due_at() <= now then
	forget('forgotten')
end
local is_new = not b and (op == 'acquire' or op == 'configure')
if is_new and redis.call('ZCARD', P .. ':breakers') >= tonumber(ARGV[16]) then
	return { -1 }
end
if is_new then
	b = {}
	for i = 1, #NUMBERS do
		b[NUMBERS[i]] = 0
	end
	set('state', CLOSED)
	for i = 1, 5 do
		set(SETTINGS[i], tonumber(ARGV[5 + i]))
	end
	redis.pcall('ZADD', P .. ':breakers', 0, id)
end
if not b then
	return {}
end

local permitted, again = 0, -1
if is_new or op == 'configure' then
	for i = 1, 5 do
		if ARGV[10 + i] ~= '' then
			set(SETTINGS[i], tonumber(ARGV[10 + i]))
		end
	end
end
if op == 'acquire' then
	set('total', b.total + 1)
	if b.state == OPEN and opens_until() <= now then
		move(HALF_OPEN, 'breaker_half_opened', 'its timeout has passed')
	end
	if b.state == CLOSED or (b.state == HALF_OPEN and out < b.calls) then
		permitted = 1
		set('last', math.max(now, b.last + 1))
		redis.pcall('ZADD', permits, text(b.last), ARGV[5])
		redis.pcall('ZREMRANGEBYRANK', permits, 0, -PERMITS_MAX - 1)
		redis.pcall('ZREMRANGEBYSCORE', permits, '-inf', text(now - math.max(PERMITS_KEPT, b.recovery)))
		if b.state == HALF_OPEN then
			out = out + 1
			oldest = oldest or b.last
		end
	else
		set('rejected', b.rejected + 1)
		if b.state == OPEN then
			again = opens_until() - now
		end
	end
elseif op == 'report' then
	local given = tonumber(redis.pcall('ZSCORE', permits, ARGV[5]) or nil)
	local is_present, is_success = given and given >= b.since, ARGV[6] == '1'
	if given then
		redis.pcall('ZREM', permits, ARGV[5])
		if is_success then
			set('succeeded', b.succeeded + 1)
			set('succeeded_at', now)
		else
			set('failed', b.failed + 1)
			set('failed_at', now)
		end
	end
	local why = ARGV[7] ~= '' and ': ' .. ARGV[7] or ''
	if is_present and b.state == HALF_OPEN then
		out = out - 1
		if not is_success then
			set('failures', b.failures + 1)
			move(OPEN, 'breaker_opened', 'a failure while half-open' .. why)
		elseif b.successes + 1 < b.needed then
			set('successes', b.successes + 1)
		else
			set('failures', 0)
			move(CLOSED, 'breaker_closed', 'enough successes while half-open')
		end
	elseif is_present then
		set('failures', is_success and 0 or b.failures + 1)
		if not is_success and b.failures >= b.threshold then
			move(OPEN, 'breaker_opened', text(b.failures) .. ' failures in a row' .. why)
		end
	end
elseif op == 'trip' then
	if b.state ~= OPEN then
		move(OPEN, 'breaker_opened', 'tripped')
	end
	set('tripped', now + (tonumber(ARGV[5]) or b.timeout))
elseif op == 'reset' then
	if b.state ~= CLOSED then
		move(CLOSED, 'breaker_closed', 'reset')
	end
	set('failures', 0)
end
if op ~= 'get' then
	set('used', now)
end
local reply = info()
table.insert(reply, 1, again)
table.insert(reply, 1, permitted)
if op == 'remove' then
	forget('removed')
else
	save()
end
for i = 1, #told do
	reply[#reply + 1] = told[i]
end
return reply
