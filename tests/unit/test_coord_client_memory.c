#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "client/coord.h"

/*
 * The life of a client, in which one allocation after the other fails: those of libcoord (the linker puts our
 * functions in the place of malloc() and the others, see Makefile) and those of libevent. Whichever it is,
 * all comes to its end, later than else, or the caller is told; nobody is told twice, and nothing is left.
 */
static int fail_at, allocations; /* counted from 1; 0: none fails */
static bool is_counting;         /* not what the test itself allocates */
static long live;                /* blocks that libcoord or libevent has */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

static bool
is_failing(void)
{
	return is_counting && ++allocations == fail_at;
}

static void *
counted(void *p)
{
	live += p != NULL;
	return p;
}

void *
__wrap_malloc(size_t n)
{
	return is_failing() ? NULL : counted(__real_malloc(n));
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return is_failing() ? NULL : counted(__real_calloc(n, size));
}

void *
__wrap_realloc(void *p, size_t n)
{
	void *to = is_failing() ? NULL : __real_realloc(p, n);

	live += to && !p;
	return to;
}

void
__wrap_free(void *p)
{
	live -= p != NULL;
	__real_free(p);
}

char *
__wrap_strndup(const char *s, size_t n)
{
	size_t len = strnlen(s, n);
	char *to = __wrap_malloc(len + 1);

	if (to) {
		memcpy(to, s, len);
		to[len] = '\0';
	}
	return to;
}

char *
__wrap_strdup(const char *s)
{
	return __wrap_strndup(s, SIZE_MAX);
}

/* --- the broker ---------------------------------------------------------------------- */

static char dir[] = "/tmp/coord-memory-XXXXXX", path[64], url[80];
static int listener, peer = -1;
static char in[65536];
static size_t in_len;
static char request_id[128]; /* the message that waits to be answered */
static bool has_replies;     /* who waits for that takes deliveries */

static bool
is_text(const msgpack_object *o, const char *text)
{
	return o && o->type == MSGPACK_OBJECT_STR && o->via.str.size == strlen(text) &&
	       !memcmp(o->via.str.ptr, text, strlen(text));
}

static void
pack(msgpack_packer *pk, const char *s)
{
	msgpack_pack_str(pk, strlen(s));
	msgpack_pack_str_body(pk, s, strlen(s));
}

static void
pack_pair(msgpack_packer *pk, const char *key, const char *value)
{
	pack(pk, key);
	pack(pk, value);
}

/* A delivery of a message that answers this one. */
static void
deliver(msgpack_packer *pk, const char *consumer, const char *answers)
{
	msgpack_pack_array(pk, 3);
	msgpack_pack_int(pk, 2);
	pack(pk, "message");
	msgpack_pack_array(pk, 1);
	msgpack_pack_map(pk, 3);
	pack_pair(pk, "consumer_id", consumer);
	pack_pair(pk, "token", consumer);
	pack(pk, "queue_message");
	msgpack_pack_map(pk, 1);
	pack(pk, "message");
	msgpack_pack_map(pk, 3);
	pack_pair(pk, "message_id", "m");
	pack(pk, "sender");
	msgpack_pack_map(pk, 1);
	pack_pair(pk, "type", "asker");
	pack(pk, "correlation_id");
	pack(pk, answers);
}

