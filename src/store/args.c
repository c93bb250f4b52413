#include <string.h>

#include "store/store.h"

/*
 * Memory of arguments that are done, for the next ones: without it each call would grow its buffers
 * anew, and copy what they hold each time. A larger one than a call may need is not kept.
 */
enum { SPARES = 8, SPARE_MAX = 512 * 1024 };

static struct buf spares[SPARES];
static unsigned nspares;

char *
args_reserve(struct args *args, size_t len)
{
	const size_t head = 1 + STR_UINT_MAX + 2, tail = 2;
	char *to;

	if (!args->buf.cap && nspares)
		args->buf = spares[--nspares];
	to = buf_reserve(&args->buf, head + len + tail);
	*to++ = '$';
	to = str_put_uint(to, len);
	memcpy(to, "\r\n", 2);
	to += 2;
	memcpy(to + len, "\r\n", 2);
	args->buf.len = (size_t)(to + len + tail - args->buf.data);
	args->n++;
	return to;
}

void
args_str(struct args *args, struct str s)
{
	char *to = args_reserve(args, s.n);

	if (s.n)
		memcpy(to, s.p, s.n);
}

void
args_uint(struct args *args, uint64_t v)
{
	char text[STR_UINT_MAX];

	args_str(args, (struct str){ text, (size_t)(str_put_uint(text, v) - text) });
}

void
args_copy(struct args *args, const struct args *from)
{
	buf_put(&args->buf, from->buf.data, from->buf.len);
	args->n += from->n;
}

void
args_join(struct args *args, struct args *from)
{
	args_copy(args, from);
	from->n = 0;
	buf_clear(&from->buf);
}

void
args_done(struct args *args)
{
	if (args->buf.cap && args->buf.cap <= SPARE_MAX && nspares < SPARES) {
		buf_clear(&args->buf);
		spares[nspares++] = args->buf;
		args->buf = (struct buf){ 0 };
	}
	buf_done(&args->buf);
	args->n = 0;
}
