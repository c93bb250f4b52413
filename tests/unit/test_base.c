#include <check.h>
#include <stdlib.h>

#include "base/backoff.h"
#include "base/err.h"
#include "base/id.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/str.h"

START_TEST(pauses_grow_to_the_limit_and_start_again)
{
	struct backoff b = { .min_us = 100, .max_us = 5000 };
	uint64_t longest = 0;

	for (unsigned round = 0; round < 200; round++) {
		backoff_reset(&b);
		ck_assert_uint_eq(backoff_next(&b), 100);
		for (unsigned i = 1; i < 70; i++) {
			uint64_t top = i < 6 ? 100u << i : 5000, pause = backoff_next(&b);

			ck_assert_uint_ge(pause, 100);
			ck_assert_uint_le(pause, top < 5000 ? top : 5000);
			if (pause > longest)
				longest = pause;
		}
	}
	ck_assert_uint_gt(longest, 4500);
}
END_TEST

START_TEST(every_error_has_a_code_a_text_and_a_say_on_retries)
{
	for (int e = OK; e < ERR_COUNT; e++) {
		ck_assert_str_ne(err_name(e), "");
		ck_assert_str_ne(err_code(e), "");
		ck_assert_str_ne(err_text(e), "");
		/* Only `unavailable` says whether it was applied, and it always does. */
		ck_assert_int_eq(strcmp(err_code(e), "unavailable") == 0, *err_applied(e) != 0);
		for (int other = OK; other < e; other++)
			ck_assert_str_ne(err_name(e), err_name(other));
	}
	ck_assert(err_retryable(ERR_OVERLOADED));
	ck_assert(!err_retryable(ERR_BAD_REQUEST));
}
END_TEST

