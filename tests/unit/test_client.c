#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/coord.h"

/*
 * The client against a peer that is the test itself: the other end of a socket pair. A socket
 * pair holds what is written, so answers can be there before the client looks for them.
 */
static struct coord *c;
static int peer;

static void
setup(void)
{
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	c = coord_attach(fds[0]);
	ck_assert_ptr_nonnull(c);
	peer = fds[1];
}

static void
teardown(void)
{
	coord_free(c);
	if (peer >= 0)
		close(peer);
}

static void
peer_close(void)
{
	close(peer);
	peer = -1;
}

/* Take what was asked, as a broker does; closing on unread bytes would be a reset. */
static void
peer_reads(void)
{
	char buf[256];

	ck_assert_int_gt(recv(peer, buf, sizeof(buf), MSG_DONTWAIT), 0);
}

static void
peer_says(const void *p, size_t n)
{
	ck_assert_int_eq(send(peer, p, n, MSG_NOSIGNAL), (ssize_t)n);
}
#define PEER_SAYS(literal) peer_says("" literal, sizeof(literal) - 1)

/* [1, id, nil, value] */
static void
peer_answers(uint32_t id, int value)
{
	msgpack_sbuffer buf;
	msgpack_packer pk;

	msgpack_sbuffer_init(&buf);
	msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
	msgpack_pack_array(&pk, 4);
	msgpack_pack_int(&pk, 1);
	msgpack_pack_uint32(&pk, id);
	msgpack_pack_nil(&pk);
	msgpack_pack_int(&pk, value);
	peer_says(buf.data, buf.size);
	msgpack_sbuffer_destroy(&buf);
}

static uint32_t
asked(const char *method)
{
	uint32_t id;

	ck_assert_int_eq(coord_send(c, method, NULL, &id), COORD_OK);
	coord_on_writable(c);
	return id;
}

/* The answer to `id` is the integer `value`; it is there already. */
static void
takes(uint32_t id, int64_t value)
{
	struct coord_reply *reply;

	ck_assert_int_eq(coord_take(c, id, &reply, NULL), COORD_OK);
	ck_assert_int_eq(coord_reply_result(reply)->type, MSGPACK_OBJECT_POSITIVE_INTEGER);
	ck_assert_int_eq(coord_reply_result(reply)->via.i64, value);
	coord_reply_free(reply);
}

START_TEST(a_request_is_one_msgpack_rpc_frame)
{
	static const char want[] = "\x94\x00\x01\xa4ping\x90"
				   "\x94\x00\x02\xa4peek\x91\x82\xa5"
				   "agent\x82\xa4type\xa1"
				   "a\xa8instance\xa1"
				   "b\xa5limit\x07";
	struct coord_params *p = coord_params_new();
	char got[256];
	uint32_t id;

	ck_assert_int_eq(coord_send(c, "ping", NULL, &id), COORD_OK);
	ck_assert_uint_eq(id, 1);
	coord_param_agent(p, "agent", "a", "b");
	coord_param_int(p, "limit", 7);
	ck_assert_int_eq(coord_send(c, "peek", p, &id), COORD_OK);
	coord_params_free(p);

	ck_assert(coord_wants_write(c));
	ck_assert_int_eq(coord_on_writable(c), COORD_OK);
	ck_assert(!coord_wants_write(c));
	ck_assert_int_eq(recv(peer, got, sizeof(got), 0), (ssize_t)sizeof(want) - 1);
	ck_assert_mem_eq(got, want, sizeof(want) - 1);
}
END_TEST

START_TEST(a_call_returns_its_result)
{
	struct coord_reply *reply;
	struct coord_error err;
	const msgpack_object *name;

	PEER_SAYS("\x94\x01\x01\xc0\x82\xa4name\xa3you\xa3nil\xc0");
	ck_assert_int_eq(coord_call(c, "whoami", NULL, 5000, &reply, &err), COORD_OK);
	name = coord_get(coord_reply_result(reply), "name");
	ck_assert_ptr_nonnull(name);
	ck_assert_uint_eq(name->via.str.size, 3);
	ck_assert_mem_eq(name->via.str.ptr, "you", 3);
	ck_assert_ptr_null(coord_get(coord_reply_result(reply), "nil"));
	ck_assert_ptr_null(coord_get(coord_reply_result(reply), "nam"));
	ck_assert_ptr_null(coord_get(name, "name"));
	coord_reply_free(reply);
}
END_TEST

