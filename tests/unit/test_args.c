#include <check.h>
#include <stdlib.h>

#include "store/store.h"

static struct args args;

static void
teardown(void)
{
	args_done(&args);
}

static void
check_wire(const char *text)
{
	ck_assert_uint_eq(args.buf.len, strlen(text));
	ck_assert_mem_eq(args.buf.data, text, args.buf.len);
}

START_TEST(arguments_are_written_as_redis_reads_them)
{
	args_str(&args, STR("key"));
	args_str(&args, STR(""));
	args_str(&args, STR("a\r\n\0b"));
	args_uint(&args, 0);
	args_uint(&args, UINT64_MAX);
	ck_assert_uint_eq(args.n, 5);
	ck_assert_uint_eq(args.buf.len, 9 + 6 + 11 + 7 + 27);
	ck_assert_mem_eq(args.buf.data,
			 "$3\r\nkey\r\n$0\r\n\r\n$5\r\na\r\n\0b\r\n$1\r\n0\r\n$"
			 "20\r\n18446744073709551615\r\n",
			 args.buf.len);
}
END_TEST

START_TEST(the_caller_fills_what_was_reserved)
{
	char *to = args_reserve(&args, 4);

	memcpy(to, "1234", 4);
	args_reserve(&args, 0);
	ck_assert_uint_eq(args.n, 2);
	check_wire("$4\r\n1234\r\n$0\r\n\r\n");
}
END_TEST

START_TEST(joined_arguments_stand_behind_and_leave_an_empty_list)
{
	struct args more = { 0 }, none = { 0 };

	args_str(&args, STR("a"));
	args_str(&more, STR("b"));
	args_str(&more, STR("c"));
	args_join(&args, &more);
	args_join(&args, &none);
	ck_assert_uint_eq(args.n, 3);
	check_wire("$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n");
	ck_assert_uint_eq(more.n, 0);
	ck_assert_uint_eq(more.buf.len, 0);
	args_str(&more, STR("d"));
	args_join(&args, &more);
	check_wire("$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n");
	args_done(&more);
}
END_TEST

START_TEST(after_done_it_can_be_used_again)
{
	args_str(&args, STR("a"));
	args_done(&args);
	ck_assert_uint_eq(args.n, 0);
	args_str(&args, STR("b"));
	ck_assert_uint_eq(args.n, 1);
	check_wire("$1\r\nb\r\n");
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("args");
	TCase *tc = tcase_create("args");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, arguments_are_written_as_redis_reads_them);
	tcase_add_test(tc, the_caller_fills_what_was_reserved);
	tcase_add_test(tc, joined_arguments_stand_behind_and_leave_an_empty_list);
	tcase_add_test(tc, after_done_it_can_be_used_again);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
