#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "../lib/pack.h"
#include "proto/fields.h"

#define N(a)  (sizeof(a) / sizeof((a)[0]))
#define ALL   ((1ull << FIELD_COUNT) - 1)
#define AGENT "'agent': {'type': 'w'}"
#define MSG   "'message_id': 'm', 'message_type': 'event'"

static const struct field_rules rules = { .any_content = false, .max_batch = 5 };
static const struct field_rules lax = { .any_content = true, .max_batch = 5 };
static struct buf frame; /* what the last params_read() borrows */
static struct params p;
static struct errmsg why;

static enum err
read_with(const struct field_rules *r, const char *text, uint64_t required, uint64_t optional)
{
	buf_clear(&frame);
	pack_text(&frame, text);
	why = (struct errmsg){ 0 };
	memset(&p, 0xa5, sizeof(p)); /* nothing may rely on what was there */
	return params_read(&p, buf_str(&frame), required, optional, r, &why);
}

static enum err
read_all(const char *text)
{
	return read_with(&rules, text, 0, ALL);
}

static void
ok(const char *text)
{
	enum err err = read_all(text);

	ck_assert_msg(err == OK, "%s: %s", text, why.text);
}

/* `text` is refused with exactly this sentence. */
static void
refused(enum err err, const char *text, const char *says)
{
	ck_assert_msg(read_all(text) == err, "%s was not refused so: %s", text, why.text);
	ck_assert_int_eq(why.err, err);
	ck_assert_str_eq(why.text, says);
}

static void
bad(const char *text, const char *says)
{
	refused(ERR_BAD_REQUEST, text, says);
}

#define ck_str(s, literal) ck_assert_msg(str_eq(s, STR(literal)), "is not " literal)

START_TEST(a_send_is_read)
{
	struct buf payload = packed("{'a': 1}");

	ok("{'sender': {'type': 's', 'instance': '7'}, 'recipient': {'type': 'r', 'instance': "
	   "nil},"
	   " 'message': {'message_id': 'm1', 'message_type': 'request', 'payload': {'a': 1},"
	   " 'priority': 9, 'timestamp': '2026-01-02T03:04:05Z', 'correlation_id': 'c', "
	   "'sender': 5},"
	   " 'delay': 1.5, 'ttl': 60}");
	ck_assert_uint_eq(p.have, F(sender) | F(recipient) | F(message) | F(delay) | F(ttl));
	ck_assert_uint_eq(p.nil, 0);
	ck_str(p.sender.type, "s");
	ck_str(p.sender.instance, "7");
	ck_str(p.recipient.type, "r");
	ck_str(p.recipient.instance, "default");
	ck_str(p.message.id, "m1");
	ck_assert_int_eq(p.message.type, MESSAGE_REQUEST);
	ck_assert_uint_eq(p.message.priority, 9);
	ck_assert(str_eq(p.message.payload, buf_str(&payload)));
	ck_str(p.message.timestamp, "2026-01-02T03:04:05Z");
	ck_assert_uint_eq(p.message.extra, 1);
	ck_assert_uint_eq(p.delay, 1500000);
	ck_assert_uint_eq(p.ttl, 60000000);
	buf_done(&payload);
}
END_TEST

START_TEST(a_message_has_its_defaults)
{
	ok("{'message': {'message_id': 'm', 'message_type': 'response', 'payload': nil, "
	   "'priority': nil,"
	   " 'timestamp': nil}}");
	ck_assert_int_eq(p.message.type, MESSAGE_RESPONSE);
	ck_assert_uint_eq(p.message.priority, 5);
	ck_str(p.message.payload, "\x80");
	ck_assert_uint_eq(p.message.timestamp.n, 0);
	ck_assert_uint_eq(p.message.extra, 0);
	ok("{'message': {" MSG ", 'payload': []}}"); /* Lua */
	ck_str(p.message.payload, "\x90");
	ok("{'message': {" MSG ", 'priority': 1.0}}");
	ck_assert_uint_eq(p.message.priority, 1);
}
END_TEST

START_TEST(the_whole_message_is_kept_raw)
{
	struct buf raw = packed("{" MSG ", 'x': [1, {'y': b'\\xff'}]}");

	ok("{'message': {" MSG ", 'x': [1, {'y': b'\\xff'}]}}");
	ck_assert(str_eq(p.message.map, buf_str(&raw)));
	buf_done(&raw);
}
END_TEST

