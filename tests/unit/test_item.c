#include <check.h>
#include <stdlib.h>

#include "../lib/pack.h"
#include "queue/item.h"

/* The item of one `send` with this message, as the one argument of `args`. */
static struct str
item_of(struct args *args, const char *message, uint64_t due_by_us, size_t *size)
{
	struct buf params = packed(message);
	struct field_rules rules = { false, 1000 };
	struct params p;
	struct errmsg why = { 0 };
	struct str raw;

	if (params_read(&p, buf_str(&params), F(sender) | F(message), 0, &rules, &why))
		ck_abort_msg("%s", why.text);
	*size = item_put(args, &p.sender, &p.message, 1800000000123456, due_by_us);
	buf_done(&params);
	raw = buf_str(&args->buf);
	raw.p = (const char *)memchr(raw.p, '\n', raw.n) + 1;
	raw.n = *size;
	return raw;
}

START_TEST(what_goes_in_comes_out)
{
	struct args args = { 0 };
	struct item item;
	size_t size;
	struct str raw =
		item_of(&args,
			"{'sender': {'type': 's', 'instance': '1'}, 'message': "
			"{'message_id': 'm', 'trace': [1, 2], 'message_type': 'event', "
			"'payload': {'a': 1}, 'priority': 9, 'reply_to': 'x', "
			"'timestamp': '2026-01-05T07:52:10Z'}}",
			0, &size);

	ck_assert(item_read(&item, raw));
	ck_assert_uint_eq(item.priority, 9);
	ck_assert_int_eq(item.type, MESSAGE_EVENT);
	ck_assert_uint_eq(item.enqueued_us, 1800000000123456);
	ck_assert_uint_eq(item.attempts, 0);
	ck_assert(!item.has_error);
	ck_assert(str_eq(item.sender.type, STR("s")));
	ck_assert(str_eq(item.sender.instance, STR("1")));
	ck_assert(str_eq(item.message_id, STR("m")));
	ck_assert(str_eq(item.timestamp, STR("2026-01-05T07:52:10Z")));
	ck_assert_uint_eq(item.extra_count, 2);
	ck_assert(str_eq(item.extra, STR("\xa5trace\x92\x01\x02\xa8reply_to\xa1x")));
	ck_assert(str_eq(item.payload, STR("\x81\xa1"
					   "a\x01")));
	args_done(&args);
}
END_TEST

START_TEST(a_plain_message_costs_little_more_than_its_parts)
{
	struct args args = { 0 };
	struct item item;
	size_t size;
	struct str raw = item_of(&args,
				 "{'sender': {'type': 's'}, 'message': {'message_id': 'm', "
				 "'message_type': 'request'}}",
				 0, &size);

	/* 9 of header, lengths, "s", "default", "m", and the empty payload. */
	ck_assert_uint_eq(size, 9 + 3 + 1 + 7 + 1 + 1);
	ck_assert(item_read(&item, raw));
	ck_assert_uint_eq(item.priority, 5);
	ck_assert(str_eq(item.payload, STR("\x80")));
	args_done(&args);
}
END_TEST

START_TEST(no_part_of_an_item_is_taken_for_one)
{
	struct args args = { 0 };
	struct item item;
	size_t size;
	struct str raw = item_of(
		&args,
		"{'sender': {'type': 's'}, 'message': {'message_id': 'm', 'message_type': "
		"'request', 'x': 1, 'timestamp': '2026-01-05'}}",
		1800000001000000, &size);

	for (size_t n = 0; n < size; n++)
		ck_assert(!item_read(&item, (struct str){ raw.p, n }));
	ck_assert(item_read(&item, raw));
	ck_assert(!item_read(&item, STR("\x02 another format, of a later version")));
	args_done(&args);
}
END_TEST

static void
digest_of(uint8_t out[ITEM_DIGEST_LEN], const char *message)
{
	struct buf params = packed(message);
	struct field_rules rules = { false, 1000 };
	struct params p;

	ck_assert_int_eq(
		params_read(&p, buf_str(&params), F(sender) | F(message), 0, &rules, NULL), OK);
	item_digest(out, &p.sender, &p.message);
	buf_done(&params);
}

START_TEST(only_what_makes_a_message_another_changes_its_digest)
{
#define MESSAGE(sender, id, type, payload, more)                                  \
	"{'sender': {'type': '" sender "'}, 'message': {'message_id': '" id "', " \
	"'message_type': '" type "', 'payload': " payload more "}}"
	static const char *const others[] = {
		MESSAGE("t", "m", "event", "{'a': 1}", ""),
		MESSAGE("s", "n", "event", "{'a': 1}", ""),
		MESSAGE("s", "m", "request", "{'a': 1}", ""),
		MESSAGE("s", "m", "event", "{'a': 2}", ""),
	};
	uint8_t first[ITEM_DIGEST_LEN], other[ITEM_DIGEST_LEN];

	digest_of(first, MESSAGE("s", "m", "event", "{'a': 1}", ""));
	digest_of(other, MESSAGE("s", "m", "event", "{'a': 1}", ", 'priority': 9, 'x': 1"));
	ck_assert_mem_eq(first, other, sizeof(first));
	for (size_t i = 0; i < 4; i++) {
		digest_of(other, others[i]);
		ck_assert_msg(memcmp(first, other, sizeof(first)) != 0, "%zu", i);
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("item");
	TCase *tc = tcase_create("item");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, what_goes_in_comes_out);
	tcase_add_test(tc, a_plain_message_costs_little_more_than_its_parts);
	tcase_add_test(tc, no_part_of_an_item_is_taken_for_one);
	tcase_add_test(tc, only_what_makes_a_message_another_changes_its_digest);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
