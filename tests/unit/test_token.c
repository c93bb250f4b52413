#include <check.h>
#include <stdlib.h>

#include "queue/token.h"

#define TEXT_LEN ID_TEXT_LEN(TOKEN_BYTES)

static struct token
some_token(void)
{
	struct token t = { .fence = 1795623486014645,
			   .epoch = 7,
			   .width = 17,
			   .ends = 13699519241,
			   .size = 300 };

	t.deadline_us = (t.ends << t.width) - 100000;
	id_random(t.random, sizeof(t.random));
	return t;
}

START_TEST(a_token_comes_back_as_it_went)
{
	struct token t = some_token(), back;
	char text[TOKEN_TEXT_MAX];

	token_write(text, &t);
	ck_assert(token_read(&back, (struct str){ text, TEXT_LEN }));
	ck_assert_uint_eq(back.fence, t.fence);
	ck_assert_uint_eq(back.epoch, t.epoch);
	ck_assert_uint_eq(back.width, t.width);
	ck_assert_uint_eq(back.ends, t.ends);
	ck_assert_uint_eq(back.deadline_us, t.deadline_us);
	ck_assert_uint_eq(back.size, t.size);
	ck_assert_mem_eq(back.random, t.random, sizeof(t.random));
	ck_assert_uint_eq(back.lease, 0);
}
END_TEST

START_TEST(a_token_of_a_lease_names_it)
{
	struct token t = some_token(), back;
	char text[TOKEN_TEXT_MAX], bucket[TOKEN_BUCKET_MAX];
	struct str written;
	size_t plain;

	plain = token_bucket(bucket, &t);
	t.lease = 1234567;
	written = token_write(text, &t);
	ck_assert_uint_eq(written.n, TOKEN_TEXT_MAX);
	ck_assert(token_read(&back, written));
	ck_assert_uint_eq(back.lease, t.lease);
	ck_assert_uint_eq(token_bucket(bucket, &back), plain + 8);
	ck_assert_mem_eq(bucket + plain, ".1234567", 8);
	t.lease = 1ull << 53;
	ck_assert(!token_read(&back, token_write(text, &t)));
	t.lease = 0; /* that is none, and is written without */
	written = token_write(text, &t);
	memset(text + written.n, 'A', sizeof(text) - written.n);
	ck_assert(!token_read(&back, (struct str){ text, sizeof(text) }));
}
END_TEST

START_TEST(another_spelling_or_length_is_no_token)
{
	struct token t = some_token(), back;
	char text[TOKEN_TEXT_MAX + 1];

	token_write(text, &t);
	ck_assert(!token_read(&back, (struct str){ text, TEXT_LEN - 1 }));
	text[TEXT_LEN] = 'A';
	ck_assert(!token_read(&back, (struct str){ text, TEXT_LEN + 1 }));
	ck_assert(!token_read(&back, STR("")));
	for (unsigned i = 0; i < TEXT_LEN; i++) {
		char was = text[i];

		text[i] = i % 2 ? '+' : '\n';
		ck_assert(!token_read(&back, (struct str){ text, TEXT_LEN }));
		text[i] = was;
	}
	/* 43 bytes leave bits of the last character unused: they must be zero. */
	text[TEXT_LEN - 1]++;
	ck_assert(!token_read(&back, (struct str){ text, TEXT_LEN }));
}
END_TEST

START_TEST(numbers_that_lua_cannot_hold_are_refused)
{
	struct token t = some_token(), back;
	char text[TOKEN_TEXT_MAX];
	struct token bad[4] = { t, t, t, t };

	bad[0].fence = 1ull << 53;
	bad[1].width = 13;
	bad[2].width = 40;
	bad[3].ends = 1ull << 37;
	for (unsigned i = 0; i < 4; i++) {
		token_write(text, &bad[i]);
		ck_assert(!token_read(&back, (struct str){ text, TEXT_LEN }));
	}
}
END_TEST

START_TEST(a_bucket_and_its_field_are_as_the_script_makes_them)
{
	struct token t = some_token();
	char bucket[TOKEN_BUCKET_MAX], field[TOKEN_FIELD_LEN];
	size_t n = token_bucket(bucket, &t);

	ck_assert(str_eq((struct str){ bucket, n }, STR("7014154242244.7.17.13699519241")));
	token_field(field, &t);
	ck_assert_mem_eq(field, "\xb5\0\0\x01\x2c", 5);
	ck_assert_mem_eq(field + 5, t.random, TOKEN_RANDOM_LEN);
}
END_TEST

START_TEST(buckets_are_never_wider_than_a_twentieth_of_the_timeout)
{
	ck_assert_uint_eq(token_width(1),
			  14); /* 16 ms: within the 50 ms that are always allowed */
	ck_assert_uint_eq(token_width(300000), 14);
	for (uint64_t timeout = 1000000; timeout <= 43200000000ull; timeout *= 3) {
		uint64_t unit = 1ull << token_width(timeout);

		ck_assert_uint_le(unit, timeout / 20);
		ck_assert_uint_gt(2 * unit, timeout / 20);
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("token");
	TCase *tc = tcase_create("token");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, a_token_comes_back_as_it_went);
	tcase_add_test(tc, a_token_of_a_lease_names_it);
	tcase_add_test(tc, another_spelling_or_length_is_no_token);
	tcase_add_test(tc, numbers_that_lua_cannot_hold_are_refused);
	tcase_add_test(tc, a_bucket_and_its_field_are_as_the_script_makes_them);
	tcase_add_test(tc, buckets_are_never_wider_than_a_twentieth_of_the_timeout);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
