#ifndef COORDD_PROTO_HEAD_H
#define COORDD_PROTO_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/mp.h"

/*
 * The head of a MessagePack value: its first bytes, which say what it is and what follows. The
 * one place that knows the format's codes when reading; the scanner and the cursor both use it.
 */
struct head {
	enum mp_type type; /* MP_NONE for 0xc1, which is no MessagePack */
	unsigned bytes;    /* of the head; nil, bools and numbers are nothing but head */
	uint32_t arg;      /* str, bin, ext: bytes that follow; array: elements; map: pairs */
};

static inline uint64_t
head_be(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | *p++;
	return v;
}

/* 0xc0 to 0xdf: the type, length of the head, of the length in it, or the length it stands for.
 */
static const struct {
	uint8_t type, bytes, width, body;
} head_forms[32] = {
	{ MP_NIL, 1, 0, 0 },  { MP_NONE, 1, 0, 0 },  { MP_BOOL, 1, 0, 0 },
	{ MP_BOOL, 1, 0, 0 }, { MP_BIN, 2, 1, 0 },   { MP_BIN, 3, 2, 0 },
	{ MP_BIN, 5, 4, 0 },  { MP_EXT, 3, 1, 0 },   { MP_EXT, 4, 2, 0 },
	{ MP_EXT, 6, 4, 0 },  { MP_FLOAT, 5, 0, 0 }, { MP_FLOAT, 9, 0, 0 },
	{ MP_INT, 2, 0, 0 },  { MP_INT, 3, 0, 0 },   { MP_INT, 5, 0, 0 },
	{ MP_INT, 9, 0, 0 },  { MP_INT, 2, 0, 0 },   { MP_INT, 3, 0, 0 },
	{ MP_INT, 5, 0, 0 },  { MP_INT, 9, 0, 0 },   { MP_EXT, 2, 0, 1 },
	{ MP_EXT, 2, 0, 2 },  { MP_EXT, 2, 0, 4 },   { MP_EXT, 2, 0, 8 },
	{ MP_EXT, 2, 0, 16 }, { MP_STR, 2, 1, 0 },   { MP_STR, 3, 2, 0 },
	{ MP_STR, 5, 4, 0 },  { MP_ARRAY, 3, 2, 0 }, { MP_ARRAY, 5, 4, 0 },
	{ MP_MAP, 3, 2, 0 },  { MP_MAP, 5, 4, 0 },
};

/* Read the head at `p`, of which n >= 1 bytes are there. False: it is longer; `arg` is not set.
 */
static inline bool
head_read(struct head *h, const uint8_t *p, size_t n)
{
	uint8_t c = *p;

	h->bytes = 1;
	if (c < 0x80 || c >= 0xe0) {
		h->type = MP_INT;
		h->arg = 0;
	} else if (c < 0xa0) {
		h->type = c < 0x90 ? MP_MAP : MP_ARRAY;
		h->arg = c & 15;
	} else if (c < 0xc0) {
		h->type = MP_STR;
		h->arg = c & 31;
	} else {
		h->type = (enum mp_type)head_forms[c - 0xc0].type;
		h->bytes = head_forms[c - 0xc0].bytes;
		if (n < h->bytes)
			return false;
		h->arg = head_forms[c - 0xc0].body;
		if (head_forms[c - 0xc0].width)
			h->arg = (uint32_t)head_be(p + 1, head_forms[c - 0xc0].width);
	}
	return true;
}

/* How many bytes of a value follow its head, before the values inside it. */
static inline uint32_t
head_body(const struct head *h)
{
	return h->type == MP_STR || h->type == MP_BIN || h->type == MP_EXT ? h->arg : 0;
}

/* How many values follow inside it. */
static inline uint64_t
head_items(const struct head *h)
{
	return h->type == MP_ARRAY ? h->arg : h->type == MP_MAP ? (uint64_t)h->arg * 2 : 0;
}

#endif
