-- breaker_state: one circuit breaker, read and changed. Included only; include clock before this.
--
-- Needs of the script around it the locals `P` (prefix of all keys) and `keep`: after how many microseconds without use a breaker
-- is forgotten. docs/REDIS.md describes the keys. load() reads, and may raise; nothing else does.
--
-- The scores of permits rise whatever Redis's clock does: those from `since` on were given in the present state, others in
-- an earlier one. Where the clock did not go back, a score is the time at which the permit was given.
-- include event
local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local NUMBERS = { 'state', 'since', 'last', 'tripped', 'failures', 'successes', 'total', 'succeeded', 'failed', 'rejected', 'changes',
	'failed_at', 'succeeded_at', 'changed_at', 'used', 'due', 'threshold', 'timeout', 'recovery', 'calls', 'needed' }
-- The breaker, nil when there is none; permits that are out while half-open, and when the oldest of them was given.
local b, out, oldest
local id, ns, name, key, permits, changed
local told = {} -- what became of breakers, for the log: id, event, reason

local function text(n)
	return string.format('%d', n)
end

local function set(field, value)
	b[field] = value
	changed[#changed + 1] = field
	changed[#changed + 1] = text(value)
end

local function tell(kind, reason)
	event(ns, kind, '', name, reason, '')
	told[#told + 1] = id
	told[#told + 1] = kind
	told[#told + 1] = reason
end

-- Into another state; `kind` is the event.
local function move(state, kind, reason)
	set('state', state)
	set('since', b.last + 1)
	set('tripped', 0)
	set('successes', 0)
	set('changes', b.changes + 1)
	set('changed_at', now)
	out, oldest = 0, nil
	tell(kind, reason)
end

-- When an open breaker may be tried again.
local function opens_until()
	return b.tripped ~= 0 and b.tripped or b.changed_at + b.timeout
end

-- When time alone changes something: a permit is lost, or the breaker is forgotten.
local function due_at()
	if oldest then
		return oldest + b.recovery
	end
	return math.max(b.used + keep, b.state == OPEN and opens_until() or 0)
end

-- Read the breaker of that id, NS:NAME, both encoded. A permit that was lost is found here.
local function load(of)
	id, key = of, P .. ':k:' .. of
	permits, changed, b, out, oldest = key .. ':p', {}, nil, 0, nil
	ns, name = string.match(id, '^([^:]*):(.*)$')
	name = string.gsub(name, '%%(..)', { ['3A'] = ':', ['25'] = '%' })
	local values = redis.call('HMGET', key, unpack(NUMBERS))
	local n = redis.call('ZCARD', permits)
	if not values[1] then
		return
	end
	local found = {}
	for i = 1, #NUMBERS do
		found[NUMBERS[i]] = tonumber(values[i]) or 0
	end
	b = found
	if b.state == HALF_OPEN and n > 0 then
		out = redis.call('ZCOUNT', permits, text(b.since), '+inf')
		oldest = tonumber(redis.call('ZRANGEBYSCORE', permits, text(b.since), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
		if oldest and oldest + b.recovery <= now then
			move(OPEN, 'breaker_opened', 'a permit was not reported in time')
		end
	end
end

-- Write what has changed. The sweep looks in time: it may look too early, and then moves that.
local function save()
	local at = due_at()
	if b.due == 0 or at < b.due then
		set('due', at)
		redis.pcall('ZADD', P .. ':breakers:due', text(at), id)
	end
	if #changed > 0 then
		redis.pcall('HSET', key, unpack(changed))
	end
end

local function forget(reason)
	if b.state ~= CLOSED then
		tell('breaker_closed', reason)
	end
	redis.pcall('DEL', key, permits)
	redis.pcall('ZREM', P .. ':breakers', id)
	redis.pcall('ZREM', P .. ':breakers:due', id)
	b = nil
end

-- What a broker is told of it.
local function info()
	return { b.state, b.failures, out, b.successes, b.total, b.succeeded, b.failed, b.rejected, b.changes, b.failed_at, b.succeeded_at,
		b.changed_at, b.threshold, b.timeout, b.recovery, b.calls, b.needed }
end