START_TEST(its_own_keys_are_known)
{
	static const char *const own[] = { "message_id", "message_type", "payload",  "priority",
					   "timestamp",  "sender",       "recipient" };
	static const char *const other[] = { "",           "Message_id", "sendeR",
					     "payloads",   "priorit",    "recipienT",
					     "xtimestamp", "traceparent" };

	for (size_t i = 0; i < N(own); i++)
		ck_assert(message_knows_key(str_of(own[i])));
	for (size_t i = 0; i < N(other); i++)
		ck_assert(!message_knows_key(str_of(other[i])));
	ck_str(message_type_names[MESSAGE_EVENT], "event");
}
END_TEST

START_TEST(nothing_is_an_empty_map)
{
	ck_assert_int_eq(params_read(&p, (struct str){ NULL, 0 }, 0, ALL, &rules, &why), OK);
	ck_assert_uint_eq(p.have | p.nil, 0);
	ck_assert_int_eq(params_read(&p, (struct str){ NULL, 0 }, F(agent), 0, &rules, &why),
			 ERR_BAD_REQUEST);
	ck_assert_str_eq(why.text, "agent is missing");
	ok("[]");
	bad("5", "params must be a map");
}
END_TEST

START_TEST(nil_counts_as_absent_but_is_told)
{
	ck_assert_int_eq(read_with(&rules, "{'retry_attempts': nil, " AGENT "}", F(agent),
				   F(retry_attempts)),
			 OK);
	ck_assert_uint_eq(p.have, F(agent));
	ck_assert_uint_eq(p.nil, F(retry_attempts));
	ck_assert_int_eq(read_with(&rules, "{'agent': nil}", F(agent), 0), ERR_BAD_REQUEST);
	ck_assert_str_eq(why.text, "agent is missing");
}
END_TEST

START_TEST(keys_are_known_unique_strings)
{
	bad("{'foo': 1}", "unknown field \"foo\"");
	bad("{5: 1}", "params has a key that is no string");
	bad("{" AGENT ", " AGENT "}", "agent is given twice");
	bad("{'wait': nil, 'wait': 1}", "wait is given twice");
	bad("{'agent': {'type': 'w', 'tpye': 'x'}}", "unknown field \"tpye\" in agent");
	/* A field of another method is unknown to this one. */
	ck_assert_int_eq(read_with(&rules, "{'wait': 1}", 0, F(agent)), ERR_BAD_REQUEST);
	ck_assert_str_eq(why.text, "unknown field \"wait\"");
	ok("{b'agent': {b'type': b'w'}}");
	ck_str(p.agent.type, "w");
}
END_TEST

START_TEST(an_error_repeats_a_clients_bytes_only_when_printable)
{
	bad("{'gr\xc3\xb6\xc3\x9f"
	    "e': 1}",
	    "unknown field \"gr\xc3\xb6\xc3\x9f"
	    "e\"");
	bad("{'a\\x0ab\\x00\\x7f\\xff\\xc2\\x85\\x22': 1}",
	    "unknown field \"a\\x0ab\\x00\\x7f\\xff\\xc2\\x85\\x22\"");
	bad("{'0123456789012345678901234567890123456789012345678901234567890123456789': 1}",
	    "unknown field \"012345678901234567890123456789012345678901234567...\"");
	/* Cut where a character would be, it is no half of it. */
	bad("{'01234567890123456789012345678901234567890123456\xc3\xb6\xc3\xb6': 1}",
	    "unknown field \"01234567890123456789012345678901234567890123456\\xc3...\"");
	ck_assert(str_is_utf8(str_of(why.text)));
}
END_TEST

