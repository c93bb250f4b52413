#include <check.h>
#include <stdlib.h>

#include "base/hist.h"

START_TEST(an_empty_histogram_has_no_quantiles)
{
	struct hist h = { 0 };

	ck_assert_uint_eq(hist_quantile(&h, 0), 0);
	ck_assert_uint_eq(hist_quantile(&h, 1), 0);
	ck_assert_uint_eq(h.count, 0);
}
END_TEST

START_TEST(small_values_are_exact)
{
	struct hist h = { 0 };

	for (uint64_t v = 1; v <= 100; v++)
		hist_add(&h, v);
	ck_assert_uint_eq(hist_quantile(&h, 0), 1);
	ck_assert_uint_eq(hist_quantile(&h, 0.5), 50);
	ck_assert_uint_eq(hist_quantile(&h, 0.95), 95);
	ck_assert_uint_eq(hist_quantile(&h, 0.99), 99);
	ck_assert_uint_eq(hist_quantile(&h, 0.999), 100);
	ck_assert_uint_eq(hist_quantile(&h, 1), 100);
	ck_assert_uint_eq(h.count, 100);
}
END_TEST

START_TEST(every_width_is_told_within_its_bucket)
{
	for (int bit = 0; bit < 64; bit++) {
		for (int64_t d = -1; d <= 1; d++) {
			uint64_t v = (UINT64_C(1) << bit) + (uint64_t)d, got;
			struct hist h = { 0 };

			hist_add(&h, 0);
			hist_add(&h, v);
			hist_add(&h, UINT64_MAX);
			got = hist_quantile(&h, 0.5);
			ck_assert_uint_ge(got, v);
			ck_assert_uint_le(got - v, v / 64);
			ck_assert_uint_eq(hist_quantile(&h, 0), 0);
			ck_assert_uint_eq(hist_quantile(&h, 1), UINT64_MAX);
		}
	}
}
END_TEST

START_TEST(least_and_greatest_are_exact_and_bound_the_rest)
{
	struct hist h = { 0 };

	hist_add(&h, 1000003);
	ck_assert_uint_eq(h.min, 1000003);
	ck_assert_uint_eq(h.max, 1000003);
	ck_assert_uint_eq(hist_quantile(&h, 0), 1000003);
	ck_assert_uint_eq(hist_quantile(&h, 0.999), 1000003);
	hist_add(&h, 5);
	ck_assert_uint_eq(h.min, 5);
	ck_assert_uint_eq(h.max, 1000003);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("hist");
	TCase *tc = tcase_create("core");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, an_empty_histogram_has_no_quantiles);
	tcase_add_test(tc, small_values_are_exact);
	tcase_add_test(tc, every_width_is_told_within_its_bucket);
	tcase_add_test(tc, least_and_greatest_are_exact_and_bound_the_rest);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
