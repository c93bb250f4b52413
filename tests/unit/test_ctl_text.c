#include <check.h>
#include <locale.h>
#include <stdlib.h>

/* coordctl is not in the library: the file itself is what is tested. */
#include "ctl/text.c" /* NOLINT(bugprone-suspicious-include) */

/* What `b` holds, terminated; empties it. */
static const char *
text_of(struct buf *b)
{
	static char text[512];

	ck_assert_uint_lt(b->len, sizeof(text));
	memcpy(text, b->len ? b->data : "", b->len);
	text[b->len] = '\0';
	buf_done(b);
	return text;
}

static const char *
escaped(struct str s)
{
	struct buf b = { 0 };

	text_escape(&b, s);
	return text_of(&b);
}

START_TEST(durations_take_units_and_fractions)
{
	static const struct {
		const char *text;
		double seconds;
	} good[] = { { "500ms", 0.5 }, { "10s", 10 },  { "5m", 300 },     { "2h", 7200 },
		     { "1d", 86400 },  { "1.5m", 90 }, { "0.25s", 0.25 }, { "0", 0 },
		     { "7", 7 },       { "0ms", 0 } };
	static const char *const bad[] = { "",
					   "s",
					   "-1s",
					   "1.s",
					   ".5s",
					   "5 s",
					   "5S",
					   "5sec",
					   "1e3",
					   "0x10",
					   "1s2",
					   "inf",
					   "nan",
					   "1,5s",
					   "+1s",
					   "4000d",
					   "99999999999999999999" };
	double seconds;

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		ck_assert_msg(text_duration(good[i].text, &seconds), "%s", good[i].text);
		ck_assert_double_eq_tol(seconds, good[i].seconds, 1e-9);
	}
	seconds = 42;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_msg(!text_duration(bad[i], &seconds), "%s", bad[i]);
	ck_assert_double_eq(seconds, 42); /* untouched on failure */
}
END_TEST

START_TEST(counts_are_whole_and_at_least_one)
{
	static const char *const bad[] = { "",   "0",  "-1",         "1.0",
					   "1k", " 1", "1000000001", "99999999999999999999" };
	uint64_t n;

	ck_assert(text_count("1", &n) && n == 1);
	ck_assert(text_count("1000000000", &n) && n == 1000000000);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_msg(!text_count(bad[i], &n), "%s", bad[i]);
}
END_TEST

START_TEST(a_name_without_an_instance_is_the_shared_one)
{
	struct name name;

	ck_assert_ptr_null(text_name_read(&name, "planner"));
	ck_assert_str_eq(name.type, "planner");
	ck_assert_str_eq(name.instance, "default");
	ck_assert_ptr_null(text_name_read(&name, "planner:"));
	ck_assert_str_eq(name.instance, "default");
	ck_assert_ptr_null(text_name_read(&name, "planner:w1"));
	ck_assert_str_eq(name.instance, "w1");
}
END_TEST

START_TEST(names_come_back_from_their_text)
{
	static const struct name names[] = {
		{ "planner", "w1" }, { "a:b", "c" },      { "a", "b:c" },   { "100%", "%3A" },
		{ "::", "%%" },      { "\303\251", " " }, { "@file", "-" }, { "\"", "'" },
	};
	struct buf texts[sizeof(names) / sizeof(*names)] = { 0 };
	struct name back;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		text_name(&texts[i], str_of(names[i].type), str_of(names[i].instance));
		for (size_t k = 0; k < i; k++)
			ck_assert(!str_eq(buf_str(&texts[i]), buf_str(&texts[k])));
		buf_putc(&texts[i], '\0');
		ck_assert_ptr_null(text_name_read(&back, texts[i].data));
		ck_assert_str_eq(back.type, names[i].type);
		ck_assert_str_eq(back.instance, names[i].instance);
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		buf_done(&texts[i]);
}
END_TEST