static void
answer(const msgpack_object *request, msgpack_packer *pk)
{
	const msgpack_object *a = request->via.array.ptr, *method = &a[2];
	const msgpack_object *p = a[3].via.array.size ? a[3].via.array.ptr : NULL;
	const msgpack_object *message = coord_get(p, "message");
	const msgpack_object *id = coord_get(message, "message_id");
	bool is_replies = is_text(coord_get(p, "lease"), "connection");

	msgpack_pack_array(pk, 4);
	msgpack_pack_int(pk, 1);
	msgpack_pack_object(pk, a[1]);
	msgpack_pack_nil(pk);
	if (is_text(method, "hello")) {
		has_replies = false;
		msgpack_pack_map(pk, 2);
		pack_pair(pk, "server", "coordd");
		pack(pk, "protocol");
		msgpack_pack_int(pk, 1);
	} else if (is_text(method, "watch")) {
		msgpack_pack_map(pk, 1);
		pack_pair(pk, "watch_id", "w");
		msgpack_pack_array(pk, 3);
		msgpack_pack_int(pk, 2);
		pack(pk, "event");
		msgpack_pack_array(pk, 1);
		msgpack_pack_map(pk, 2);
		pack_pair(pk, "watch_id", "w");
		pack_pair(pk, "event", "x");
	} else if (is_text(method, "consume")) {
		msgpack_pack_map(pk, 1);
		pack_pair(pk, "consumer_id", is_replies ? "replies" : "jobs");
		has_replies |= is_replies;
		if (!is_replies)
			deliver(pk, "jobs", "");
	} else if (is_text(method, "send")) {
		msgpack_pack_map(pk, 1);
		pack(pk, "delivered");
		msgpack_pack_true(pk);
		if (coord_get(message, "reply_to"))
			snprintf(request_id, sizeof(request_id), "%.*s", (int)id->via.str.size,
				 id->via.str.ptr);
	} else if (is_text(method, "register") || is_text(method, "heartbeat")) {
		msgpack_pack_map(pk, 1);
		pack(pk, "incarnation");
		msgpack_pack_int(pk, 1);
	} else {
		msgpack_pack_true(pk);
	}
	if (has_replies && request_id[0]) {
		deliver(pk, "replies", request_id);
		request_id[0] = '\0';
	}
}

static void
peer_end(void)
{
	if (peer >= 0)
		close(peer);
	peer = -1;
	in_len = 0;
}

/* Take and answer what is there. */
static void
broker_turn(void)
{
	msgpack_unpacked tree;
	msgpack_sbuffer out;
	msgpack_packer pk;
	size_t off = 0, at = 0;
	ssize_t n;

	if (peer < 0)
		peer = accept(listener, NULL, NULL);
	if (peer < 0)
		return;
	n = recv(peer, in + in_len, sizeof(in) - in_len, MSG_DONTWAIT);
	if (n == 0)
		peer_end();
	if (n <= 0)
		return;
	in_len += (size_t)n;
	msgpack_unpacked_init(&tree);
	msgpack_sbuffer_init(&out);
	msgpack_packer_init(&pk, &out, msgpack_sbuffer_write);
	while (msgpack_unpack_next(&tree, in, in_len, &off) == MSGPACK_UNPACK_SUCCESS) {
		answer(&tree.data, &pk);
		at = off;
	}
	msgpack_unpacked_destroy(&tree);
	memmove(in, in + at, in_len - at);
	in_len -= at;
	if (out.size)
		send(peer, out.data, out.size, MSG_NOSIGNAL);
	msgpack_sbuffer_destroy(&out);
}

/* --- the program --------------------------------------------------------------------- */

static struct {
	int called, asked, replied, settled, stopped, events;
	bool is_refused; /* the caller was told of an error */
} now;

static void
count(int *n, const struct coord_error *err)
{
	++*n;
	now.is_refused |= err != NULL;
}

static void
on_answer(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	(void)result;
	count(arg, err);
}

static void
on_event(void *arg, const msgpack_object *event, const struct coord_error *err)
{
	(void)event;
	count(arg, err);
}

static void
on_change(void *arg, enum coord_agent_event event, const msgpack_object *result,
	  const struct coord_error *err)
{
	(void)arg;
	(void)event;
	(void)result;
	now.is_refused |= err != NULL;
}

static void
on_settled(void *arg, bool is_settled, const struct coord_error *why)
{
	count(arg, why);
	now.is_refused |= !is_settled;
}

static void
on_stopped(void *arg, const struct coord_error *why)
{
	count(arg, why);
}

static void
on_failed(void *arg, const struct coord_error *why)
{
	(void)arg;
	now.is_refused |= why != NULL;
}

/* What there is no memory for is tried again; nothing of libcheck here, which needs memory, too. */
static void
on_job(void *arg, struct coord_job *job)
{
	static const char empty_map[] = { (char)0x80 };

	(void)arg;
	while (coord_job_reply(job, empty_map, 1, on_settled, &now.settled))
		now.is_refused = true;
}

static struct event_base *base;
static struct coord_client *c;
static struct coord_agent *agent;

static void
turns(const int *until)
{
	for (int i = 0; i < 3000 && !*until && !now.is_refused; i++) {
		is_counting = true;
		event_base_loop(base, EVLOOP_NONBLOCK);
		is_counting = false;
		broker_turn();
		if (!*until)
			usleep(100);
	}
}

static void
refused(bool is_refused)
{
	now.is_refused |= is_refused;
}

