/*
 * coordd, from the protocol's text alone: requests are templates in which numbers are patched,
 * replies are walked in place. Nothing of the broker's own code is used, so a mistake in its
 * reading of MessagePack cannot hide here.
 */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Seconds a receiver parks, and a message stays reserved: far more than a run takes. */
#define WAIT       10
#define VISIBILITY 120

/* Octal, because a letter behind a hexadecimal escape may be taken for a digit of it. */
#define MAP      0x80
#define ARRAY    0x90
#define AGENT_OF "\202\244type\245bench\250instance\244q"
#define SENDER   "\246sender\202\244type\245bench\250instance\247default"

/*
 * What a message is in a send: these pieces with the queue's 3 digits, the 36 bytes of the id,
 * the sequence number and 235 bytes of body behind them. The payload, as encoded, is BODY_BYTES
 * long.
 */
#define ITEM_A "\251recipient" AGENT_OF
#define ITEM_B "\247message\204\252message_id\331\044"
#define ITEM_C "\254message_type\247request\250priority\005\247payload\202\243seq\317"
#define ITEM_D "\244body\331\353"
#define BODY   235

enum {
	AT_QUEUE = sizeof(ITEM_A) - 1,
	AT_ID = AT_QUEUE + 3 + sizeof(ITEM_B) - 1,
	AT_ID_SEQ = AT_ID + 24,
	AT_SEQ = AT_ID + 36 + sizeof(ITEM_C) - 1,
	AT_BODY = AT_SEQ + 8 + sizeof(ITEM_D) - 1,
	ITEM_BYTES = AT_BODY + BODY,
};

static char item_template[ITEM_BYTES];

static void
template_make(void)
{
	struct timespec now;
	uint64_t us;
	char run[32], body[BODY_BYTES];
	char *p = item_template;

	/* Ids must differ from those of an earlier run, or the broker takes them for repeats.
	 */
	clock_gettime(CLOCK_REALTIME, &now);
	us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
	/* A UUID, as most clients take: the run, then the sequence number in its last 12 digits. */
	snprintf(run, sizeof(run), "%08x-%04x-4%03x-8000-", (unsigned)(us >> 28 & 0xffffffff),
		 (unsigned)(us >> 12 & 0xffff), (unsigned)(us & 0xfff));
	body_write(body, 0);
	memcpy(p, ITEM_A, sizeof(ITEM_A) - 1);
	memcpy(p + AT_QUEUE + 3, ITEM_B, sizeof(ITEM_B) - 1);
	memcpy(p + AT_ID, run, 24);
	memcpy(p + AT_ID + 36, ITEM_C, sizeof(ITEM_C) - 1);
	memcpy(p + AT_SEQ + 8, ITEM_D, sizeof(ITEM_D) - 1);
	memcpy(p + AT_BODY, body + 8, BODY);
}

static void
put_be(char *p, uint64_t value, int bytes)
{
	while (bytes--) {
		p[bytes] = (char)value;
		value >>= 8;
	}
}

static void
put_hex(char *p, uint64_t value, int digits)
{
	while (digits--) {
		p[digits] = "0123456789abcdef"[value & 15];
		value >>= 4;
	}
}

static void
put_queue(char *p, unsigned queue)
{
	p[0] = (char)('0' + queue / 100);
	p[1] = (char)('0' + queue / 10 % 10);
	p[2] = (char)('0' + queue % 10);
}

#define ADD(c, literal) out_add((c), (literal), sizeof(literal) - 1)

static void
add_byte(struct conn *c, unsigned byte)
{
	*out_space(c, 1) = (char)byte;
}

static void
add_array(struct conn *c, unsigned n)
{
	char *p = out_space(c, 3);

	p[0] = (char)0xdc;
	put_be(p + 1, n, 2);
}

/* The request up to the head of its one parameter map; the slot of the op is the msgid. */
static void
add_call(struct conn *c, unsigned msgid, const char *method, unsigned fields)
{
	char *p;

	ADD(c, "\224\000\316");
	p = out_space(c, 4);
	put_be(p, msgid, 4);
	add_byte(c, 0xa0 + (unsigned)strlen(method));
	out_add(c, method, strlen(method));
	add_byte(c, ARRAY + 1);
	add_byte(c, MAP + fields);
}

