#include "net/conn.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uthash.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"
#include "proto/rpc.h"

/*
 * One client's socket.
 *
 *	conn_on_event()	the socket is readable: one read into the buffer all connections share
 *	conn_take()	frames are handed out from there; the tail of a partial one is kept
 *	conn_wrote()	an answer was appended: the connection is on this turn's dirty list
 *	conn_flush()	one write at the end of the turn; the rest when the socket takes more
 *	conn_leave()	the last answer, FIN, and what still comes is discarded until the client
 *			is gone too: closing at once would make the kernel reset the connection,
 *			and a reset destroys what the client has not read yet
 *	conn_close()	unlinked and closed now; on_close and the memory on the next turn,
 *			because this connection's own callback may be on the stack
 *
 * Reading stops by not looking at the socket. It costs a system call only when bytes come in
 * the meantime: the event is removed by the first one that fires in vain.
 *
 * Deadlines need no precision, so one timer walks over all connections about once a second and
 * an idle connection owns neither a timer nor a buffer.
 */

#define INPUT_BYTES \
	(256 * 1024)   /* one read at most, which is also a connection's share of a turn */
#define TAIL_STEP 4096 /* of what a partial frame is first completed with */
#define OUTPUT_KEPT \
	(64 * 1024)           /* a drained buffer up to this size waits for the next answer \
			       */
#define LEAVE_US      1000000 /* for the client to read what it did wrong, and close */
#define SWEEP_MAX_US  1000000
#define SWEEP_MIN_US  10000
#define PEER_ADDR_MAX 48

_Static_assert((int)CONN_ENDS <= STAT_CONN_ENDS, "");
const char *const conn_end_names[CONN_ENDS] = {
	[CONN_END_CLIENT] = "client",           [CONN_END_PROTOCOL] = "protocol",
	[CONN_END_SLOW_READER] = "slow_reader", [CONN_END_SLOW_WRITER] = "slow_writer",
	[CONN_END_SILENT] = "silent",           [CONN_END_SERVER] = "server",
	[CONN_END_OPERATOR] = "operator",
};

/* Input that no frame could be made of yet, or that nobody may be given now. */
struct tail {
	struct buf bytes;
	size_t at; /* where the first frame in `bytes` begins */
	struct frame_scan scan;
	uint64_t begun_us;
};

/* How many connections an address has. */
struct address {
	char text[PEER_ADDR_MAX];
	unsigned count;
	UT_hash_handle hh;
};

enum conn_state {
	CONN_OPEN,
	CONN_LEAVING, /* only output, then FIN, then the client's */
	CONN_CLOSED   /* waits for on_close */
};

struct conn {
	TAILQ_ENTRY(conn) link;  /* in `open` or `inner`, then in `closed` */
	TAILQ_ENTRY(conn) dirty; /* while `is_dirty` */
	struct conns *conns;
	void *user;
	struct event event;      /* readable, persistent */
	struct event *writable;  /* only while the socket takes no more */
	struct tail *tail;       /* NULL while there is none */
	struct address *address; /* NULL for Unix sockets */
	conn_sink *sink;         /* NULL unless it is an inner one, without a socket */
	void *sink_arg;
	uid_t uid; /* of an inner one */
	struct buf output;
	size_t sent;      /* of `output` */
	uint64_t dropped; /* sent before what `output` begins with */
	uint64_t taken;   /* bytes read */
	uint64_t id;
	uint64_t accepted_us;
	uint64_t opened_us; /* the same, or when it began to leave */
	uint64_t read_us,
		wrote_us; /* last progress either way; `wrote` also: first byte unsent */
	int fd;
	uint8_t state; /* enum conn_state */
	uint8_t end;   /* enum conn_end, once leaving or closed */
	bool is_unix : 1;
	bool is_dirty : 1;
	bool is_paused : 1;     /* by the layer above */
	bool is_reading : 1;    /* the event is registered */
	bool has_backlog : 1;   /* `tail` may hold whole frames */
	bool has_greeted : 1;   /* a first frame came */
	bool has_finished : 1;  /* FIN is sent */
	bool tells_drained : 1; /* somebody waits for on_drained */
	char peer[];
};

