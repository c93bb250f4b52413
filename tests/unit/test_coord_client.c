#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event.h>

#include "client/coord.h"

/*
 * The client that connects by itself against a broker that is the test: it listens on a Unix socket, and what
 * the client does is seen between turns of the loop. With real brokers: tests/contract.
 */
static struct event_base *base;
static struct coord_client *c;
static char dir[] = "/tmp/coord-client-XXXXXX", path[64], url[80];
static int listener, peer = -1;
static int told;
static struct coord_error last;

static void
listen_again(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	unlink(path);
	memcpy(un.sun_path, path, strlen(path));
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&un, sizeof(un)), 0);
	ck_assert_int_eq(listen(listener, 16), 0);
}

static void
setup(void)
{
	struct coord_error err;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(url, sizeof(url), "unix://%s", path);
	listen_again();
	base = event_base_new();
	c = coord_client_new(base, url, &err);
	ck_assert_ptr_nonnull(c);
	coord_client_set_int(c, COORD_BACKOFF_MIN, 1);
	coord_client_set_int(c, COORD_BACKOFF_MAX, 20);
}

static void
teardown(void)
{
	coord_client_free(c);
	event_base_free(base);
	if (peer >= 0)
		close(peer);
	close(listener);
	unlink(path);
	rmdir(dir);
}

static void
turn(void)
{
	event_base_loop(base, EVLOOP_NONBLOCK);
	usleep(1000);
}

/* The next frame of the client begins with these bytes; all that came is taken. */
static void
hears(const char *method)
{
	char buf[4096];
	ssize_t n = -1;

	for (int i = 0; i < 5000 && n <= 0; i++) {
		turn();
		n = recv(peer, buf, sizeof(buf), MSG_DONTWAIT);
		ck_assert_int_ne(n, 0);
	}
	ck_assert_int_gt(n, 0);
	ck_assert_ptr_nonnull(memmem(buf, (size_t)n, method, strlen(method)));
}

static void
says(const void *p, size_t n)
{
	ck_assert_int_eq(send(peer, p, n, MSG_NOSIGNAL), (ssize_t)n);
	for (int i = 0; i < 5; i++)
		turn();
}
#define SAYS(literal) says("" literal, sizeof(literal) - 1)

static void
accepts(void)
{
	for (int i = 0; i < 5000 && (peer = accept(listener, NULL, NULL)) < 0; i++)
		turn();
	ck_assert_int_ge(peer, 0);
	hears("hello");
	SAYS("\x94\x01\x01\xc0\x82\xa6server\xa6"
	     "coordd\xa8protocol\x01");
	ck_assert_str_eq(coord_client_url(c), url);
}

static void
peer_ends(void)
{
	close(peer);
	peer = -1;
}

static void
on_answer(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	(void)arg;
	told++;
	last = err ? *err : (struct coord_error){ .status = COORD_OK };
	ck_assert((result != NULL) != (err != NULL));
}

static void
asks(const char *method, int timeout_ms)
{
	ck_assert_int_eq(coord_client_call(c, method, NULL, timeout_ms, on_answer, NULL),
			 COORD_OK);
	ck_assert_int_eq(told, 0); /* never before it returns */
}

static void
waits(void)
{
	for (int i = 0; i < 5000 && !told; i++)
		turn();
	ck_assert_int_eq(told, 1);
	ck_assert_uint_eq(coord_client_pending(c), 0);
}

START_TEST(what_was_asked_before_there_was_a_connection_is_answered)
{
	asks("ping", -1);
	accepts();
	hears("ping");
	SAYS("\x94\x01\x02\xc0\xa4pong");
	waits();
	ck_assert_int_eq(last.status, COORD_OK);
}
END_TEST

START_TEST(a_repeatable_request_is_asked_again_over_the_next_connection)
{
	asks("queue_stats", -1);
	accepts();
	hears("queue_stats");
	peer_ends();
	accepts();
	hears("queue_stats");
	SAYS("\x94\x01\x02\xc0\x80");
	waits();
	ck_assert_int_eq(last.status, COORD_OK);
}
END_TEST

START_TEST(another_fails_at_once_with_an_unknown_outcome)
{
	asks("purge", -1);
	accepts();
	hears("purge");
	peer_ends();
	waits();
	ck_assert_int_eq(last.status, COORD_CLOSED);
	ck_assert_str_eq(last.code, "unavailable");
	ck_assert_str_eq(last.applied, "unknown");
	ck_assert(last.retryable);
}
END_TEST