START_TEST(an_answer_that_comes_in_single_bytes_is_the_same)
{
	static const char frames[] = "\x94\x01\x01\xc0\x05\x94\x01\x02\xc0\x06";
	uint32_t first = asked("a"), second = asked("b");
	struct coord_reply *reply;

	for (size_t i = 0; i < sizeof(frames) - 1; i++) {
		if (i < 5)
			ck_assert_int_eq(coord_take(c, first, &reply, NULL), COORD_AGAIN);
		ck_assert_int_eq(coord_take(c, second, &reply, NULL), COORD_AGAIN);
		peer_says(frames + i, 1);
		ck_assert_int_eq(coord_on_readable(c), COORD_OK);
		if (i == 4)
			takes(first, 5);
	}
	takes(second, 6);
}
END_TEST

START_TEST(answers_out_of_order_find_their_requests)
{
	uint32_t ids[100];

	for (int i = 0; i < 100; i++)
		ids[i] = asked("m");
	for (int i = 0; i < 100; i++)
		peer_answers(ids[i * 37 % 100], i * 37 % 100);
	ck_assert_int_eq(coord_on_readable(c), COORD_OK);
	for (int i = 0; i < 100; i++)
		takes(ids[i], i);
}
END_TEST

START_TEST(an_answer_of_many_reads_arrives_whole)
{
	enum { SIZE = 3000000 };
	char *payload = malloc(SIZE);
	struct coord_reply *reply;
	uint32_t id = asked("big");
	size_t sent = 0;

	ck_assert_ptr_nonnull(payload);
	for (size_t i = 0; i < SIZE; i++)
		payload[i] = (char)(i * 7 % 251);
	PEER_SAYS("\x94\x01\x01\xc0\xc6\x00\x2d\xc6\xc0"); /* bin 32 of 3000000 bytes */
	while (sent < SIZE) {
		ssize_t n =
			send(peer, payload + sent, SIZE - sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			sent += (size_t)n;
		ck_assert_int_eq(coord_on_readable(c), COORD_OK);
	}
	ck_assert_int_eq(coord_recv(c, id, 5000, &reply, NULL), COORD_OK);
	ck_assert_uint_eq(coord_reply_result(reply)->via.bin.size, SIZE);
	ck_assert_mem_eq(coord_reply_result(reply)->via.bin.ptr, payload, SIZE);
	coord_reply_free(reply);
	free(payload);
}
END_TEST

START_TEST(an_error_carries_code_retryable_and_applied)
{
	struct coord_reply *reply;
	struct coord_error err;

	asked("send");
	PEER_SAYS("\x94\x01\x01\x84\xa4"
		  "code\xabunavailable\xa7message\xa4gone\xa9retryable\xc3\xa7"
		  "applied\xa7unknown\xc0");
	coord_on_readable(c);
	ck_assert_int_eq(coord_take(c, 1, &reply, &err), COORD_REFUSED);
	ck_assert_int_eq(err.status, COORD_REFUSED);
	ck_assert_str_eq(err.code, "unavailable");
	ck_assert_str_eq(err.message, "gone");
	ck_assert_str_eq(err.applied, "unknown");
	ck_assert(err.retryable);

	PEER_SAYS("\x94\x01\x02\x83\xa4"
		  "code\xa9not_found\xa7message\xa1x\xa9retryable\xc2\xc0");
	ck_assert_int_eq(coord_call(c, "m", NULL, 5000, &reply, &err), COORD_REFUSED);
	ck_assert_str_eq(err.code, "not_found");
	ck_assert_str_eq(err.applied, "");
	ck_assert(!err.retryable);

	/* The connection goes on. */
	peer_answers(3, 9);
	ck_assert_int_eq(coord_call(c, "m", NULL, 5000, &reply, &err), COORD_OK);
	coord_reply_free(reply);
}
END_TEST

START_TEST(an_error_of_another_shape_is_the_peers_fault)
{
	struct coord_reply *reply;
	struct coord_error err;

	PEER_SAYS("\x94\x01\x01\xa4oops\xc0");
	ck_assert_int_eq(coord_call(c, "m", NULL, 5000, &reply, &err), COORD_PROTOCOL);
	PEER_SAYS("\x94\x01\x02\x81\xa4"
		  "code\x07\xc0");
	ck_assert_int_eq(coord_call(c, "m", NULL, 5000, &reply, &err), COORD_PROTOCOL);
}
END_TEST

START_TEST(what_was_answered_survives_a_connection_closed_in_the_middle_of_an_answer)
{
	uint32_t first = asked("a"), second = asked("b");
	struct coord_reply *reply;
	struct coord_error err;
	uint32_t id;

	peer_reads();
	peer_answers(first, 5);
	PEER_SAYS("\x94\x01\x02");
	peer_close();
	ck_assert_int_eq(coord_recv(c, second, 5000, &reply, &err), COORD_CLOSED);
	ck_assert_ptr_nonnull(strstr(err.message, "in the middle"));
	ck_assert_str_eq(err.applied, "unknown");
	ck_assert(err.retryable);
	takes(first, 5);
	ck_assert_int_eq(coord_send(c, "c", NULL, &id), COORD_CLOSED);
	ck_assert_int_eq(coord_call(c, "c", NULL, 5000, &reply, &err), COORD_CLOSED);
}
END_TEST

START_TEST(a_request_that_did_not_leave_whole_was_not_applied)
{
	struct coord_params *p = coord_params_new();
	char *big = malloc(4000001);
	struct coord_reply *reply;
	struct coord_error err;
	uint32_t left = asked("small"), stayed;

	ck_assert_ptr_nonnull(big);
	memset(big, 'x', 4000000);
	big[4000000] = '\0';
	coord_param_str(p, "payload", big);
	free(big);
	ck_assert_int_eq(coord_send(c, "send", p, &stayed), COORD_OK);
	coord_params_free(p);
	coord_on_writable(c);
	ck_assert(coord_wants_write(c)); /* more than the socket holds */
	peer_close();

	ck_assert_int_eq(coord_recv(c, stayed, 5000, &reply, &err), COORD_CLOSED);
	ck_assert_str_eq(err.applied, "no");
	ck_assert_int_eq(coord_recv(c, left, 5000, &reply, &err), COORD_CLOSED);
	ck_assert_str_eq(err.applied, "unknown");
}
END_TEST

START_TEST(what_the_broker_says_before_it_closes_is_the_reason)
{
	uint32_t first = asked("a"), second = asked("b");
	struct coord_reply *reply;
	struct coord_error err;

	PEER_SAYS("\x94\x01\x00\x83\xa4"
		  "code\xa9too_large\xa7message\xa6"
		  "1 MiB!\xa9retryable\xc2\xc0");
	peer_answers(first, 5); /* it had completed this one before */
	peer_close();
	ck_assert_int_eq(coord_recv(c, second, 5000, &reply, &err), COORD_REFUSED);
	ck_assert_str_eq(err.code, "too_large");
	ck_assert_str_eq(err.message, "1 MiB!");
	takes(first, 5);
}
END_TEST

START_TEST(an_oversized_answer_is_refused_on_its_header)
{
	static const struct {
		const char *bytes;
		size_t n;
	} headers[] = {
		{ "\x94\x01\x01\xc0\xdd\x05\xf5\xe1\x00", 9 }, /* an array of 100 million */
		{ "\x94\x01\x01\xc0\xdf\xff\xff\xff\xff", 9 }, /* a map of 4 billion */
		{ "\x94\x01\x01\xc0\xc6\x7f\xff\xff\xff", 9 }, /* 2 GiB of bytes */
		{ "\xdd\xff\xff\xff\xff", 5 },
	};

	peer_says(headers[_i].bytes, headers[_i].n);
	asked("m");
	ck_assert_int_eq(coord_on_readable(c), COORD_PROTOCOL);
	ck_assert_int_eq(coord_take(c, 1, &(struct coord_reply *){ NULL }, NULL),
			 COORD_PROTOCOL);
}
END_TEST

START_TEST(a_peer_that_speaks_something_else_is_told_apart)
{
	static const struct {
		const char *bytes;
		size_t n;
	} greetings[] = {
		{ "HTTP/1.1 400 Bad Request\r\n", 26 },
		{ "-ERR unknown command\r\n", 22 },
		{ "SSH-2.0-OpenSSH_9.2\r\n", 21 },
		{ "\xc1", 1 },
		{ "\x80", 1 },
		{ "\x90", 1 },
		{ "\x94\x00\x01\xa1m\x90", 6 }, /* a request */
		{ "\x93\x01\x01\xc0", 4 },      /* a response of three */
		{ "\x94\x01\xa1x\xc0\xc0", 6 }, /* a number that is none */
	};
	struct coord_reply *reply;
	struct coord_error err;

	peer_says(greetings[_i].bytes, greetings[_i].n);
	ck_assert_int_eq(coord_call(c, "hello", NULL, 5000, &reply, &err), COORD_PROTOCOL);
	ck_assert(err.message[0]);
}
END_TEST

START_TEST(notifications_and_answers_nobody_waits_for_are_ignored)
{
	uint32_t id = asked("m");

	PEER_SAYS("\x93\x02\xa5"
		  "event\x91\x80");
	peer_answers(4711, 1);
	peer_answers(id, 5);
	peer_answers(id, 6); /* the first counts */
	ck_assert_int_eq(coord_on_readable(c), COORD_OK);
	takes(id, 5);
	ck_assert_int_eq(coord_take(c, id, &(struct coord_reply *){ NULL }, NULL), COORD_USAGE);
}
END_TEST

/* What answers and notices said to the functions that wait for them. */
static struct {
	char text[256];
	bool sends_more;
} heard;

static void
on_answer(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	size_t n = strlen(heard.text);
	uint32_t id;

	ck_assert(!result == !!err);
	if (err)
		snprintf(heard.text + n, sizeof(heard.text) - n, "%s:%d%s%s ",
			 (const char *)arg, (int)err->status, err->code, err->applied);
	else
		snprintf(heard.text + n, sizeof(heard.text) - n, "%s=%d ", (const char *)arg,
			 (int)result->via.i64);
	if (!heard.sends_more)
		return;
	heard.sends_more = false;
	coord_send(c, "more", NULL, &id);
	ck_assert_int_eq(coord_on_readable(c), COORD_USAGE); /* not from here */
}

static void
on_notice(void *arg, const char *method, const msgpack_object *param)
{
	size_t n = strlen(heard.text);
	const msgpack_object *value = coord_get(param, "n");

	ck_assert_ptr_null(arg);
	snprintf(heard.text + n, sizeof(heard.text) - n, "%s(%s%d) ", method,
		 param ? "" : "none", value ? (int)value->via.i64 : -1);
}

static void
hears(const char *want)
{
	ck_assert_str_eq(heard.text, want);
	heard.text[0] = '\0';
}

static void
asks(const char *name)
{
	heard.text[0] = '\0';
	ck_assert_int_eq(coord_async(c, "m", NULL, on_answer, (void *)name), COORD_OK);
	hears("");
	coord_on_writable(c);
}

START_TEST(answers_are_handed_to_the_functions_that_wait_for_them)
{
	uint32_t taken;

	asks("a");
	taken = asked("b");
	asks("c");
	peer_answers(3, 30);
	peer_answers(taken, 20);
	PEER_SAYS("\x94\x01\x01\x82\xa4"
		  "code\xaa"
		  "overloaded\xa7message\xa1x\xc0");
	peer_answers(3, 31); /* once only */
	heard.sends_more = true;
	ck_assert_int_eq(coord_on_readable(c), COORD_OK);
	hears("c=30 a:8overloaded ");
	takes(taken, 20);
	ck_assert(coord_wants_write(c)); /* what was sent from within */
	peer_answers(4, 40);
	coord_on_readable(c);
	takes(4, 40);
	hears("");
}
END_TEST

START_TEST(at_the_end_all_functions_that_wait_are_told)
{
	struct coord_reply *reply;
	uint32_t taken;

	ck_assert_ptr_null(coord_ended(c));
	asks("a");
	taken = asked("b");
	asks("c");
	peer_reads();
	ck_assert_int_eq(coord_async(c, "m", NULL, on_answer, (char *)"stayed"), COORD_OK);
	peer_answers(1, 10);
	peer_close();
	ck_assert_int_eq(coord_on_readable(c), COORD_OK);
	ck_assert_int_eq(coord_on_readable(c), COORD_CLOSED);
	hears("a=10 c:6unknown stayed:6no ");
	ck_assert_int_eq(coord_take(c, taken, &reply, NULL), COORD_CLOSED);
	ck_assert_int_eq(coord_async(c, "m", NULL, on_answer, (char *)"late"), COORD_CLOSED);
	ck_assert_int_eq(coord_on_readable(c), COORD_CLOSED);
	hears("");
	ck_assert_ptr_nonnull(strstr(coord_ended(c)->message, "closed"));
}
END_TEST

START_TEST(nobody_is_told_of_a_connection_that_was_freed)
{
	asks("a");
	coord_on_notice(c, on_notice, NULL);
	coord_free(c);
	c = NULL;
	hears("");
}
END_TEST

START_TEST(notices_are_handed_over_in_their_order_among_answers)
{
	static const char notices[] = "\x93\x02\xa7message\x91\x81\xa1n\x01"
				      "\x94\x01\x01\xc0\x05"
				      "\x93\x02\xa5"
				      "event\x91\x81\xa1n\x02"
				      "\x93\x02\xa4none\x90";

	asks("a");
	peer_says(notices, sizeof(notices) - 1); /* without a handler: dropped */
	coord_on_readable(c);
	hears("a=5 ");

	coord_on_notice(c, on_notice, NULL);
	asks("b");
	peer_says(notices, sizeof(notices) - 1);
	PEER_SAYS("\x93\x02\x07\x90");  /* a method that is none */
	PEER_SAYS("\x93\x02\xa1x\xc0"); /* parameters that are none */
	peer_answers(2, 6);
	coord_on_readable(c);
	hears("message(1) event(2) none(none-1) b=6 ");

	coord_on_notice(c, NULL, NULL);
	peer_says(notices, sizeof(notices) - 1);
	ck_assert_int_eq(coord_on_readable(c), COORD_OK);
	hears("");
}
END_TEST

START_TEST(a_notice_with_a_method_of_any_length_is_bounded)
{
	char frame[128] = "\x93\x02\xd9";

	coord_on_notice(c, on_notice, NULL);
	for (int n = 63; n <= 64; n++) {
		frame[3] = (char)n;
		memset(frame + 4, 'm', (size_t)n);
		frame[4 + n] = '\x90';
		peer_says(frame, 5 + (size_t)n);
	}
	ck_assert_int_eq(coord_on_readable(c), COORD_OK);
	ck_assert_uint_eq(strlen(heard.text), 63 + strlen("(none-1) "));
}
END_TEST

static void
on_answer_that_waits(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_reply *reply;

	(void)result;
	(void)err;
	peer_answers(2, 2); /* it could be read, were it not for what is read already */
	*(enum coord_status *)arg = coord_call(c, "m", NULL, 5000, &reply, NULL);
}

START_TEST(a_function_that_waits_within_is_refused)
{
	enum coord_status got = COORD_OK;

	ck_assert_int_eq(coord_async(c, "m", NULL, on_answer_that_waits, &got), COORD_OK);
	coord_on_writable(c);
	peer_answers(1, 1);
	ck_assert_int_eq(coord_on_readable(c), COORD_OK);
	ck_assert_int_eq(got, COORD_USAGE);
}
END_TEST

START_TEST(parameters_are_cleared_and_take_raw_values)
{
	static const char want[] = "\x94\x00\x01\xa1m\x91\x81\xa1"
				   "b\x92\x01\x02";
	struct coord_params *p = coord_params_new();
	char got[64];
	uint32_t id;

	coord_param_int(p, "a", 1);
	coord_params_clear(p);
	coord_pack_raw(coord_param(p, "b"), "\x92\x01\x02", 3);
	ck_assert_int_eq(coord_send(c, "m", p, &id), COORD_OK);
	coord_params_free(p);
	coord_on_writable(c);
	ck_assert_int_eq(recv(peer, got, sizeof(got), 0), (ssize_t)sizeof(want) - 1);
	ck_assert_mem_eq(got, want, sizeof(want) - 1);
}
END_TEST

START_TEST(after_a_timeout_the_late_answer_is_dropped)
{
	struct coord_reply *reply;
	struct coord_error err;

	ck_assert_int_eq(coord_call(c, "slow", NULL, 20, &reply, &err), COORD_TIMEOUT);
	ck_assert_str_eq(err.applied, "unknown");
	ck_assert(err.retryable);
	peer_answers(1, 1);
	peer_answers(2, 2);
	ck_assert_int_eq(coord_call(c, "next", NULL, 5000, &reply, &err), COORD_OK);
	ck_assert_int_eq(coord_reply_result(reply)->via.i64, 2);
	coord_reply_free(reply);
}
END_TEST

START_TEST(an_answer_as_deep_as_the_protocol_allows_is_read)
{
	char frame[64] = "\x94\x01\x01\xc0";
	struct coord_reply *reply;
	size_t n = 4;

	while (n < 4 + 31)
		frame[n++] = '\x91';
	frame[n++] = '\xc0';
	peer_says(frame, n);
	ck_assert_int_eq(coord_call(c, "m", NULL, 5000, &reply, NULL), COORD_OK);
	coord_reply_free(reply);

	frame[2] = 2;
	frame[n - 1] = '\x91';
	frame[n++] = '\xc0';
	peer_says(frame, n);
	ck_assert_int_eq(coord_call(c, "m", NULL, 5000, &reply, NULL), COORD_PROTOCOL);
}
END_TEST

START_TEST(requests_without_sense_are_refused)
{
	struct coord_reply *reply;
	struct coord_error err;
	uint32_t id;

	ck_assert_int_eq(coord_send(c, "", NULL, &id), COORD_USAGE);
	ck_assert_int_eq(coord_send(c, NULL, NULL, &id), COORD_USAGE);
	ck_assert_int_eq(coord_take(c, 99, &reply, &err), COORD_USAGE);
	ck_assert(!coord_wants_write(c));
	coord_forget(c, 99);
	coord_free(NULL);
	coord_reply_free(NULL);
	coord_params_free(NULL);
}
END_TEST

START_TEST(urls_that_make_no_sense_are_refused)
{
	static const char *const bad[] = {
		"",          "localhost:7420", "http://x",       "tcp://",     "tcp://:7420",
		"tcp://h:",  "tcp://h:x1",     "tcp://[::1",     "tcp://[]:1", "tcp://h/p",
		"tcp://::1", "unix://",        "unix://relative"
	};
	struct coord_error err;
	char path[300];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		ck_assert_msg(!coord_connect(bad[i], 100, &err), "%s", bad[i]);
		ck_assert_msg(err.status == COORD_USAGE, "%s: %s", bad[i], err.message);
	}
	snprintf(path, sizeof(path), "unix:///%0200d", 0);
	ck_assert_ptr_null(coord_connect(path, 100, &err));
	ck_assert_int_eq(err.status, COORD_USAGE);
	ck_assert_ptr_null(coord_connect("unix:///nowhere/at.all", 100, &err));
	ck_assert_int_eq(err.status, COORD_CONNECT);
	ck_assert(err.retryable);
	ck_assert_ptr_null(coord_connect("unix:///nowhere/at.all", 100, NULL));
}
END_TEST

