#ifndef COORDD_NET_CONN_H
#define COORDD_NET_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/loop.h"
#include "proto/frame.h"

/*
 * One client's socket: frames in, bytes out, and backpressure. Knows frames, not methods.
 *
 * Reads go through one buffer that all connections share; only the tail of a partial frame is
 * kept per connection, so an idle one holds no buffer. Answers collect in the output buffer and
 * leave with one write at the end of the turn (TURN_CONNS).
 */
struct conn;
struct conns; /* all of them */

/* How a connection ends; for the log, the counters and who is told. */
enum conn_end {
	CONN_END_CLIENT,      /* it closed, or its socket failed */
	CONN_END_PROTOCOL,    /* no MessagePack, no MessagePack-RPC, over a limit */
	CONN_END_SLOW_READER, /* output_limit or output_stall_timeout */
	CONN_END_SLOW_WRITER, /* a frame not completed in time */
	CONN_END_SILENT,      /* nothing came within hello_timeout, or idle_timeout passed */
	CONN_END_SERVER,      /* drained or closed by us */
	CONN_END_OPERATOR,    /* an operator wanted it closed */
	CONN_ENDS
};
extern const char *const conn_end_names[CONN_ENDS];

struct conn_limits {
	struct frame_limits frame;
	size_t output_high_water;  /* bytes unsent above which its requests are not read */
	size_t output_limit;       /* bytes unsent at which it is closed */
	uint64_t output_stall_us;  /* unsent bytes and no progress for so long: closed */
	uint64_t hello_timeout_us; /* no first frame within this: closed; 0 never */
	uint64_t frame_timeout_us; /* a frame begun but not completed within this: closed */
	uint64_t idle_timeout_us;  /* no byte for so long: closed; 0 never */
	uint64_t tcp_keepalive_us; /* 0 off */
	bool tcp_nodelay;
	unsigned max_connections;
	unsigned max_per_ip; /* 0 no limit; TCP only */
};

/* What the layer above does with a connection. Never called from inside a conn_*() call. */
struct conn_ops {
	/* A new one; the result is kept as its user pointer. */
	void *(*on_open)(void *arg, struct conn *conn);
	/* One complete frame; borrowed for the call. False: close it as CONN_END_PROTOCOL after what
	 * is in its output was tried. */
	bool (*on_frame)(void *user, const uint8_t *frame, size_t n);
	/* Framing is lost (FRAME_INVALID, _TOO_DEEP, _TOO_LARGE): put one answer into the output;
	 * the connection is closed afterwards. */
	void (*on_bad_frame)(void *user, enum frame_status status);
	/* It is over: its fd is closed, nothing more is read or written, `conn` is valid until this
	 * returns. */
	void (*on_close)(void *user, enum conn_end why);
	/* No longer backed up, see conn_is_backed_up(). The only one that may run inside conn_wrote(): just
	 * note it. */
	void (*on_drained)(void *user);
};

struct conns *conns_new(struct loop *loop, const struct conn_limits *limits,
			const struct conn_ops *ops, void *arg);
void conns_free(struct conns *conns); /* closes what is left as CONN_END_SERVER */
/* New limits for all, at once. */
void conns_set_limits(struct conns *conns, const struct conn_limits *limits);
unsigned conns_count(const struct conns *conns);
/* Take over an accepted, non-blocking socket. `peer` is its address for logs. Over a limit, it
 * is answered with one `overloaded` error frame (msgid 0) if the socket takes it, closed, and
 * false returned. */
bool conns_accept(struct conns *conns, int fd, bool is_unix, const char *peer);
/*
 * One without a socket, for requests from inside the process: conn_feed() is what it reads, and what is put into its output
 * is given to `sink`, whole, in the turn it was put there, maybe inside conn_feed(); borrowed for the call. It is not
 * counted, has no deadline, and ends with conn_close(), after which `sink` does not run, or with conns_free().
 * `peer` and `uid` are of whom it serves; the latter (uid_t)-1 when nobody knows.
 */
typedef void conn_sink(void *arg, struct str bytes);
struct conn *
conns_open_inner(struct conns *conns, const char *peer, uid_t uid, conn_sink *sink, void *arg);
bool conn_is_inner(const struct conn *conn);
/* A whole frame to on_frame; false as there. */
bool conn_feed(struct conn *conn, const uint8_t *frame, size_t n);
/* Close each as CONN_END_SERVER once its output has left, or at the next conns_free(). */
void conns_close_all(struct conns *conns);

/* Append to this, then call conn_wrote(). */
struct buf *conn_output(struct conn *conn);
void conn_wrote(struct conn *conn);
/* Bytes ever put into the output, and how many of them the kernel has taken: what was put
 * before offset X has been written when conn_written() >= X. */
uint64_t conn_put_total(const struct conn *conn);
uint64_t conn_written_total(const struct conn *conn);
/* For who sends unasked. Full: more than output_high_water is unsent. Backed up: more than an eighth of that; on_drained
 * tells, once, when that is over. */
bool conn_is_full(const struct conn *conn);
bool conn_is_backed_up(struct conn *conn);
/* Stop or resume reading requests: a reason above (too much in flight). Idempotent. Frames already
 * buffered are not delivered while it is stopped, and are when it resumes (from the loop, never
 * from inside this call). */
void conn_pause(struct conn *conn, bool paused);
/* Read nothing more, and close it once its output has left. */
void conn_finish(struct conn *conn, enum conn_end why);
/* Close it now, from anywhere: on_close runs on the next turn, memory goes after that. */
void conn_close(struct conn *conn, enum conn_end why);

uint64_t conn_id(const struct conn *conn);      /* counts from 1 in this process */
const char *conn_peer(const struct conn *conn); /* "127.0.0.1:50122", "unix:pid=812,uid=0" */
bool conn_is_unix(const struct conn *conn);
void *conn_user(const struct conn *conn); /* what on_open returned */
/* Who is at the other end of a Unix socket; false for others, and once it is closed. */
bool conn_credentials(const struct conn *conn, pid_t *pid, uid_t *uid);

/* What there is to say of a connection that is not closed. */
struct conn_info {
	uint64_t age_us, idle_us; /* since it was accepted, and since something came */
	uint64_t bytes_in, bytes_out;
	size_t buffered; /* of its output: what the kernel has not taken yet */
};
void conn_info(const struct conn *conn, struct conn_info *out);

#endif