START_TEST(names_follow_the_rules)
{
	char text[400], name[130] = { 0 };

	memset(name, 'n', 128);
	snprintf(text, sizeof(text), "{'agent': {'type': '%s', 'instance': ':{}*?[ ..'}}",
		 name);
	ok(text);
	ck_assert_uint_eq(p.agent.type.n, 128);
	name[128] = 'n';
	snprintf(text, sizeof(text), "{'agent': {'type': '%s'}}", name);
	bad(text, "agent.type must be 1 to 128 bytes of UTF-8 without control characters");
	snprintf(text, sizeof(text), "{'agent': {'type': 'w', 'instance': '%s'}}", name);
	bad(text, "agent.instance must be 1 to 128 bytes of UTF-8 without control characters");

	ok("{'agent': {'type': '\xd7\xa9\xe2\x80\x8b', 'instance': ''}}"); /* RTL, zero width */
	ck_str(p.agent.instance, "default");
	ok("{'agent': {'instance': nil, 'type': 'w'}}");
	ck_str(p.agent.instance, "default");
	ok("{'agent': {'instance': b'', 'type': 'w'}}");
	ck_str(p.agent.instance, "default");
	bad("{'agent': {'type': ''}}",
	    "agent.type must be 1 to 128 bytes of UTF-8 without control characters");
	bad("{'agent': {'type': 'a\\x0a'}}",
	    "agent.type must be 1 to 128 bytes of UTF-8 without control characters");
	bad("{'agent': {'type': '\\xc2\\x85'}}",
	    "agent.type must be 1 to 128 bytes of UTF-8 without control characters");
	bad("{'agent': {'type': '\\xff'}}",
	    "agent.type must be 1 to 128 bytes of UTF-8 without control characters");
	bad("{'agent': {'type': 5}}",
	    "agent.type must be 1 to 128 bytes of UTF-8 without control characters");
	bad("{'agent': {'instance': 'x'}}", "agent.type is missing");
	bad("{'agent': {'type': nil}}", "agent.type is missing");
	bad("{'agent': {'type': 'a', 'type': 'b'}}", "agent.type is given twice");
	bad("{'agent': {'type': nil, 'type': 'b'}}", "agent.type is given twice");
	bad("{'agent': {'type': 'a', 'instance': 'b', 'instance': 'c'}}",
	    "agent.instance is given twice");
	bad("{'agent': {1: 'a'}}", "agent has a key that is no string");
	bad("{'agent': 'w:default'}", "agent must be a map {type, instance}");
	bad("{'namespace': ''}",
	    "namespace must be 1 to 128 bytes of UTF-8 without control characters");
	bad("{'type': 'a\\x00'}",
	    "type must be 1 to 128 bytes of UTF-8 without control characters");
}
END_TEST

START_TEST(a_bad_message_is_refused_with_its_place)
{
	static const char *const bad_priorities[] = { "0",   "2",   "10",  "-1",
						      "'5'", "5.5", "nan", "true" };
	char text[600];

	bad("{'message': {'message_type': 'event'}}", "message.message_id is missing");
	bad("{'message': {'message_id': 'm'}}", "message.message_type is missing");
	bad("{'message': {'message_id': nil, 'message_type': 'event'}}",
	    "message.message_id is missing");
	bad("{'message': {'message_id': '', 'message_type': 'event'}}",
	    "message.message_id must be 1 to 128 bytes of UTF-8");
	bad("{'message': {'message_id': '\\xff', 'message_type': 'event'}}",
	    "message.message_id must be 1 to 128 bytes of UTF-8");
	bad("{'message': {'message_id': 7, 'message_type': 'event'}}",
	    "message.message_id must be 1 to 128 bytes of UTF-8");
	bad("{'message': {'message_id': 'm', 'message_type': 'Event'}}",
	    "message.message_type must be \"request\", \"response\" or \"event\"");
	bad("{'message': {" MSG ", 'payload': 'x'}}", "message.payload must be a map");
	bad("{'message': {" MSG ", 'payload': [1]}}", "message.payload must be a map");
	bad("{'message': {" MSG ", 'payload': {1: 2}}}",
	    "message.payload has a key that is no string");
	bad("{'message': {" MSG ", 'payload': {'a': <d4 00 00>}}}",
	    "message.payload holds an ext type");
	bad("{'message': {" MSG ", 'trace': ['\\xff']}}",
	    "message.trace holds a string that is no valid UTF-8");
	bad("{'message': {" MSG ", b'trace': 1}}", "message.trace is a key that is no string");
	bad("{'message': {" MSG ", '\\xff': 1}}",
	    "message.\\xff is a key that is no valid UTF-8");
	bad("{'message': {" MSG ", 7: 1}}", "message has a key that is no string");
	bad("{'message': {" MSG ", 'message_id': 'n'}}", "message.message_id is given twice");
	bad("{'message': {" MSG ", 'sender': 1, 'sender': 2}}",
	    "message.sender is given twice");
	bad("{'message': []}", "message.message_id is missing");
	bad("{'message': 'hello'}", "message must be a map");
	for (size_t i = 0; i < N(bad_priorities); i++) {
		snprintf(text, sizeof(text), "{'message': {" MSG ", 'priority': %s}}",
			 bad_priorities[i]);
		bad(text, "message.priority must be 1, 5 or 9");
	}
	snprintf(text, sizeof(text),
		 "{'message': {'message_id': '%129d', 'message_type': 'event'}}", 1);
	bad(text, "message.message_id must be 1 to 128 bytes of UTF-8");
	snprintf(text, sizeof(text),
		 "{'message': {'message_id': '%128d', 'message_type': 'event'}}", 1);
	ok(text);
}
END_TEST

