#ifndef COORDD_BASE_ERR_H
#define COORDD_BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

/* The outcome of an operation; OK is 0. The wire sees err_code() (docs/PROTOCOL.md, section 7). */
enum err {
	OK = 0,
#define ERR(name, code, retryable, applied, text) ERR_##name,
#include "base/err.def"
#undef ERR
	ERR_COUNT
};

const char *err_name(enum err err);    /* "UNSENT", for logs */
const char *err_code(enum err err);    /* "unavailable", as on the wire; "ok" for OK */
bool err_retryable(enum err err);      /* whether asking again can help */
const char *err_applied(enum err err); /* "no", "unknown", or "" where it has no meaning */
const char *err_text(enum err err);    /* one sentence for a person */

/* Why something was refused: the outcome and a sentence that names the field or the limit. */
struct errmsg {
	enum err err;
	char text[320];
};

/* Fill `why` and return `err`, so that `return errmsg_set(...)` reads well. `why` may be NULL. */
enum err errmsg_set(struct errmsg *why, enum err err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
