/*
 * src/breaker over a store in memory: what the script is told, what is made of its answers, and what becomes of each
 * operation when Redis fails. What the script itself does: tests/integration/test_breaker.py.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "../lib/fake_store.h"
#include "breaker/breaker.h"

enum { NUMBERS = 17, NOW_S = 1800000000 };

static struct fixture {
	struct loop *loop;
	struct fake_store *fake;
	struct breakers *breakers;
	char said[512]; /* the arguments of the last call, joined by blanks */
	enum script script;
	const char *answer; /* of the next one: "none", "short", or the numbers */
	unsigned pages;     /* of a list */
	uint64_t due;       /* what the sweep says */
	/* What callbacks were told. */
	unsigned fired;
	enum err err;
	struct breaker_info info;
	struct breaker_answer permit;
	char permit_text[64], names[256];
	struct breaker_counts counts;
} f;

static struct reply numbers[2 + NUMBERS], rows[1 + 100 * (1 + NUMBERS)], whole;

static struct reply
text(const char *z)
{
	return (struct reply){ .type = REPLY_STR, .str = str_of(z) };
}

static struct reply *
array(const struct reply *elems, unsigned n)
{
	whole = (struct reply){ .type = REPLY_ARRAY, .count = n, .elems = elems };
	return &whole;
}

/* The numbers 100, 101, ... in their order, behind a state. */
static void
put_numbers(struct reply *to, int64_t state)
{
	for (unsigned i = 0; i < NUMBERS; i++)
		to[i] = (struct reply){ .type = REPLY_INT, .integer = i ? 100 + i : state };
}

static struct reply *
on_list(const struct fake_call *call)
{
	static const char *const names[] = { "a", "b:%" };
	bool is_last = --f.pages == 0;

	rows[0] = text(is_last ? "" : "n%3A:more");
	for (unsigned i = 0; i < 2; i++) {
		rows[1 + i * (1 + NUMBERS)] = text(names[i]);
		put_numbers(&rows[2 + i * (1 + NUMBERS)], i);
	}
	return array(rows, 1 + (atoi(call->args[4].p) < 2 ? 1 : 2) * (1 + NUMBERS));
}

static struct reply *
on_call(void *arg, struct fake_store *fake, const struct fake_call *call)
{
	size_t to = 0;

	(void)arg;
	for (unsigned i = 0; i < call->n; i++)
		to += (size_t)snprintf(f.said + to, sizeof(f.said) - to, "%s%.*s", i ? " " : "",
				       (int)call->args[i].n, call->args[i].p);
	f.script = call->script;
	if (call->script == SCRIPT_BREAKER_LIST)
		return on_list(call);
	if (call->script == SCRIPT_BREAKER_COUNT)
		return fake_reply_array(fake, 3, fake_reply_int(fake, 9),
					fake_reply_int(fake, 2), fake_reply_int(fake, 1));
	if (call->script == SCRIPT_BREAKER_SWEEP)
		return fake_reply_array(fake, 1, fake_reply_int(fake, (int64_t)f.due));
	if (strcmp(f.answer, "none") == 0)
		return fake_reply_array(fake, 0);
	if (strcmp(f.answer, "short") == 0)
		return fake_reply_array(fake, 1, fake_reply_int(fake, 1));
	numbers[0] = (struct reply){ .type = REPLY_INT, .integer = *f.answer == 'p' };
	numbers[1] =
		(struct reply){ .type = REPLY_INT, .integer = *f.answer == 'w' ? 2500000 : -1 };
	put_numbers(numbers + 2, *f.answer == 'w' ? 1 : *f.answer == 'h' ? 2 : 0);
	return array(numbers, 2 + NUMBERS);
}

static void
set_up(void)
{
	const struct breaker_config defaults = { .have = 31, .values = { 5, 60, 300, 3, 2 } };

	f = (struct fixture){ .answer = "p", .pages = 1 };
	f.loop = loop_new();
	f.fake = fake_store_new(f.loop);
	fake_store_on_call(f.fake, on_call, NULL);
	f.breakers = breakers_new(fake_store_store(f.fake), "coordd", &defaults, 86400);
}

