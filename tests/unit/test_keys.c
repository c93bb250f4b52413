#include <check.h>
#include <stdlib.h>

#include "base/id.h"
#include "store/keys.h"

static size_t
name_of(char *out, const char *ns, const char *type, const char *instance)
{
	return key_name(out, str_of(ns), str_of(type), str_of(instance));
}

START_TEST(parts_that_hold_the_separator_do_not_move_it)
{
	char a[KEY_NAME_MAX], b[KEY_NAME_MAX];
	size_t na = name_of(a, "n", "a:b", "c"), nb = name_of(b, "n", "a", "b:c");

	ck_assert(!str_eq((struct str){ a, na }, (struct str){ b, nb }));
	ck_assert(str_eq((struct str){ a, na }, STR("n:a%3Ab:c")));
	ck_assert(str_eq((struct str){ b, nb }, STR("n:a:b%3Ac")));
	na = name_of(a, "n", "%3A", "c");
	ck_assert(str_eq((struct str){ a, na }, STR("n:%253A:c")));
}
END_TEST

/* One to four characters out of those that could confuse: few, so that near misses are common. */
static struct str
random_part(char *to)
{
	static const char hard[] = ":%:%aA253{}*? ";
	uint8_t r[5];

	id_random(r, sizeof(r));
	for (unsigned i = 0; i < 4; i++)
		to[i] = hard[r[i] % (sizeof(hard) - 1)];
	return (struct str){ to, 1 + r[4] % 4u };
}

START_TEST(a_million_random_names_come_back_as_their_own_parts)
{
	struct buf b = { 0 };

	for (unsigned i = 0; i < 1000000; i++) {
		char bytes[3][4], name[KEY_NAME_MAX];
		struct str in[3], out[3];
		size_t n;

		for (unsigned j = 0; j < 3; j++)
			in[j] = random_part(bytes[j]);
		n = key_name(name, in[0], in[1], in[2]);
		buf_clear(&b);
		/* What comes back from its name alone cannot share that name with anything else. */
		ck_assert(key_name_split((struct str){ name, n }, &b, out));
		for (unsigned j = 0; j < 3; j++)
			if (!str_eq(in[j], out[j]))
				ck_abort_msg("%.*s", (int)n, name);
	}
	buf_done(&b);
}
END_TEST

START_TEST(what_is_no_name_is_refused)
{
	static const char *const bad[] = { "",       "a",      "a:b",    "a:b:c:d",
					   "a:b:c%", "a:b:%2", "a:%41:c" };
	struct buf b = { 0 };
	struct str parts[3];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!key_name_split(str_of(bad[i]), &b, parts), "%s", bad[i]);
	buf_done(&b);
}
END_TEST

START_TEST(the_longest_parts_fit)
{
	char part[KEY_PART_MAX], name[KEY_NAME_MAX];
	struct str longest = { part, sizeof(part) };

	memset(part, ':', sizeof(part));
	ck_assert_uint_eq(key_name(name, longest, longest, longest), KEY_NAME_MAX);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("keys");
	TCase *tc = tcase_create("keys");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, parts_that_hold_the_separator_do_not_move_it);
	tcase_add_test(tc, a_million_random_names_come_back_as_their_own_parts);
	tcase_add_test(tc, what_is_no_name_is_refused);
	tcase_add_test(tc, the_longest_parts_fit);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
