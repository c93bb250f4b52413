#ifndef COORDD_BASE_BUF_H
#define COORDD_BASE_BUF_H

#include <stddef.h>

#include "base/str.h"

/*
 * A growing run of bytes. All zero is an empty one. Growth doubles; who appends what a peer
 * chose checks a limit first. Ends the process when there is no memory (base/mem.h).
 */
struct buf {
	char *data;
	size_t len; /* bytes in use */
	size_t cap; /* bytes allocated */
};

void buf_grow(struct buf *b, size_t n);
/* Make room for `n` more bytes and return where they go; `len` is left to the caller. */
static inline char *
buf_reserve(struct buf *b, size_t n)
{
	if (b->cap - b->len < n)
		buf_grow(b, n);
	return b->data + b->len;
}
void buf_put(struct buf *b, const void *p, size_t n);
void buf_putc(struct buf *b, char c);
void buf_puts(struct buf *b, const char *z);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drop the first `n` bytes. */
void buf_drop(struct buf *b, size_t n);
/* Empty it; memory stays. */
void buf_clear(struct buf *b);
/* Free its memory; the buffer is empty and usable afterwards. */
void buf_done(struct buf *b);

static inline struct str
buf_str(const struct buf *b)
{
	return (struct str){ b->data, b->len };
}

/* A string of JSON, of text that is UTF-8; control characters, those of C1 too, are escaped, and with `for_pages` what HTML and scripts
 * would take for more than text. */
void buf_put_json(struct buf *b, struct str s, bool for_pages);

#endif