static void
add_agent(struct conn *c, unsigned queue)
{
	ADD(c, "\245agent" AGENT_OF);
	put_queue(out_space(c, 3), queue);
}

static void
add_item(struct conn *c, uint64_t seq)
{
	char *p = out_space(c, ITEM_BYTES);

	memcpy(p, item_template, ITEM_BYTES);
	put_queue(p + AT_QUEUE, c->queue);
	put_hex(p + AT_ID_SEQ, seq, 12);
	put_be(p + AT_SEQ, seq, 8);
}

static void
coordd_prepare(struct conn *c, uint64_t capacity)
{
	template_make();
	add_call(c, op_begin(c, OP_SETUP, 1, 0), "configure", 1);
	ADD(c, "\252queue_size\316");
	put_be(out_space(c, 4), capacity, 4);
}

static void
coordd_setup(struct conn *c)
{
	add_call(c, op_begin(c, OP_SETUP, 1, 0), "ping", 0);
}

static void
coordd_send(struct conn *c, uint64_t seq, unsigned n)
{
	unsigned slot = op_begin(c, OP_SEND, 1, n);

	c->ops[slot].seq = seq;
	if (n == 1) {
		add_call(c, slot, "send", 3);
		ADD(c, SENDER);
		add_item(c, seq);
		return;
	}
	add_call(c, slot, "send_batch", 2);
	ADD(c, SENDER "\250messages");
	add_array(c, n);
	for (unsigned i = 0; i < n; i++) {
		add_byte(c, MAP + 2);
		add_item(c, seq + i);
	}
}

static void
coordd_take(struct conn *c, unsigned max, bool wait)
{
	unsigned slot = op_begin(c, OP_TAKE, 1, max);

	add_call(c, slot, max == 1 ? "receive" : "receive_batch", max == 1 ? 3 : 4);
	add_agent(c, c->queue);
	ADD(c, "\262visibility_timeout");
	add_byte(c, VISIBILITY);
	ADD(c, "\244wait");
	add_byte(c, wait ? WAIT : 0);
	if (max > 1) {
		ADD(c, "\243max\315");
		put_be(out_space(c, 2), max, 2);
	}
}

static void
add_token(struct conn *c, const struct token *token)
{
	add_byte(c, 0xd9);
	add_byte(c, token->len);
	out_add(c, token->text, token->len);
}

static void
coordd_ack(struct conn *c)
{
	unsigned slot = op_begin(c, OP_ACK, 1, c->n_tokens);

	add_call(c, slot, c->n_tokens == 1 ? "ack" : "ack_batch", 2);
	add_agent(c, c->queue);
	if (c->n_tokens == 1) {
		ADD(c, "\245token");
		add_token(c, &c->tokens[0]);
		return;
	}
	ADD(c, "\246tokens");
	add_array(c, c->n_tokens);
	for (unsigned i = 0; i < c->n_tokens; i++)
		add_token(c, &c->tokens[i]);
}

static void
coordd_consume(struct conn *c, unsigned prefetch)
{
	add_call(c, op_begin(c, OP_CONSUME, 1, 0), "consume", 4);
	add_agent(c, c->queue);
	ADD(c, "\250prefetch\315");
	put_be(out_space(c, 2), prefetch, 2);
	ADD(c, "\262visibility_timeout");
	add_byte(c, VISIBILITY);
	ADD(c, "\245lease\247timeout");
}

static void
coordd_count(struct conn *c, unsigned queue)
{
	add_call(c, op_begin(c, OP_COUNT, 1, 0), "queue_stats", 1);
	add_agent(c, queue);
}

/* One MessagePack value, seen from its first byte. */
struct head {
	enum { NIL, TRUE, FALSE, NUMBER, FLOAT, TEXT, LIST, PAIRS, EXT } type;
	uint64_t value; /* the number, or the count of bytes or elements */
	size_t bytes;   /* of the head itself */
};

static uint64_t
be(const uint8_t *p, size_t bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | *p++;
	return value;
}

/* A row of the format's table for 0xc0 to 0xdf: type, bytes of length or number, fixed value.
 */
