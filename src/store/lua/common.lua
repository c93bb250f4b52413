-- What every script of a queue begins with. docs/REDIS.md describes the keys and the formats.
--
-- KEYS[1] is the base of the queue's keys, ARGV[2] the prefix of all keys, ARGV[3] the namespace.
-- Rule: everything that can fail is read first; after the first write nothing raises (pcall), because
-- Redis keeps what a failed script wrote.
local base, P, ns = KEYS[1], ARGV[2], ARGV[3]
local call, pcall = redis.call, redis.pcall
local byte, sub, char = string.byte, string.sub, string.char
local pack, unpk = struct.pack, struct.unpack
local band, bor = bit.band, bit.bor
local name = sub(base, #P + 4)

local t = call('TIME')
local now = t[1] * 1000000 + t[2]

-- The state of a queue: flags (1 paused, 2 a broker waits), counter, reserved, bytes waiting, bytes reserved, wake,
-- last use, dedup bucket; how many are ready (9, 5, 1) and delayed; the bucket that BASE:b was last told of.
local STATE = '>BBI7I4I7I7I7I7I6I4I4I4I4I7BI6'
local raw = call('GET', base .. ':s')
local exists = raw and true or false
local POLICY = '>I5HI7dI7dI7I7' -- size, retries, backoff base, factor, max, jitter, dedup window, forget after
local version, flags, counter, reserved, waiting, held, wake, last, dedup_no, nhigh, nnormal, nlow, ndelayed,
	told_of, told_k, told_ends = 1, 0, now, 0, 0, 0, 0, now, 0, 0, 0, 0, 0, 0, 0, 0
if raw then
	version, flags, counter, reserved, waiting, held, wake, last, dedup_no, nhigh, nnormal, nlow, ndelayed,
		told_of, told_k, told_ends = unpk(STATE, raw)
end
local changed = false

-- Defined by helpers.lua, which tick includes only where it needs them: a function costs as much as a command.
local LISTS, save, wake_by, settings, parts_of, failed_once_more, is_expired, list_of, bury, put_delayed, count_ready, recount, push_each, promote, ring
