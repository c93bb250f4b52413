#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
out_of_memory(void)
{
	fputs("coordd: out of memory\n", stderr);
	abort();
}

void *
xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		out_of_memory();
	return p;
}

void *
xrealloc(void *p, size_t size)
{
	p = realloc(p, size ? size : 1);
	if (!p)
		out_of_memory();
	return p;
}

char *
xmemdup(const void *p, size_t n)
{
	char *copy = xcalloc(1, n + 1);

	if (n)
		memcpy(copy, p, n);
	return copy;
}

char *
xstrdup(const char *z)
{
	return xmemdup(z, strlen(z));
}