static const struct {
	uint8_t type, bytes, fixed;
} wide[32] = {
	[0x00] = { NIL, 0, 0 },    [0x02] = { FALSE, 0, 0 },  [0x03] = { TRUE, 0, 0 },
	[0x04] = { TEXT, 1, 0 },   [0x05] = { TEXT, 2, 0 },   [0x06] = { TEXT, 4, 0 },
	[0x07] = { EXT, 1, 0 },    [0x08] = { EXT, 2, 0 },    [0x09] = { EXT, 4, 0 },
	[0x0a] = { FLOAT, 4, 0 },  [0x0b] = { FLOAT, 8, 0 },  [0x0c] = { NUMBER, 1, 0 },
	[0x0d] = { NUMBER, 2, 0 }, [0x0e] = { NUMBER, 4, 0 }, [0x0f] = { NUMBER, 8, 0 },
	[0x10] = { NUMBER, 1, 0 }, [0x11] = { NUMBER, 2, 0 }, [0x12] = { NUMBER, 4, 0 },
	[0x13] = { NUMBER, 8, 0 }, [0x14] = { EXT, 0, 1 },    [0x15] = { EXT, 0, 2 },
	[0x16] = { EXT, 0, 4 },    [0x17] = { EXT, 0, 8 },    [0x18] = { EXT, 0, 16 },
	[0x19] = { TEXT, 1, 0 },   [0x1a] = { TEXT, 2, 0 },   [0x1b] = { TEXT, 4, 0 },
	[0x1c] = { LIST, 2, 0 },   [0x1d] = { LIST, 4, 0 },   [0x1e] = { PAIRS, 2, 0 },
	[0x1f] = { PAIRS, 4, 0 },
};

/* False when the head is not all there. */
static bool
head_read(struct head *h, const uint8_t *p, const uint8_t *end)
{
	uint8_t byte;

	if (p >= end)
		return false;
	byte = *p;
	h->bytes = 1;
	if (byte < 0x80 || byte >= 0xe0) {
		h->type = NUMBER;
		h->value = byte;
	} else if (byte < 0x90) {
		h->type = PAIRS;
		h->value = byte & 15;
	} else if (byte < 0xa0) {
		h->type = LIST;
		h->value = byte & 15;
	} else if (byte < 0xc0) {
		h->type = TEXT;
		h->value = byte & 31;
	} else {
		h->type = wide[byte & 31].type;
		h->bytes = 1U + wide[byte & 31].bytes;
		if ((size_t)(end - p) < h->bytes)
			return false;
		h->value = wide[byte & 31].fixed;
		if (wide[byte & 31].bytes)
			h->value = be(p + 1, wide[byte & 31].bytes);
	}
	return true;
}

/* Where the next value begins; NULL when this one is not all there. */
static const uint8_t *
skip(const uint8_t *p, const uint8_t *end)
{
	uint64_t values = 1;
	struct head h;

	while (values--) {
		if (!head_read(&h, p, end))
			return NULL;
		p += h.bytes;
		if (h.type == LIST)
			values += h.value;
		else if (h.type == PAIRS)
			values += 2 * h.value;
		else if (h.type == TEXT || h.type == EXT) {
			uint64_t bytes = h.value + (h.type == EXT); /* and the type of an ext */

			if ((uint64_t)(end - p) < bytes)
				return NULL;
			p += bytes;
		}
	}
	return p;
}

/* What a map that is all there holds under `key`, NULL when it has no such key. */
static const uint8_t *
find(const uint8_t *map, const uint8_t *end, const char *key)
{
	struct head h;
	uint64_t pairs;

	if (!map || !head_read(&h, map, end) || h.type != PAIRS)
		return NULL;
	pairs = h.value;
	map += h.bytes;
	while (pairs--) {
		if (!head_read(&h, map, end))
			return NULL;
		if (h.type == TEXT && h.value == strlen(key) &&
		    !memcmp(map + h.bytes, key, h.value))
			return map + h.bytes + h.value;
		map = skip(skip(map, end), end);
	}
	return NULL;
}

