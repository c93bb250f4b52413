#ifndef COORDD_STORE_REFUSAL_H
#define COORDD_STORE_REFUSAL_H

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"

/*
 * What an error of Redis means for the call it answers. `*is_lost`: this connection is of no
 * use for now, whatever is asked next; untouched otherwise.
 *
 *	ERR_UNSENT	nothing ran: NOSCRIPT BUSY, a script killed before it wrote; and, lost:
 *			LOADING READONLY MASTERDOWN NOAUTH WRONGPASS NOPERM, too many clients
 *	ERR_REFUSED	nothing ran: OOM MISCONF NOREPLICAS. Redis looks for these before a
 *			script's first write only
 *	ERR_INTERNAL	anything else: it may have run in part
 */
enum err refusal_of(struct str text, bool *is_lost);

/* Whether the code is in the text as a word of its own: older scripts' errors wrap it. */
bool refusal_has(struct str text, const char *code);

#endif
