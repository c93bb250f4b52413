#include <stdio.h>
#include <string.h>

#include "store/store.h"

char *
args_reserve(struct args *args, size_t len)
{
	char head[24];
	int n = snprintf(head, sizeof(head), "$%zu\r\n", len);
	char *to = buf_reserve(&args->buf, (size_t)n + len + 2);

	memcpy(to, head, (size_t)n);
	memcpy(to + n + len, "\r\n", 2);
	args->buf.len += (size_t)n + len + 2;
	args->n++;
	return to + n;
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
	char text[24];
	int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)v);

	args_str(args, (struct str){ text, (size_t)n });
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
	buf_done(&args->buf);
	args->n = 0;
}
