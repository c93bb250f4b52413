#include <check.h>
#include <stdlib.h>

#include "../lib/pack.h"
#include "proto/rpc.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

/* Read the frame that `text` packs to; what it borrows lives in `b`. */
static bool
read_text(struct rpc *rpc, struct buf *b, const char *text, struct errmsg *why)
{
	buf_clear(b);
	pack_text(b, text);
	return rpc_read(rpc, (const uint8_t *)b->data, b->len, why);
}

START_TEST(a_request_is_taken_apart)
{
	struct buf b = { 0 }, params = packed("{'agent': {'type': 'a'}}");
	struct errmsg why;
	struct rpc rpc;

	ck_assert(read_text(&rpc, &b, "[0, 4294967295, 'peek', [{'agent': {'type': 'a'}}]]",
			    &why));
	ck_assert_int_eq(rpc.type, RPC_REQUEST);
	ck_assert_uint_eq(rpc.msgid, UINT32_MAX);
	ck_assert(str_eq(rpc.method, STR("peek")));
	ck_assert(str_eq(rpc.params, buf_str(&params)));
	ck_assert_int_eq(rpc.bad.err, OK);
	buf_done(&params);
	buf_done(&b);
}
END_TEST

START_TEST(a_notification_is_taken_apart)
{
	struct buf b = { 0 };
	struct errmsg why;
	struct rpc rpc;

	ck_assert(read_text(&rpc, &b, "[2, b'ack', [{'token': 't'}]]", &why));
	ck_assert_int_eq(rpc.type, RPC_NOTIFICATION);
	ck_assert_uint_eq(rpc.msgid, 0);
	ck_assert(str_eq(rpc.method, STR("ack"))); /* also as bin */
	ck_assert_uint_gt(rpc.params.n, 0);
	buf_done(&b);
}
END_TEST

START_TEST(an_empty_map_may_be_missing_or_an_array)
{
	static const char *const same[] = { "[0, 1, 'ping', []]", "[0, 1, 'ping', [{}]]",
					    "[0, 1, 'ping', [[]]]" };
	struct buf b = { 0 };
	struct errmsg why;
	struct rpc rpc;

	for (size_t i = 0; i < N(same); i++) {
		ck_assert(read_text(&rpc, &b, same[i], &why));
		ck_assert_int_eq(rpc.bad.err, OK);
		ck_assert_uint_eq(rpc.params.n, 0);
	}
	buf_done(&b);
}
END_TEST

START_TEST(params_of_another_shape_are_the_requests_fault)
{
	static const char *const bad[] = {
		"[0, 1, 'ping', nil]",
		"[0, 1, 'ping', {}]",
		"[0, 1, 'ping', [1]]",
		"[0, 1, 'ping', [nil]]",
		"[0, 1, 'ping', [{}, {}]]",
		"[0, 1, 'ping', [[1]]]",
		"[2, 'nvim_set_client_info', ['a', {}, 'b', {}, {}]]"
	};
	struct buf b = { 0 };
	struct errmsg why;
	struct rpc rpc;

	for (size_t i = 0; i < N(bad); i++) {
		ck_assert_msg(read_text(&rpc, &b, bad[i], &why), "%s", bad[i]);
		ck_assert_int_eq(rpc.bad.err, ERR_BAD_REQUEST);
		ck_assert_str_ne(rpc.bad.text, "");
		ck_assert_uint_gt(rpc.method.n, 0);
	}
	buf_done(&b);
}
END_TEST

START_TEST(a_response_is_read_no_further_than_its_type)
{
	struct buf b = { 0 };
	struct errmsg why;
	struct rpc rpc;

	ck_assert(read_text(&rpc, &b, "[1, 'x', nil, 5]", &why));
	ck_assert_int_eq(rpc.type, RPC_RESPONSE);
	buf_done(&b);
}
END_TEST

