#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/address.h"
#include "store/lookup.h"

static struct loop *loop;
static struct lookup *lookup;
static struct lookup_found answer;
static char reason[256];
static unsigned n_told;

static void
on_told(void *arg, const struct lookup_found *found, const char *why)
{
	(void)arg;
	n_told++;
	answer = found ? *found : (struct lookup_found){ 0 };
	snprintf(reason, sizeof(reason), "%s", why ? why : "");
}

static void
setup(void)
{
	loop = loop_new();
	n_told = 0;
}

static void
teardown(void)
{
	lookup_free(lookup);
	loop_free(loop);
}

static void
ask(const char *host)
{
	lookup = lookup_new(loop, host, on_told, NULL);
	lookup_ask(lookup);
	ck_assert_uint_eq(n_told, 0);
}

static void
wait_told(unsigned n)
{
	while (n_told < n)
		loop_turn(loop, true);
}

START_TEST(a_name_has_its_addresses_those_of_version_4_first)
{
	ask("localhost");
	wait_told(1);
	ck_assert_uint_ge(answer.n, 1);
	ck_assert_str_eq(answer.address[0], "127.0.0.1");
	ck_assert_str_eq(reason, "");
}
END_TEST

START_TEST(it_can_be_asked_again)
{
	ask("localhost");
	for (unsigned n = 1; n <= 20; n++) {
		wait_told(n);
		ck_assert_str_eq(answer.address[0], "127.0.0.1");
		lookup_ask(lookup);
	}
}
END_TEST

START_TEST(what_is_no_name_has_a_reason)
{
	ask("no name at all"); /* a resolver does not even ask for it */
	wait_told(1);
	ck_assert_uint_eq(answer.n, 0);
	ck_assert_str_ne(reason, "");
}
END_TEST

START_TEST(what_was_forgotten_is_not_told)
{
	ask("localhost");
	lookup_forget(lookup);
	lookup_ask(lookup); /* joins the one under way, if it still is */
	wait_told(1);
	lookup_ask(lookup);
	lookup_forget(lookup);
	for (int i = 0; i < 20; i++) {
		loop_turn(loop, false);
		poll(NULL, 0, 5);
	}
	ck_assert_uint_eq(n_told, 1);
	lookup_ask(lookup);
	wait_told(2);
}
END_TEST

START_TEST(it_can_be_freed_while_it_is_under_way)
{
	for (int i = 0; i < 100; i++) {
		ask("localhost");
		lookup_free(lookup);
	}
	lookup = NULL;
	lookup_free(NULL);
	ck_assert_uint_eq(n_told, 0);
}
END_TEST

START_TEST(numbers_and_paths_need_none)
{
	static const struct {
		const char *url;
		bool is_numeric;
	} rows[] = {
		{ "redis://127.0.0.1:6379/0", true },  { "redis://[::1]:6379", true },
		{ "unix:///run/redis.sock", true },    { "redis://localhost", false },
		{ "redis://u:p@redis:6379/1", false }, { "redis://127.0.0.1.example", false },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct address a;

		ck_assert_msg(address_read(&a, rows[i].url, NULL), "%s", rows[i].url);
		ck_assert_msg(a.is_numeric == rows[i].is_numeric, "%s", rows[i].url);
		address_done(&a);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("lookup");
	TCase *tc = tcase_create("lookup");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_name_has_its_addresses_those_of_version_4_first);
	tcase_add_test(tc, it_can_be_asked_again);
	tcase_add_test(tc, what_is_no_name_has_a_reason);
	tcase_add_test(tc, what_was_forgotten_is_not_told);
	tcase_add_test(tc, it_can_be_freed_while_it_is_under_way);
	tcase_add_test(tc, numbers_and_paths_need_none);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
