#include <check.h>
#include <stdlib.h>

#include "../lib/pack.h"
#include "base/mem.h"
#include "proto/frame.h"
#include "proto/mp.h"

static const struct frame_limits wide = { 1 << 20, 65536 };

static enum frame_status
scan(const void *p, size_t n, const struct frame_limits *limits, size_t *pos)
{
	struct frame_scan s = { 0 };
	enum frame_status status = frame_scan(&s, p, n, limits);

	if (pos)
		*pos = s.pos;
	return status;
}

#define SCAN(bytes, limits) scan(bytes, sizeof(bytes) - 1, limits, NULL)

/* One of each form the format knows, in one array. */
static struct buf
one_of_each(void)
{
	struct buf b = packed(
		"<dc 00 26  7f e0 80 90 a3 61 62 63  c0 c2 c3"
		" c4 01 ff  c5 00 01 ff  c6 00 00 00 01 ff"
		" c7 01 05 ff  c8 00 01 05 ff  c9 00 00 00 01 05 ff"
		" ca 3f c0 00 00  cb 3f f8 00 00 00 00 00 00"
		" cc ff  cd ff ff  ce ff ff ff ff  cf ff ff ff ff ff ff ff ff"
		" d0 ff  d1 ff ff  d2 ff ff ff ff  d3 ff ff ff ff ff ff ff ff"
		" d4 01 ff  d5 01 ff ff  d6 01 ff ff ff ff  d7 01 ff ff ff ff ff ff ff ff"
		" d8 01 ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff"
		" d9 01 61  da 00 01 61  db 00 00 00 01 61"
		" dc 00 01 c0  dd 00 00 00 01 c0  de 00 01 c0 c0  df 00 00 00 01 c0 c0"
		" 81 c0 c0 91 c0>");
	return b;
}

START_TEST(every_form_ends_where_it_ends)
{
	struct buf b = one_of_each();
	size_t pos;

	ck_assert_int_eq(scan(b.data, b.len, &wide, &pos), FRAME_OK);
	ck_assert_uint_eq(pos, b.len);
	buf_putc(&b, 'x'); /* what follows is not looked at */
	ck_assert_int_eq(scan(b.data, b.len, &wide, &pos), FRAME_OK);
	ck_assert_uint_eq(pos, b.len - 1);
	buf_done(&b);
}
END_TEST

START_TEST(a_frame_split_anywhere_is_the_same_frame)
{
	struct buf b = one_of_each();

	for (size_t cut = 0; cut < b.len; cut++) {
		struct frame_scan s = { 0 };
		/* Exact copies, so that a sanitizer sees a read past what came. */
		char *part = xmemdup(b.data, cut);

		part = xrealloc(part, cut);
		ck_assert_int_eq(frame_scan(&s, (uint8_t *)part, cut, &wide), FRAME_MORE);
		ck_assert_uint_le(s.pos, cut);
		free(part);
		ck_assert_int_eq(frame_scan(&s, (uint8_t *)b.data, b.len, &wide), FRAME_OK);
		ck_assert_uint_eq(s.pos, b.len);
	}
	buf_done(&b);
}
END_TEST

START_TEST(a_byte_at_a_time_costs_no_more_than_at_once)
{
	const struct frame_limits limits = { 1 << 20, 1 << 20 };
	struct frame_scan s = { 0 };
	struct buf b = { 0 };
	const uint32_t n = 500000;

	mp_put_array(&b, n);
	for (uint32_t i = 0; i < n; i++)
		buf_putc(&b, '\x01');
	/* A scan that began anew each time would look at 10^11 bytes: Check's timeout ends it.
	 */
	for (size_t have = 1; have < b.len; have++)
		ck_assert(frame_scan(&s, (uint8_t *)b.data, have, &limits) == FRAME_MORE);
	ck_assert_int_eq(frame_scan(&s, (uint8_t *)b.data, b.len, &limits), FRAME_OK);
	ck_assert_uint_eq(s.pos, b.len);
	buf_done(&b);
}
END_TEST

/* 31 bits, the same in every run. */
static int
draw(void)
{
	static uint64_t state = 1;

	state = state * 6364136223846793005u + 1442695040888963407u;
	return (int)(state >> 33);
}