START_TEST(what_is_no_messagepack_rpc_is_refused)
{
	static const char *const none[] = {
		"71",
		"nil",
		"{}",
		"'GET'",
		"[]",
		"[0]",
		"[0, 1, 'ping']",
		"[0, 1, 'ping', [], 5]",
		"[1, 1, nil]",
		"[2, 'ack', [], []]",
		"[2, 'ack']",
		"[3, 1, 'ping', []]",
		"[-1, 1, 'ping', []]",
		"[18446744073709551615, 1, 'ping', []]",
		"['0', 1, 'ping', []]",
		"[nil, 1, 'ping', []]",
		"[0.0, 1, 'ping', []]",
		"[0, -1, 'ping', []]",
		"[0, 4294967296, 'ping', []]",
		"[0, 18446744073709551615, 'ping', []]",
		"[0, '1', 'ping', []]",
		"[0, nan, 'ping', []]",
		"[0, nil, 'ping', []]",
		"[0, 1, 5, []]",
		"[0, 1, nil, []]",
		"[2, ['ack'], []]",
	};
	struct buf b = { 0 };
	struct errmsg why;
	struct rpc rpc;

	for (size_t i = 0; i < N(none); i++) {
		why = (struct errmsg){ 0 };
		ck_assert_msg(!read_text(&rpc, &b, none[i], &why), "%s", none[i]);
		ck_assert_int_eq(why.err, ERR_PROTOCOL);
		ck_assert_str_ne(why.text, "");
	}
	buf_done(&b);
}
END_TEST

static void
ck_packs_to(struct buf *b, const char *text)
{
	struct buf expected = packed(text);

	ck_assert_uint_eq(b->len, expected.len);
	ck_assert_mem_eq(b->data, expected.data, b->len);
	buf_done(&expected);
	buf_clear(b);
}

START_TEST(answers_have_the_shapes_of_the_protocol)
{
	struct errmsg why = { 0 };
	struct buf b = { 0 };

	rpc_put_result(&b, 300);
	mp_put_bool(&b, true);
	ck_packs_to(&b, "[1, 300, nil, true]");

	rpc_put_notification(&b, STR("message"));
	mp_put_nil(&b);
	ck_packs_to(&b, "[2, 'message', [nil]]");

	errmsg_set(&why, ERR_BAD_REQUEST, "agent is missing");
	rpc_put_error(&b, 7, RPC_ERRORS_MAP, &why);
	ck_packs_to(&b, "[1, 7, {'code': 'bad_request', 'message': 'agent is missing', "
			"'retryable': false}, nil]");
	rpc_put_error(&b, 7, RPC_ERRORS_PAIR, &why);
	ck_packs_to(&b, "[1, 7, [0, 'bad_request: agent is missing'], nil]");

	errmsg_set(&why, ERR_UNKNOWN, "no answer");
	rpc_put_error(&b, 7, RPC_ERRORS_MAP, &why);
	ck_packs_to(&b,
		    "[1, 7, {'code': 'unavailable', 'message': 'no answer', 'retryable': true, "
		    "'applied': 'unknown'}, nil]");
	buf_done(&b);
}
END_TEST

START_TEST(an_error_text_cut_inside_a_character_is_mended)
{
	struct errmsg why = { .err = ERR_OVERLOADED, .text = "caf\xc3" };
	struct buf b = { 0 };

	rpc_put_error(&b, 1, RPC_ERRORS_PAIR, &why);
	ck_packs_to(&b, "[1, 1, [0, 'overloaded: caf'], nil]");
	why.text[0] = '\xff';
	rpc_put_error(&b, 1, RPC_ERRORS_PAIR, &why);
	ck_packs_to(&b, "[1, 1, [0, 'overloaded: too much is in flight'], nil]");
	buf_done(&b);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("rpc");
	TCase *tc = tcase_create("envelope");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, a_request_is_taken_apart);
	tcase_add_test(tc, a_notification_is_taken_apart);
	tcase_add_test(tc, an_empty_map_may_be_missing_or_an_array);
	tcase_add_test(tc, params_of_another_shape_are_the_requests_fault);
	tcase_add_test(tc, a_response_is_read_no_further_than_its_type);
	tcase_add_test(tc, what_is_no_messagepack_rpc_is_refused);
	tcase_add_test(tc, answers_have_the_shapes_of_the_protocol);
	tcase_add_test(tc, an_error_text_cut_inside_a_character_is_mended);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
