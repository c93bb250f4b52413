#ifndef COORDD_STORE_REPLY_H
#define COORDD_STORE_REPLY_H

#include <stdint.h>

#include "base/str.h"

/* What Redis answered; read-only, lives until the callback that got it returns. */
enum reply_type { REPLY_NIL, REPLY_INT, REPLY_STR, REPLY_ARRAY, REPLY_STATUS, REPLY_ERROR };

struct reply {
	enum reply_type type;
	int64_t integer;           /* REPLY_INT */
	struct str str;            /* REPLY_STR, REPLY_STATUS, REPLY_ERROR */
	uint32_t count;            /* REPLY_ARRAY */
	const struct reply *elems; /* REPLY_ARRAY: `count` of them */
};

/* The i-th element of an array; a nil reply when `r` is none or has fewer. */
const struct reply *reply_at(const struct reply *r, uint32_t i);
/* The bytes of a string or status; empty for anything else. */
struct str reply_str(const struct reply *r);
/* An integer, or a string that is a decimal one; `otherwise` for anything else. */
int64_t reply_int(const struct reply *r, int64_t otherwise);

#endif