TAILQ_HEAD(conn_list, conn);

struct conns {
	struct loop *loop;
	struct conn_limits limits;
	struct conn_ops ops;
	void *arg;
	struct conn_list open, inner, dirty, closed;
	struct defer finish;
	struct timer sweep;
	uint64_t sweep_us; /* between two walks */
	struct address *addresses;
	unsigned count; /* of `open` */
	uint64_t last_id;
	uint8_t input[INPUT_BYTES];
};

static size_t
unsent(const struct conn *c)
{
	return c->output.len - c->sent;
}

bool
conn_is_full(const struct conn *c)
{
	return unsent(c) > c->conns->limits.output_high_water;
}

static bool
is_stopped(const struct conn *c)
{
	return c->state != CONN_OPEN || c->is_paused || conn_is_full(c);
}

/* --- input ----------------------------------------------------------------------------------
 */

static void
conn_read_more(struct conn *c)
{
	if (!c->is_reading)
		event_add(&c->event, NULL);
	c->is_reading = true;
}

static void
conn_read_stop(struct conn *c)
{
	event_del(&c->event);
	c->is_reading = false;
}

static void
tail_free(struct conn *c)
{
	if (!c->tail)
		return;
	buf_done(&c->tail->bytes);
	free(c->tail);
	c->tail = NULL;
	c->has_backlog = false;
}

static void
conn_dirty(struct conn *c)
{
	if (c->is_dirty)
		return;
	c->is_dirty = true;
	TAILQ_INSERT_TAIL(&c->conns->dirty, c, dirty);
}

/* No more requests: what is in the output is sent, then the client is waited for, see above. */
static void
conn_leave(struct conn *c, enum conn_end why)
{
	if (c->state != CONN_OPEN)
		return;
	c->state = CONN_LEAVING;
	c->end = (uint8_t)why;
	c->opened_us = loop_now_us(c->conns->loop);
	conn_dirty(c); /* its flush sends FIN, also when there is no output */
	conn_read_more(c);
	timer_at_most(&c->conns->sweep, LEAVE_US);
}

void
conn_finish(struct conn *c, enum conn_end why)
{
	conn_leave(c, why);
}

/* Close it; of one that is leaving the reason is known already. */
static void
conn_over(struct conn *c, enum conn_end why)
{
	conn_close(c, c->state == CONN_LEAVING ? (enum conn_end)c->end : why);
}

/*
 * Hand out the whole frames at the start of p[0 .. n) while they are wanted and return how many
 * bytes they took. `scan` is of the frame at `p`, and afterwards of the one that is left.
 */
static size_t
conn_deliver(struct conn *c, const uint8_t *p, size_t n, struct frame_scan *scan)
{
	const struct conn_ops *ops = &c->conns->ops;
	size_t done = 0;

	while (done < n && !is_stopped(c)) {
		enum frame_status status = FRAME_INVALID;
		size_t size;

		/* What begins with no array (HTTP, TLS) is not worth waiting for its end. */
		if ((p[done] & 0xf0) == 0x90 || p[done] == 0xdc || p[done] == 0xdd)
			status = frame_scan(scan, p + done, n - done, &c->conns->limits.frame);
		if (status == FRAME_MORE)
			break;
		if (status != FRAME_OK) {
			ops->on_bad_frame(c->user, status);
			conn_leave(c, CONN_END_PROTOCOL);
			break;
		}
		size = scan->pos;
		frame_scan_begin(scan);
		c->has_greeted = true;
		if (!ops->on_frame(c->user, p + done, size))
			conn_leave(c, CONN_END_PROTOCOL);
		done += size;
	}
	return done;
}

/* Keep p[0 .. n), which `scan` is of, for later. */
static void
conn_keep(struct conn *c, const uint8_t *p, size_t n, const struct frame_scan *scan)
{
	if (!n || c->state != CONN_OPEN)
		return;
	c->tail = xcalloc(1, sizeof(*c->tail));
	c->tail->scan = *scan;
	c->tail->begun_us = loop_now_us(c->conns->loop);
	buf_put(&c->tail->bytes, p, n);
	c->has_backlog = is_stopped(c);
}