/* A call over a connection made with `url` to the listening socket. */
static void
call_over(const char *url, int listener)
{
	struct coord_error err;
	struct coord *mine = coord_connect(url, 5000, &err);
	struct coord_reply *reply;
	int theirs;

	ck_assert_msg(mine != NULL, "%s: %s", url, err.message);
	theirs = accept(listener, NULL, NULL);
	ck_assert_int_ge(theirs, 0);
	ck_assert_int_eq(send(theirs, "\x94\x01\x01\xc0\x05", 5, 0), 5);
	ck_assert_int_eq(coord_call(mine, "ping", NULL, 5000, &reply, &err), COORD_OK);
	coord_reply_free(reply);
	coord_free(mine);
	close(theirs);
	close(listener);
}

START_TEST(it_connects_over_tcp_and_unix_sockets)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(v4);
	char dir[] = "/tmp/test_client.XXXXXX", url[160];
	struct coord_error err;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&v4, sizeof(v4)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&v4, &len), 0);
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", ntohs(v4.sin_port));
	ck_assert_ptr_null(coord_connect(url, 5000, &err)); /* nobody listens yet */
	ck_assert_int_eq(err.status, COORD_CONNECT);
	ck_assert_int_eq(listen(fd, 1), 0);
	call_over(url, fd);

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(un.sun_path, sizeof(un.sun_path), "%s/s", dir);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	snprintf(url, sizeof(url), "unix://%s", un.sun_path);
	call_over(url, fd);
	unlink(un.sun_path);
	rmdir(dir);
}
END_TEST

