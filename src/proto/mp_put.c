/* Values appended to a buffer; apart from mp.c, which is in the client library and never ends a process. */
#include "proto/mp.h"

/* As static functions: as the library's own header declares them, for one file only. */
#include <msgpack/pack.h>

/* The packer's write callback. Inlined, most of its writes are one store of known size. */
static inline int
put(void *data, const char *p, size_t n)
{
	struct buf *b = data;

	if (b->cap - b->len < n)
		buf_reserve(b, n);
	memcpy(b->data + b->len, p, n);
	b->len += n;
	return 0;
}

void
mp_put_nil(struct buf *b)
{
	msgpack_packer pk = { b, put };

	msgpack_pack_nil(&pk);
}

void
mp_put_bool(struct buf *b, bool v)
{
	msgpack_packer pk = { b, put };

	if (v)
		msgpack_pack_true(&pk);
	else
		msgpack_pack_false(&pk);
}

void
mp_put_uint(struct buf *b, uint64_t v)
{
	char *to = buf_reserve(b, MP_HEAD_MAX);

	b->len += (size_t)(mp_write_uint(to, v) - to);
}

void
mp_put_int(struct buf *b, int64_t v)
{
	msgpack_packer pk = { b, put };

	msgpack_pack_int64(&pk, v);
}

void
mp_put_double(struct buf *b, double v)
{
	msgpack_packer pk = { b, put };

	msgpack_pack_double(&pk, v);
}

void
mp_put_str(struct buf *b, struct str s)
{
	char *to = buf_reserve(b, MP_HEAD_MAX + s.n);

	b->len += (size_t)(mp_write_str(to, s) - to);
}

void
mp_put_bin(struct buf *b, struct str s)
{
	msgpack_packer pk = { b, put };

	msgpack_pack_bin(&pk, s.n);
	buf_put(b, s.p, s.n);
}

void
mp_put_array(struct buf *b, uint32_t n)
{
	msgpack_packer pk = { b, put };

	msgpack_pack_array(&pk, n);
}

void
mp_put_map(struct buf *b, uint32_t n)
{
	msgpack_packer pk = { b, put };

	msgpack_pack_map(&pk, n);
}

void
mp_put_raw(struct buf *b, struct str s)
{
	buf_put(b, s.p, s.n);
}