/*
 * New bytes. Those that complete the kept frame are copied behind it, in steps that double,
 * since nobody knows how many it needs; all others are read where they are.
 */
static void
conn_take(struct conn *c, const uint8_t *p, size_t n)
{
	struct frame_scan scan = { 0 };
	size_t used;

	while (c->tail && n) {
		struct tail *t = c->tail;
		size_t old = t->bytes.len, step = old > TAIL_STEP ? old : TAIL_STEP;

		if (step > n)
			step = n;
		buf_put(&t->bytes, p, step);
		used = conn_deliver(c, (const uint8_t *)t->bytes.data, t->bytes.len, &t->scan);
		if (c->state != CONN_OPEN)
			return;
		/* Its first frame ended behind `old`; the rest of the step is read again. */
		if (used) {
			step = used - old;
			tail_free(c);
		}
		p += step;
		n -= step;
	}
	used = conn_deliver(c, p, n, &scan);
	conn_keep(c, p + used, n - used, &scan);
}

/* Frames that were kept while they were not wanted. */
static void
conn_take_backlog(struct conn *c)
{
	struct tail *t = c->tail;

	t->at += conn_deliver(c, (const uint8_t *)t->bytes.data + t->at, t->bytes.len - t->at,
			      &t->scan);
	if (c->state != CONN_OPEN)
		return;
	c->has_backlog = is_stopped(c) && t->at < t->bytes.len;
	if (t->at == t->bytes.len) {
		tail_free(c);
	} else if (!c->has_backlog) {
		buf_drop(&t->bytes, t->at);
		t->at = 0;
		t->begun_us = loop_now_us(c->conns->loop);
	}
	if (!c->has_backlog)
		conn_read_more(c);
}

static void
conn_on_event(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	ssize_t n;

	(void)what;
	if (c->state == CONN_OPEN && is_stopped(c)) {
		conn_read_stop(c);
		return;
	}
	if (c->state == CONN_OPEN && c->has_backlog) {
		conn_take_backlog(c);
		return;
	}
	n = recv(fd, c->conns->input, INPUT_BYTES, 0);
	if (n > 0 && c->state == CONN_OPEN) {
		c->read_us = loop_now_us(c->conns->loop);
		c->taken += (uint64_t)n;
		process_stats.received_bytes[0] += (size_t)n;
		conn_take(c, c->conns->input, (size_t)n);
	} else if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		conn_over(c, CONN_END_CLIENT);
	}
}

/* Go on reading, if nothing speaks against it any more. */
static void
conn_resume(struct conn *c)
{
	if (c->is_reading && !c->has_backlog)
		return;
	if (is_stopped(c))
		return;
	c->read_us = loop_now_us(c->conns->loop);
	if (c->has_backlog)
		event_active(&c->event, EV_READ, 0);
	else
		conn_read_more(c);
}

void
conn_pause(struct conn *c, bool paused)
{
	if (c->is_paused == paused)
		return;
	c->is_paused = paused;
	/* The deadline of a frame that we did not read says nothing about the client. */
	if (c->tail && !paused)
		c->tail->begun_us = loop_now_us(c->conns->loop);
	conn_resume(c);
}

/* --- output ---------------------------------------------------------------------------------
 */

static void conn_flush(struct conn *c);

static void
conn_on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	conn_flush(arg);
}

static void
conn_watch_writable(struct conn *c, bool watch)
{
	if (watch && !c->writable) {
		c->writable = event_new(loop_base(c->conns->loop), c->fd, EV_WRITE | EV_PERSIST,
					conn_on_writable, c);
		if (!c->writable)
			abort();
		event_add(c->writable, NULL);
	} else if (!watch && c->writable) {
		event_free(c->writable);
		c->writable = NULL;
	}
}

