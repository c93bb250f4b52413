#ifndef COORDD_CTL_TEXT_H
#define COORDD_CTL_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

/* What people type and what they see: durations, names, and bytes that a client chose. */

/* "500ms", "10s", "1.5m", "2h", "7d", or seconds without a unit; at most ten years. */
bool text_duration(const char *z, double *seconds);

/* A decimal number of 1 to a billion. */
bool text_count(const char *z, uint64_t *n);

/* An AgentId as `type:instance`. */
struct name {
	char type[129], instance[129]; /* instance is "default" where none was given */
};

/* Read a name, `:` and `%` in its parts percent-encoded. NULL, or what is wrong with it. */
const char *text_name_read(struct name *name, const char *z);
void text_name(struct buf *b, struct str type, struct str instance);

/*
 * Append bytes in a form that no terminal obeys: control characters (also U+0080..U+009F) and
 * bytes that are not UTF-8 become \n, \t, \x1b, ...
 */
void text_escape(struct buf *b, struct str s);

/* Columns that UTF-8 text takes on a terminal. */
size_t text_width(struct str s);
/* How many of its bytes fit into `columns`. */
size_t text_fit(struct str s, size_t columns);

void text_number(struct buf *b, int64_t n);   /* 1,204 */
void text_age(struct buf *b, double seconds); /* 210ms, 4.2s, 6m02s, 3h05m, 3d04h */

#endif
