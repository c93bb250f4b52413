#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "../lib/pack.h"
#include "proto/mp.h"

static const int64_t edges[] = { 0,         1,      127,    128,        255,
				 256,       65535,  65536,  UINT32_MAX, 1LL << 32,
				 INT64_MAX, -1,     -32,    -33,        -128,
				 -129,      -32768, -32769, INT32_MIN,  INT32_MIN - 1LL,
				 INT64_MIN };
#define N(a) (sizeof(a) / sizeof((a)[0]))

START_TEST(integers_come_back_in_the_shortest_form)
{
	static const size_t lens[] = { 1, 1, 1, 2, 2, 3, 3, 5, 5, 9, 9,
				       1, 1, 2, 2, 3, 3, 5, 5, 9, 9 };

	for (size_t i = 0; i < N(edges); i++) {
		struct buf b = { 0 };
		int64_t v = 0;
		double d = 0;
		struct mp m;

		mp_put_int(&b, edges[i]);
		ck_assert_uint_eq(b.len, lens[i]);
		m = mp_of(buf_str(&b));
		ck_assert_int_eq(mp_type(&m), MP_INT);
		ck_assert(mp_read_int(&m, &v));
		ck_assert_int_eq(v, edges[i]);
		ck_assert_int_eq(mp_type(&m), MP_NONE);
		m = mp_of(buf_str(&b));
		ck_assert(mp_read_double(&m, &d));
		ck_assert(d == (double)edges[i]);
		buf_done(&b);
	}
}
END_TEST

START_TEST(integers_of_any_width_are_read)
{
	static const struct {
		const char *text;
		int64_t v;
	} wide[] = {
		{ "<cf 00 00 00 00 00 00 00 05>", 5 },
		{ "<d3 00 00 00 00 00 00 00 05>", 5 },
		{ "<ce 00 00 00 05>", 5 },
		{ "<d2 ff ff ff fb>", -5 },
		{ "<d1 ff fb>", -5 },
		{ "<d0 fb>", -5 },
		{ "<d0 05>", 5 },
		{ "<cd 00 05>", 5 },
		{ "<d3 ff ff ff ff ff ff ff fb>", -5 },
		{ "<ff>", -1 },
		{ "<e0>", -32 },
	};

	for (size_t i = 0; i < N(wide); i++) {
		struct buf b = packed(wide[i].text);
		struct mp m = mp_of(buf_str(&b));
		uint64_t u;
		int64_t v;

		ck_assert_int_eq(mp_read_uint(&m, &u), wide[i].v >= 0);
		m = mp_of(buf_str(&b));
		ck_assert(mp_read_int(&m, &v));
		ck_assert_int_eq(v, wide[i].v);
		buf_done(&b);
	}
}
END_TEST

START_TEST(what_does_not_fit_is_no_integer_of_that_kind)
{
	struct buf b = { 0 };
	struct mp m;
	uint64_t u = 0;
	int64_t v;
	double d;

	mp_put_uint(&b, UINT64_MAX);
	m = mp_of(buf_str(&b));
	ck_assert(!mp_read_int(&m, &v));
	ck_assert(mp_read_uint(&m, &u));
	ck_assert(u == UINT64_MAX);
	m = mp_of(buf_str(&b));
	ck_assert(mp_read_double(&m, &d));
	ck_assert(d == 18446744073709551616.0);
	buf_clear(&b);
	mp_put_int(&b, -1);
	m = mp_of(buf_str(&b));
	ck_assert(!mp_read_uint(&m, &u));
	buf_done(&b);
}
END_TEST

START_TEST(floats_of_both_widths_are_read)
{
	struct buf b = packed("[1.5, f1.5, nan, -inf, 7]");
	struct mp m = mp_of(buf_str(&b));
	uint32_t n;
	double d;

	ck_assert(mp_read_array(&m, &n));
	ck_assert(mp_read_double(&m, &d) && d == 1.5);
	ck_assert(mp_read_double(&m, &d) && d == 1.5);
	ck_assert(mp_read_double(&m, &d) && isnan(d));
	ck_assert(mp_read_double(&m, &d) && isinf(d) && d < 0);
	ck_assert(mp_read_double(&m, &d) && d == 7);
	ck_assert(!mp_read_double(&m, &d));
	buf_done(&b);
}
END_TEST