/* What the kernel has taken goes: all at once, or when it is the larger part. */
static void
conn_drop_sent(struct conn *c)
{
	if (unsent(c) && c->sent < c->output.len / 2)
		return;
	buf_drop(&c->output, c->sent);
	c->dropped += c->sent;
	c->sent = 0;
	if (!c->output.len && c->output.cap > OUTPUT_KEPT)
		buf_done(&c->output);
}

/* Whether the peer's kernel has taken everything. */
static bool
is_delivered(const struct conn *c)
{
	int left = 1;

	return ioctl(c->fd, SIOCOUTQ, &left) == 0 && left == 0;
}

/* Nothing of an inner one's output waits. */
static void
conn_sink_all(struct conn *c)
{
	struct str bytes = { c->output.data + c->sent, unsent(c) };

	c->sent = c->output.len;
	if (bytes.n)
		c->sink(c->sink_arg, bytes);
	conn_drop_sent(c);
}

static void
conn_flush(struct conn *c)
{
	struct loop *loop = c->conns->loop;
	ssize_t n;

	if (c->sink) {
		conn_sink_all(c);
		return;
	}

	while (unsent(c) && !c->has_finished) {
		size_t asked = unsent(c);

		n = send(c->fd, c->output.data + c->sent, asked, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			conn_over(c, CONN_END_CLIENT);
			return;
		}
		if (n > 0) {
			c->sent += (size_t)n;
			process_stats.sent_bytes[0] += (size_t)n;
			c->wrote_us = loop_now_us(loop);
		}
		if (n < 0 || (size_t)n < asked)
			break; /* the socket is full */
	}
	conn_watch_writable(c, unsent(c) && !c->has_finished);
	conn_drop_sent(c);
	if (c->state == CONN_LEAVING && c->end != CONN_END_PROTOCOL && !unsent(c) &&
	    is_delivered(c)) {
		conn_over(c,
			  CONN_END_SERVER); /* it has it all: nothing is left to be destroyed */
		return;
	}
	if (c->state == CONN_LEAVING && !unsent(c) && !c->has_finished) {
		c->has_finished = true;
		shutdown(c->fd, SHUT_WR);
		c->opened_us = loop_now_us(loop);
		timer_at_most(&c->conns->sweep, LEAVE_US);
	}
	if (c->tells_drained && !conn_is_backed_up(c)) {
		c->tells_drained = false;
		c->conns->ops.on_drained(c->user);
	}
	conn_resume(c);
}

bool
conn_is_backed_up(struct conn *c)
{
	bool is = unsent(c) > c->conns->limits.output_high_water / 8;

	c->tells_drained = c->tells_drained || is;
	return is;
}

struct buf *
conn_output(struct conn *c)
{
	return &c->output;
}

void
conn_wrote(struct conn *c)
{
	const struct conn_limits *limits = &c->conns->limits;

	if (c->state == CONN_CLOSED || c->has_finished || !unsent(c))
		return;
	if (!c->is_dirty && !c->writable)
		c->wrote_us = loop_now_us(c->conns->loop);
	conn_dirty(c);
	/* One write a turn, unless the turn produces more than may be unsent. */
	if (unsent(c) > limits->output_high_water && !c->writable)
		conn_flush(c);
	if (c->state != CONN_CLOSED && unsent(c) >= limits->output_limit)
		conn_close(c, CONN_END_SLOW_READER);
}

uint64_t
conn_put_total(const struct conn *c)
{
	return c->dropped + c->output.len;
}

uint64_t
conn_written_total(const struct conn *c)
{
	return c->dropped + c->sent;
}

/* TURN_CONNS. Flushing may close the connection itself, but no other. */
static void
conns_flush(void *arg)
{
	struct conns *conns = arg;
	struct conn *c;

	while ((c = TAILQ_FIRST(&conns->dirty))) {
		TAILQ_REMOVE(&conns->dirty, c, dirty);
		c->is_dirty = false;
		if (!c->writable)
			conn_flush(c);
	}
}

/* --- life -----------------------------------------------------------------------------------
 */

