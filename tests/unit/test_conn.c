#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../lib/pack.h"
#include "base/mem.h"
#include "net/conn.h"
#include "proto/mp.h"

/*
 * The layer above, as a test sees it: it writes down what it is told and does as `on` says. A
 * frame is [0, msgid, 'x', []] here, and what is written down of it is its msgid.
 */
struct client {
	struct conn *conn;
	int fd; /* the other end */
	unsigned frames, closes, bad, drains;
	uint64_t ids[5000];
	size_t last_len;
	enum frame_status status;
	enum conn_end end;
	bool (*on)(struct client *c, uint64_t id);
};

static struct loop *loop;
static struct timer tick;
static struct conns *conns;
static struct client *clients[64];
static unsigned opened, inside; /* `inside` a call of conn_*(): nobody may be called back */

static const struct conn_limits wide = {
	.frame = { 1 << 20, 65536 },
	.output_high_water = 4 << 20,
	.output_limit = 16 << 20,
	.output_stall_us = 30000000,
	.hello_timeout_us = 10000000,
	.frame_timeout_us = 10000000,
	.max_connections = 60,
};

static void *
on_open(void *arg, struct conn *conn)
{
	struct client *c = xcalloc(1, sizeof(*c));

	ck_assert_ptr_eq(arg, &loop);
	c->conn = conn;
	c->fd = -1;
	clients[opened++] = c;
	return c;
}

static bool
on_frame(void *user, const uint8_t *frame, size_t n)
{
	struct mp m = { frame, frame + n };
	struct client *c = user;
	uint64_t type, id = 0;
	uint32_t elements;

	ck_assert_uint_eq(inside, 0);
	ck_assert_uint_eq(c->closes, 0);
	ck_assert(mp_read_array(&m, &elements) && mp_read_uint(&m, &type) &&
		  mp_read_uint(&m, &id));
	ck_assert_uint_lt(c->frames, 5000);
	c->ids[c->frames++] = id;
	c->last_len = n;
	return c->on ? c->on(c, id) : true;
}

static void
on_bad_frame(void *user, enum frame_status status)
{
	struct client *c = user;

	ck_assert_uint_eq(inside, 0);
	c->bad++;
	c->status = status;
	buf_puts(conn_output(c->conn), "bad!");
	conn_wrote(c->conn);
}

static void
on_close(void *user, enum conn_end why)
{
	struct client *c = user;

	ck_assert_uint_eq(inside, 0);
	c->closes++;
	c->end = why;
	ck_assert_uint_gt(conn_id(c->conn), 0); /* valid until we return */
}

static void
on_drained(void *user)
{
	struct client *c = user;

	ck_assert_uint_eq(c->closes, 0);
	c->drains++;
}

static const struct conn_ops ops = { on_open, on_frame, on_bad_frame, on_close, on_drained };

static void
on_tick(void *arg)
{
	(void)arg;
}

static void
start(const struct conn_limits *limits)
{
	loop = loop_new();
	ck_assert_ptr_nonnull(loop);
	timer_init(&tick, loop, on_tick, NULL);
	conns = conns_new(loop, limits, &ops, &loop);
	opened = inside = 0;
}

static void
stop(void)
{
	conns_free(conns);
	for (unsigned i = 0; i < opened; i++) {
		ck_assert_uint_eq(clients[i]->closes, 1); /* each once, and never twice */
		if (clients[i]->fd >= 0)
			close(clients[i]->fd);
		free(clients[i]);
	}
	timer_done(&tick);
	loop_free(loop);
}

static struct client *
connect_pair(void)
{
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	ck_assert(conns_accept(conns, fds[0], true, "unix:pid=1,uid=0"));
	clients[opened - 1]->fd = fds[1];
	return clients[opened - 1];
}

/* Both ends of a TCP connection over loopback. */
static void
tcp_pair(int fds[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(l, (struct sockaddr *)&a, len), 0);
	ck_assert_int_eq(listen(l, 1), 0);
	ck_assert_int_eq(getsockname(l, (struct sockaddr *)&a, &len), 0);
	fds[1] = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fds[1], (struct sockaddr *)&a, len), 0);
	fds[0] = accept4(l, NULL, NULL, SOCK_NONBLOCK);
	ck_assert_int_ge(fds[0], 0);
	ck_assert_int_eq(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	close(l);
}