START_TEST(what_was_refused_for_a_while_is_asked_again)
{
	asks("purge", -1);
	accepts();
	hears("purge");
	SAYS("\x94\x01\x02\x82\xa4"
	     "code\xaaoverloaded\xa9retryable\xc3\xc0");
	hears("purge");
	SAYS("\x94\x01\x03\xc0\x01");
	waits();
	ck_assert_int_eq(last.status, COORD_OK);
}
END_TEST

START_TEST(at_its_deadline_a_request_is_told_why)
{
	asks("purge", 500);
	accepts();
	hears("purge");
	waits();
	ck_assert_int_eq(last.status, COORD_TIMEOUT);
	ck_assert_str_eq(last.code, "timeout");
	ck_assert_str_eq(last.applied, "unknown");
}
END_TEST

START_TEST(without_a_broker_the_reason_is_told)
{
	close(listener);
	asks("purge", 50);
	waits();
	ck_assert_int_eq(last.status, COORD_CONNECT);
	ck_assert_str_eq(last.code, "unavailable");
	ck_assert_str_eq(last.applied, "no");
	listen_again();
	accepts();
}
END_TEST

START_TEST(a_silent_broker_is_pinged_and_left)
{
	ck_assert_int_eq(coord_client_set_int(c, COORD_IDLE_TIMEOUT, 600), COORD_OK);
	asks("queue_stats", -1);
	accepts();
	hears("queue_stats");
	hears("ping");
	for (int i = 0; i < 5000 && coord_client_url(c); i++)
		turn();
	ck_assert_ptr_null(coord_client_url(c));
	peer_ends();
	accepts();
	hears("queue_stats");
}
END_TEST

START_TEST(a_peer_that_is_no_coordd_is_told_at_once)
{
	asks("ping", -1);
	for (int i = 0; i < 5000 && (peer = accept(listener, NULL, NULL)) < 0; i++)
		turn();
	hears("hello");
	SAYS("\x94\x01\x01\xc0\x80");
	waits();
	ck_assert_int_eq(last.status, COORD_PROTOCOL);
	ck_assert_str_eq(last.code, "protocol_error");
}
END_TEST

START_TEST(what_is_under_way_is_bounded)
{
	ck_assert_int_eq(coord_client_set_int(c, COORD_MAX_PENDING, 2), COORD_OK);
	asks("ping", -1);
	asks("ping", -1);
	ck_assert_int_eq(coord_client_call(c, "ping", NULL, -1, on_answer, NULL), COORD_AGAIN);
	ck_assert_int_eq(coord_client_notify(c, "heartbeat", NULL), COORD_AGAIN);
	turn();
	ck_assert_int_eq(coord_client_set_int(c, COORD_MAX_PENDING, 3), COORD_USAGE);
}
END_TEST

static void
on_answer_free(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	on_answer(arg, result, err);
	coord_client_free(c);
	c = NULL;
}

START_TEST(a_function_that_is_told_may_free_the_client)
{
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(coord_client_call(c, "purge", NULL, -1, on_answer_free, NULL),
				 COORD_OK);
	accepts();
	hears("purge");
	if (_i == 0) {
		SAYS("\x94\x01\x02\xc0\x01\x94\x01\x03\xc0\x01");
	} else {
		peer_ends();
	}
	for (int i = 0; i < 5000 && c; i++)
		turn();
	ck_assert_ptr_null(c);
	ck_assert_int_eq(told, 1);
}
END_TEST

static int lost, events;

static void
on_event(void *arg, const msgpack_object *event, const struct coord_error *err)
{
	const msgpack_object *what = coord_get(event, "event");

	(void)arg;
	(void)err;
	ck_assert_ptr_nonnull(what);
	if (what->via.str.size == 4 && !memcmp(what->via.str.ptr, "lost", 4))
		lost++;
	else
		events++;
}