static void
address_leave(struct conn *c)
{
	if (!c->address || --c->address->count)
		return;
	HASH_DEL(c->conns->addresses, c->address);
	free(c->address);
}

/* The entry of a peer's address, its port left out. */
static struct address *
address_of(struct conns *conns, const char *peer)
{
	const char *colon = strrchr(peer, ':');
	size_t n = colon ? (size_t)(colon - peer) : strlen(peer);
	struct address *a;

	if (n >= PEER_ADDR_MAX)
		n = PEER_ADDR_MAX - 1;
	HASH_FIND(hh, conns->addresses, peer, n, a);
	if (!a) {
		a = xcalloc(1, sizeof(*a));
		memcpy(a->text, peer, n);
		HASH_ADD_KEYPTR(hh, conns->addresses, a->text, n, a);
	}
	return a;
}

static void
conns_on_finish(void *arg)
{
	struct conns *conns = arg;
	struct conn *c;

	while ((c = TAILQ_FIRST(&conns->closed))) {
		TAILQ_REMOVE(&conns->closed, c, link);
		conns->ops.on_close(c->user, (enum conn_end)c->end);
		tail_free(c);
		buf_done(&c->output);
		free(c);
	}
}

void
conn_close(struct conn *c, enum conn_end why)
{
	struct conns *conns = c->conns;

	if (c->state == CONN_CLOSED)
		return;
	c->state = CONN_CLOSED;
	c->end = (uint8_t)why;
	if (c->is_dirty)
		TAILQ_REMOVE(&conns->dirty, c, dirty);
	c->is_dirty = false;
	if (c->sink) {
		TAILQ_REMOVE(&conns->inner, c, link);
	} else {
		event_del(&c->event);
		conn_watch_writable(c, false);
		close(c->fd);
		c->fd = -1;
		address_leave(c);
		TAILQ_REMOVE(&conns->open, c, link);
		conns->count--;
		process_stats.connections[c->is_unix]--;
		process_stats.connections_closed[why]++;
	}
	TAILQ_INSERT_TAIL(&conns->closed, c, link);
	loop_defer(conns->loop, &conns->finish, conns_on_finish, conns);
}

static void
socket_setup(const struct conn_limits *limits, int fd)
{
	int off = 0, on = 1, nodelay = limits->tcp_nodelay, keepalives = 3;
	int idle_s = (int)(limits->tcp_keepalive_us / 1000000), interval_s;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, sizeof(nodelay));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, limits->tcp_keepalive_us ? &on : &off,
		   sizeof(on));
	if (!limits->tcp_keepalive_us)
		return;
	idle_s = idle_s < 1 ? 1 : idle_s > 32767 ? 32767 : idle_s;
	interval_s = idle_s < 3 ? 1 : idle_s / 3;
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &keepalives, sizeof(keepalives));
}

