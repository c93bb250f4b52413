/* Replies, what Redis's errors mean, its clock, and what we say of its persistence: what needs
 * no connection. */
#include <check.h>
#include <hiredis/hiredis.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "store/clock.h"
#include "store/refusal.h"
#include "store/replies.h"
#include "store/store.h"

static redisReader *reader;
static void *object;

static void
setup(void)
{
	reader = redisReaderCreateWithFunctions(&reply_functions);
	object = NULL;
}

static void
teardown(void)
{
	reply_functions.freeObject(object);
	redisReaderFree(reader);
}

/* The next reply in these bytes, NULL when it is not complete. */
static const struct reply *
read_reply(const void *bytes, size_t n)
{
	reply_functions.freeObject(object);
	object = NULL;
	redisReaderFeed(reader, bytes, n);
	ck_assert_int_eq(redisReaderGetReply(reader, &object), REDIS_OK);
	return reply_of(object);
}

#define READ(literal) read_reply(literal, sizeof(literal) - 1)

START_TEST(each_type_comes_as_it_is)
{
	const struct reply *r = READ("$-1\r\n");

	ck_assert_int_eq(r->type, REPLY_NIL);
	ck_assert_int_eq(READ("*-1\r\n")->type, REPLY_NIL);
	r = READ(":-42\r\n");
	ck_assert_int_eq(r->type, REPLY_INT);
	ck_assert_int_eq(r->integer, -42);
	r = READ("$5\r\na\r\n\0b\r\n");
	ck_assert_int_eq(r->type, REPLY_STR);
	ck_assert(str_eq(r->str, STR("a\r\n\0b")));
	r = READ("$0\r\n\r\n");
	ck_assert_int_eq(r->type, REPLY_STR);
	ck_assert_uint_eq(r->str.n, 0);
	r = READ("+OK\r\n");
	ck_assert_int_eq(r->type, REPLY_STATUS);
	ck_assert(str_eq(r->str, STR("OK")));
	r = READ("-ERR no\r\n");
	ck_assert_int_eq(r->type, REPLY_ERROR);
	ck_assert(str_eq(r->str, STR("ERR no")));
	ck_assert_int_eq(r->str.p[r->str.n], 0);
	r = READ("*0\r\n");
	ck_assert_int_eq(r->type, REPLY_ARRAY);
	ck_assert_uint_eq(r->count, 0);
}
END_TEST

START_TEST(arrays_nest)
{
	const struct reply *r =
		READ("*4\r\n$1\r\na\r\n*2\r\n:7\r\n*1\r\n$2\r\nbc\r\n*0\r\n$-1\r\n");

	ck_assert_uint_eq(r->count, 4);
	ck_assert(str_eq(reply_str(reply_at(r, 0)), STR("a")));
	ck_assert_int_eq(reply_int(reply_at(reply_at(r, 1), 0), -1), 7);
	ck_assert(str_eq(reply_str(reply_at(reply_at(reply_at(r, 1), 1), 0)), STR("bc")));
	ck_assert_int_eq(reply_at(r, 2)->type, REPLY_ARRAY);
	ck_assert_int_eq(reply_at(r, 3)->type, REPLY_NIL);
}
END_TEST

START_TEST(a_reply_may_come_byte_by_byte)
{
	static const char bytes[] = "*3\r\n$3\r\nabc\r\n*1\r\n:12\r\n+ok\r\n";
	const struct reply *r = NULL;

	for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
		ck_assert_ptr_null(r);
		r = read_reply(bytes + i, 1);
	}
	ck_assert_ptr_nonnull(r);
	ck_assert(str_eq(reply_str(reply_at(r, 0)), STR("abc")));
	ck_assert_int_eq(reply_int(reply_at(reply_at(r, 1), 0), 0), 12);
	ck_assert(str_eq(reply_str(reply_at(r, 2)), STR("ok")));
}
END_TEST

START_TEST(large_replies_of_many_sizes_are_kept_whole)
{
	struct buf wire = { 0 };
	const struct reply *r;

	buf_puts(&wire, "*3000\r\n");
	for (unsigned i = 0; i < 3000; i++) {
		size_t n = i % 7 == 0 ? i * 3 : i % 60;

		buf_printf(&wire, "$%zu\r\n", n);
		memset(buf_reserve(&wire, n), 'a' + (int)(i % 26), n);
		wire.len += n;
		buf_puts(&wire, "\r\n");
	}
	r = read_reply(wire.data, wire.len);
	ck_assert_uint_eq(r->count, 3000);
	for (unsigned i = 0; i < 3000; i++) {
		struct str s = reply_str(reply_at(r, i));

		ck_assert_uint_eq(s.n, i % 7 == 0 ? i * 3 : i % 60);
		for (size_t j = 0; j < s.n; j++)
			if (s.p[j] != 'a' + (int)(i % 26))
				ck_abort_msg("element %u, byte %zu", i, j);
	}
	buf_done(&wire);
}
END_TEST