START_TEST(the_header_and_the_build_name_the_same_version)
{
	char parts[64];

	snprintf(parts, sizeof(parts), "%d.%d.%d", COORD_VERSION_MAJOR, COORD_VERSION_MINOR,
		 COORD_VERSION_PATCH);
	ck_assert_str_eq(COORD_VERSION, parts);
	ck_assert_str_eq(coord_version(), COORDD_VERSION);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("client");
	TCase *tc = tcase_create("core");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_request_is_one_msgpack_rpc_frame);
	tcase_add_test(tc, a_call_returns_its_result);
	tcase_add_test(tc, an_answer_that_comes_in_single_bytes_is_the_same);
	tcase_add_test(tc, answers_out_of_order_find_their_requests);
	tcase_add_test(tc, an_answer_of_many_reads_arrives_whole);
	tcase_add_test(tc, an_error_carries_code_retryable_and_applied);
	tcase_add_test(tc, an_error_of_another_shape_is_the_peers_fault);
	tcase_add_test(
		tc, what_was_answered_survives_a_connection_closed_in_the_middle_of_an_answer);
	tcase_add_test(tc, a_request_that_did_not_leave_whole_was_not_applied);
	tcase_add_test(tc, what_the_broker_says_before_it_closes_is_the_reason);
	tcase_add_loop_test(tc, an_oversized_answer_is_refused_on_its_header, 0, 4);
	tcase_add_loop_test(tc, a_peer_that_speaks_something_else_is_told_apart, 0, 9);
	tcase_add_test(tc, notifications_and_answers_nobody_waits_for_are_ignored);
	tcase_add_test(tc, answers_are_handed_to_the_functions_that_wait_for_them);
	tcase_add_test(tc, at_the_end_all_functions_that_wait_are_told);
	tcase_add_test(tc, nobody_is_told_of_a_connection_that_was_freed);
	tcase_add_test(tc, notices_are_handed_over_in_their_order_among_answers);
	tcase_add_test(tc, a_notice_with_a_method_of_any_length_is_bounded);
	tcase_add_test(tc, a_function_that_waits_within_is_refused);
	tcase_add_test(tc, parameters_are_cleared_and_take_raw_values);
	tcase_add_test(tc, after_a_timeout_the_late_answer_is_dropped);
	tcase_add_test(tc, an_answer_as_deep_as_the_protocol_allows_is_read);
	tcase_add_test(tc, requests_without_sense_are_refused);
	tcase_add_test(tc, urls_that_make_no_sense_are_refused);
	tcase_add_test(tc, it_connects_over_tcp_and_unix_sockets);
	tcase_add_test(tc, the_header_and_the_build_name_the_same_version);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
