#ifndef COORDD_PROTO_MP_H
#define COORDD_PROTO_MP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

/*
 * Reading and writing single MessagePack values. Reading is over bytes that frame_scan() has
 * proven complete, so a cursor never runs past its end; each mp_read_*() returns false and
 * leaves the cursor alone when the next value is of another type.
 */
struct mp {
	const uint8_t *p, *end;
};

enum mp_type {
	MP_NONE,
	MP_NIL,
	MP_BOOL,
	MP_INT,
	MP_FLOAT,
	MP_STR,
	MP_BIN,
	MP_ARRAY,
	MP_MAP,
	MP_EXT
};

enum mp_type mp_type(const struct mp *m); /* of the next value; MP_NONE at the end */
bool mp_read_bool(struct mp *m, bool *out);
bool mp_read_int(struct mp *m, int64_t *out);   /* what fits in 64 signed bits */
bool mp_read_double(struct mp *m, double *out); /* integers and both floats */
/* The next value whole, as raw bytes. */
struct str mp_skip(struct mp *m);

/* Nearly every value that we read has one of the short forms: those are read in place. */
bool mp_read_long_uint(struct mp *m, uint64_t *out);
bool mp_read_long_str(struct mp *m, struct str *out);
bool mp_read_long_array(struct mp *m, uint32_t *n);
bool mp_read_long_map(struct mp *m, uint32_t *n);

static inline bool
mp_read_nil(struct mp *m)
{
	if (m->p == m->end || *m->p != 0xc0)
		return false;
	m->p++;
	return true;
}

/* Non-negative integers of any width. */
static inline bool
mp_read_uint(struct mp *m, uint64_t *out)
{
	if (m->p == m->end || *m->p >= 0x80)
		return mp_read_long_uint(m, out);
	*out = *m->p++;
	return true;
}

/* str, or bin (no UTF-8 check). */
static inline bool
mp_read_str(struct mp *m, struct str *out)
{
	size_t n;

	if (m->p == m->end || (*m->p & 0xe0) != 0xa0)
		return mp_read_long_str(m, out);
	n = *m->p & 0x1f;
	if ((size_t)(m->end - m->p) <= n)
		return false;
	*out = (struct str){ (const char *)m->p + 1, n };
	m->p += 1 + n;
	return true;
}

static inline bool
mp_read_array(struct mp *m, uint32_t *n)
{
	if (m->p == m->end || (*m->p & 0xf0) != 0x90)
		return mp_read_long_array(m, n);
	*n = *m->p++ & 0x0f;
	return true;
}

/* `n` pairs; an empty array passes for an empty map. */
static inline bool
mp_read_map(struct mp *m, uint32_t *n)
{
	if (m->p == m->end || (*m->p & 0xf0) != 0x80)
		return mp_read_long_map(m, n);
	*n = *m->p++ & 0x0f;
	return true;
}

/* A reader over raw bytes. */
static inline struct mp
mp_of(struct str s)
{
	const uint8_t *p = (const uint8_t *)s.p;

	return (struct mp){ p, s.n ? p + s.n : p };
}

/*
 * Writers: the shortest form; strings are `str`. Those of the first kind write where there is room
 * already, MP_HEAD_MAX bytes for a head, and return where they end.
 */
#define MP_HEAD_MAX 9
char *mp_write_long_uint(char *to, uint64_t v);
static inline char *
mp_write_uint(char *to, uint64_t v)
{
	if (v >= 0x80)
		return mp_write_long_uint(to, v);
	*to++ = (char)v;
	return to;
}
char *mp_write_long_str(char *to, struct str s);
static inline char *
mp_write_str(char *to, struct str s)
{
	if (s.n >= 32)
		return mp_write_long_str(to, s);
	*to++ = (char)(0xa0 | s.n);
	if (s.n)
		memcpy(to, s.p, s.n);
	return to + s.n;
}
/* A text of less than 32 bytes that is known when this is compiled: the keys of our answers. */
#define mp_write_lit(to, literal)                      \
	(*(to) = (char)(0xa0 | (sizeof(literal) - 1)), \
	 (char *)memcpy((to) + 1, "" literal, sizeof(literal) - 1) + sizeof(literal) - 1)
static inline char *
mp_write_nil(char *to)
{
	*to++ = (char)0xc0;
	return to;
}
static inline char *
mp_write_bool(char *to, bool v)
{
	*to++ = (char)(0xc2 | v);
	return to;
}
/* Of less than 16 elements. */
static inline char *
mp_write_array(char *to, unsigned n)
{
	*to++ = (char)(0x90 | n);
	return to;
}
char *mp_write_long_map(char *to, uint32_t n);
static inline char *
mp_write_map(char *to, uint32_t n)
{
	if (n >= 16)
		return mp_write_long_map(to, n);
	*to++ = (char)(0x80 | n);
	return to;
}
static inline char *
mp_write_raw(char *to, struct str s)
{
	if (s.n)
		memcpy(to, s.p, s.n);
	return to + s.n;
}

void mp_put_nil(struct buf *b);
void mp_put_bool(struct buf *b, bool v);
void mp_put_uint(struct buf *b, uint64_t v);
void mp_put_int(struct buf *b, int64_t v);
void mp_put_double(struct buf *b, double v);
void mp_put_str(struct buf *b, struct str s);
void mp_put_bin(struct buf *b, struct str s);
void mp_put_array(struct buf *b, uint32_t n);
void mp_put_map(struct buf *b, uint32_t n);
void mp_put_raw(struct buf *b, struct str s); /* bytes that are values already */
#define mp_put_lit(b, literal) mp_put_str(b, STR(literal))

/*
 * Whether the one value in `s` can be decoded by every receiver: string keys, no ext types, valid
 * UTF-8 in `str`, nested at most `max_depth` (the value itself counts as 1 when it is a container).
 * Only the depth is judged when `any_content`. Returns NULL, or what is wrong ("has a key that is no string").
 */
const char *mp_portable(struct str s, unsigned max_depth, bool any_content);
/* The same of the next value, which is stepped over when it is portable. */
const char *mp_skip_portable(struct mp *m, unsigned max_depth, bool any_content);

#endif