/* The head of what `map` holds under `key`, which must be there and of that type. */
static struct head
need(const uint8_t *map, const uint8_t *end, const char *key, int type, const uint8_t **at)
{
	struct head h = { .type = NIL };

	*at = find(map, end, key);
	if (!*at || !head_read(&h, *at, end) || (int)h.type != type)
		load_die("coordd: an answer without `%s`", key);
	return h;
}

/* ReceivedMessage */
static void
on_received(struct conn *c, const uint8_t *p, const uint8_t *end)
{
	const uint8_t *token, *message, *payload, *seq;
	struct head h = need(p, end, "token", TEXT, &token);

	message = find(find(p, end, "queue_message"), end, "message");
	need(message, end, "payload", PAIRS, &payload);
	load_message(c, (const char *)token + h.bytes, h.value,
		     need(payload, end, "seq", NUMBER, &seq).value);
}

static void
on_result(struct conn *c, struct op *op, const uint8_t *p, const uint8_t *end)
{
	const uint8_t *at;
	struct head h;

	if (!head_read(&h, p, end))
		load_die("coordd: an empty result");
	switch (op->kind) {
	case OP_SEND: /* MessageResult, or an array of it */
		if (h.type == LIST && h.value != op->n)
			load_die("coordd: %u results for %u messages", (unsigned)h.value,
				 op->n);
		if (h.type == LIST)
			p += h.bytes;
		for (unsigned i = 0; i < op->n; i++, p = skip(p, end)) {
			at = find(p, end, "delivered");
			load_sent(op->seq + i, at && *at == 0xc3 && !find(p, end, "duplicate"));
		}
		break;
	case OP_TAKE: /* ReceivedMessage or nil, or an array of it */
		if (h.type == PAIRS)
			on_received(c, p, end);
		if (h.type == LIST) {
			p += h.bytes;
			for (uint64_t i = 0; i < h.value; i++, p = skip(p, end))
				on_received(c, p, end);
		}
		break;
	case OP_ACK: /* bool, or an array of it */
		if (h.type != LIST)
			load_acked(op, *p == 0xc3);
		for (uint64_t i = 0; h.type == LIST && i < h.value; i++)
			load_acked(op, p[h.bytes + i] == 0xc3);
		break;
	case OP_COUNT:
		load_counted(need(p, end, "size", NUMBER, &at).value +
			     need(p, end, "dead", NUMBER, &at).value);
		break;
	case OP_NONE:
	case OP_SETUP:
	case OP_CONSUME:
		break;
	}
}

/* [2, "message", [{a ReceivedMessage}]] */
static void
on_notification(struct conn *c, const uint8_t *frame, const uint8_t *end)
{
	const uint8_t *params = skip(frame + 2, end);

	if (params && *params == ARRAY + 1)
		on_received(c, params + 1, end);
}

static size_t
coordd_reply(struct conn *c, const char *data, size_t len)
{
	const uint8_t *frame = (const uint8_t *)data, *p = frame + 2, *end;
	const uint8_t *text;
	struct head id, h;

	end = skip(frame, frame + len);
	if (!end)
		return 0;
	if (frame[0] == ARRAY + 3 && frame[1] == 2) {
		on_notification(c, frame, end);
		return (size_t)(end - frame);
	}
	if (end - frame < 5 || frame[0] != ARRAY + 4 || frame[1] != 1 ||
	    !head_read(&id, p, end))
		load_die("coordd: a frame that is no response");
	p += id.bytes;
	if (*p != 0xc0) {
		h = need(p, end, "message", TEXT, &text);
		load_die("coordd: %.*s", (int)h.value, (const char *)text + h.bytes);
	}
	if (id.value >= c->n_ops || c->ops[id.value].kind == OP_NONE)
		load_die("coordd: a response to nothing, msgid %u", (unsigned)id.value);
	on_result(c, &c->ops[id.value], p + 1, end);
	op_reply(c, &c->ops[id.value]);
	return (size_t)(end - frame);
}

const struct peer peer_coordd = {
	.name = "coordd",
	.prepare = coordd_prepare,
	.setup = coordd_setup,
	.send = coordd_send,
	.take = coordd_take,
	.ack = coordd_ack,
	.consume = coordd_consume,
	.count = coordd_count,
	.reply = coordd_reply,
};