static void
tear_down(void)
{
	fake_store_free(f.fake);
	breakers_free(f.breakers);
	loop_free(f.loop);
}

static void
run_idle(void)
{
	for (unsigned i = 0; i < 10; i++)
		loop_turn(f.loop, false);
}

static void
on_info(void *arg, enum err err, const struct breaker_info *info)
{
	(void)arg;
	f.fired++;
	f.err = err;
	ck_assert(!info == (err != OK));
	if (info)
		f.info = *info;
}

static void
on_acquired(void *arg, enum err err, const struct breaker_answer *answer)
{
	(void)arg;
	f.fired++;
	f.err = err;
	ck_assert(!answer == (err != OK));
	if (!answer)
		return;
	f.permit = *answer;
	snprintf(f.permit_text, sizeof(f.permit_text), "%.*s", (int)answer->permit.n,
		 answer->permit.p);
}

static void
on_rows(void *arg, enum err err, const struct breaker_row *list, unsigned n)
{
	size_t to = 0;

	(void)arg;
	f.fired++;
	f.err = err;
	ck_assert(!err || !n);
	for (unsigned i = 0; i < n; i++) {
		to += (size_t)snprintf(f.names + to, sizeof(f.names) - to, "%s%.*s",
				       i ? " " : "", (int)list[i].name.n, list[i].name.p);
		ck_assert_uint_eq(list[i].info.failures, 101);
	}
}

static void
on_counts(void *arg, enum err err, const struct breaker_counts *counts)
{
	(void)arg;
	f.fired++;
	f.err = err;
	ck_assert(!counts == (err != OK));
	if (counts)
		f.counts = *counts;
}

static const struct breaker_config some = {
	.have = 1u << BREAKER_TIMEOUT | 1u << BREAKER_SUCCESS_THRESHOLD,
	.values = { [BREAKER_TIMEOUT] = 7, [BREAKER_SUCCESS_THRESHOLD] = 8 },
};

static void
op_acquire(void)
{
	breaker_acquire(f.breakers, STR("n:"), STR("a:b"), &some, on_acquired, NULL);
}

static void
op_report(void)
{
	breaker_report(f.breakers, STR("n:"), STR("a:b"), STR("P"), OUTCOME_FAILURE, STR("why"),
		       on_info, NULL);
}

static void
op_get(void)
{
	breaker_get(f.breakers, STR("n:"), STR("a:b"), on_info, NULL);
}

static void
op_configure(void)
{
	breaker_configure(f.breakers, STR("n:"), STR("a:b"), &some, on_info, NULL);
}

static void
op_trip(void)
{
	breaker_trip(f.breakers, STR("n:"), STR("a:b"), 42, on_info, NULL);
}

static void
op_reset(void)
{
	breaker_reset(f.breakers, STR("n:"), STR("a:b"), on_info, NULL);
}

static void
op_remove(void)
{
	breaker_remove(f.breakers, STR("n:"), STR("a:b"), on_info, NULL);
}

static void
op_list(void)
{
	f.pages = 3;
	breakers_list(f.breakers, STR("n:"), STR("a:b"), 1000, on_rows, NULL);
}

static void
op_count(void)
{
	breakers_count(f.breakers, STR("n:"), on_counts, NULL);
}

static void (*const ops[])(void) = { op_acquire, op_report, op_get,  op_configure, op_trip,
				     op_reset,   op_remove, op_list, op_count };
enum { OPS = sizeof(ops) / sizeof(ops[0]), SINGLE_OPS = 7 };

#define HEAD "coordd 86400 n%3A:a%3Ab "

