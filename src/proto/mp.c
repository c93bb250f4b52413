#include "proto/mp.h"

#include <endian.h>

#include "proto/frame.h"
#include "proto/head.h"

/* The head of the next value. False at the end, and where the bytes were not proven after all.
 */
static inline bool
next(const struct mp *m, struct head *h)
{
	size_t n = (size_t)(m->end - m->p);

	return n && head_read(h, m->p, n) && head_body(h) <= n - h->bytes;
}

enum mp_type
mp_type(const struct mp *m)
{
	struct head h;

	return next(m, &h) ? h.type : MP_NONE;
}

bool
mp_read_bool(struct mp *m, bool *out)
{
	if (m->p == m->end || (*m->p & 0xfe) != 0xc2)
		return false;
	*out = *m->p++ & 1;
	return true;
}

/* An integer's 64 bits, and whether they are of a negative number. */
static bool
next_int(const struct mp *m, struct head *h, uint64_t *bits, bool *is_negative)
{
	uint8_t c;

	if (!next(m, h) || h->type != MP_INT)
		return false;
	c = *m->p;
	if (h->bytes == 1) {
		*bits = (uint64_t)(int64_t)(int8_t)c;
		*is_negative = c >= 0xe0;
		return true;
	}
	*bits = head_be(m->p + 1, h->bytes - 1);
	*is_negative = c >= 0xd0 && m->p[1] & 0x80;
	if (*is_negative && h->bytes < 9)
		*bits |= UINT64_MAX << (h->bytes - 1) * 8;
	return true;
}

bool
mp_read_long_uint(struct mp *m, uint64_t *out)
{
	struct head h;
	uint64_t bits;
	bool is_negative;

	if (m->end - m->p >= 5 && *m->p == 0xce) { /* what most clients take for a msgid */
		uint32_t be;

		memcpy(&be, m->p + 1, sizeof(be));
		*out = be32toh(be);
		m->p += 5;
		return true;
	}
	if (!next_int(m, &h, &bits, &is_negative) || is_negative)
		return false;
	*out = bits;
	m->p += h.bytes;
	return true;
}

bool
mp_read_int(struct mp *m, int64_t *out)
{
	struct head h;
	uint64_t bits;
	bool is_negative;

	if (!next_int(m, &h, &bits, &is_negative) || (!is_negative && bits > INT64_MAX))
		return false;
	*out = (int64_t)bits;
	m->p += h.bytes;
	return true;
}

bool
mp_read_double(struct mp *m, double *out)
{
	struct head h;
	uint64_t bits;
	bool is_negative;

	if (next_int(m, &h, &bits, &is_negative)) {
		*out = is_negative ? (double)(int64_t)bits : (double)bits;
	} else if (next(m, &h) && h.type == MP_FLOAT) {
		bits = head_be(m->p + 1, h.bytes - 1);
		if (h.bytes == 5) {
			uint32_t half = (uint32_t)bits;
			float f;

			memcpy(&f, &half, sizeof(f));
			*out = (double)f;
		} else {
			memcpy(out, &bits, sizeof(*out));
		}
	} else {
		return false;
	}
	m->p += h.bytes;
	return true;
}

bool
mp_read_long_str(struct mp *m, struct str *out)
{
	struct head h;

	if (!next(m, &h) || (h.type != MP_STR && h.type != MP_BIN))
		return false;
	*out = (struct str){ (const char *)m->p + h.bytes, h.arg };
	m->p += h.bytes + h.arg;
	return true;
}

bool
mp_read_long_array(struct mp *m, uint32_t *n)
{
	struct head h;

	if (!next(m, &h) || h.type != MP_ARRAY)
		return false;
	*n = h.arg;
	m->p += h.bytes;
	return true;
}

bool
mp_read_long_map(struct mp *m, uint32_t *n)
{
	struct head h;

	if (!next(m, &h) || (h.type != MP_MAP && (h.type != MP_ARRAY || h.arg)))
		return false;
	*n = h.arg;
	m->p += h.bytes;
	return true;
}

/* Counting what is still to come needs no stack: how it is nested does not matter here. */
struct str
mp_skip(struct mp *m)
{
	const uint8_t *start = m->p;
	uint64_t left = 1;
	struct head h;

	while (left) {
		if (!next(m, &h)) {
			m->p = m->end;
			break;
		}
		left += head_items(&h) - 1;
		m->p += h.bytes + head_body(&h);
	}
	return (struct str){ (const char *)start, (size_t)(m->p - start) };
}

const char *
mp_skip_portable(struct mp *m, unsigned max_depth, bool any_content)
{
	/* Values still to come in each open container; a map's keys are where that is even. */
	uint64_t left[FRAME_MAX_DEPTH], items;
	bool is_map[FRAME_MAX_DEPTH];
	struct mp at = *m;
	unsigned depth = 0;
	struct head h;

	if (max_depth > FRAME_MAX_DEPTH)
		max_depth = FRAME_MAX_DEPTH;
	do {
		if (!next(&at, &h))
			return "is no complete value";
		if (!any_content) {
			/* `bin` as a key is no string to everyone: JavaScript's decoder throws.
			 */
			if (h.type != MP_STR && depth && is_map[depth - 1] &&
			    !(left[depth - 1] & 1))
				return "has a key that is no string";
			if (h.type == MP_EXT)
				return "holds an ext type";
			if (h.type == MP_STR &&
			    !str_is_utf8((struct str){ (const char *)at.p + h.bytes, h.arg }))
				return "holds a string that is no valid UTF-8";
		}
		at.p += h.bytes + head_body(&h);

		if (h.type == MP_ARRAY || h.type == MP_MAP) {
			if (depth == max_depth)
				return "is nested too deep";
			items = head_items(&h);
			if (items) {
				left[depth] = items;
				is_map[depth++] = h.type == MP_MAP;
				continue;
			}
		}
		while (depth && --left[depth - 1] == 0)
			depth--;
	} while (depth);
	*m = at;
	return NULL;
}

const char *
mp_portable(struct str s, unsigned max_depth, bool any_content)
{
	struct mp m = mp_of(s);

	return mp_skip_portable(&m, max_depth, any_content);
}

char *
mp_write_long_uint(char *to, uint64_t v)
{
	unsigned power = v < 0x100 ? 0 : v < 0x10000 ? 1 : v < 0x100000000 ? 2 : 3;
	uint64_t be = htobe64(v << (64 - (8u << power)));

	*to++ = (char)(0xcc + power);
	memcpy(to, &be, sizeof(be)); /* there is room for it, if not need */
	return to + (1u << power);
}

char *
mp_write_long_map(char *to, uint32_t n)
{
	unsigned bytes = n < 0x10000 ? 2 : 4;

	*to++ = (char)(bytes == 2 ? 0xde : 0xdf);
	for (unsigned i = bytes; i--; n >>= 8)
		to[i] = (char)n;
	return to + bytes;
}

char *
mp_write_long_str(char *to, struct str s)
{
	unsigned bytes = s.n < 0x100 ? 1 : s.n < 0x10000 ? 2 : 4;
	size_t n = s.n;

	*to++ = (char)(0xd9 + __builtin_ctz(bytes));
	for (unsigned i = bytes; i--; n >>= 8)
		to[i] = (char)n;
	memcpy(to + bytes, s.p, s.n);
	return to + bytes + s.n;
}