static bool
conns_refuse(struct conns *conns, int fd, const char *peer, enum stat_rejected reason,
	     const char *text)
{
	struct errmsg why;
	struct buf b = { 0 };

	process_stats.connections_rejected[reason]++;
	log_event(LOG_CONN_REFUSED, log_text("peer", peer), log_text("reason", text));
	errmsg_set(&why, ERR_OVERLOADED, "%s", text);
	rpc_put_error(&b, 0, RPC_ERRORS_MAP, &why);
	if (send(fd, b.data, b.len, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
		shutdown(fd, SHUT_WR);
	/* Its first request is read and forgotten: a close over unread bytes is a reset. */
	recv(fd, conns->input, INPUT_BYTES, MSG_DONTWAIT);
	buf_done(&b);
	close(fd);
	return false;
}

bool
conns_accept(struct conns *conns, int fd, bool is_unix, const char *peer)
{
	const struct conn_limits *limits = &conns->limits;
	struct address *address = NULL;
	struct conn *c;

	if (conns->count >= limits->max_connections)
		return conns_refuse(conns, fd, peer, STAT_LIMIT,
				    "the broker has all the connections it may have");
	if (!is_unix) {
		address = address_of(conns, peer);
		if (limits->max_per_ip && address->count >= limits->max_per_ip)
			return conns_refuse(conns, fd, peer, STAT_ADDRESS_LIMIT,
					    "your address has all the connections it may have");
		address->count++;
		socket_setup(limits, fd);
	}
	c = xcalloc(1, sizeof(*c) + strlen(peer) + 1);
	memcpy(c->peer, peer, strlen(peer) + 1);
	c->conns = conns;
	c->fd = fd;
	c->is_unix = is_unix;
	c->address = address;
	c->id = ++conns->last_id;
	c->accepted_us = c->opened_us = c->read_us = loop_now_us(conns->loop);
	event_assign(&c->event, loop_base(conns->loop), fd, EV_READ | EV_PERSIST, conn_on_event,
		     c);
	TAILQ_INSERT_TAIL(&conns->open, c, link);
	process_stats.connections[is_unix]++;
	process_stats.connections_accepted[is_unix]++;
	if (!conns->count++)
		timer_at_most(&conns->sweep, conns->sweep_us);
	conn_read_more(c);
	c->user = conns->ops.on_open(conns->arg, c);
	return true;
}

struct conn *
conns_open_inner(struct conns *conns, const char *peer, uid_t uid, conn_sink *sink, void *arg)
{
	struct conn *c = xcalloc(1, sizeof(*c) + strlen(peer) + 1);

	memcpy(c->peer, peer, strlen(peer) + 1);
	c->conns = conns;
	c->fd = -1;
	c->sink = sink;
	c->sink_arg = arg;
	c->uid = uid;
	c->accepted_us = c->read_us = loop_now_us(conns->loop);
	c->id = ++conns->last_id;
	c->is_reading = true; /* there is no event to wait for one */
	TAILQ_INSERT_TAIL(&conns->inner, c, link);
	c->user = conns->ops.on_open(conns->arg, c);
	return c;
}

bool
conn_feed(struct conn *c, const uint8_t *frame, size_t n)
{
	return c->conns->ops.on_frame(c->user, frame, n);
}

bool
conn_is_inner(const struct conn *c)
{
	return c->sink != NULL;
}

void *
conn_user(const struct conn *c)
{
	return c->user;
}

uint64_t
conn_id(const struct conn *c)
{
	return c->id;
}

const char *
conn_peer(const struct conn *c)
{
	return c->peer;
}

bool
conn_is_unix(const struct conn *c)
{
	return c->is_unix;
}

bool
conn_credentials(const struct conn *c, pid_t *pid, uid_t *uid)
{
	struct ucred cred = { 0, 0, 0 };
	socklen_t len = sizeof(cred);

	if (c->sink) {
		*pid = 0;
		*uid = c->uid;
		return c->uid != (uid_t)-1;
	}
	if (!c->is_unix || c->fd < 0 || getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return false;
	*pid = cred.pid;
	*uid = cred.uid;
	return true;
}

void
conn_info(const struct conn *c, struct conn_info *out)
{
	uint64_t now = loop_now_us(c->conns->loop);

	*out = (struct conn_info){
		.age_us = now - c->accepted_us,
		.idle_us = now - c->read_us,
		.bytes_in = c->taken,
		.bytes_out = conn_written_total(c),
		.buffered = unsent(c),
	};
}

/* --- all of them ----------------------------------------------------------------------------
 */

static bool
is_over(uint64_t now, uint64_t since, uint64_t limit)
{
	return limit && now - since >= limit;
}

/*
 * Close `c` if it is past a deadline. While we do not read, its silence is not its own. One
 * that we close while it is healthy may take its time to read the rest of its answers.
 */
static void
conn_check(struct conn *c, uint64_t now)
{
	const struct conn_limits *limits = &c->conns->limits;

	if (unsent(c) && !c->has_finished && is_over(now, c->wrote_us, limits->output_stall_us))
		conn_close(c, CONN_END_SLOW_READER);
	else if (c->state == CONN_LEAVING && is_over(now, c->opened_us, LEAVE_US) &&
		 (c->has_finished || c->end == CONN_END_PROTOCOL))
		conn_over(c, CONN_END_SERVER);
	else if (is_stopped(c))
		return;
	else if (!c->has_greeted && is_over(now, c->opened_us, limits->hello_timeout_us))
		conn_close(c, CONN_END_SILENT);
	else if (c->tail && is_over(now, c->tail->begun_us, limits->frame_timeout_us))
		conn_close(c, CONN_END_SLOW_WRITER);
	else if (is_over(now, c->read_us, limits->idle_timeout_us))
		conn_close(c, CONN_END_SILENT);
	else if (!c->output.len && is_over(now, c->read_us, SWEEP_MAX_US))
		buf_done(&c->output);
}

static void
conns_on_sweep(void *arg)
{
	struct conns *conns = arg;
	uint64_t now = loop_now_us(conns->loop);
	struct conn *c, *next;

	for (c = TAILQ_FIRST(&conns->open); c; c = next) {
		next = TAILQ_NEXT(c, link);
		conn_check(c, now);
	}
	if (conns->count)
		timer_at_most(&conns->sweep, conns->sweep_us);
}

/* Often enough that no deadline is missed by more than a quarter of it. */
static uint64_t
sweep_interval(const struct conn_limits *limits)
{
	const uint64_t times[] = { limits->output_stall_us, limits->hello_timeout_us,
				   limits->frame_timeout_us, limits->idle_timeout_us };
	uint64_t us = SWEEP_MAX_US;

	for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (times[i] && times[i] / 4 < us)
			us = times[i] / 4;
	return us < SWEEP_MIN_US ? SWEEP_MIN_US : us;
}

void
conns_set_limits(struct conns *conns, const struct conn_limits *limits)
{
	bool is_tcp_new = limits->tcp_nodelay != conns->limits.tcp_nodelay ||
			  limits->tcp_keepalive_us != conns->limits.tcp_keepalive_us;
	struct conn *c;

	conns->limits = *limits;
	conns->sweep_us = sweep_interval(limits);
	if (conns->count)
		timer_at_most(&conns->sweep, conns->sweep_us);
	for (c = TAILQ_FIRST(&conns->open); c; c = TAILQ_NEXT(c, link)) {
		if (is_tcp_new && !c->is_unix)
			socket_setup(limits, c->fd);
		conn_resume(c); /* the high water may have risen */
	}
}

struct conns *
conns_new(struct loop *loop, const struct conn_limits *limits, const struct conn_ops *ops,
	  void *arg)
{
	struct conns *conns = xcalloc(1, sizeof(*conns));

	conns->loop = loop;
	conns->limits = *limits;
	conns->ops = *ops;
	conns->arg = arg;
	conns->sweep_us = sweep_interval(limits);
	TAILQ_INIT(&conns->open);
	TAILQ_INIT(&conns->inner);
	TAILQ_INIT(&conns->dirty);
	TAILQ_INIT(&conns->closed);
	timer_init(&conns->sweep, loop, conns_on_sweep, conns);
	loop_at_turn_end(loop, TURN_CONNS, conns_flush, conns);
	return conns;
}

void
conns_free(struct conns *conns)
{
	struct conn *c;

	if (!conns)
		return;
	while ((c = TAILQ_FIRST(&conns->open)))
		conn_over(c, CONN_END_SERVER);
	while ((c = TAILQ_FIRST(&conns->inner)))
		conn_close(c, CONN_END_SERVER);
	defer_cancel(conns->loop, &conns->finish);
	conns_on_finish(conns);
	loop_at_turn_end(conns->loop, TURN_CONNS, NULL, NULL);
	timer_done(&conns->sweep);
	free(conns);
}

unsigned
conns_count(const struct conns *conns)
{
	return conns->count;
}

void
conns_close_all(struct conns *conns)
{
	struct conn *c;

	for (c = TAILQ_FIRST(&conns->open); c; c = TAILQ_NEXT(c, link))
		conn_leave(c, CONN_END_SERVER);
}
