/* operate: lists from a store that fails, and ids that are none. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loop.h"
#include "lib/fake_store.h"
#include "operate/operate.h"

static struct {
	struct loop *loop;
	struct fake_store *fake;
	struct operate *operate;
	unsigned total; /* namespaces in the store */
} f;
static struct {
	unsigned fired, n;
	enum err err;
} got;

static struct reply *
on_call(void *arg, struct fake_store *fake, const struct fake_call *call)
{
	static struct reply elems[4 * 100], whole;
	static char names[100][8];
	unsigned n = 0, from, most;

	(void)arg;
	if (call->script != SCRIPT_NAMESPACES)
		return fake_reply_array(fake, 0);
	from = call->args[1].n ? (unsigned)atoi(call->args[1].p + 1) + 1 : 0;
	most = (unsigned)atoi(call->args[2].p);
	for (unsigned i = from; i < f.total && n < most; i++, n++) {
		int len = snprintf(names[n], sizeof(names[n]), "n%04u", i);

		elems[4 * n] =
			(struct reply){ .type = REPLY_STR, .str = { names[n], (size_t)len } };
		for (unsigned k = 1; k < 4; k++)
			elems[4 * n + k] =
				(struct reply){ .type = REPLY_INT, .integer = (int64_t)k };
	}
	whole = (struct reply){ .type = REPLY_ARRAY, .count = 4 * n, .elems = elems };
	return &whole;
}

static void
set_up(void)
{
	memset(&got, 0, sizeof(got));
	f.total = 0;
	f.loop = loop_new();
	f.fake = fake_store_new(f.loop);
	fake_store_on_call(f.fake, on_call, NULL);
	f.operate = operate_new(fake_store_store(f.fake), "coordd");
}

static void
tear_down(void)
{
	fake_store_free(f.fake);
	operate_free(f.operate);
	loop_free(f.loop);
}

static void
run_idle(void)
{
	for (unsigned i = 0; i < 50; i++)
		loop_turn(f.loop, false);
}

static void
on_namespaces(void *arg, enum err err, const struct namespace_info *infos, unsigned n)
{
	ck_assert_ptr_eq(arg, &got);
	got.fired++;
	got.err = err;
	got.n = n;
	for (unsigned i = 0; i < n; i++) {
		char name[8];
		int len = snprintf(name, sizeof(name), "n%04u", i);

		ck_assert(str_eq(infos[i].name, (struct str){ name, (size_t)len }));
		ck_assert_uint_eq(infos[i].queues, 1);
		ck_assert_uint_eq(infos[i].agents, 2);
		ck_assert_uint_eq(infos[i].breakers, 3);
	}
}

START_TEST(a_list_of_namespaces_goes_so_far)
{
	static const struct {
		unsigned total, limit, told, calls;
	} rows[] = { { 0, 10, 0, 1 },       { 5, 10, 5, 1 },      { 10, 10, 10, 1 },
		     { 250, 1000, 250, 3 }, { 250, 120, 120, 2 }, { 200, 1000, 200, 3 } };

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		f.total = rows[i].total;
		got.fired = 0;
		fake_store_reset(f.fake);
		operate_namespaces(f.operate, STR(""), rows[i].limit, on_namespaces, &got);
		ck_assert_uint_eq(got.fired, 0); /* never before the call returns */
		run_idle();
		ck_assert_uint_eq(got.fired, 1);
		ck_assert_uint_eq(got.n, rows[i].told);
		ck_assert_uint_eq(fake_store_calls(f.fake), rows[i].calls);
	}
}
END_TEST

START_TEST(whichever_call_fails_a_list_ends_once)
{
	f.total = 250;
	for (unsigned nth = 1;; nth++) {
		fake_store_reset(f.fake);
		fake_store_fail_at(f.fake, nth, ERR_UNKNOWN);
		got.fired = 0;
		operate_namespaces(f.operate, STR(""), 1000, on_namespaces, &got);
		run_idle();
		ck_assert_uint_eq(got.fired, 1);
		if (!fake_store_has_failed(f.fake))
			break;
		ck_assert_int_eq(got.err, ERR_UNKNOWN);
		ck_assert_uint_eq(got.n, 0);
	}
	ck_assert_uint_eq(got.n, 250);
}
END_TEST

static void
on_audit(void *arg, enum err err, const struct audit_entry *entries, unsigned n)
{
	(void)arg;
	(void)entries;
	got.fired++;
	got.err = err;
	got.n = n;
}

START_TEST(an_audit_that_cannot_be_read_says_so)
{
	operate_audit_list(f.operate, STR(""), 50, on_audit, NULL);
	run_idle();
	ck_assert(got.fired == 1 && !got.err && !got.n);
	fake_store_fail_at(f.fake, 1, ERR_UNSENT);
	operate_audit_list(f.operate, STR(""), 50, on_audit, NULL);
	run_idle();
	ck_assert(got.fired == 2 && got.err == ERR_UNSENT && !got.n);
}
END_TEST

START_TEST(ids_are_two_numbers)
{
	static const char *const good[] = { "1-0", "1795626314329-17", "0-0" };
	static const char *const bad[] = { "",     "1",   "1-",  "-1",  "1-1-1",
					   "+",    "-",   "a-1", "1-a", "1795626314329760-0",
					   " 1-0", "1-0 " };

	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(audit_id_is_valid(str_of(good[i])), "%s", good[i]);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!audit_id_is_valid(str_of(bad[i])), "%s", bad[i]);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("operate");
	TCase *tc = tcase_create("operate");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, a_list_of_namespaces_goes_so_far);
	tcase_add_test(tc, whichever_call_fails_a_list_ends_once);
	tcase_add_test(tc, an_audit_that_cannot_be_read_says_so);
	tcase_add_test(tc, ids_are_two_numbers);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