START_TEST(a_watch_is_renewed_and_tells_of_the_gap)
{
	struct coord_error err;
	struct coord_watch *w = coord_client_watch(c, "agent queue", on_event, NULL, &err);

	ck_assert_ptr_nonnull(w);
	accepts();
	hears("\x92\xa5"
	      "agent\xa5queue");
	SAYS("\x94\x01\x02\xc0\x81\xa8watch_id\xa1"
	     "a\x93\x02\xa5"
	     "event\x91\x82\xa8watch_id\xa1"
	     "a\xa5"
	     "event\xa1x");
	ck_assert_int_eq(events, 1);
	peer_ends();
	accepts();
	hears("watch");
	SAYS("\x94\x01\x02\xc0\x81\xa8watch_id\xa1"
	     "b");
	ck_assert_int_eq(lost, 1);
	coord_watch_end(w);
	hears("unwatch");
	ck_assert_ptr_null(coord_client_watch(c, " ", on_event, NULL, &err));
	ck_assert_int_eq(err.status, COORD_USAGE);
}
END_TEST

START_TEST(waiting_is_for_a_loop_of_its_own)
{
	struct coord_error err;
	struct coord_reply *reply;
	struct coord_client *own;

	ck_assert_int_eq(coord_client_ask(c, "ping", NULL, -1, &reply, &err), COORD_USAGE);
	own = coord_client_new(NULL, "tcp://127.0.0.1:1, tcp://localhost:1", &err);
	ck_assert_ptr_nonnull(own);
	ck_assert_int_eq(coord_client_ask(own, "ping", NULL, 100, &reply, &err), COORD_CONNECT);
	ck_assert_int_eq(coord_client_run(own, 10), COORD_TIMEOUT);
	coord_client_break(own);
	ck_assert_int_eq(coord_client_run(own, -1), COORD_OK);
	coord_client_free(own);
	ck_assert_ptr_null(coord_client_new(NULL, "http://x", &err));
	ck_assert_int_eq(err.status, COORD_USAGE);
	ck_assert_ptr_null(coord_client_new(NULL, "tcp://h:70000", &err));
}
END_TEST

/* A client that keeps asking looks at its socket before it writes; that is nothing the broker has said. */
START_TEST(a_silent_broker_is_left_however_much_it_is_asked)
{
	ck_assert_int_eq(coord_client_set_int(c, COORD_IDLE_TIMEOUT, 2200), COORD_OK);
	asks("queue_stats", -1);
	accepts();
	for (int i = 0; i < 12000 && coord_client_url(c); i++) {
		if (i % 20 == 0)
			ck_assert_int_eq(
				coord_client_call(c, "ping", NULL, -1, on_answer, NULL),
				COORD_OK);
		turn();
	}
	ck_assert_ptr_null(coord_client_url(c));
}
END_TEST

static void
sends(const char *queue, size_t bytes)
{
	struct coord_params *p = coord_params_new();
	char *text = calloc(1, bytes + 1);

	memset(text, 'x', bytes);
	coord_param_agent(p, "recipient", queue, NULL);
	coord_param_str(p, "message", text);
	ck_assert_int_eq(coord_client_call(c, "send", p, -1, on_answer, NULL), COORD_OK);
	free(text);
	coord_params_free(p);
}

START_TEST(a_send_goes_although_one_before_it_was_too_large)
{
	for (int i = 0; i < 5000 && (peer = accept(listener, NULL, NULL)) < 0; i++)
		turn();
	hears("hello");
	SAYS("\x94\x01\x01\xc0\x83\xa6server\xa6"
	     "coordd\xa8protocol\x01\xa6limits\x81\xa9max_frame\xcc\x80");
	sends("q", 200);
	sends("q", 1);
	hears("\xa1q");
	ck_assert_int_eq(told, 1);
	ck_assert_str_eq(last.code, "too_large");
}
END_TEST

static struct coord_job *job;

static void
on_job(void *arg, struct coord_job *got)
{
	(void)arg;
	ck_assert_ptr_null(job);
	job = got;
}

static struct coord_consumer *
consumes(void)
{
	struct coord_error err;
	struct coord_consumer *consumer =
		coord_client_consume(c, "q", NULL, 1, NULL, on_job, NULL, &err);

	ck_assert_ptr_nonnull(consumer);
	accepts();
	hears("consume");
	SAYS("\x94\x01\x02\xc0\x81\xab"
	     "consumer_id\xa1"
	     "c\x93\x02\xa7message\x91\x82\xab"
	     "consumer_id\xa1"
	     "c\xa5token\xa1t");
	ck_assert_ptr_nonnull(job);
	return consumer;
}

