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

#endif