static struct client *
connect_tcp(void)
{
	int fds[2];

	tcp_pair(fds);
	ck_assert(conns_accept(conns, fds[0], false, "127.0.0.1:50000"));
	clients[opened - 1]->fd = fds[1];
	return clients[opened - 1];
}

/* One turn that waits for something to happen, for a little while. */
static void
turn(void)
{
	timer_at_most(&tick, 2000);
	loop_turn(loop, true);
}

/* Turn the loop until `condition`, five seconds at most. */
#define TURN_UNTIL(condition)                                                          \
	do {                                                                           \
		uint64_t end_us = loop_clock_us() + 5000000;                           \
		while (!(condition)) {                                                 \
			ck_assert_msg(loop_clock_us() < end_us, "never: " #condition); \
			turn();                                                        \
		}                                                                      \
	} while (0)

/* Turns that give everything that could happen the time to happen. */
static void
turn_idle(void)
{
	for (int i = 0; i < 20; i++)
		loop_turn(loop, false);
}

static void
put_request(struct buf *b, unsigned id)
{
	mp_put_array(b, 4);
	mp_put_uint(b, 0);
	mp_put_uint(b, id);
	mp_put_lit(b, "x");
	mp_put_array(b, 0);
}

/* Send all of it, turning the loop while the socket is full. */
static void
client_send(struct client *c, const void *p, size_t n)
{
	uint64_t end_us = loop_clock_us() + 5000000;

	while (n) {
		ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);

		if (sent < 0) {
			ck_assert_int_eq(errno, EAGAIN);
			ck_assert(loop_clock_us() < end_us);
			loop_turn(loop, false);
			continue;
		}
		p = (const char *)p + sent;
		n -= (size_t)sent;
	}
}

static void
client_request(struct client *c, unsigned first, unsigned n)
{
	struct buf b = { 0 };

	for (unsigned i = 0; i < n; i++)
		put_request(&b, first + i);
	client_send(c, b.data, b.len);
	buf_done(&b);
}

/* What has come, up to `n` bytes; 0 is EOF, -1 nothing yet or an error in errno. */
static ssize_t
client_recv(struct client *c, void *p, size_t n)
{
	return recv(c->fd, p, n, 0);
}

static void
ck_ids(const struct client *c, unsigned n)
{
	ck_assert_uint_eq(c->frames, n);
	for (unsigned i = 0; i < n; i++)
		ck_assert_uint_eq(c->ids[i], i);
}

/* --- frames ---------------------------------------------------------------------------------
 */

START_TEST(frames_in_one_segment_are_handed_out_in_order)
{
	struct client *c;

	start(&wide);
	c = connect_pair();
	client_request(c, 0, 1000);
	TURN_UNTIL(c->frames >= 1000);
	ck_ids(c, 1000);
	stop();
}
END_TEST

START_TEST(a_byte_per_segment_makes_the_same_frames)
{
	struct buf b = { 0 };
	struct client *c;

	start(&wide);
	c = connect_pair();
	for (unsigned i = 0; i < 30; i++)
		put_request(&b, i);
	for (size_t i = 0; i < b.len; i++) {
		client_send(c, b.data + i, 1);
		loop_turn(loop, false);
	}
	TURN_UNTIL(c->frames >= 30);
	ck_ids(c, 30);
	buf_done(&b);
	stop();
}
END_TEST

START_TEST(segments_of_any_length_make_the_same_frames)
{
	struct buf b = { 0 };

	for (unsigned i = 0; i < 300; i++)
		put_request(&b, i);
	for (size_t step = 2; step < 300; step += 7) {
		struct client *c;

		start(&wide);
		c = connect_pair();
		for (size_t i = 0; i < b.len; i += step) {
			client_send(c, b.data + i, b.len - i < step ? b.len - i : step);
			loop_turn(loop, false);
		}
		TURN_UNTIL(c->frames >= 300);
		ck_ids(c, 300);
		stop();
	}
	buf_done(&b);
}
END_TEST

/* [0, id, 'x', [bin of `n` bytes]] */
static void
put_large(struct buf *b, unsigned id, size_t n)
{
	char *fill = xcalloc(1, n);

	mp_put_array(b, 4);
	mp_put_uint(b, 0);
	mp_put_uint(b, id);
	mp_put_lit(b, "x");
	mp_put_array(b, 1);
	mp_put_bin(b, (struct str){ fill, n });
	free(fill);
}