START_TEST(an_array_without_bounds_is_refused)
{
	static const char bytes[] = "*100000000\r\n";

	redisReaderFeed(reader, bytes, sizeof(bytes) - 1);
	ck_assert_int_eq(redisReaderGetReply(reader, &object), REDIS_ERR);
}
END_TEST

START_TEST(half_a_reply_is_freed_with_the_reader)
{
	ck_assert_ptr_null(READ("*2\r\n*3\r\n$1\r\na\r\n"));
}
END_TEST

START_TEST(what_hiredis_sees_of_an_unasked_reply_is_an_error)
{
	const redisReply *seen;

	READ("*1\r\n:1\r\n");
	seen = object;
	ck_assert_int_eq(seen->type, REDIS_REPLY_ERROR);
	ck_assert_uint_gt(strlen(seen->str), 0);
}
END_TEST

START_TEST(the_views_take_anything)
{
	const struct reply *r =
		READ("*5\r\n$2\r\n12\r\n$3\r\n1x2\r\n$-1\r\n$0\r\n\r\n$2\r\n 1\r\n");

	ck_assert_int_eq(reply_at(NULL, 0)->type, REPLY_NIL);
	ck_assert_int_eq(reply_at(r, 5)->type, REPLY_NIL);
	ck_assert_int_eq(reply_at(reply_at(r, 0), 0)->type, REPLY_NIL);
	ck_assert_uint_eq(reply_str(NULL).n, 0);
	ck_assert_uint_eq(reply_str(r).n, 0);
	ck_assert_int_eq(reply_int(NULL, 9), 9);
	ck_assert_int_eq(reply_int(r, 9), 9);
	ck_assert_int_eq(reply_int(reply_at(r, 0), 9), 12);
	for (uint32_t i = 1; i < 5; i++)
		ck_assert_int_eq(reply_int(reply_at(r, i), 9), 9);
	ck_assert_int_eq(reply_int(READ("$20\r\n-9223372036854775808\r\n"), 9), INT64_MIN);
	ck_assert_int_eq(reply_int(READ("$20\r\n-9223372036854775809\r\n"), 9), 9);
	ck_assert_int_eq(reply_int(READ("$3\r\n1\0002\r\n"), 9), 9);
	ck_assert_int_eq(reply_int(READ("$30\r\n000000000000000000000000000001\r\n"), 9), 9);
	ck_assert_int_eq(reply_int(READ("+12\r\n"), 9), 9);
}
END_TEST