START_TEST(strings_of_every_length_class_come_back)
{
	static const size_t lens[] = { 0, 1, 31, 32, 255, 256, 65535, 65536 };
	static const size_t heads[] = { 1, 1, 1, 2, 2, 3, 3, 5 },
			    bin_heads[] = { 2, 2, 2, 2, 2, 3, 3, 5 };
	char *text = calloc(1, 65536);

	for (size_t i = 0; i < N(lens); i++) {
		struct buf b = { 0 };
		struct str s;
		struct mp m;

		mp_put_str(&b, (struct str){ text, lens[i] });
		ck_assert_uint_eq(b.len, heads[i] + lens[i]);
		m = mp_of(buf_str(&b));
		ck_assert_int_eq(mp_type(&m), MP_STR);
		ck_assert(mp_read_str(&m, &s));
		ck_assert(str_eq(s, (struct str){ text, lens[i] }));
		ck_assert_ptr_eq(m.p, m.end);

		buf_clear(&b);
		mp_put_bin(&b, (struct str){ text, lens[i] });
		ck_assert_uint_eq(b.len, bin_heads[i] + lens[i]);
		m = mp_of(buf_str(&b));
		ck_assert_int_eq(mp_type(&m), MP_BIN);
		ck_assert(mp_read_str(&m, &s)); /* bin is taken where a string is expected */
		ck_assert_uint_eq(s.n, lens[i]);
		buf_done(&b);
	}
	free(text);
}
END_TEST

START_TEST(containers_of_every_size_class_come_back)
{
	static const uint32_t counts[] = { 0, 15, 16, 65535, 65536 };
	static const size_t heads[] = { 1, 1, 3, 3, 5 };

	for (size_t i = 0; i < N(counts); i++) {
		struct buf b = { 0 };
		struct mp m;
		uint32_t n = 77;

		mp_put_array(&b, counts[i]);
		ck_assert_uint_eq(b.len, heads[i]);
		m = mp_of(buf_str(&b));
		ck_assert(mp_read_array(&m, &n));
		ck_assert_uint_eq(n, counts[i]);
		m = mp_of(buf_str(&b));
		ck_assert_int_eq(mp_read_map(&m, &n),
				 counts[i] == 0); /* Lua has no empty map */

		buf_clear(&b);
		mp_put_map(&b, counts[i]);
		ck_assert_uint_eq(b.len, heads[i]);
		m = mp_of(buf_str(&b));
		ck_assert(!mp_read_array(&m, &n));
		ck_assert(mp_read_map(&m, &n));
		ck_assert_uint_eq(n, counts[i]);
		buf_done(&b);
	}
}
END_TEST

START_TEST(another_type_leaves_the_cursor_alone)
{
	static const char *const values[] = { "nil", "true", "5",     "-5",        "1.5",
					      "'s'", "[1]",  "{1:1}", "<d4 00 00>" };

	for (size_t i = 0; i < N(values); i++) {
		struct buf b = packed(values[i]);
		struct mp m = mp_of(buf_str(&b));
		const uint8_t *start = m.p;
		enum mp_type type = mp_type(&m);
		struct str s;
		uint32_t n;
		int64_t v;
		double d;
		bool is;

		if (type != MP_NIL)
			ck_assert(!mp_read_nil(&m));
		if (type != MP_BOOL)
			ck_assert(!mp_read_bool(&m, &is));
		if (type != MP_INT)
			ck_assert(!mp_read_int(&m, &v));
		if (type != MP_INT && type != MP_FLOAT)
			ck_assert(!mp_read_double(&m, &d));
		if (type != MP_STR)
			ck_assert(!mp_read_str(&m, &s));
		if (type != MP_ARRAY)
			ck_assert(!mp_read_array(&m, &n));
		if (type != MP_MAP)
			ck_assert(!mp_read_map(&m, &n));
		ck_assert_ptr_eq(m.p, start);
		ck_assert_uint_eq(mp_skip(&m).n, b.len);
		ck_assert_ptr_eq(m.p, m.end);
		buf_done(&b);
	}
}
END_TEST

