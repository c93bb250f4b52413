#ifndef COORDD_ADMIN_JSON_H
#define COORDD_ADMIN_JSON_H

#include "base/buf.h"
#include "proto/mp.h"

/*
 * MessagePack as JSON text, written as it is read: no tree is made. What JSON has no word for: bytes that are not UTF-8
 * are {"base64url": ...}, ext types the same with "ext", integers beyond 2^53 are strings, NaN and the infinities
 * null, keys that are no strings their JSON text, and those that are maps or arrays their bytes in
 * that way. Of a text in quotes every control character, and what a script in HTML could
 * be made of, is escaped.
 */
struct json_how {
	bool hides_payloads; /* of messages: `payload_bytes` stands for `payload` */
};

void json_put_str(struct buf *b, struct str s);
/* The next value of `m`, which frame_scan() has proven complete. */
void json_put(struct buf *b, struct mp *m, const struct json_how *how);

#endif