START_TEST(a_large_frame_between_small_ones_is_one_frame)
{
	struct buf b = { 0 };
	struct client *c, *other;

	start(&wide);
	c = connect_pair();
	other = connect_pair();
	put_request(&b, 0);
	put_large(&b, 1, 1000000);
	put_request(&b, 2);
	put_large(&b, 3, 300000);
	put_request(&b, 4);
	client_send(c, b.data, b.len / 3);
	turn_idle();
	ck_ids(c, 1); /* and the tail of the second waits, in nobody's way: */
	client_request(other, 0, 3);
	TURN_UNTIL(other->frames == 3);
	client_send(c, b.data + b.len / 3, b.len - b.len / 3);
	TURN_UNTIL(c->frames >= 5);
	ck_ids(c, 5);
	ck_ids(other, 3);
	buf_done(&b);
	stop();
}
END_TEST

START_TEST(the_frame_limit_is_exact)
{
	struct conn_limits limits = wide;
	struct buf b = { 0 };
	struct client *c;

	put_large(&b, 0, 3000);
	limits.frame.max_bytes = b.len;
	start(&limits);
	c = connect_pair();
	client_send(c, b.data, b.len);
	TURN_UNTIL(c->frames == 1);
	ck_assert_uint_eq(c->last_len, b.len);
	limits.frame.max_bytes = b.len - 1; /* in force at once */
	conns_set_limits(conns, &limits);
	client_send(c, b.data, 20);
	TURN_UNTIL(c->bad);
	ck_assert_int_eq(c->status, FRAME_TOO_LARGE);
	ck_assert_uint_eq(c->frames, 1);
	buf_done(&b);
	stop();
}
END_TEST

/* --- the end --------------------------------------------------------------------------------
 */

START_TEST(a_client_that_closes_is_told_once)
{
	struct client *c;

	start(&wide);
	c = connect_pair();
	client_request(c, 0, 3);
	close(c->fd);
	c->fd = -1;
	TURN_UNTIL(c->closes);
	ck_ids(c, 3); /* nothing it had completed is lost */
	ck_assert_int_eq(c->end, CONN_END_CLIENT);
	ck_assert_uint_eq(conns_count(conns), 0);
	stop();
}
END_TEST

START_TEST(what_begins_with_no_array_is_bad_at_once)
{
	static const char *const first[] = { "GET / HTTP/1.1\r\n", "\x16\x03\x01", "*1\r\n",
					     "\xdb", "\x81" };

	for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
		struct client *c;

		start(&wide);
		c = connect_pair();
		client_send(c, first[i], 1);
		TURN_UNTIL(c->bad);
		ck_assert_int_eq(c->status, FRAME_INVALID);
		ck_assert_uint_eq(c->frames, 0);
		stop();
	}
}
END_TEST

START_TEST(the_answer_to_a_bad_frame_survives_what_the_client_still_sends)
{
	char answer[16] = "", more[4096] = { 0 };
	struct client *c;
	ssize_t n = -1;

	start(&wide);
	c = connect_tcp();
	client_request(c, 0, 2);
	client_send(c, "\x92\xc1", 2);
	client_send(c, more, sizeof(more));
	TURN_UNTIL(c->bad);
	ck_ids(c, 2);
	ck_assert_int_eq(c->status, FRAME_INVALID);
	client_send(c, more, sizeof(more));
	turn_idle();
	client_send(c, more, sizeof(more));
	turn_idle();
	/* A close with bytes unread would have been a reset, and this ECONNRESET. */
	TURN_UNTIL((n = client_recv(c, answer, sizeof(answer))) >= 0 || errno != EAGAIN);
	ck_assert_int_eq(n, 4);
	ck_assert_mem_eq(answer, "bad!", 4);
	TURN_UNTIL((n = client_recv(c, answer, sizeof(answer))) >= 0 || errno != EAGAIN);
	ck_assert_int_eq(n, 0);
	ck_assert_uint_eq(c->closes, 0); /* it waits for the client to go */
	close(c->fd);
	c->fd = -1;
	TURN_UNTIL(c->closes);
	ck_assert_int_eq(c->end, CONN_END_PROTOCOL);
	ck_assert_uint_eq(c->bad, 1);
	stop();
}
END_TEST

START_TEST(a_client_that_stays_after_a_bad_frame_is_closed)
{
	struct client *c;

	start(&wide);
	c = connect_pair();
	client_send(c, "\xc1", 1);
	TURN_UNTIL(c->closes);
	ck_assert_int_eq(c->end, CONN_END_PROTOCOL);
	stop();
}
END_TEST