/* Ask for everything there is; false when it was refused. */
static bool
begin(void)
{
	static const char empty_map[] = { (char)0x80 };
	struct coord_params *p;
	struct coord_error err;
	struct coord_consumer *consumer;

	c = coord_client_new(base, url, &err);
	if (!c)
		return false;
	coord_client_set_int(c, COORD_BACKOFF_MIN, 1);
	coord_client_set_int(c, COORD_BACKOFF_MAX, 4);
	refused(coord_client_set(c, COORD_CLIENT_NAME, "m"));
	p = coord_params_new();
	if (!p)
		return false;
	coord_param_agent(p, "agent", "worker", "w1");
	refused(coord_client_call(c, "queue_stats", p, -1, on_answer, &now.called));
	coord_params_free(p);
	refused(!coord_client_watch(c, "agent", on_event, &now.events, &err));
	agent = coord_agent_new(c, "worker", "w1", NULL, &err);
	if (!agent)
		return false;
	coord_agent_on_change(agent, on_change, NULL);
	refused(coord_agent_set_state(agent, empty_map, 1));
	consumer = coord_agent_consume(agent, NULL, NULL, 2, NULL, on_job, NULL, &err);
	if (!consumer)
		return false;
	coord_consumer_on_failed(consumer, on_failed, NULL);
	refused(coord_agent_request(agent, "asked", NULL, empty_map, 1, -1, on_answer,
				    &now.replied));
	return !now.is_refused;
}

static void
life(void)
{
	bool is_begun;

	memset(&now, 0, sizeof(now));
	request_id[0] = '\0';
	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	allocations = 0;
	is_counting = true;
	is_begun = begin();
	is_counting = false;
	if (is_begun) {
		turns(&now.called);
		turns(&now.events);
		turns(&now.settled);
		turns(&now.replied);
		/* The same again over another connection. */
		peer_end();
		now.called = now.events = now.settled = 0;
		is_counting = true;
		refused(coord_client_call(c, "queue_stats", NULL, -1, on_answer, &now.called));
		is_counting = false;
		turns(&now.called);
		turns(&now.events);
		turns(&now.settled);
		is_counting = true;
		coord_agent_stop(agent, 100, on_stopped, &now.stopped);
		is_counting = false;
		turns(&now.stopped);
		if (!now.is_refused) {
			ck_assert_msg(now.called == 1 && now.replied == 1 && now.settled >= 1 &&
					      now.events >= 1 && now.stopped == 1,
				      "allocation %d: called %d, replied %d, settled %d, "
				      "events %d, stopped %d",
				      fail_at, now.called, now.replied, now.settled, now.events,
				      now.stopped);
		}
	}
	ck_assert_int_le(now.called, 1);
	ck_assert_int_le(now.replied, 1);
	ck_assert_int_le(now.stopped, 1);
	is_counting = true;
	coord_agent_free(agent);
	coord_client_free(c);
	is_counting = false;
	agent = NULL;
	c = NULL;
	event_base_free(base);
	peer_end();
	while ((peer = accept(listener, NULL, NULL)) >= 0)
		peer_end();
}

START_TEST(whichever_allocation_fails_all_comes_to_an_end_or_is_told)
{
	long before;

	life(); /* libevent makes what it keeps for ever */
	ck_assert(!now.is_refused);
	before = live;
	do {
		fail_at++;
		life();
		ck_assert_msg(live == before, "allocation %d: %ld blocks are left", fail_at,
			      live - before);
	} while (allocations >= fail_at);
	ck_assert_int_gt(fail_at, 60); /* it did fail along the way */
}
END_TEST

static void
setup(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(url, sizeof(url), "unix://%s", path);
	memcpy(un.sun_path, path, strlen(path));
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(bind(listener, (struct sockaddr *)&un, sizeof(un)), 0);
	ck_assert_int_eq(listen(listener, 16), 0);
}

static void
teardown(void)
{
	close(listener);
	unlink(path);
	rmdir(dir);
}

int
main(void)
{
	Suite *s = suite_create("coord_client_memory");
	TCase *tc = tcase_create("life");
	SRunner *sr = srunner_create(s);
	int failed;

	event_set_mem_functions(__wrap_malloc, __wrap_realloc, __wrap_free);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, whichever_allocation_fails_all_comes_to_an_end_or_is_told);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