/* As Redis 7.0.15 writes them. */
START_TEST(each_class_of_errors_means_what_the_table_says)
{
	static const struct {
		const char *text;
		enum err err;
		bool is_lost;
	} cases[] = {
		{ "NOSCRIPT No matching script. Please use EVAL.", ERR_UNSENT, false },
		{ "BUSY Redis is busy running a script. You can only call SCRIPT KILL or "
		  "SHUTDOWN NOSAVE.",
		  ERR_UNSENT, false },
		{ "ERR Script killed by user with SCRIPT KILL... script: 694a, on "
		  "@user_script:1.",
		  ERR_UNSENT, false },
		{ "LOADING Redis is loading the dataset in memory", ERR_UNSENT, true },
		{ "READONLY You can't write against a read only replica.", ERR_UNSENT, true },
		{ "READONLY You can't write against a read only replica. script: 694a, on "
		  "@user_script:1.",
		  ERR_UNSENT, true },
		{ "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to "
		  "'no'.",
		  ERR_UNSENT, true },
		{ "NOAUTH Authentication required.", ERR_UNSENT, true },
		{ "WRONGPASS invalid username-password pair or user is disabled.", ERR_UNSENT,
		  true },
		{ "NOPERM this user has no permissions to run the 'evalsha' command",
		  ERR_UNSENT, true },
		{ "ERR max number of clients reached", ERR_UNSENT, true },
		{ "OOM command not allowed when used memory > 'maxmemory'.", ERR_REFUSED,
		  false },
		{ "ERR Error running script (call to f_694a): @user_script:1: -OOM command not "
		  "allowed when "
		  "used memory > 'maxmemory'.",
		  ERR_REFUSED, false },
		{ "MISCONF Redis is configured to save RDB snapshots, but it's currently "
		  "unable to persist "
		  "to disk.",
		  ERR_REFUSED, false },
		{ "NOREPLICAS Not enough good replicas to write.", ERR_REFUSED, false },
		{ "WRONGTYPE Operation against a key holding the wrong kind of value",
		  ERR_INTERNAL, false },
		{ "ERR user_script:3: attempt to index a nil value script: 694a, on "
		  "@user_script:3.",
		  ERR_INTERNAL, false },
		{ "ERR The user executing the script can't run this command or subcommand "
		  "script: f910, on "
		  "@user_script:2.",
		  ERR_INTERNAL, false },
		{ "ERR Script attempted to access a non local key in a cluster node",
		  ERR_INTERNAL, false },
		{ "ERR user_script:1: the ROOMBUSYOOMS", ERR_INTERNAL, false },
		{ "", ERR_INTERNAL, false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool is_lost = false;

		ck_assert_msg(refusal_of(str_of(cases[i].text), &is_lost) == cases[i].err, "%s",
			      cases[i].text);
		ck_assert_msg(is_lost == cases[i].is_lost, "%s", cases[i].text);
	}
}
END_TEST

enum { S = 1000000 };
#define DAY_US (1800000000ull * S)

START_TEST(a_late_answer_does_not_make_the_clock_lag)
{
	struct clock c = { 0 };

	ck_assert_uint_eq(clock_at(&c, 5 * S), 0);
	clock_saw(&c, 10 * S, DAY_US);
	ck_assert_uint_eq(clock_at(&c, 10 * S), DAY_US);
	ck_assert_uint_eq(clock_at(&c, 10 * S + 7), DAY_US + 7);
	clock_saw(&c, 10 * S + 500000, DAY_US + 300000); /* 0.2 s under way */
	ck_assert_uint_eq(clock_at(&c, 11 * S), DAY_US + S);
	clock_saw(&c, 11 * S + 100000, DAY_US + S); /* also when it begins a window */
	ck_assert_uint_eq(clock_at(&c, 12 * S), DAY_US + 2 * S);
	clock_saw(&c, 11 * S + 200000, DAY_US + 1300000); /* a prompter one than all before */
	ck_assert_uint_eq(clock_at(&c, 12 * S), DAY_US + 2100000);
}
END_TEST

START_TEST(a_jump_of_redis_is_followed_within_two_seconds)
{
	static const int64_t jumps[] = { 3600, -3600, 2, -2 };

	for (unsigned j = 0; j < 4; j++) {
		struct clock c = { 0 };
		uint64_t mono = 100ull * S, redis = DAY_US;

		for (unsigned i = 0; i < 50; i++) /* five seconds of an answer every 0.1 s */
			clock_saw(&c, mono += S / 10, redis += S / 10);
		redis += (uint64_t)(jumps[j] * S);
		for (unsigned i = 0; i < 21; i++)
			clock_saw(&c, mono += S / 10, redis += S / 10);
		ck_assert_uint_eq(clock_at(&c, mono), redis);
	}
}
END_TEST

START_TEST(durability_is_told_as_it_is)
{
	static const struct {
		const char *version, *appendfsync, *status, *word;
		bool aof;
	} cases[] = {
		{ "", "", "warn", "not reached", false },
		{ "7.0.15", "", "warn", "append-only", false },
		{ "7.0.15", "always", "ok", "every", true },
		{ "7.0.15", "everysec", "ok", "last seconds", true },
		{ "7.0.15", "no", "warn", "never", true },
		{ "7.0.15", "", "warn", "unknown", true },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct store_info info = { .aof = cases[i].aof };
		char message[160];

		snprintf(info.version, sizeof(info.version), "%s", cases[i].version);
		snprintf(info.appendfsync, sizeof(info.appendfsync), "%s",
			 cases[i].appendfsync);
		ck_assert_str_eq(store_durability(&info, message, sizeof(message)),
				 cases[i].status);
		ck_assert_ptr_nonnull(strstr(message, cases[i].word));
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("reply");
	TCase *tc = tcase_create("reply");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, each_type_comes_as_it_is);
	tcase_add_test(tc, arrays_nest);
	tcase_add_test(tc, a_reply_may_come_byte_by_byte);
	tcase_add_test(tc, large_replies_of_many_sizes_are_kept_whole);
	tcase_add_test(tc, an_array_without_bounds_is_refused);
	tcase_add_test(tc, half_a_reply_is_freed_with_the_reader);
	tcase_add_test(tc, what_hiredis_sees_of_an_unasked_reply_is_an_error);
	tcase_add_test(tc, the_views_take_anything);
	tcase_add_test(tc, each_class_of_errors_means_what_the_table_says);
	tcase_add_test(tc, a_late_answer_does_not_make_the_clock_lag);
	tcase_add_test(tc, a_jump_of_redis_is_followed_within_two_seconds);
	tcase_add_test(tc, durability_is_told_as_it_is);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