static bool
answer_and_refuse(struct client *c, uint64_t id)
{
	buf_puts(conn_output(c->conn), "no.");
	conn_wrote(c->conn);
	return id != 2;
}

START_TEST(a_refused_frame_is_the_last_one)
{
	char answer[16];
	struct client *c;
	ssize_t n = -1;

	start(&wide);
	c = connect_pair();
	c->on = answer_and_refuse;
	client_request(c, 0, 10);
	TURN_UNTIL((n = client_recv(c, answer, sizeof(answer))) >= 0);
	ck_assert_int_eq(n, 9);
	ck_ids(c, 3);
	ck_assert_int_eq(client_recv(c, answer, sizeof(answer)), 0);
	/* What is answered later is not told as written. */
	ck_assert_uint_eq(conn_written_total(c->conn), 9);
	buf_puts(conn_output(c->conn), "late");
	conn_wrote(c->conn);
	turn_idle();
	ck_assert_uint_eq(conn_written_total(c->conn), 9);
	ck_assert_uint_eq(conn_put_total(c->conn), 13);
	TURN_UNTIL(c->closes);
	ck_assert_int_eq(c->end, CONN_END_PROTOCOL);
	stop();
}
END_TEST

static bool
close_itself(struct client *c, uint64_t id)
{
	if (id == 3) {
		inside++;
		conn_close(c->conn, CONN_END_SERVER);
		conn_close(c->conn, CONN_END_CLIENT); /* too late to matter */
		buf_puts(conn_output(c->conn), "into the void");
		conn_wrote(c->conn);
		conn_pause(c->conn, true);
		conn_pause(c->conn, false);
		inside--;
		ck_assert_uint_eq(c->closes, 0);
	}
	return true;
}

START_TEST(a_connection_may_close_itself_in_its_own_callback)
{
	struct client *c;

	start(&wide);
	c = connect_pair();
	c->on = close_itself;
	client_request(c, 0, 100);
	TURN_UNTIL(c->closes);
	ck_ids(c, 4);
	ck_assert_int_eq(c->end, CONN_END_SERVER);
	stop();
}
END_TEST

static bool
close_all_others(struct client *c, uint64_t id)
{
	(void)id;
	for (unsigned i = 0; i < opened; i++)
		if (clients[i] != c && !clients[i]->closes)
			conn_close(clients[i]->conn, CONN_END_SERVER);
	return false;
}

START_TEST(a_connection_may_close_the_others_in_its_callback)
{
	struct client *c[3];

	start(&wide);
	for (int i = 0; i < 3; i++) {
		c[i] = connect_pair();
		c[i]->on = close_all_others;
		client_request(c[i], 0, 5); /* all are readable in one turn */
	}
	TURN_UNTIL(c[0]->closes + c[1]->closes + c[2]->closes == 3);
	ck_assert_uint_eq(c[0]->frames + c[1]->frames + c[2]->frames, 1);
	stop();
}
END_TEST

START_TEST(freeing_them_closes_what_is_left)
{
	struct client *c[3];

	start(&wide);
	for (int i = 0; i < 3; i++)
		c[i] = connect_pair();
	conn_close(c[1]->conn, CONN_END_CLIENT);
	client_send(c[2], "\x94\x00", 2);
	turn_idle();
	ck_assert_uint_eq(conns_count(conns), 2);
	stop();
}
END_TEST

START_TEST(closing_all_lets_their_output_leave_first)
{
	struct buf big = { 0 };
	struct client *c, *idle;
	char *got = xcalloc(1, 1 << 20);
	size_t have = 0;
	ssize_t n = -1;

	start(&wide);
	c = connect_pair();
	idle = connect_pair();
	buf_reserve(&big, 1 << 20);
	memset(big.data, 'z', 1 << 20);
	buf_put(conn_output(c->conn), big.data, 1 << 20);
	conn_wrote(c->conn);
	conns_close_all(conns);
	TURN_UNTIL((n = client_recv(c, got, 1 << 20)) == 0 ||
		   (n > 0 && (have += (size_t)n) == 0));
	ck_assert_uint_eq(have, 1 << 20);
	ck_assert_int_eq(client_recv(idle, got, 1), 0);
	close(c->fd);
	close(idle->fd);
	c->fd = idle->fd = -1;
	TURN_UNTIL(!conns_count(conns) && c->closes && idle->closes);
	ck_assert_int_eq(c->end, CONN_END_SERVER);
	free(got);
	buf_done(&big);
	stop();
}
END_TEST