START_TEST(skipping_steps_over_one_whole_value)
{
	struct buf b = packed("[{'a': [1, {'b': 'c'}], 'd': <c7 02 01 00 00>}, true]");
	struct mp m = mp_of(buf_str(&b));
	uint32_t n;
	bool is = false;

	ck_assert(mp_read_array(&m, &n));
	ck_assert_uint_eq(mp_skip(&m).n, b.len - 2);
	ck_assert(mp_read_bool(&m, &is) && is);
	buf_done(&b);
}
END_TEST

START_TEST(bytes_that_were_not_proven_end_the_cursor)
{
	struct buf b = packed("<92 a5 61 62>");
	struct mp m = mp_of(buf_str(&b));
	struct str s;
	uint32_t n;

	ck_assert(mp_read_array(&m, &n));
	ck_assert_int_eq(mp_type(&m), MP_NONE);
	ck_assert(!mp_read_str(&m, &s));
	mp_skip(&m);
	ck_assert_ptr_eq(m.p, m.end);
	ck_assert_ptr_nonnull(mp_portable(buf_str(&b), 24, false));
	buf_done(&b);
}
END_TEST

static void
portable(const char *text, unsigned max_depth, bool any_content, const char *expected)
{
	struct buf b = packed(text);
	const char *wrong = mp_portable(buf_str(&b), max_depth, any_content);

	if (expected)
		ck_assert_str_eq(wrong ? wrong : "(portable)", expected);
	else
		ck_assert_str_eq(wrong ? wrong : "", "");
	buf_done(&b);
}

START_TEST(what_every_receiver_can_decode_is_portable)
{
	portable("{'a': [1, -1, 1.5, nil, true, 'h\xc3\xa4', b'\\xff'], 'b': {'c': []}}", 24,
		 false, NULL);
	portable("{}", 24, false, NULL);
	portable("1", 0, false, NULL);
	portable("'12345678abcdefgh\xe2\x82\xac'", 24, false, NULL);
}
END_TEST

START_TEST(what_kills_some_decoder_is_not_portable)
{
	portable("{1: 2}", 24, false, "has a key that is no string");
	portable("{nil: 2}", 24, false, "has a key that is no string");
	portable("{b'a': 2}", 24, false, "has a key that is no string");
	portable("{[]: 2}", 24, false, "has a key that is no string");
	portable("{'a': {'b': [{'c': 1, 2: 3}]}}", 24, false, "has a key that is no string");
	portable("{'a': <d4 01 00>}", 24, false, "holds an ext type");
	portable("<d6 ff 00 00 00 00>", 24, false, "holds an ext type");
	portable("{'a': '\\xff'}", 24, false, "holds a string that is no valid UTF-8");
	portable("{'\\xc3': 1}", 24, false, "holds a string that is no valid UTF-8");
	portable("'12345678abcdefg\\xff'", 24, false, "holds a string that is no valid UTF-8");
	portable("'12345678\\xed\\xa0\\x80'", 24, false,
		 "holds a string that is no valid UTF-8");
}
END_TEST

START_TEST(only_the_depth_is_judged_of_any_content)
{
	portable("{1: <d4 01 00>, nil: '\\xff'}", 24, true, NULL);
	portable("[[[]]]", 3, true, NULL);
	portable("[[[]]]", 2, true, "is nested too deep");
	portable("[[[1]]]", 3, false, NULL);
	portable("{'a': {'b': {}}}", 2, false, "is nested too deep");
	portable("[[], [], [[]]]", 3, false, NULL);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("mp");
	TCase *tc = tcase_create("values");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, integers_come_back_in_the_shortest_form);
	tcase_add_test(tc, integers_of_any_width_are_read);
	tcase_add_test(tc, what_does_not_fit_is_no_integer_of_that_kind);
	tcase_add_test(tc, floats_of_both_widths_are_read);
	tcase_add_test(tc, strings_of_every_length_class_come_back);
	tcase_add_test(tc, containers_of_every_size_class_come_back);
	tcase_add_test(tc, another_type_leaves_the_cursor_alone);
	tcase_add_test(tc, skipping_steps_over_one_whole_value);
	tcase_add_test(tc, bytes_that_were_not_proven_end_the_cursor);
	tcase_add_test(tc, what_every_receiver_can_decode_is_portable);
	tcase_add_test(tc, what_kills_some_decoder_is_not_portable);
	tcase_add_test(tc, only_the_depth_is_judged_of_any_content);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