START_TEST(utf8_is_judged_strictly)
{
	static const char *const good[] = {
		"", "a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xef\xbf\xbf"
	};
	static const char *const bad[] = { "\x80",
					   "\xc3",
					   "\xc0\x80",
					   "\xe0\x80\x80",
					   "\xed\xa0\x80",
					   "\xf4\x90\x80\x80",
					   "\xf8\x88\x80\x80\x80",
					   "a\xff" };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert(str_is_utf8(str_of(good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!str_is_utf8(str_of(bad[i])), "%zu", i);
	ck_assert(str_has_control(STR("a\nb")));
	ck_assert(str_has_control(STR("a\x7f")));
	ck_assert(str_has_control(STR("a\xc2\x85")));
	ck_assert(!str_has_control(STR("a b\xc3\xa9")));
}
END_TEST

START_TEST(a_glob_matches_the_whole)
{
	static const struct {
		const char *pattern, *text;
		bool matches;
	} globs[] = {
		{ "", "", true },           { "", "a", false },
		{ "*", "", true },          { "*", "abc", true },
		{ "a", "a", true },         { "a", "ab", false },
		{ "a*", "a", true },        { "a*", "ba", false },
		{ "*b", "ab", true },       { "*b", "abc", false },
		{ "?", "", false },         { "?", "a", true },
		{ "a?c", "abc", true },     { "a*c*e", "abcde", true },
		{ "a*c*e", "abcd", false }, { "*ab", "aaab", true },
		{ "*ab*ab", "ab", false },  { "**", "x", true },
		{ "*:one", "t:one", true }, { "[a]", "a", false },
		{ "[a]", "[a]", true },     { "\\*", "\\x", true },
	};
	char text[4097];

	for (size_t i = 0; i < sizeof(globs) / sizeof(globs[0]); i++)
		ck_assert_msg(str_glob(str_of(globs[i].pattern), str_of(globs[i].text)) ==
				      globs[i].matches,
			      "%s %s", globs[i].pattern, globs[i].text);
	memset(text, 'a', sizeof(text)); /* no worse than the product of the lengths */
	ck_assert(!str_glob(STR("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"),
			    (struct str){ text, sizeof(text) }));
}
END_TEST

START_TEST(only_printable_ascii_is_plain)
{
	static const char bad[] = { '\0', '\n', '\x1f', '\x7f', '\x80', '\xff' };
	char text[40];

	memset(text, '~', sizeof(text));
	for (size_t n = 0; n <= sizeof(text); n++) {
		ck_assert_msg(str_is_plain((struct str){ text, n }), "%zu", n);
		for (size_t i = 0; i < n; i++) {
			for (size_t j = 0; j < sizeof(bad); j++) {
				text[i] = bad[j];
				ck_assert_msg(!str_is_plain((struct str){ text, n }),
					      "%zu %zu %zu", n, i, j);
			}
			text[i] = ' ';
			ck_assert(str_is_plain((struct str){ text, n }));
			text[i] = '~';
		}
	}
}
END_TEST

START_TEST(utf8_is_found_at_any_place)
{
	char text[40];

	memset(text, 'a', sizeof(text));
	for (size_t n = 0; n <= sizeof(text); n++) {
		for (size_t i = 0; i + 1 < n; i++) {
			memcpy(text + i, "\xc3\xa9", 2);
			ck_assert_msg(str_is_utf8((struct str){ text, n }), "%zu %zu", n, i);
			ck_assert_msg(!str_is_utf8((struct str){ text, i + 1 }), "%zu", i);
			memcpy(text + i, "aa", 2);
		}
	}
}
END_TEST

START_TEST(numbers_are_written_as_printf_does)
{
	char ours[STR_UINT_MAX], theirs[32];
	uint64_t v = 1;

	for (unsigned i = 0; i < 64; i++, v *= 2) {
		for (int d = -1; d <= 1; d++) {
			uint64_t w = v + (uint64_t)(int64_t)d;
			int n = snprintf(theirs, sizeof(theirs), "%llu", (unsigned long long)w);

			ck_assert_int_eq(str_put_uint(ours, w) - ours, n);
			ck_assert_mem_eq(ours, theirs, n);
		}
	}
	for (v = 1;; v *= 10) {
		for (uint64_t w = v - 1; w <= v; w++) {
			int n = snprintf(theirs, sizeof(theirs), "%llu", (unsigned long long)w);

			ck_assert_int_eq(str_put_uint(ours, w) - ours, n);
			ck_assert_mem_eq(ours, theirs, n);
		}
		if (v > UINT64_MAX / 10)
			break;
	}
}
END_TEST

START_TEST(what_a_pool_gives_is_zeroed_whatever_it_was)
{
	static const char zeros[600];
	char *p[3];

	for (size_t size = 1; size <= sizeof(zeros); size += 13) {
		for (unsigned round = 0; round < 2; round++) {
			for (unsigned i = 0; i < 3; i++) {
				p[i] = pool_get(size);
				ck_assert_mem_eq(p[i], zeros, size);
				memset(p[i], 0xff, size);
			}
			for (unsigned i = 0; i < 3; i++)
				pool_put(p[i], size);
		}
	}
}
END_TEST

START_TEST(random_text_comes_back_and_has_one_spelling)
{
	for (size_t n = 1; n <= 40; n++) {
		uint8_t bytes[40], back[40];
		char text[ID_TEXT_LEN(40)];

		id_random(bytes, n);
		id_encode(text, bytes, n);
		ck_assert(id_decode(back, n, (struct str){ text, ID_TEXT_LEN(n) }));
		ck_assert_mem_eq(bytes, back, n);
		ck_assert(!id_decode(back, n + 1, (struct str){ text, ID_TEXT_LEN(n) }));
	}
}
END_TEST

struct trace {
	struct loop *loop;
	struct defer again;
	char seen[16];
	unsigned n;
};

static void
note(struct trace *t, char what)
{
	t->seen[t->n++] = what;
}

static void
on_again(void *arg)
{
	note(arg, 'b');
}

static void
on_first(void *arg)
{
	struct trace *t = arg;

	note(t, 'a');
	loop_defer(t->loop, &t->again, on_again, t);
}

static void
on_conns(void *arg)
{
	note(arg, 'C');
}

static void
on_queues(void *arg)
{
	note(arg, 'Q');
}

static void
on_timer(void *arg)
{
	note(arg, 't');
}

START_TEST(a_turn_runs_events_then_deferred_calls_then_stages_in_order)
{
	struct trace t = { .loop = loop_new() };
	struct defer first = { 0 };
	struct timer timer;

	loop_at_turn_end(t.loop, TURN_CONNS, on_conns, &t);
	loop_at_turn_end(t.loop, TURN_QUEUES, on_queues, &t);
	timer_init(&timer, t.loop, on_timer, &t);
	timer_set(&timer, 0);
	loop_defer(t.loop, &first, on_first, &t);
	loop_defer(t.loop, &first, on_first, &t); /* once, however often it is asked for */
	while (timer.at_us)
		loop_turn(t.loop, true);
	ck_assert_str_eq(t.seen, "tabQC");
	timer_done(&timer);
	loop_free(t.loop);
}
END_TEST

START_TEST(a_timer_keeps_the_sooner_time)
{
	struct trace t = { .loop = loop_new() };
	struct timer timer;
	uint64_t began = loop_clock_us();

	timer_init(&timer, t.loop, on_timer, &t);
	timer_set(&timer, 10000000);
	timer_at_most(&timer, 1000);
	timer_at_most(&timer, 20000000);
	while (!t.n)
		loop_turn(t.loop, true);
	ck_assert_uint_lt(loop_clock_us() - began, 5000000);
	timer_done(&timer);
	loop_free(t.loop);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("base");
	TCase *tc = tcase_create("base");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, pauses_grow_to_the_limit_and_start_again);
	tcase_add_test(tc, every_error_has_a_code_a_text_and_a_say_on_retries);
	tcase_add_test(tc, utf8_is_judged_strictly);
	tcase_add_test(tc, random_text_comes_back_and_has_one_spelling);
	tcase_add_test(tc, a_glob_matches_the_whole);
	tcase_add_test(tc, only_printable_ascii_is_plain);
	tcase_add_test(tc, utf8_is_found_at_any_place);
	tcase_add_test(tc, numbers_are_written_as_printf_does);
	tcase_add_test(tc, what_a_pool_gives_is_zeroed_whatever_it_was);
	tcase_add_test(tc, a_turn_runs_events_then_deferred_calls_then_stages_in_order);
	tcase_add_test(tc, a_timer_keeps_the_sooner_time);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
