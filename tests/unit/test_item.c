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
	*size = item_put(args, &p.sender, &p.message, 1800000000123456, due_by_us, NULL);
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
	ck_assert(!item.has_uuid);
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

	/* 9 of header, lengths, "s", length, "m", and the empty payload; the default instance is nothing. */
	ck_assert_uint_eq(size, 9 + 1 + 1 + 1 + 1 + 1);
	ck_assert(item_read(&item, raw));
	ck_assert(str_eq(item.sender.instance, STR("default")));
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

START_TEST(an_id_that_is_a_uuid_takes_sixteen_bytes)
{
	static const struct {
		const char *id;
		size_t bytes;
	} ids[] = {
		{ "01234567-89ab-cdef-0123-456789abcdef", 16 },
		{ "ffffffff-ffff-ffff-ffff-ffffffffffff", 16 },
		{ "01234567-89AB-cdef-0123-456789abcdef", 37 }, /* it comes back as it was sent */
		{ "01234567-89ab-cdef-0123-456789abcdeg", 37 },
		{ "0123456-789ab-cdef-0123-456789abcdef", 37 },
		{ "01234567-89ab-cdef-0123-456789abcde", 36 },
		{ "0123456789abcdef", 17 },
	};
	char text[256], room[UUID_TEXT_LEN];

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		struct args args = { 0 };
		struct item item;
		struct str raw;
		size_t size;

		snprintf(text, sizeof(text),
			 "{'sender': {'type': 's'}, 'message': {'message_id': '%s', "
			 "'message_type': 'event'}}",
			 ids[i].id);
		raw = item_of(&args, text, 0, &size);
		ck_assert_uint_eq(size, 9 + 1 + 1 + ids[i].bytes + 1);
		ck_assert(item_read(&item, raw));
		ck_assert(str_eq(item_message_id(&item, room), str_of(ids[i].id)));
		for (size_t n = 0; n < size; n++)
			ck_assert(!item_read(&item, (struct str){ raw.p, n }));
		args_done(&args);
	}
}
END_TEST

START_TEST(names_of_any_length_come_back)
{
	static const unsigned lengths[] = { 1, 14, 15, 16, 127, 128 };
	char type[129], instance[129], text[512];

	for (size_t i = 0; i < 6; i++) {
		for (size_t j = 0; j < 6; j++) {
			struct args args = { 0 };
			struct item item;
			struct str raw;
			size_t size;

			snprintf(type, sizeof(type), "%0*d", (int)lengths[i], 1);
			snprintf(instance, sizeof(instance), "%0*d", (int)lengths[j], 2);
			snprintf(text, sizeof(text),
				 "{'sender': {'type': '%s', 'instance': '%s'}, 'message': "
				 "{'message_id': 'm', 'message_type': 'event'}}",
				 type, instance);
			raw = item_of(&args, text, 0, &size);
			ck_assert(item_read(&item, raw));
			ck_assert(str_eq(item.sender.type, str_of(type)));
			ck_assert(str_eq(item.sender.instance, str_of(instance)));
			ck_assert(str_eq(item.message_id, STR("m")));
			args_done(&args);
		}
	}
}
END_TEST

static void
digest_of(uint8_t out[ITEM_DIGEST_LEN], const char *message)
{
	struct buf params = packed(message);
	struct field_rules rules = { false, 1000 };
	struct args args = { 0 };
	struct params p;

	ck_assert_int_eq(
		params_read(&p, buf_str(&params), F(sender) | F(message), 0, &rules, NULL), OK);
	item_put(&args, &p.sender, &p.message, 1800000000123456, 0, out);
	args_done(&args);
	buf_done(&params);
}

START_TEST(only_what_makes_a_message_another_changes_its_digest)
{
#define MESSAGE(sender, id, type, payload, more)                                  \
	"{'sender': {'type': '" sender "'}, 'message': {'message_id': '" id "', " \
	"'message_type': '" type "', 'payload': " payload more "}}"
	static const char *const messages[] = {
		MESSAGE("s", "m", "event", "{'a': 1}", ""),
		MESSAGE("t", "m", "event", "{'a': 1}", ""),
		MESSAGE("s", "n", "event", "{'a': 1}", ""),
		MESSAGE("s", "m", "request", "{'a': 1}", ""),
		MESSAGE("s", "m", "event", "{'a': 2}", ""),
		/* The UUID whose bytes are a length, an id of so many characters, and no more. */
		MESSAGE("s", "0f303030-3030-3030-3030-303030303030", "event", "{'a': 1}", ""),
		MESSAGE("s", "000000000000000", "event", "{'a': 1}", ""),
	};
	enum { N = sizeof(messages) / sizeof(messages[0]) };
	uint8_t digests[N][ITEM_DIGEST_LEN], same[ITEM_DIGEST_LEN];

	for (size_t i = 0; i < N; i++) {
		digest_of(digests[i], messages[i]);
		for (size_t j = 0; j < i; j++)
			ck_assert_msg(memcmp(digests[i], digests[j], ITEM_DIGEST_LEN) != 0,
				      "%zu %zu", i, j);
	}
	digest_of(same, MESSAGE("s", "m", "event", "{'a': 1}", ", 'priority': 9, 'x': 1"));
	ck_assert_mem_eq(same, digests[0], ITEM_DIGEST_LEN);
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
	tcase_add_test(tc, an_id_that_is_a_uuid_takes_sixteen_bytes);
	tcase_add_test(tc, names_of_any_length_come_back);
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