/* --- pausing --------------------------------------------------------------------------------
 */

static bool
pause_itself(struct client *c, uint64_t id)
{
	(void)id;
	conn_pause(c->conn, true);
	return true;
}

START_TEST(a_paused_connection_is_given_nothing_until_it_resumes)
{
	struct client *c;

	start(&wide);
	c = connect_pair();
	c->on = pause_itself;
	client_request(c, 0, 100);
	TURN_UNTIL(c->frames);
	for (unsigned i = 1; i < 100; i++) {
		turn_idle();
		ck_assert_uint_eq(c->frames, i);
		inside++;
		conn_pause(c->conn, true);
		conn_pause(c->conn, false);
		conn_pause(c->conn, false);
		inside--;
		TURN_UNTIL(c->frames > i);
	}
	ck_ids(c, 100);
	conn_pause(c->conn, false);
	c->on = NULL;
	client_request(c, 100, 5);
	TURN_UNTIL(c->frames == 105);
	stop();
}
END_TEST

START_TEST(a_pause_from_outside_stops_reading)
{
	struct client *c;

	start(&wide);
	c = connect_pair();
	client_send(c, "\x94\x00", 2); /* a frame begun */
	turn_idle();
	conn_pause(c->conn, true);
	client_send(c, "\x00\xa1x\x90", 4);
	client_request(c, 1, 3);
	turn_idle();
	ck_assert_uint_eq(c->frames, 0);
	conn_pause(c->conn, false);
	TURN_UNTIL(c->frames == 4);
	ck_ids(c, 4);
	stop();
}
END_TEST

START_TEST(a_paused_connection_with_frames_kept_can_end_in_any_way)
{
	struct client *c[4];

	start(&wide);
	for (int i = 0; i < 4; i++) {
		c[i] = connect_pair();
		c[i]->on = pause_itself;
		client_request(c[i], 0, 10);
	}
	TURN_UNTIL(c[0]->frames && c[1]->frames && c[2]->frames && c[3]->frames);
	conn_close(c[0]->conn, CONN_END_SERVER);
	close(c[1]->fd);
	c[1]->fd = -1;
	c[1]->on = NULL;
	conn_pause(c[1]->conn, false);
	conn_pause(c[2]->conn, false);
	conn_close(c[2]->conn, CONN_END_SERVER); /* resumed and closed in the same turn */
	TURN_UNTIL(c[0]->closes && c[1]->closes && c[2]->closes);
	ck_ids(c[1], 10);
	ck_assert_uint_eq(c[2]->frames, 1);
	client_request(c[3], 10,
		       1); /* nobody reads it, so nobody looks at the socket any more */
	turn_idle();
	conns_close_all(conns); /* one that is paused leaves too */
	close(c[3]->fd);
	c[3]->fd = -1;
	TURN_UNTIL(c[3]->closes);
	stop();
}
END_TEST

/* --- output ---------------------------------------------------------------------------------
 */

START_TEST(answers_leave_at_the_end_of_the_turn)
{
	char got[16];
	struct client *c;

	start(&wide);
	c = connect_pair();
	buf_puts(conn_output(c->conn), "one ");
	conn_wrote(c->conn);
	buf_puts(conn_output(c->conn), "two");
	conn_wrote(c->conn);
	ck_assert_uint_eq(conn_put_total(c->conn), 7);
	ck_assert_uint_eq(conn_written_total(c->conn), 0);
	ck_assert_int_eq(client_recv(c, got, sizeof(got)), -1);
	loop_turn(loop, false);
	ck_assert_uint_eq(conn_written_total(c->conn), 7);
	ck_assert_uint_eq(conn_put_total(c->conn), 7);
	ck_assert_int_eq(client_recv(c, got, sizeof(got)), 7);
	ck_assert_mem_eq(got, "one two", 7);
	stop();
}
END_TEST

/* Put `n` bytes that tell their place. */
static void
put_bytes(struct client *c, uint64_t *at, size_t n)
{
	struct buf *out = conn_output(c->conn);

	for (size_t i = 0; i < n; i++)
		buf_putc(out, (char)((*at)++ % 251));
	conn_wrote(c->conn);
}