START_TEST(the_script_is_told_what_was_asked)
{
	char expected[256];

	op_acquire();
	run_idle();
	snprintf(expected, sizeof(expected), "%s %s 5 60 300 3 2  7   8 10000", HEAD "acquire",
		 f.permit_text);
	ck_assert_str_eq(f.said, expected);
	ck_assert_int_eq(f.script, SCRIPT_BREAKER_GIVE);
	op_configure();
	run_idle();
	ck_assert_str_eq(f.said, HEAD "configure  5 60 300 3 2  7   8 10000");
	ck_assert_int_eq(f.script, SCRIPT_BREAKER_GIVE);
	op_report();
	run_idle();
	ck_assert_str_eq(f.said, HEAD "report P 0 why");
	ck_assert_int_eq(f.script, SCRIPT_BREAKER);
	op_trip();
	run_idle();
	ck_assert_str_eq(f.said, HEAD "trip 42");
	breaker_trip(f.breakers, STR("n:"), STR("a:b"), 0, on_info, NULL);
	run_idle();
	ck_assert_str_eq(f.said, HEAD "trip ");
	op_reset();
	run_idle();
	ck_assert_str_eq(f.said, HEAD "reset");
	op_remove();
	run_idle();
	ck_assert_str_eq(f.said, HEAD "remove");
	op_get();
	run_idle();
	ck_assert_str_eq(f.said, HEAD "get");
	ck_assert_uint_eq(f.fired, 8);
}
END_TEST

START_TEST(its_numbers_are_read_in_their_order)
{
	const struct breaker_info *info = &f.info;

	f.answer = "h";
	op_get();
	run_idle();
	ck_assert_int_eq(info->state, BREAKER_HALF_OPEN);
	ck_assert_uint_eq(info->failures, 101);
	ck_assert_uint_eq(info->out, 102);
	ck_assert_uint_eq(info->successes, 103);
	ck_assert_uint_eq(info->total, 104);
	ck_assert_uint_eq(info->succeeded, 105);
	ck_assert_uint_eq(info->failed, 106);
	ck_assert_uint_eq(info->rejected, 107);
	ck_assert_uint_eq(info->changes, 108);
	ck_assert_uint_eq(info->failed_us, 109);
	ck_assert_uint_eq(info->succeeded_us, 110);
	ck_assert_uint_eq(info->changed_us, 111);
	for (unsigned i = 0; i < BREAKER_SETTINGS; i++)
		ck_assert_uint_eq(info->config.values[i], 112 + i);
}
END_TEST

START_TEST(a_permit_is_random_and_given_only_when_the_script_says_so)
{
	char first[64];

	op_acquire();
	run_idle();
	ck_assert_uint_eq(strlen(f.permit_text), 22);
	ck_assert_uint_eq(f.permit.retry_us, 0);
	ck_assert_int_eq(f.permit.state, BREAKER_CLOSED);
	memcpy(first, f.permit_text, sizeof(first));
	op_acquire();
	run_idle();
	ck_assert_str_ne(f.permit_text, first);
	f.answer = "w";
	op_acquire();
	run_idle();
	ck_assert_str_eq(f.permit_text, "");
	ck_assert_uint_eq(f.permit.retry_us, 2500000);
	ck_assert_int_eq(f.permit.state, BREAKER_OPEN);
	f.answer = "h";
	op_acquire();
	run_idle();
	ck_assert_str_eq(f.permit_text, "");
	ck_assert_uint_eq(f.permit.retry_us, 0);
	ck_assert_int_eq(f.permit.state, BREAKER_HALF_OPEN);
}
END_TEST

START_TEST(what_is_not_there_and_what_is_no_answer)
{
	for (unsigned i = 0; i < SINGLE_OPS; i++) {
		f.answer = "none";
		ops[i]();
		run_idle();
		ck_assert_int_eq(f.err, ERR_NOT_FOUND);
		f.answer = "short";
		ops[i]();
		run_idle();
		ck_assert_int_eq(f.err, ERR_INTERNAL);
	}
	ck_assert_uint_eq(f.fired, 2 * SINGLE_OPS);
}
END_TEST

