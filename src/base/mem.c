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

/* The sanitizer must see each use after a free: there, nothing is kept. */
#if defined(__SANITIZE_ADDRESS__)
#define POOLED_MAX 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOLED_MAX 0
#endif
#endif
#ifndef POOLED_MAX
#define POOLED_MAX 512
#endif
#define POOL_STEP 32

struct spare {
	struct spare *next;
};

static struct pool {
	struct spare *first;
	unsigned n;
} pools[POOLED_MAX / POOL_STEP + 1];

void *
pool_get(size_t size)
{
	size_t i = (size + POOL_STEP - 1) / POOL_STEP;
	struct spare *p;

	if (size > POOLED_MAX)
		return xcalloc(1, size);
	p = pools[i].first;
	if (!p)
		return xcalloc(1, i * POOL_STEP);
	pools[i].first = p->next;
	pools[i].n--;
	return memset(p, 0, size);
}

void
pool_put(void *p, size_t size)
{
	size_t i = (size + POOL_STEP - 1) / POOL_STEP;
	struct spare *spare = p;

	if (size > POOLED_MAX || pools[i].n == POOL_KEPT) {
		free(p);
		return;
	}
	spare->next = pools[i].first;
	pools[i].first = spare;
	pools[i].n++;
}