/* Read what is there; it must be what follows `*at`. */
static void
read_bytes(struct client *c, uint64_t *at)
{
	static char got[100000];
	ssize_t n = client_recv(c, got, sizeof(got));

	ssize_t right = 0;

	while (right < n && got[right] == (char)((*at + (uint64_t)right) % 251))
		right++;
	if (n > 0) {
		ck_assert_int_eq(right, n);
		*at += (uint64_t)n;
	}
}

START_TEST(what_the_socket_does_not_take_follows_in_order)
{
	uint64_t put = 0, got = 0;
	struct client *c;

	start(&wide);
	c = connect_pair();
	for (int i = 0; i < 30; i++) {
		put_bytes(c, &put, 100000);
		loop_turn(loop, false);
		ck_assert_uint_eq(conn_put_total(c->conn), put);
		if (i % 3 == 0)
			read_bytes(c, &got);
	}
	ck_assert_uint_lt(conn_written_total(c->conn), put);
	while (got < put) {
		read_bytes(c, &got);
		loop_turn(loop, false);
	}
	ck_assert_uint_eq(conn_written_total(c->conn), put);
	stop();
}
END_TEST

static uint64_t answered;

static bool
answer_much(struct client *c, uint64_t id)
{
	(void)id;
	put_bytes(c, &answered, 50000);
	return true;
}

START_TEST(a_client_that_does_not_read_is_not_read_either)
{
	struct conn_limits limits = wide;
	uint64_t got = 0;
	struct client *c;

	answered = 0;
	limits.output_high_water = 200000;
	start(&limits);
	c = connect_pair();
	c->on = answer_much;
	client_request(c, 0, 100);
	turn_idle();
	ck_assert_uint_lt(c->frames, 100); /* the socket's buffer and the high water are full */
	ck_assert_uint_ge(c->frames, 4);
	ck_assert_uint_le(conn_put_total(c->conn) - conn_written_total(c->conn), 250000);
	while (got < 5000000) {
		read_bytes(c, &got);
		loop_turn(loop, false);
	}
	ck_ids(c, 100);
	client_request(c, 100, 1); /* it is read again as ever */
	TURN_UNTIL(c->frames == 101);
	stop();
}
END_TEST

START_TEST(who_asks_is_told_once_when_the_output_is_drained)
{
	struct conn_limits limits = wide;
	uint64_t put = 0, got = 0;
	struct client *c;

	limits.output_high_water = 800000;
	start(&limits);
	c = connect_pair();
	ck_assert(!conn_is_backed_up(c->conn));
	while (!conn_is_full(c->conn)) {
		put_bytes(c, &put, 50000);
		loop_turn(loop, false);
	}
	ck_assert(conn_is_backed_up(c->conn));
	ck_assert_uint_eq(c->drains, 0);
	while (!c->drains) {
		read_bytes(c, &got);
		loop_turn(loop, false);
	}
	ck_assert_uint_le(put - conn_written_total(c->conn), 100000); /* an eighth */
	ck_assert_uint_gt(put, got);
	ck_assert(!conn_is_backed_up(c->conn));
	while (got < put) {
		read_bytes(c, &got);
		loop_turn(loop, false);
	}
	ck_assert_uint_eq(c->drains, 1);
	stop();
}
END_TEST

START_TEST(too_much_unsent_closes)
{
	struct conn_limits limits = wide;
	uint64_t put = 0;
	struct client *c;

	limits.output_high_water = 200000;
	limits.output_limit = 1000000;
	start(&limits);
	c = connect_pair();
	while (!c->closes && put < 50000000) {
		put_bytes(c, &put, 50000);
		loop_turn(loop, false);
	}
	ck_assert_uint_eq(c->closes, 1);
	ck_assert_int_eq(c->end, CONN_END_SLOW_READER);
	stop();
}
END_TEST

START_TEST(one_turn_may_produce_more_than_the_limit_for_one_who_reads)
{
	struct conn_limits limits = wide;
	uint64_t put = 0, got = 0;
	struct client *c;

	limits.output_high_water = 50000;
	limits.output_limit = 100000;
	start(&limits);
	c = connect_pair();
	for (int i = 0; i < 10; i++) {
		put_bytes(c, &put, 60000);
		read_bytes(c, &got);
	}
	while (got < put && !c->closes) {
		read_bytes(c, &got);
		loop_turn(loop, false);
	}
	ck_assert_uint_eq(got, 600000);
	ck_assert_uint_eq(c->closes, 0);
	stop();
}
END_TEST

