/*
 * beanstalkd: put, reserve, delete; a queue is a tube.
 *
 * It has no batches, so a batch is that many commands in one write. A take of several is one
 * `reserve`, which waits, and behind it `reserve-with-timeout 0` for whatever else is there:
 * the best the protocol has, and the connection never waits with deletes stuck behind the wait.
 */
#include "load.h"

#include <stdlib.h>
#include <string.h>

/* Seconds a job may stay reserved; far more than a run takes, so nothing is ever taken back. */
#define TTR 600

static void
beanstalkd_setup(struct conn *c)
{
	op_begin(c, OP_SETUP, 3, 0);
	out_format(c, "use q%u\r\nwatch q%u\r\nignore default\r\n", c->queue, c->queue);
}

static void
beanstalkd_send(struct conn *c, uint64_t seq, unsigned n)
{
	c->ops[op_begin(c, OP_SEND, n, n)].seq = seq;
	for (unsigned i = 0; i < n; i++) {
		out_format(c, "put 5 0 %d %d\r\n", TTR, BODY_BYTES);
		body_write(out_space(c, BODY_BYTES), seq + i);
		out_add(c, "\r\n", 2);
	}
}

static void
beanstalkd_take(struct conn *c, unsigned max, bool wait)
{
	op_begin(c, OP_TAKE, max, max);
	for (unsigned i = 0; i < max; i++)
		out_format(c, "%s\r\n", wait && i == 0 ? "reserve" : "reserve-with-timeout 0");
}

static void
beanstalkd_ack(struct conn *c)
{
	op_begin(c, OP_ACK, c->n_tokens, c->n_tokens);
	for (unsigned i = 0; i < c->n_tokens; i++)
		out_format(c, "delete %.*s\r\n", (int)c->tokens[i].len, c->tokens[i].text);
}

static void
beanstalkd_count(struct conn *c, unsigned queue)
{
	op_begin(c, OP_COUNT, 1, 0);
	out_format(c, "stats-tube q%u\r\n", queue);
}

static bool
starts_with(const char *line, const char *word)
{
	return strncmp(line, word, strlen(word)) == 0;
}

/* The number behind `name: ` in the YAML of a stats reply. */
static uint64_t
stat_of(const char *yaml, size_t len, const char *name)
{
	const char *at = memmem(yaml, len, name, strlen(name));

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static size_t
beanstalkd_reply(struct conn *c, const char *data, size_t len)
{
	const char *stop = memchr(data, '\n', len);
	char text[128];
	char *token = text + strlen("RESERVED "), *rest = token;
	size_t used, body = 0;
	struct op *op;

	if (!stop)
		return 0;
	used = (size_t)(stop - data) + 1;
	if (used >= sizeof(text))
		load_die("beanstalkd: a line of %zu bytes", used);
	memcpy(text, data, used);
	text[used] = '\0';

	if (starts_with(text, "RESERVED ")) {
		strtoull(token, &rest, 10);
		body = strtoull(rest, NULL, 10) + 2;
	} else if (starts_with(text, "OK ")) {
		body = strtoull(text + 3, NULL, 10) + 2;
	}
	if (len < used + body)
		return 0;

	op = op_first(c);
	switch (op->kind) {
	case OP_SEND:
		load_sent(op->seq + op->n - op->replies, starts_with(text, "INSERTED "));
		break;
	case OP_TAKE:
		if (body)
			load_message(c, token, (size_t)(rest - token),
				     body_read(data + used, body - 2));
		else if (!starts_with(text, "TIMED_OUT"))
			load_die("beanstalkd: %s", text);
		break;
	case OP_ACK:
		load_acked(op, starts_with(text, "DELETED"));
		break;
	case OP_COUNT:
		load_counted(stat_of(data + used, body, "current-jobs-ready: ") +
			     stat_of(data + used, body, "current-jobs-reserved: "));
		break;
	case OP_SETUP:
	case OP_CONSUME:
		if (!starts_with(text, "USING") && !starts_with(text, "WATCHING"))
			load_die("beanstalkd: %s", text);
		break;
	case OP_NONE:
		break;
	}
	op_reply(c, op);
	return used + body;
}

const struct peer peer_beanstalkd = {
	.name = "beanstalkd",
	.in_order = true,
	.setup = beanstalkd_setup,
	.send = beanstalkd_send,
	.take = beanstalkd_take,
	.ack = beanstalkd_ack,
	.count = beanstalkd_count,
	.reply = beanstalkd_reply,
};