START_TEST(every_failure_of_redis_is_told_once)
{
	static const enum err errs[] = { ERR_UNSENT, ERR_REFUSED, ERR_UNKNOWN, ERR_INTERNAL };

	for (unsigned i = 0; i < OPS; i++) {
		for (unsigned k = 0; k < 4; k++) {
			for (unsigned nth = 1;; nth++) {
				fake_store_reset(f.fake);
				fake_store_fail_at(f.fake, nth, errs[k]);
				f.fired = 0;
				ops[i]();
				ck_assert_uint_eq(f.fired, 0);
				run_idle();
				ck_assert_uint_eq(f.fired, 1);
				if (!fake_store_has_failed(f.fake))
					break;
				ck_assert_int_eq(f.err, errs[k]);
			}
			ck_assert_int_eq(f.err, OK);
		}
	}
}
END_TEST

START_TEST(a_list_is_read_page_by_page)
{
	op_list();
	run_idle();
	ck_assert_str_eq(f.names, "a b:% a b:% a b:%");
	ck_assert_str_eq(f.said, "coordd 86400 n%3A: n%3A:more 100");
	ck_assert_uint_eq(fake_store_calls(f.fake), 3);
	f.pages = 9;
	breakers_list(f.breakers, STR("n:"), STR(""), 3, on_rows, NULL);
	run_idle();
	ck_assert_str_eq(f.names, "a b:% a");
	ck_assert_str_eq(f.said, "coordd 86400 n%3A: n%3A:more 1");
}
END_TEST

START_TEST(breakers_are_counted)
{
	op_count();
	run_idle();
	ck_assert_str_eq(f.said, "coordd n%3A: 1000");
	ck_assert_uint_eq(f.counts.known, 9);
	ck_assert_uint_eq(f.counts.open, 2);
	ck_assert_uint_eq(f.counts.half_open, 1);
}
END_TEST

static unsigned
sweeps_at(uint64_t after_us)
{
	unsigned before = fake_store_calls(f.fake);

	fake_store_set_time(f.fake, NOW_S * 1000000ull + after_us);
	breakers_sweep(f.breakers);
	breakers_sweep(f.breakers); /* one is under way */
	run_idle();
	return fake_store_calls(f.fake) - before;
}

START_TEST(the_sweep_asks_four_times_a_second_or_when_something_is_due)
{
	ck_assert_uint_eq(sweeps_at(0), 1);
	ck_assert_str_eq(f.said, "coordd 86400 64");
	ck_assert_uint_eq(sweeps_at(249000), 0);
	f.due = NOW_S * 1000000ull + 300000;
	ck_assert_uint_eq(sweeps_at(251000), 1);
	ck_assert_uint_eq(sweeps_at(299000), 0);
	f.due = NOW_S * 1000000ull + 900000;
	ck_assert_uint_eq(sweeps_at(301000), 1);
	ck_assert_uint_eq(sweeps_at(540000), 0);
	fake_store_fail_at(f.fake, 1, ERR_UNKNOWN);
	ck_assert_uint_eq(sweeps_at(552000), 1);
	ck_assert_uint_eq(sweeps_at(700000), 0);
	ck_assert_uint_eq(sweeps_at(803000), 1);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("breaker");
	TCase *tc = tcase_create("breaker");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, the_script_is_told_what_was_asked);
	tcase_add_test(tc, its_numbers_are_read_in_their_order);
	tcase_add_test(tc, a_permit_is_random_and_given_only_when_the_script_says_so);
	tcase_add_test(tc, what_is_not_there_and_what_is_no_answer);
	tcase_add_test(tc, every_failure_of_redis_is_told_once);
	tcase_add_test(tc, a_list_is_read_page_by_page);
	tcase_add_test(tc, breakers_are_counted);
	tcase_add_test(tc, the_sweep_asks_four_times_a_second_or_when_something_is_due);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