START_TEST(unsent_bytes_without_progress_close)
{
	struct conn_limits limits = wide;
	uint64_t put = 0;
	struct client *c;

	limits.output_stall_us = 100000;
	start(&limits);
	c = connect_pair();
	put_bytes(c, &put, 2000000);
	TURN_UNTIL(c->closes);
	ck_assert_int_eq(c->end, CONN_END_SLOW_READER);
	stop();
}
END_TEST

START_TEST(a_client_that_died_is_noticed_by_the_write)
{
	struct client *c;

	start(&wide);
	c = connect_pair();
	conn_pause(c->conn, true); /* so that no read tells */
	close(c->fd);
	c->fd = -1;
	turn_idle();
	buf_puts(conn_output(c->conn), "anybody?");
	conn_wrote(c->conn);
	TURN_UNTIL(c->closes);
	ck_assert_int_eq(c->end, CONN_END_CLIENT);
	stop();
}
END_TEST

/* --- deadlines ------------------------------------------------------------------------------
 */

START_TEST(a_connection_that_says_nothing_is_closed)
{
	struct conn_limits limits = wide;
	struct client *silent, *polite;

	limits.hello_timeout_us = 100000;
	start(&limits);
	silent = connect_pair();
	polite = connect_pair();
	client_request(polite, 0, 1);
	TURN_UNTIL(silent->closes);
	ck_assert_int_eq(silent->end, CONN_END_SILENT);
	ck_assert_uint_eq(polite->closes, 0);
	stop();
}
END_TEST

START_TEST(a_frame_that_is_never_completed_is_not_waited_for)
{
	struct conn_limits limits = wide;
	struct client *c, *paused;
	uint64_t later;

	limits.frame_timeout_us = 100000;
	start(&limits);
	c = connect_pair();
	paused = connect_pair();
	client_request(c, 0, 1);
	client_send(c, "\x94\x00", 2);
	client_send(paused, "\x94\x00", 2);
	turn_idle();
	conn_pause(paused->conn,
		   true); /* we do not read it, so it is not the one who is slow */
	TURN_UNTIL(c->closes);
	ck_assert_int_eq(c->end, CONN_END_SLOW_WRITER);
	later = loop_clock_us() + 200000;
	TURN_UNTIL(loop_clock_us() > later);
	ck_assert_uint_eq(paused->closes, 0);
	conn_pause(paused->conn, false); /* its time begins anew */
	later = loop_clock_us() + 60000;
	TURN_UNTIL(loop_clock_us() > later);
	client_send(paused, "\x00\xa1x\x90", 4);
	TURN_UNTIL(paused->frames == 1);
	stop();
}
END_TEST

START_TEST(an_idle_connection_is_closed_where_that_is_set)
{
	struct conn_limits limits = wide;
	struct client *c, *busy;

	start(&limits);
	c = connect_pair();
	busy = connect_pair();
	client_request(c, 0, 1);
	limits.idle_timeout_us = 200000;
	conns_set_limits(conns, &limits);
	for (unsigned i = 0; !c->closes && i < 1000; i++) {
		uint64_t later = loop_clock_us() + 10000;

		client_request(busy, i, 1);
		TURN_UNTIL(loop_clock_us() > later);
	}
	ck_assert_uint_eq(c->closes, 1);
	ck_assert_int_eq(c->end, CONN_END_SILENT);
	ck_assert_uint_eq(busy->closes, 0);
	stop();
}
END_TEST

/* --- how many -------------------------------------------------------------------------------
 */

/* The overloaded client reads one error frame, and then the end. */
static void
ck_overloaded(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char got[512];
	ssize_t n;

	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	n = recv(fd, got, sizeof(got), 0);
	ck_assert_int_gt(n, 20);
	ck_assert_mem_eq(got,
			 "\x94\x01\x00\x83\xa4"
			 "code\xaaoverloaded",
			 20);
	ck_assert_int_eq(poll(&p, 1, 5000), 1);
	ck_assert_int_eq(recv(fd, got, sizeof(got), 0), 0);
	close(fd);
}