START_TEST(a_payload_may_be_24_deep)
{
	static const char open[] = "{'message': {" MSG ", 'payload': {'a': ";
	static const char in[] = "[[[[[[[[[[[[[[[[[[[[[[[", out[] = "]]]]]]]]]]]]]]]]]]]]]]]";
	char text[200];

	ck_assert_uint_eq(sizeof(in) - 1, 23); /* and the payload itself: 24 */
	snprintf(text, sizeof(text), "%s%s%s}}}", open, in, out);
	ok(text);
	snprintf(text, sizeof(text), "%s[%s%s]}}}", open, in, out);
	bad(text, "message.payload is nested too deep");
	/* No setting lifts the depth. */
	ck_assert_int_eq(read_with(&lax, text, 0, ALL), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(any_content_passes_where_that_is_allowed)
{
	ck_assert_int_eq(read_with(&lax,
				   "{'message': {" MSG
				   ", 'payload': {1: <d4 00 00>}, 'x': '\\xff',"
				   " b'y': 1}}",
				   0, ALL),
			 OK);
	ck_assert_uint_eq(p.message.extra, 2);
	ck_assert_int_eq(read_with(&lax, "{'message': {" MSG ", 7: 1}}", 0, ALL),
			 ERR_BAD_REQUEST);
}
END_TEST

START_TEST(timestamps_are_iso_8601)
{
	static const char *const good[] = { "2026-01-02",
					    "2024-02-29",
					    "2026-01-02T03:04",
					    "2026-01-02 03:04:05",
					    "2026-01-02T03:04:05.123456",
					    "2026-01-02T03:04:05.1Z",
					    "2026-01-02T23:59:60+00:00",
					    "2026-12-31T03:04:05-0530",
					    "2026-01-02T03:04Z" };
	static const char *const wrong[] = { "",
					     "now",
					     "1700000000",
					     "2026-1-2",
					     "2026-13-01",
					     "2026-00-10",
					     "2026-02-29",
					     "2100-02-29",
					     "2026-04-31",
					     "0000-01-01",
					     "2026-01-02T",
					     "2026-01-02T03",
					     "2026-01-02T24:00",
					     "2026-01-02T03:60",
					     "2026-01-02T03:04:61",
					     "2026-01-02T03:04:05.",
					     "2026-01-02T03:04:05.1x",
					     "2026-01-02T03:04:05ZZ",
					     "2026-01-02T03:04:05+1",
					     "2026-01-02T03:04:05+01",
					     "2026-01-02T03:04:05+01:0",
					     "2026-01-02T03:04:05+24:00",
					     "2026-01-02t03:04:05",
					     "2026-01-02Z",
					     "2026-01-02T03:04:05\\x00" };
	char text[200];

	for (size_t i = 0; i < N(good); i++) {
		snprintf(text, sizeof(text), "{'message': {" MSG ", 'timestamp': '%s'}}",
			 good[i]);
		ok(text);
		ck_assert(str_eq(p.message.timestamp, str_of(good[i])));
	}
	for (size_t i = 0; i < N(wrong); i++) {
		snprintf(text, sizeof(text), "{'message': {" MSG ", 'timestamp': '%s'}}",
			 wrong[i]);
		bad(text, "message.timestamp must be an ISO 8601 time");
	}
	bad("{'message': {" MSG ", 'timestamp': 5}}",
	    "message.timestamp must be an ISO 8601 time");
}
END_TEST

START_TEST(seconds_become_microseconds)
{
	ok("{'visibility_timeout': 43200, 'wait': 0, 'delay': f0.5, 'ttl': 31536000, "
	   "'backoff_base': 0.0000014}");
	ck_assert_uint_eq(p.visibility_timeout, 43200000000);
	ck_assert_uint_eq(p.wait, 0);
	ck_assert_uint_eq(p.delay, 500000);
	ck_assert_uint_eq(p.ttl, 31536000000000);
	ck_assert_uint_eq(p.backoff_base, 1);
	ok("{'visibility_timeout': 0.0000001}"); /* above 0, so it stays above 0 */
	ck_assert_uint_eq(p.visibility_timeout, 1);
	ok("{'wait': -0.0}");
	ck_assert_uint_eq(p.wait, 0);
}
END_TEST

START_TEST(seconds_out_of_range_are_refused_never_clamped)
{
	static const char *const values[] = { "0",   "0.0",  "-1",   "43200.000001",
					      "nan", "inf",  "-inf", "18446744073709551615",
					      "'5'", "true", "[]" };
	char text[80];

	for (size_t i = 0; i < N(values); i++) {
		snprintf(text, sizeof(text), "{'visibility_timeout': %s}", values[i]);
		bad(text, "visibility_timeout must be above 0 and at most 43200 seconds");
	}
	bad("{'wait': 60.1}", "wait must be between 0 and 60 seconds");
	bad("{'wait': -0.001}", "wait must be between 0 and 60 seconds");
	bad("{'delay': 31536001}", "delay must be between 0 and 31536000 seconds");
}
END_TEST

START_TEST(counts_are_integers_in_their_range)
{
	static const char *const values[] = { "0",   "1001", "-1",
					      "1.5", "nan",  "18446744073709551615",
					      "'1'", "false" };
	char text[80];

	ok("{'max': 1000, 'limit': 1, 'queue_size': 1000000000, 'retry_attempts': 0}");
	ck_assert_uint_eq(p.max, 1000);
	ck_assert_uint_eq(p.limit, 1);
	ck_assert_uint_eq(p.queue_size, 1000000000);
	ck_assert_uint_eq(p.retry_attempts, 0);
	ok("{'limit': 7.0}");
	ck_assert_uint_eq(p.limit, 7);
	for (size_t i = 0; i < N(values); i++) {
		snprintf(text, sizeof(text), "{'limit': %s}", values[i]);
		bad(text, "limit must be an integer between 1 and 1000");
	}
}
END_TEST

START_TEST(factors_are_numbers_in_their_range)
{
	ok("{'backoff_factor': 1.5, 'backoff_jitter': 1}");
	ck_assert(p.backoff_factor == 1.5);
	ck_assert(p.backoff_jitter == 1);
	bad("{'backoff_factor': 0.99}", "backoff_factor must be a number between 1 and 1000");
	bad("{'backoff_jitter': nan}", "backoff_jitter must be a number between 0 and 1");
	bad("{'backoff_jitter': 'x'}", "backoff_jitter must be a number between 0 and 1");
}
END_TEST

START_TEST(words_are_one_of_a_few)
{
	ok("{'errors': 'pair', 'failure': 'permanent', 'lease': 'heartbeat'}");
	ck_assert_int_eq(p.errors, RPC_ERRORS_PAIR);
	ck_assert_int_eq(p.failure, FAILURE_PERMANENT);
	ck_assert_int_eq(p.lease, LEASE_HEARTBEAT);
	ok("{'errors': b'map', 'failure': 'timeout', 'lease': 'timeout'}");
	ck_assert_int_eq(p.errors, RPC_ERRORS_MAP);
	ck_assert_int_eq(p.failure, FAILURE_TIMEOUT);
	ck_assert_int_eq(p.lease, LEASE_TIMEOUT);
	bad("{'errors': 'list'}", "errors must be \"map\" or \"pair\"");
	bad("{'failure': 1}", "failure must be \"transient\", \"permanent\" or \"timeout\"");
	bad("{'lease': ''}", "lease must be \"timeout\", \"connection\" or \"heartbeat\"");
}
END_TEST

START_TEST(what_an_agent_says_of_itself_is_kept_raw)
{
	struct buf status = packed("{'a': [1, b'x']}"), list = packed("['x']");
	static const char *const wrong[] = { "'x'", "5", "true" };
	char text[200];

	ok("{'status': {'a': [1, b'x']}, 'capabilities': ['x'], 'metadata': [], 'state': "
	   "false, 'alive': true}");
	ck_assert(str_eq(p.status, buf_str(&status)));
	ck_assert(str_eq(p.capabilities, buf_str(&list)));
	ck_str(p.metadata, "\x90"); /* Lua */
	ck_str(p.state, "\xc2");
	ck_assert(p.alive);
	ok("{'capabilities': {}, 'metadata': {}, 'alive': false}");
	ck_assert(!p.alive);
	for (size_t i = 0; i < N(wrong); i++) {
		snprintf(text, sizeof(text), "{'capabilities': %s}", wrong[i]);
		bad(text, "capabilities must be a list or a map");
		snprintf(text, sizeof(text), "{'metadata': %s}", wrong[i]);
		bad(text, "metadata must be a map");
	}
	bad("{'metadata': ['x']}", "metadata must be a map");
	bad("{'status': {5: 1}}", "status has a key that is no string");
	bad("{'state': <d4 00 00>}", "state holds an ext type");
	bad("{'capabilities': ['\\xff']}",
	    "capabilities holds a string that is no valid UTF-8");
	bad("{'alive': 1}", "alive must be true or false");
	ck_assert_int_eq(read_with(&lax, "{'state': {5: <d4 00 00>}}", 0, ALL), OK);
	buf_done(&status);
	buf_done(&list);
}
END_TEST

START_TEST(what_an_agent_says_of_itself_is_bounded)
{
	static char text[70000];

	for (int n = 65533; n <= 65534; n++) { /* and a head of 3 bytes */
		snprintf(text, sizeof(text), "{'status': '%*d'}", n, 1);
		if (n == 65533)
			ok(text);
		else
			bad(text, "status must be at most 65536 bytes of MessagePack");
	}
}
END_TEST

START_TEST(incarnations_are_whole_numbers)
{
	static const char *const wrong[] = { "-1", "1.5", "'1'", "nan",
					     "99999999999999999999.0" };
	char text[80];

	ok("{'resume': 9007199254740993, 'incarnation': 7.0}");
	ck_assert_uint_eq(p.resume, 9007199254740993);
	ck_assert_uint_eq(p.incarnation, 7);
	for (size_t i = 0; i < N(wrong); i++) {
		snprintf(text, sizeof(text), "{'resume': %s}", wrong[i]);
		bad(text, "resume must be an integer of at least 0");
	}
}
END_TEST

START_TEST(a_name_may_stand_for_two_fields)
{
	ck_assert_int_eq(read_with(&rules, "{'after': {'type': 'w'}}", 0, F(after_agent)), OK);
	ck_assert_uint_eq(p.have, F(after_agent));
	ck_str(p.after_agent.type, "w");
	ck_assert_int_eq(read_with(&rules, "{'after': 'w'}", 0, F(after_agent)),
			 ERR_BAD_REQUEST);
	ck_assert_str_eq(why.text, "after must be a map {type, instance}");
	ck_assert_int_eq(read_with(&rules, "{'after': 'w'}", 0, F(after)), OK);
	ck_str(p.after, "w");
}
END_TEST

START_TEST(lists_of_words_are_sets)
{
	ok("{'message_types': ['event', 'request', b'event']}");
	ck_assert_uint_eq(p.message_types, 1 << MESSAGE_EVENT | 1 << MESSAGE_REQUEST);
	ok("{'events': ['queue', 'agent', 'breaker']}");
	ck_assert_uint_eq(p.events, 1 << EVENT_QUEUE | 1 << EVENT_AGENT | 1 << EVENT_BREAKER);
	bad("{'events': 'queue'}", "events must be a list");
	bad("{'events': []}", "events must have at least one element");
	bad("{'events': ['queue', 'events']}",
	    "events[1] must be \"agent\", \"breaker\" or \"queue\"");
	bad("{'message_types': [5]}",
	    "message_types[0] must be \"request\", \"response\" or \"event\"");
}
END_TEST

START_TEST(a_breaker_has_a_name_and_settings)
{
	ok("{'name': 'a b', 'permit': '', 'outcome': b'failure', 'for': 1.5}");
	ck_str(p.name, "a b");
	ck_assert_int_eq(p.outcome, OUTCOME_FAILURE);
	ck_assert_uint_eq(p.for_time, 1500000);
	bad("{'outcome': 'timeout'}", "outcome must be \"success\" or \"failure\"");
	bad("{'for': 0}", "for must be above 0 and at most 31536000 seconds");
	bad("{'for_time': 1}", "unknown field \"for_time\"");
	ok("{'config': {}}");
	ck_assert_uint_eq(p.config.have, 0);
	ok("{'config': {'timeout_seconds': 0.25, 'success_threshold': 2, 'failure_threshold': "
	   "nil}}");
	ck_assert_uint_eq(p.config.have,
			  1u << BREAKER_TIMEOUT | 1u << BREAKER_SUCCESS_THRESHOLD);
	ck_assert_uint_eq(p.config.values[BREAKER_TIMEOUT], 250000);
	ck_assert_uint_eq(p.config.values[BREAKER_SUCCESS_THRESHOLD], 2);
	bad("{'config': 1}", "config must be a map");
	bad("{'config': {1: 1}}", "config has a key that is no string");
	bad("{'config': {'timeout': 1}}", "unknown field \"timeout\" in config");
	bad("{'config': {'success_threshold': 1, 'success_threshold': 1}}",
	    "config.success_threshold is given twice");
	bad("{'config': {'failure_threshold': 0}}",
	    "config.failure_threshold must be an integer between 1 and 1000000");
	bad("{'config': {'half_open_max_calls': 1001}}",
	    "config.half_open_max_calls must be an integer between 1 and 1000");
	bad("{'config': {'recovery_timeout_seconds': 0}}",
	    "config.recovery_timeout_seconds must be above 0 and at most 31536000 seconds");
}
END_TEST

START_TEST(texts_are_utf8_of_a_bounded_length)
{
	char text[1200];

	ok("{'token': '', 'client': b'python', 'error': 'tab\\x09 and more'}");
	ck_str(p.client, "python");
	ck_assert_uint_eq(p.token.n, 0);
	bad("{'error': '\\xff'}", "error must be a string of valid UTF-8");
	bad("{'token': 5}", "token must be a string of valid UTF-8");
	bad("{'after': ''}", "after must be 1 to 1024 bytes long");
	snprintf(text, sizeof(text), "{'error': '%1024d'}", 1);
	ok(text);
	snprintf(text, sizeof(text), "{'error': '%1025d'}", 1);
	bad(text, "error must be at most 1024 bytes long");
}
END_TEST

START_TEST(lists_are_read_back_as_they_were_checked)
{
	const struct send_item *item;
	struct agent_id agent;

	ok("{'messages': [{'recipient': {'type': 'a'}, 'message': {" MSG "}},"
	   " {'ttl': 2, 'message': {'message_id': 'n', 'message_type': 'request', 'priority': "
	   "1,"
	   " 'payload': {'x': 'y'}, 'extra': 1}, 'recipient': {'type': 'b', 'instance': '2'}, "
	   "'delay': 0.25},"
	   " {'recipient': {'type': 'c'}, 'message': {" MSG "}, 'ttl': nil, 'delay': nil},"
	   " {'recipient': {'type': 'd'}, 'message': {" MSG "}, 'ttl': 0}],"
	   " 'recipients': [{'type': 'r1'}, {'type': 'r2', 'instance': 'i'}],"
	   " 'tokens': ['t1', b't2', ''], 'ids': []}");
	ck_assert_uint_eq(p.messages.n, 4);
	item = p.messages.sends;
	ck_str(item->recipient.type, "a");
	ck_str(item->recipient.instance, "default");
	ck_str(item->message.id, "m");
	ck_assert_uint_eq(item->delay | item->ttl, 0);
	ck_assert(!item->has_ttl);
	item++;
	ck_str(item->recipient.instance, "2");
	ck_str(item->message.id, "n");
	ck_assert_uint_eq(item->message.priority, 1);
	ck_assert_int_eq(item->message.type, MESSAGE_REQUEST);
	ck_assert_uint_eq(item->message.extra, 1);
	ck_assert_uint_eq(item->message.payload.n, 5);
	ck_assert_uint_eq(item->delay, 250000);
	ck_assert_uint_eq(item->ttl, 2000000);
	ck_assert(item->has_ttl);
	item++;
	ck_assert(!item->has_ttl);
	item++;
	ck_assert(item->has_ttl);
	ck_assert_uint_eq(item->ttl, 0);

	ck_assert_uint_eq(p.recipients.n, 2);
	list_next_agent(&p.recipients, &agent);
	ck_str(agent.type, "r1");
	list_next_agent(&p.recipients, &agent);
	ck_str(agent.instance, "i");

	ck_assert_uint_eq(p.tokens.n, 3);
	ck_str(list_next_text(&p.tokens), "t1");
	ck_str(list_next_text(&p.tokens), "t2");
	ck_str(list_next_text(&p.tokens), "");
	ck_assert_uint_eq(p.ids.n, 0);
	ck_assert_uint_eq(p.have & F(ids), F(ids));
}
END_TEST

START_TEST(a_bad_element_is_named)
{
#define GOOD "{'recipient': {'type': 'a'}, 'message': {" MSG "}}"
	bad("{'messages': [" GOOD ", " GOOD ", " GOOD
	    ", {'recipient': {'type': 'a'}, 'message':"
	    " {'priority': 2, " MSG "}}]}",
	    "messages[3].message.priority must be 1, 5 or 9");
	bad("{'messages': [{'recipient': {'type': ''}}]}",
	    "messages[0].recipient.type must be 1 to 128 bytes of UTF-8 without control "
	    "characters");
	bad("{'messages': [" GOOD ", {'recipient': {'type': 'a'}}]}",
	    "messages[1].message is missing");
	bad("{'messages': [{'message': {" MSG "}}]}", "messages[0].recipient is missing");
	bad("{'messages': [{'recipient': {'type': 'a'}, 'message': {" MSG "}, 'delay': -1}]}",
	    "messages[0].delay must be between 0 and 31536000 seconds");
	bad("{'messages': [{'recipient': {'type': 'a'}, 'message': {" MSG "}, 'ttl': 'x'}]}",
	    "messages[0].ttl must be between 0 and 31536000 seconds");
	bad("{'messages': [{'ttl': 1, 'ttl': 1}]}", "messages[0].ttl is given twice");
	bad("{'messages': [{'wait': 1}]}", "unknown field \"wait\" in messages[0]");
	bad("{'messages': [{'message': {" MSG ", '': '\\xff'}}]}",
	    "messages[0].message. holds a string that is no valid UTF-8");
	bad("{'messages': [5]}", "messages[0] must be a map {recipient, message, delay, ttl}");
	bad("{'messages': {}}", "messages must be a list");
	bad("{'recipients': [{'type': 'a'}, 'b']}",
	    "recipients[1] must be a map {type, instance}");
	bad("{'tokens': ['a', 5]}", "tokens[1] must be a string of valid UTF-8");
	bad("{'tokens': 'a'}", "tokens must be a list");
}
END_TEST

START_TEST(lists_have_at_least_one_and_at_most_a_batch)
{
	bad("{'tokens': []}", "tokens must have at least one element");
	bad("{'messages': []}", "messages must have at least one element");
	ok("{'tokens': ['1', '2', '3', '4', '5']}");
	refused(ERR_TOO_LARGE, "{'tokens': ['1', '2', '3', '4', '5', '6']}",
		"tokens must have at most 5 elements");
	/* The count alone decides, whatever the elements are. */
	refused(ERR_TOO_LARGE, "{'messages': [1, 2, 3, 4, 5, 6]}",
		"messages must have at most 5 elements");
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("fields");
	TCase *tc = tcase_create("params");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, a_send_is_read);
	tcase_add_test(tc, a_message_has_its_defaults);
	tcase_add_test(tc, the_whole_message_is_kept_raw);
	tcase_add_test(tc, its_own_keys_are_known);
	tcase_add_test(tc, nothing_is_an_empty_map);
	tcase_add_test(tc, nil_counts_as_absent_but_is_told);
	tcase_add_test(tc, keys_are_known_unique_strings);
	tcase_add_test(tc, an_error_repeats_a_clients_bytes_only_when_printable);
	tcase_add_test(tc, names_follow_the_rules);
	tcase_add_test(tc, a_bad_message_is_refused_with_its_place);
	tcase_add_test(tc, a_payload_may_be_24_deep);
	tcase_add_test(tc, any_content_passes_where_that_is_allowed);
	tcase_add_test(tc, timestamps_are_iso_8601);
	tcase_add_test(tc, seconds_become_microseconds);
	tcase_add_test(tc, seconds_out_of_range_are_refused_never_clamped);
	tcase_add_test(tc, counts_are_integers_in_their_range);
	tcase_add_test(tc, factors_are_numbers_in_their_range);
	tcase_add_test(tc, words_are_one_of_a_few);
	tcase_add_test(tc, what_an_agent_says_of_itself_is_kept_raw);
	tcase_add_test(tc, what_an_agent_says_of_itself_is_bounded);
	tcase_add_test(tc, incarnations_are_whole_numbers);
	tcase_add_test(tc, a_name_may_stand_for_two_fields);
	tcase_add_test(tc, lists_of_words_are_sets);
	tcase_add_test(tc, a_breaker_has_a_name_and_settings);
	tcase_add_test(tc, texts_are_utf8_of_a_bounded_length);
	tcase_add_test(tc, lists_are_read_back_as_they_were_checked);
	tcase_add_test(tc, a_bad_element_is_named);
	tcase_add_test(tc, lists_have_at_least_one_and_at_most_a_batch);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	buf_done(&frame);
	return failed != 0;
}
