-- What every script of a queue begins with, `now` being known. docs/REDIS.md describes the keys and the formats.
--
-- KEYS[1] is the base of the queue's keys, ARGV[2] the prefix of all keys, ARGV[3] the namespace.
-- Rule: everything that can fail is read first; after the first write nothing raises (pcall), because
-- Redis keeps what a failed script wrote. What can be text is: a number costs Redis five times as much to write out.
local base, P = KEYS[1], ARGV[2]
local call, pcall = redis.call, redis.pcall
local byte, sub, char, format = string.byte, string.sub, string.char, string.format
local pack, unpk = struct.pack, struct.unpack
local band = bit.band
local name = sub(base, #P + 4)

-- The state of a queue: flags (1 paused, 2 a broker waits, 4 messages with a ttl may be there, 8 the dedup bucket before
-- the last may be), counter, reserved, bytes waiting, bytes reserved, wake, last use, last dedup bucket; how many are ready (9, 5, 1) and delayed;
-- then the name of the bucket that BASE:b was last told of.
local STATE = '>BBI7I4I7I7I7I7I6I4I4I4I4'
local raw = call('GET', base .. ':s')
local exists = raw and true or false
-- Size, dedup window, forget after, retries, backoff base, factor, max, jitter, most dead letters (0: all are kept).
local POLICY = '>I5I7I7HI7dI7dI5'
local version, flags, counter, reserved, waiting, held, wake, last, dedup_no, nhigh, nnormal, nlow, ndelayed, told_from
local told = ''
if raw then
	version, flags, counter, reserved, waiting, held, wake, last, dedup_no, nhigh, nnormal, nlow, ndelayed, told_from = unpk(STATE, raw)
	told = sub(raw, told_from)
else
	version, flags, counter, reserved, waiting, held, wake, last, dedup_no, nhigh, nnormal, nlow, ndelayed = 2, 0, now, 0, 0, 0, 0,
		now, 0, 0, 0, 0, 0
end
local changed = false
local buried, told_buried -- see buried.lua

-- Defined by helpers.lua, which tick includes only where it needs them: a function costs as much as a command.
local LISTS, save, wake_by, settings, parts_of, failed_once_more, is_expired, list_of, bury, put_delayed, count_ready, recount, push_each, promote, ring