START_TEST(what_is_no_name_is_refused)
{
	static const char *const bad[] = {
		"",     ":",     ":w1",   "a:b:c", "a%",   "a%4",
		"a%zz", "a%00b", "a:%1b", "a\nb",  "\377", "a:%c2%9b"
	};
	struct name name = { "kept", "kept" };
	char text[300];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_msg(text_name_read(&name, bad[i]) != NULL, "%s", bad[i]);

	memset(text, 'x', sizeof(text));
	text[129] = '\0';
	ck_assert_ptr_nonnull(text_name_read(&name, text));
	ck_assert_str_eq(name.type, "kept"); /* untouched on failure */
	text[128] = '\0';
	ck_assert_ptr_null(text_name_read(&name, text));
	ck_assert_uint_eq(strlen(name.type), 128);
}
END_TEST

START_TEST(no_byte_of_a_client_steers_the_terminal)
{
	ck_assert_str_eq(escaped(STR("plain \303\251 \346\274\242")),
			 "plain \303\251 \346\274\242");
	ck_assert_str_eq(escaped(STR("\033[31mred\a")), "\\x1b[31mred\\x07");
	ck_assert_str_eq(escaped(STR("a\nb\tc\rd")), "a\\nb\\tc\\rd");
	ck_assert_str_eq(escaped(STR("\302\233"
				     "31m")),
			 "\\xc2\\x9b31m"); /* U+009B is CSI */
	ck_assert_str_eq(escaped(STR("a\0b\177")), "a\\x00b\\x7f");
	ck_assert_str_eq(escaped(STR("\377\300\200\355\240\200")),
			 "\\xff\\xc0\\x80\\xed\\xa0\\x80");
	ck_assert_str_eq(escaped(STR("cut \346\274")), "cut \\xe6\\xbc");

	for (int c = 0; c < 256; c++) {
		char byte = (char)c;
		struct buf b = { 0 };

		text_escape(&b, (struct str){ &byte, 1 });
		ck_assert(str_is_utf8(buf_str(&b)) && !str_has_control(buf_str(&b)));
		buf_done(&b);
	}
}
END_TEST

START_TEST(widths_count_columns_not_bytes)
{
	setlocale(LC_CTYPE, "C.UTF-8");
	ck_assert_uint_eq(text_width(STR("abc")), 3);
	ck_assert_uint_eq(text_width(STR("\303\251t\303\251")), 3);
	ck_assert_uint_eq(text_width(STR("\346\274\242")), 2); /* a wide one */
	ck_assert_uint_eq(text_fit(STR("\346\274\242\346\274\242"), 3), 3);
	ck_assert_uint_eq(text_fit(STR("abc"), 10), 3);
	ck_assert_uint_eq(text_fit(STR("abc"), 0), 0);
}
END_TEST

START_TEST(numbers_and_ages_are_written_for_people)
{
	static const struct {
		double seconds;
		const char *text;
	} ages[] = { { 0, "0ms" },       { 0.21, "210ms" },   { 0.9999, "999ms" },
		     { 4.26, "4.2s" },   { 59.99, "59.9s" },  { 362, "6m02s" },
		     { 11100, "3h05m" }, { 274351, "3d04h" }, { -1, "?" },
		     { HUGE_VAL, "?" } };
	struct buf b = { 0 };

	for (size_t i = 0; i < sizeof(ages) / sizeof(*ages); i++) {
		text_age(&b, ages[i].seconds);
		ck_assert_str_eq(text_of(&b), ages[i].text);
	}
	text_number(&b, 1204567);
	ck_assert_str_eq(text_of(&b), "1,204,567");
	text_number(&b, -123);
	ck_assert_str_eq(text_of(&b), "-123");
	text_number(&b, INT64_MIN);
	ck_assert_str_eq(text_of(&b), "-9,223,372,036,854,775,808");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("ctl_text");
	TCase *tc = tcase_create("core");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, durations_take_units_and_fractions);
	tcase_add_test(tc, counts_are_whole_and_at_least_one);
	tcase_add_test(tc, a_name_without_an_instance_is_the_shared_one);
	tcase_add_test(tc, names_come_back_from_their_text);
	tcase_add_test(tc, what_is_no_name_is_refused);
	tcase_add_test(tc, no_byte_of_a_client_steers_the_terminal);
	tcase_add_test(tc, widths_count_columns_not_bytes);
	tcase_add_test(tc, numbers_and_ages_are_written_for_people);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
