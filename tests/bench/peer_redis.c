/*
 * Raw Redis lists, the floor: RPUSH; LMOVE to a list of the connection's own; LPOP from that.
 *
 * That is the least that keeps a message safe while somebody works on it. There is no deadline,
 * no retry and no dead letter here. LPOP rather than LREM, because it spares the body on the
 * wire and in the log: a floor should be low.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One bulk string of a command. */
static void
add_bulk(struct conn *c, const char *data, size_t len)
{
	out_format(c, "$%zu\r\n", len);
	out_add(c, data, len);
	out_add(c, "\r\n", 2);
}

static void
redis_setup(struct conn *c)
{
	op_begin(c, OP_SETUP, 1, 0);
	out_format(c, "*1\r\n$4\r\nPING\r\n");
}

static void
redis_send(struct conn *c, uint64_t seq, unsigned n)
{
	char body[BODY_BYTES];

	c->ops[op_begin(c, OP_SEND, 1, n)].seq = seq;
	out_format(c, "*%u\r\n$5\r\nRPUSH\r\n$4\r\nq%03u\r\n", n + 2, c->queue);
	for (unsigned i = 0; i < n; i++) {
		body_write(body, seq + i);
		add_bulk(c, body, sizeof(body));
	}
}

static void
redis_take(struct conn *c, unsigned max, bool wait)
{
	op_begin(c, OP_TAKE, max, max);
	for (unsigned i = 0; i < max; i++) {
		bool blocks = wait && i == 0;

		out_format(c,
			   "*%d\r\n%s\r\n$4\r\nq%03u\r\n$5\r\nr%04u\r\n$4\r\nLEFT\r\n$"
			   "5\r\nRIGHT\r\n%s",
			   blocks ? 6 : 5, blocks ? "$6\r\nBLMOVE" : "$5\r\nLMOVE", c->queue,
			   c->number, blocks ? "$1\r\n0\r\n" : "");
	}
}

static void
redis_ack(struct conn *c)
{
	char count[16];
	int len = snprintf(count, sizeof(count), "%u", c->n_tokens);

	op_begin(c, OP_ACK, 1, c->n_tokens);
	out_format(c, "*3\r\n$4\r\nLPOP\r\n$5\r\nr%04u\r\n", c->number);
	add_bulk(c, count, (size_t)len);
}

static void
redis_count(struct conn *c, unsigned queue)
{
	op_begin(c, OP_COUNT, 1, 0);
	out_format(c, "*2\r\n$4\r\nLLEN\r\n$4\r\nq%03u\r\n", queue);
}

/* The number after the type byte of a line, and where the next line begins; NULL: not there
 * yet. */
static const char *
line(const char *p, const char *end, long *number)
{
	const char *stop = memchr(p, '\n', (size_t)(end - p));

	if (!stop)
		return NULL;
	*number = strtol(p + 1, NULL, 10);
	return stop + 1;
}

static size_t
redis_reply(struct conn *c, const char *data, size_t len)
{
	const char *end = data + len, *p = data;
	struct op *op;
	long number, items = 1;
	unsigned full = 0; /* bulk strings that were there */

	if (!(p = line(p, end, &number)))
		return 0;
	if (data[0] == '*') {
		items = number > 0 ? number : 0;
		for (long i = 0; i < items; i++) {
			if (p == end || !(p = line(p, end, &number)))
				return 0;
			if (end - p < number + 2)
				return 0;
			p += number + 2;
			full++;
		}
	} else if (data[0] == '$' && number >= 0) {
		if (end - p < number + 2)
			return 0;
		p += number + 2;
		full = 1;
	} else if (data[0] == '-') {
		load_die("redis: %.*s", (int)(p - data), data);
	}

	op = op_first(c);
	switch (op->kind) {
	case OP_SEND:
		for (unsigned i = 0; i < op->n; i++)
			load_sent(op->seq + i, true);
		break;
	case OP_TAKE:
		if (full)
			load_message(c, "", 0, body_read(p - number - 2, (size_t)number));
		break;
	case OP_ACK:
		load_acked(op, full);
		break;
	case OP_COUNT:
		load_counted((uint64_t)number);
		break;
	case OP_NONE:
	case OP_SETUP:
	case OP_CONSUME:
		break;
	}
	op_reply(c, op);
	return (size_t)(p - data);
}

const struct peer peer_redis = {
	.name = "redis",
	.in_order = true,
	.setup = redis_setup,
	.send = redis_send,
	.take = redis_take,
	.ack = redis_ack,
	.count = redis_count,
	.reply = redis_reply,
};