START_TEST(random_values_end_where_the_library_ended_them)
{
	for (int round = 0; round < 2000; round++) {
		struct buf b = { 0 };
		unsigned open = 1;
		size_t pos;

		for (int i = 0; open && i < 200; i++) {
			open--;
			switch (draw() % (i < 100 ? 8 : 5)) {
			case 0:
				mp_put_int(&b, (int64_t)draw() << draw() % 33);
				break;
			case 1:
				mp_put_int(&b, -((int64_t)draw() << draw() % 33));
				break;
			case 2:
				mp_put_double(&b, draw());
				break;
			case 3:
				mp_put_bin(&b,
					   (struct str){ "xxxxxxxx", (size_t)(draw() % 8) });
				break;
			case 4:
				mp_put_bool(&b, draw() & 1);
				break;
			case 5: {
				static char z[70000];

				mp_put_str(&b,
					   (struct str){ z, (size_t)(1 << draw() % 17) - 1 });
				break;
			}
			case 6: {
				unsigned n = (unsigned)draw() % 4;

				mp_put_array(&b, n);
				open += n;
				break;
			}
			default: {
				unsigned n = (unsigned)draw() % 3;

				mp_put_map(&b, n);
				open += n * 2;
				break;
			}
			}
		}
		while (open--)
			mp_put_nil(&b);
		if (b.len <= wide.max_bytes) {
			enum frame_status status = scan(b.data, b.len, &wide, &pos);

			if (status != FRAME_TOO_DEEP) {
				ck_assert_int_eq(status, FRAME_OK);
				ck_assert_uint_eq(pos, b.len);
				ck_assert_int_eq(scan(b.data, b.len - 1, &wide, NULL),
						 FRAME_MORE);
			}
		}
		buf_done(&b);
	}
}
END_TEST

START_TEST(depth_32_passes_and_33_does_not)
{
	char deep[40];

	memset(deep, '\x91', sizeof(deep));
	deep[31] = '\x90';
	ck_assert_int_eq(scan(deep, 32, &wide, NULL), FRAME_OK);
	deep[31] = '\x91';
	deep[32] = '\xc0';
	ck_assert_int_eq(scan(deep, 33, &wide, NULL), FRAME_OK);
	deep[32] = '\x90'; /* an empty one is a level too */
	ck_assert_int_eq(scan(deep, 33, &wide, NULL), FRAME_TOO_DEEP);
	deep[32] = '\x80';
	ck_assert_int_eq(scan(deep, 33, &wide, NULL), FRAME_TOO_DEEP);
}
END_TEST

START_TEST(siblings_are_no_depth)
{
	struct buf b = { 0 };

	mp_put_array(&b, 100);
	for (int i = 0; i < 100; i++)
		buf_put(&b, "\x91\x91\x90", 3);
	ck_assert_int_eq(scan(b.data, b.len, &wide, NULL), FRAME_OK);
	buf_done(&b);
}
END_TEST

START_TEST(c1_is_no_messagepack_wherever_it_stands)
{
	ck_assert_int_eq(SCAN("\xc1", &wide), FRAME_INVALID);
	ck_assert_int_eq(SCAN("\x92\x01\xc1", &wide), FRAME_INVALID);
	ck_assert_int_eq(SCAN("\xa1\xc1", &wide), FRAME_OK); /* inside a string it is a byte */
}
END_TEST

START_TEST(a_header_that_announces_too_much_is_refused_alone)
{
	ck_assert_int_eq(SCAN("\xdd\xff\xff\xff\xff", &wide), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\xdf\xff\xff\xff\xff", &wide), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\xdd\x08\x00\x00\x00", &wide), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\xdb\xff\xff\xff\xff", &wide), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\xc6\x00\x10\x00\x00", &wide), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\xc6\x00\x0f\xff\xfb", &wide),
			 FRAME_MORE); /* 1 MiB with its head */
	ck_assert_int_eq(SCAN("\xc6\x00\x0f\xff\xfc", &wide), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\xc9\xff\xff\xff\xff\x01", &wide), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\x93\x00\x01\xdb\x00\x10\x00\x00", &wide), FRAME_TOO_LARGE);
}
END_TEST

