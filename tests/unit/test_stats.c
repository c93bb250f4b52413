#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/stats.h"

static unsigned
bucket_of(enum stat_kind kind, uint64_t value)
{
	struct stat_hist h = { 0 };

	stat_hist_add(&h, stat_bounds[kind], value);
	ck_assert_uint_eq(h.sum, value);
	for (unsigned i = 0; i <= STAT_BOUNDS; i++)
		if (h.buckets[i])
			return i;
	ck_abort();
}

START_TEST(a_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed)
{
	for (enum stat_kind kind = STAT_FAST; kind < STAT_KINDS; kind++) {
		for (unsigned i = 0; i < STAT_BOUNDS; i++) {
			uint64_t bound = stat_bounds[kind][i];

			if (bound == UINT64_MAX)
				continue;
			ck_assert(!i || bound > stat_bounds[kind][i - 1]);
			ck_assert_uint_eq(bucket_of(kind, bound), i);
			ck_assert_uint_eq(bucket_of(kind, bound + 1), i + 1);
		}
		ck_assert_uint_eq(bucket_of(kind, 0), 0);
	}
	ck_assert_uint_eq(bucket_of(STAT_FAST, UINT64_MAX), STAT_BOUNDS);
}
END_TEST

START_TEST(each_family_is_there_once_and_named_as_its_kind_wants)
{
	for (unsigned i = 0; i < STAT_ROWS; i++) {
		const struct stat_row *row = &stat_rows[i];
		const char *total = strstr(row->family, "_total");
		bool is_counter =
			row->kind == STAT_COUNTER || row->kind == STAT_SAMPLED_COUNTER;

		ck_assert_msg(is_counter == (total && !total[6]), "%s", row->family);
		ck_assert_msg(strncmp(row->family, "coordd_", 7) == 0 ||
				      strncmp(row->family, "process_", 8) == 0,
			      "%s", row->family);
		ck_assert(*row->help && !strpbrk(row->help, "\n\\"));
		ck_assert(!row->label2 || row->label);
		for (unsigned j = 0; j < i; j++)
			ck_assert_str_ne(row->family, stat_rows[j].family);
	}
}
END_TEST

static struct stat_slot *
keep(const char *name)
{
	return stat_keep(STAT_QUEUE, str_of(name));
}

START_TEST(a_name_has_one_slot_and_those_too_many_share_one)
{
	struct stat_slot *a, *b, *c;

	stat_limit(STAT_QUEUE, 2);
	a = keep("n:a:1");
	b = keep("n:b:1");
	c = keep("n:c:1");
	ck_assert_ptr_eq(a, keep("n:a:1"));
	ck_assert_ptr_ne(a, b);
	ck_assert_ptr_null(c->name);
	ck_assert_ptr_eq(c, keep("n:d:1"));
	ck_assert_ptr_eq(c, stat_find(STAT_QUEUE, STR("n:d:1")));
	ck_assert_ptr_eq(b, stat_find(STAT_QUEUE, STR("n:b:1")));
	ck_assert_str_eq(a->name, "n:a:1");
}
END_TEST

START_TEST(a_slot_that_nobody_keeps_is_given_to_the_next_who_keeps_one)
{
	struct queue_counts *a;

	stat_limit(STAT_QUEUE, 2);
	a = stat_keep_queue(STR("n:a:1"));
	a->acked[0] = 7;
	stat_drop(&a->slot);
	ck_assert_ptr_eq(a, stat_keep_queue(STR("n:a:1"))); /* it counts on */
	ck_assert_uint_eq(a->acked[0], 7);
	stat_drop(&a->slot);
	keep("n:b:1");
	ck_assert_ptr_null(
		stat_find(STAT_QUEUE, STR("n:c:1"))->name); /* looking takes none away */
	ck_assert_str_eq(keep("n:c:1")->name, "n:c:1");
	a = (struct queue_counts *)stat_find(STAT_QUEUE, STR("n:a:1"));
	ck_assert_ptr_null(a->slot.name);
	ck_assert_uint_eq(a->acked[0], 0); /* the others do not jump */
}
END_TEST

START_TEST(names_that_are_gone_are_forgotten_unless_they_are_kept)
{
	struct stat_slot *kept = keep("n:kept:1"), *seen, *gone;

	seen = stat_find(STAT_QUEUE, STR("n:seen:1"));
	gone = stat_find(STAT_QUEUE, STR("n:gone:1"));
	seen->seen = 5;
	gone->seen = 4;
	stat_forget(STAT_QUEUE, 5);
	ck_assert_uint_eq(HASH_COUNT(stat_sets[STAT_QUEUE].by_name), 2);
	ck_assert_ptr_eq(kept, stat_find(STAT_QUEUE, STR("n:kept:1")));
	ck_assert_ptr_eq(seen, stat_find(STAT_QUEUE, STR("n:seen:1")));
}
END_TEST

START_TEST(without_any_slots_all_names_share_one)
{
	stat_limit(STAT_QUEUE, 0);
	ck_assert_ptr_null(keep("n:a:1")->name);
	ck_assert_ptr_eq(keep("n:a:1"), keep("n:b:1"));
}
END_TEST

START_TEST(who_is_called_as_the_others_is_one_of_them)
{
	struct stat_slot *slot = stat_find(STAT_BREAKER, STR("_other:_other"));

	ck_assert_ptr_null(slot->name);
	ck_assert_ptr_eq(slot, stat_keep(STAT_BREAKER, STR("_other:_other")));
	ck_assert_ptr_nonnull(stat_find(STAT_BREAKER, STR("_other:b"))->name);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("stats");
	TCase *tc = tcase_create("stats");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, NULL, stat_reset);
	tcase_add_test(tc, a_value_is_in_the_first_bucket_whose_bound_it_does_not_exceed);
	tcase_add_test(tc, each_family_is_there_once_and_named_as_its_kind_wants);
	tcase_add_test(tc, a_name_has_one_slot_and_those_too_many_share_one);
	tcase_add_test(tc, a_slot_that_nobody_keeps_is_given_to_the_next_who_keeps_one);
	tcase_add_test(tc, names_that_are_gone_are_forgotten_unless_they_are_kept);
	tcase_add_test(tc, without_any_slots_all_names_share_one);
	tcase_add_test(tc, who_is_called_as_the_others_is_one_of_them);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