START_TEST(more_connections_than_allowed_are_told_so)
{
	struct conn_limits limits = wide;
	struct client *c;
	int fds[2];

	limits.max_connections = 2;
	start(&limits);
	c = connect_pair();
	connect_pair();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	ck_assert(!conns_accept(conns, fds[0], true, "unix:pid=1,uid=0"));
	ck_overloaded(fds[1]);
	ck_assert_uint_eq(conns_count(conns), 2);
	ck_assert_uint_eq(opened, 2);
	conn_close(c->conn, CONN_END_SERVER);
	connect_pair();
	ck_assert_uint_eq(conns_count(conns), 2);
	stop();
}
END_TEST

START_TEST(an_address_has_a_limit_of_its_own)
{
	struct conn_limits limits = wide;
	struct client *c;
	int fds[2];

	limits.max_per_ip = 2;
	start(&limits);
	c = connect_tcp();
	connect_tcp();
	connect_pair(); /* Unix sockets do not count */
	connect_pair();
	connect_pair();
	tcp_pair(fds);
	ck_assert(!conns_accept(conns, fds[0], false, "127.0.0.1:60000"));
	ck_overloaded(fds[1]);
	tcp_pair(fds);
	ck_assert(conns_accept(conns, fds[0], false, "[::1]:60000")); /* another address */
	close(fds[1]);
	conn_close(c->conn, CONN_END_SERVER);
	connect_tcp();
	stop();
}
END_TEST

START_TEST(a_connection_knows_who_it_is)
{
	struct client *a, *b;

	start(&wide);
	a = connect_pair();
	b = connect_tcp();
	ck_assert_uint_eq(conn_id(a->conn), 1);
	ck_assert_uint_eq(conn_id(b->conn), 2);
	ck_assert_str_eq(conn_peer(a->conn), "unix:pid=1,uid=0");
	ck_assert_str_eq(conn_peer(b->conn), "127.0.0.1:50000");
	ck_assert(conn_is_unix(a->conn));
	ck_assert(!conn_is_unix(b->conn));
	stop();
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("conn");
	TCase *tc = tcase_create("conn");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, frames_in_one_segment_are_handed_out_in_order);
	tcase_add_test(tc, a_byte_per_segment_makes_the_same_frames);
	tcase_add_test(tc, segments_of_any_length_make_the_same_frames);
	tcase_add_test(tc, a_large_frame_between_small_ones_is_one_frame);
	tcase_add_test(tc, the_frame_limit_is_exact);
	tcase_add_test(tc, a_client_that_closes_is_told_once);
	tcase_add_test(tc, what_begins_with_no_array_is_bad_at_once);
	tcase_add_test(tc, the_answer_to_a_bad_frame_survives_what_the_client_still_sends);
	tcase_add_test(tc, a_client_that_stays_after_a_bad_frame_is_closed);
	tcase_add_test(tc, a_refused_frame_is_the_last_one);
	tcase_add_test(tc, a_connection_may_close_itself_in_its_own_callback);
	tcase_add_test(tc, a_connection_may_close_the_others_in_its_callback);
	tcase_add_test(tc, freeing_them_closes_what_is_left);
	tcase_add_test(tc, closing_all_lets_their_output_leave_first);
	tcase_add_test(tc, a_paused_connection_is_given_nothing_until_it_resumes);
	tcase_add_test(tc, a_pause_from_outside_stops_reading);
	tcase_add_test(tc, a_paused_connection_with_frames_kept_can_end_in_any_way);
	tcase_add_test(tc, answers_leave_at_the_end_of_the_turn);
	tcase_add_test(tc, what_the_socket_does_not_take_follows_in_order);
	tcase_add_test(tc, a_client_that_does_not_read_is_not_read_either);
	tcase_add_test(tc, who_asks_is_told_once_when_the_output_is_drained);
	tcase_add_test(tc, too_much_unsent_closes);
	tcase_add_test(tc, one_turn_may_produce_more_than_the_limit_for_one_who_reads);
	tcase_add_test(tc, unsent_bytes_without_progress_close);
	tcase_add_test(tc, a_client_that_died_is_noticed_by_the_write);
	tcase_add_test(tc, a_connection_that_says_nothing_is_closed);
	tcase_add_test(tc, a_frame_that_is_never_completed_is_not_waited_for);
	tcase_add_test(tc, an_idle_connection_is_closed_where_that_is_set);
	tcase_add_test(tc, more_connections_than_allowed_are_told_so);
	tcase_add_test(tc, an_address_has_a_limit_of_its_own);
	tcase_add_test(tc, a_connection_knows_who_it_is);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