START_TEST(elements_are_counted_over_all_levels)
{
	const struct frame_limits ten = { 1000, 10 };

	ck_assert_int_eq(SCAN("\x9a", &ten), FRAME_MORE);
	ck_assert_int_eq(SCAN("\x9b", &ten), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\x85", &ten), FRAME_MORE); /* keys and values: 10 */
	ck_assert_int_eq(SCAN("\x86", &ten), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\x92\x94\x01\x01\x01\x01\x94", &ten), FRAME_MORE);
	ck_assert_int_eq(SCAN("\x92\x94\x01\x01\x01\x01\x95", &ten), FRAME_TOO_LARGE);
}
END_TEST

START_TEST(more_elements_than_bytes_could_follow_are_refused)
{
	const struct frame_limits hundred = { 100, 65536 };

	ck_assert_int_eq(SCAN("\xdc\x00\x61", &hundred), FRAME_MORE); /* 97 and the head: 100 */
	ck_assert_int_eq(SCAN("\xdc\x00\x62", &hundred), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\xde\x00\x30", &hundred), FRAME_MORE);
	ck_assert_int_eq(SCAN("\xde\x00\x31", &hundred), FRAME_TOO_LARGE);
}
END_TEST

START_TEST(the_byte_limit_is_exact)
{
	const struct frame_limits eight = { 8, 100 };
	size_t pos;

	ck_assert_int_eq(scan("\x92\xa5hello\x01", 8, &eight, &pos), FRAME_OK);
	ck_assert_uint_eq(pos, 8);
	ck_assert_int_eq(SCAN("\x92\xa6hello!\x01", &eight), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\x92\xa6hello!", &eight),
			 FRAME_TOO_LARGE); /* no need to wait for it */
	ck_assert_int_eq(SCAN("\x92\xa5hello\xcc", &eight), FRAME_TOO_LARGE);
	ck_assert_int_eq(SCAN("\x92\xa4hell\xcc", &eight), FRAME_MORE);
	ck_assert_int_eq(SCAN("\x92\xa4hell\xcc\x01", &eight), FRAME_OK);
}
END_TEST

START_TEST(a_limit_lowered_during_a_frame_holds_for_it)
{
	const struct frame_limits low = { 4, 100 }, few = { 1000, 1 };
	struct frame_scan s = { 0 };

	ck_assert_int_eq(frame_scan(&s, (const uint8_t *)"\x99\x01\x01\x01\x01", 5, &wide),
			 FRAME_MORE);
	ck_assert_int_eq(frame_scan(&s, (const uint8_t *)"\x99\x01\x01\x01\x01\x01", 6, &low),
			 FRAME_TOO_LARGE);
	s = (struct frame_scan){ 0 };
	ck_assert_int_eq(frame_scan(&s, (const uint8_t *)"\x99", 1, &wide), FRAME_MORE);
	ck_assert_int_eq(frame_scan(&s, (const uint8_t *)"\x99\x91", 2, &few), FRAME_TOO_LARGE);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("frame");
	TCase *tc = tcase_create("scan");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, every_form_ends_where_it_ends);
	tcase_add_test(tc, a_frame_split_anywhere_is_the_same_frame);
	tcase_add_test(tc, a_byte_at_a_time_costs_no_more_than_at_once);
	tcase_add_test(tc, random_values_end_where_the_library_ended_them);
	tcase_add_test(tc, depth_32_passes_and_33_does_not);
	tcase_add_test(tc, siblings_are_no_depth);
	tcase_add_test(tc, c1_is_no_messagepack_wherever_it_stands);
	tcase_add_test(tc, a_header_that_announces_too_much_is_refused_alone);
	tcase_add_test(tc, elements_are_counted_over_all_levels);
	tcase_add_test(tc, more_elements_than_bytes_could_follow_are_refused);
	tcase_add_test(tc, the_byte_limit_is_exact);
	tcase_add_test(tc, a_limit_lowered_during_a_frame_holds_for_it);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
