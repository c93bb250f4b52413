#ifndef COORDD_STORE_KEYS_H
#define COORDD_STORE_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/str.h"

/*
 * Names as they stand in Redis (docs/REDIS.md). The name of a queue is `namespace:type:instance` with `:` and `%`
 * percent-encoded in each part: different queues have different names, and no name is a prefix
 * trap for another. The base of its keys is `PREFIX:q:NAME`.
 */
#define KEY_PART_MAX 128
#define KEY_NAME_MAX (3 * 3 * KEY_PART_MAX + 2)

/* Append one part, encoded. */
void key_put_part(struct buf *b, struct str part);

/* Write the name to `out` (KEY_NAME_MAX bytes); each part is 1..KEY_PART_MAX bytes. Returns its length. */
size_t key_name(char *out, struct str ns, struct str type, struct str instance);

/* Append one part, decoded; false when it is none. */
bool key_part_decode(struct buf *b, struct str part);

/* Append the parts of a name, decoded, one after the other; `parts` are views into `b`, valid until
 * it grows. False when it is no name. */
bool key_name_split(struct str name, struct buf *b, struct str parts[3]);

#endif
