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
bool mp_read_nil(struct mp *m);
bool mp_read_bool(struct mp *m, bool *out);
bool mp_read_uint(struct mp *m, uint64_t *out);  /* non-negative integers of any width */
bool mp_read_int(struct mp *m, int64_t *out);    /* what fits in 64 signed bits */
bool mp_read_double(struct mp *m, double *out);  /* integers and both floats */
bool mp_read_str(struct mp *m, struct str *out); /* str, or bin (no UTF-8 check) */
bool mp_read_array(struct mp *m, uint32_t *n);
bool
mp_read_map(struct mp *m, uint32_t *n); /* n pairs; an empty array passes for an empty map */
/* The next value whole, as raw bytes. */
struct str mp_skip(struct mp *m);

/* A reader over raw bytes. */
static inline struct mp
mp_of(struct str s)
{
	const uint8_t *p = (const uint8_t *)s.p;

	return (struct mp){ p, s.n ? p + s.n : p };
}

/* Writers: the shortest form; strings are `str`. */
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
