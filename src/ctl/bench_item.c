/* The messages of a benchmark: one template, in which a few bytes are patched for each. */
#include "ctl/bench_item.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void
bench_digits(char *to, uint64_t value, unsigned base, int digits)
{
	while (digits--) {
		to[digits] = "0123456789abcdef"[value % base];
		value /= base;
	}
}

static void
put_be(char *to, uint64_t value, int bytes)
{
	while (bytes--) {
		to[bytes] = (char)value;
		value >>= 8;
	}
}

/* Text that no compressor of a store makes small. */
static void
body_write(char *to, size_t n)
{
	uint64_t x = UINT64_C(88172645463325252);

	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		to[i] = (char)('0' + x % 64);
	}
}

/* Bytes of a payload around its body, without the body's header. */
enum { PAYLOAD_AROUND = 1 + 7 + 9 + 9 + 5 + 5 };

void
bench_item_make(struct bench_item *item, unsigned size, const char id[9])
{
	size_t header, body;
	msgpack_packer pk;
	char instance[16], *text;

	body = size > PAYLOAD_AROUND + 1 ? size - PAYLOAD_AROUND - 1 : 0;
	header = body < 32 ? 0 : body < 256 + 1 ? 1 : body < 65536 + 2 ? 2 : 4;
	body -= header < body ? header : body;
	text = xcalloc(body + 1, 1);
	body_write(text, body);

	snprintf(instance, sizeof(instance), "%s-00000", id);
	msgpack_sbuffer_init(&item->bytes);
	msgpack_packer_init(&pk, &item->bytes, msgpack_sbuffer_write);
	coord_pack_str(&pk, "recipient");
	item->at_agent = item->bytes.size;
	coord_pack_agent(&pk, BENCH_TYPE, instance);
	item->at_queue = item->bytes.size - 5;
	item->at_message_key = item->bytes.size;
	coord_pack_str(&pk, "message");
	item->at_message = item->bytes.size;
	msgpack_pack_map(&pk, 4);
	coord_pack_str(&pk, "message_id");
	coord_pack_str(&pk, "bench-00000000-0000000000000000");
	item->at_id = item->bytes.size - 16;
	memcpy(item->bytes.data + item->at_id - 9, id, 8);
	coord_pack_str(&pk, "message_type");
	coord_pack_str(&pk, "event");
	coord_pack_str(&pk, "priority");
	item->at_priority = item->bytes.size;
	msgpack_pack_int(&pk, 5);
	coord_pack_str(&pk, "payload");
	msgpack_pack_map(&pk, 3);
	coord_pack_str(&pk, "number");
	msgpack_pack_fix_uint64(&pk, 0);
	item->at_number = item->bytes.size - 8;
	coord_pack_str(&pk, "producer");
	msgpack_pack_fix_uint32(&pk, 0);
	item->at_producer = item->bytes.size - 4;
	coord_pack_str(&pk, "body");
	msgpack_pack_str(&pk, body);
	item->at_body = item->bytes.size;
	item->body_n = body;
	msgpack_pack_str_body(&pk, text, body);
	free(text);
}

void
bench_item_done(struct bench_item *item)
{
	msgpack_sbuffer_destroy(&item->bytes);
}

void
bench_item_patch(struct bench_item *item, unsigned producer, unsigned queue, unsigned priority,
		 uint64_t number)
{
	char *to = item->bytes.data;

	bench_digits(to + item->at_queue, queue, 10, 5);
	bench_digits(to + item->at_id, number, 16, 16);
	to[item->at_priority] = (char)(priority * 4 + 1); /* 1, 5, 9 */
	put_be(to + item->at_number, number, 8);
	put_be(to + item->at_producer, producer, 4);
}

struct str
bench_item_agent(struct bench_item *item, unsigned queue)
{
	bench_digits(item->bytes.data + item->at_queue, queue, 10, 5);
	return (struct str){ item->bytes.data + item->at_agent,
			     item->at_message_key - item->at_agent };
}

struct str
bench_item_message(const struct bench_item *item)
{
	return (struct str){ item->bytes.data + item->at_message,
			     item->bytes.size - item->at_message };
}

struct str
bench_item_body(const struct bench_item *item)
{
	return (struct str){ item->bytes.data + item->at_body, item->body_n };
}
