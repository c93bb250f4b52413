#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The load driver's inside: what load.c offers to the three peers and asks of them.
 *
 * load.c decides who sends, takes and acks when, and checks that every message came back once.
 * A peer turns that into bytes and its replies back into the calls load_sent() .. load_acked().
 * Every message is BODY_BYTES long and carries its sequence number.
 */

#define BODY_BYTES 256
#define TOKEN_MAX  96

enum op_kind {
	OP_NONE,
	OP_SETUP, /* once per connection; also what an idle connection did once */
	OP_SEND,
	OP_TAKE,
	OP_ACK,
	OP_COUNT,   /* how much a queue still holds */
	OP_CONSUME, /* messages will come unasked */
};

/* One thing asked of the peer; it may be several of the peer's commands. */
struct op {
	enum op_kind kind;
	unsigned replies; /* still to come */
	unsigned n;       /* messages sent, asked for, or acked */
	unsigned done;    /* of an ack: how many the peer confirmed */
	uint64_t seq;     /* of a send: the first message */
	uint64_t begun_ns;
};

enum role { CONTROL, IDLE, CLIENT, PRODUCER, CONSUMER };

struct token {
	char text[TOKEN_MAX];
	unsigned len;
};

struct bytes {
	char *data;
	size_t start, end, size; /* data[start..end) is what is there */
};

struct conn {
	int fd;
	enum role role;
	unsigned number; /* of this connection, from 0 */
	unsigned queue;
	struct bytes in, out;
	bool wants_write;

	struct op *ops; /* a ring for peers that answer in order, slots for the others */
	unsigned n_ops, first, next;

	struct token *tokens; /* taken and not yet acked by load.c */
	unsigned n_tokens, max_tokens;

	unsigned in_flight; /* sends of a producer, takes of a consumer */
	uint64_t begun_ns;  /* of a client's lifecycle */
};

struct peer {
	const char *name;
	bool in_order; /* replies come in the order of the requests */

	/* Run once on the control connection, may be NULL; announces one OP_SETUP. */
	void (*prepare)(struct conn *c, uint64_t capacity);
	void (*setup)(struct conn *c);
	/* Send `n` messages in one request, or as near to that as the peer has it. */
	void (*send)(struct conn *c, uint64_t seq, unsigned n);
	/* Take up to `max`; with `wait`, wait for the first. */
	void (*take)(struct conn *c, unsigned max, bool wait);
	/* Ack all of c->tokens. */
	void (*ack)(struct conn *c);
	/* Have messages pushed, at most `prefetch` unacked; NULL: it has no such thing. */
	void (*consume)(struct conn *c, unsigned prefetch);
	void (*count)(struct conn *c, unsigned queue);
	/* Digest one reply; how many bytes it was, 0 when it is not all there. */
	size_t (*reply)(struct conn *c, const char *data, size_t len);
};

extern const struct peer peer_coordd, peer_beanstalkd, peer_redis;

/* Say what is wrong and end the process with status 1. */
__attribute__((noreturn, format(printf, 1, 2))) void load_die(const char *format, ...);

/* For the peers: write a request. */
void out_add(struct conn *c, const void *data, size_t len);
__attribute__((format(printf, 2, 3))) void out_format(struct conn *c, const char *format, ...);
/* Space for `len` bytes that the caller fills in before anything else is added. */
char *out_space(struct conn *c, size_t len);

/* Remember what was asked; the slot's number is free for the peer's use as a request id. */
unsigned op_begin(struct conn *c, enum op_kind kind, unsigned replies, unsigned n);
/* The op that the next reply of a peer with `in_order` belongs to. */
struct op *op_first(struct conn *c);
/* One reply of `op` is there; after the last, load.c goes on. */
void op_reply(struct conn *c, struct op *op);

/* What replies say. */
void load_sent(uint64_t seq, bool accepted);
void load_message(struct conn *c, const char *token, size_t len, uint64_t seq);
/* Of the messages that `op` acks, `n` more are. */
void load_acked(struct op *op, unsigned n);
void load_counted(uint64_t left);

/* A body of BODY_BYTES that carries `seq`, and the way back. */
void body_write(char *body, uint64_t seq);
uint64_t body_read(const char *body, size_t len);

#endif
