#ifndef COORDD_BASE_MEM_H
#define COORDD_BASE_MEM_H

#include <stddef.h>

/*
 * Allocation that ends the process when there is no memory: losing the process is safe, the
 * truth is in Redis. Sizes that a peer chose are checked against a limit before they get here.
 */
void *xcalloc(size_t n, size_t size) __attribute__((returns_nonnull, malloc, alloc_size(1, 2)));
void *xrealloc(void *p, size_t size) __attribute__((returns_nonnull, alloc_size(2)));
char *xstrdup(const char *z) __attribute__((returns_nonnull, malloc));
/* A terminated copy of `n` bytes. */
char *xmemdup(const void *p, size_t n) __attribute__((returns_nonnull, malloc));

/*
 * For small structs that come and go with every request: pool_get() is xcalloc(1, size), pool_put() is free(),
 * and needs the same size. What was put is kept, up to POOL_KEPT of each size, and given out again: malloc()
 * is slow when many come and go in one turn of the loop, as they do here.
 */
#define POOL_KEPT 4096
void *pool_get(size_t size) __attribute__((returns_nonnull, malloc, alloc_size(1)));
void pool_put(void *p, size_t size);

#endif