START_TEST(a_job_is_ended_after_its_client_and_the_loop_are_gone)
{
	struct coord_consumer *consumer = consumes();

	coord_client_free(c);
	event_base_free(base);
	c = NULL;
	ck_assert_int_eq(coord_job_ack(job, NULL, NULL), COORD_OK);
	coord_consumer_free(consumer);
	base = event_base_new();
}
END_TEST

START_TEST(a_job_is_settled_and_a_watch_begun_however_much_is_under_way)
{
	struct coord_consumer *consumer;
	struct coord_error err;

	ck_assert_int_eq(coord_client_set_int(c, COORD_MAX_PENDING, 1), COORD_OK);
	consumer = consumes();
	asks("queue_stats", -1);
	hears("queue_stats");
	ck_assert_int_eq(coord_client_call(c, "ping", NULL, -1, on_answer, NULL), COORD_AGAIN);
	ck_assert_ptr_nonnull(coord_client_watch(c, "agent", on_event, NULL, &err));
	hears("watch");
	ck_assert_int_eq(coord_job_ack(job, NULL, NULL), COORD_OK);
	hears("ack");
	coord_consumer_free(consumer);
	hears("cancel");
}
END_TEST

START_TEST(a_watch_that_was_ended_before_it_began_is_ended_at_the_broker)
{
	struct coord_error err;
	struct coord_watch *w = coord_client_watch(c, "agent", on_event, NULL, &err);

	accepts();
	hears("watch");
	coord_watch_end(w);
	SAYS("\x94\x01\x02\xc0\x81\xa8watch_id\xa1"
	     "a");
	hears("unwatch");
}
END_TEST

static int states;

static void
on_state(void *arg, const char *at, const struct coord_error *why)
{
	(void)arg;
	(void)at;
	(void)why;
	states++;
}

static void
on_answer_free_arg(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	(void)result;
	(void)err;
	told++;
	coord_client_free(arg);
}

/* The turn in which it is freed has also the news that nobody is there. */
START_TEST(a_client_with_a_loop_of_its_own_tells_nothing_once_it_is_freed)
{
	struct coord_error err;
	struct coord_client *own = coord_client_new(NULL, "unix:///nobody/is/there", &err);

	ck_assert_ptr_nonnull(own);
	coord_client_on_state(own, on_state, NULL);
	ck_assert_int_eq(coord_client_call(own, "ping", NULL, 0, on_answer_free_arg, own),
			 COORD_OK);
	ck_assert_int_eq(coord_client_run(own, 1000), COORD_CLOSED);
	ck_assert_int_eq(told, 1);
	ck_assert_int_eq(states, 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("coord_client");
	TCase *tc = tcase_create("client");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, what_was_asked_before_there_was_a_connection_is_answered);
	tcase_add_test(tc, a_repeatable_request_is_asked_again_over_the_next_connection);
	tcase_add_test(tc, another_fails_at_once_with_an_unknown_outcome);
	tcase_add_test(tc, what_was_refused_for_a_while_is_asked_again);
	tcase_add_test(tc, at_its_deadline_a_request_is_told_why);
	tcase_add_test(tc, without_a_broker_the_reason_is_told);
	tcase_add_test(tc, a_silent_broker_is_pinged_and_left);
	tcase_add_test(tc, a_peer_that_is_no_coordd_is_told_at_once);
	tcase_add_test(tc, what_is_under_way_is_bounded);
	tcase_add_loop_test(tc, a_function_that_is_told_may_free_the_client, 0, 2);
	tcase_add_test(tc, a_watch_is_renewed_and_tells_of_the_gap);
	tcase_add_test(tc, waiting_is_for_a_loop_of_its_own);
	tcase_add_test(tc, a_silent_broker_is_left_however_much_it_is_asked);
	tcase_add_test(tc, a_send_goes_although_one_before_it_was_too_large);
	tcase_add_test(tc, a_job_is_ended_after_its_client_and_the_loop_are_gone);
	tcase_add_test(tc, a_job_is_settled_and_a_watch_begun_however_much_is_under_way);
	tcase_add_test(tc, a_watch_that_was_ended_before_it_began_is_ended_at_the_broker);
	tcase_add_test(tc, a_client_with_a_loop_of_its_own_tells_nothing_once_it_is_freed);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
