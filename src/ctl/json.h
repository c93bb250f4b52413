#ifndef COORDD_CTL_JSON_H
#define COORDD_CTL_JSON_H

#include <jansson.h>

#include "base/buf.h"
#include "client/coord.h"

/*
 * JSON for people and pipes. What the broker answers becomes a jansson tree once; tables, CSV
 * and JSON are all made from it. Lack of memory ends the process.
 */

/*
 * A tree of what the broker sent. What JSON has no word for is put so that it can be told
 * apart: bytes that are not UTF-8 {"base64url": ...}, ext types the same with "ext", numbers
 * above 2^63 as strings, NaN and the infinities as null, keys that are no strings as their JSON
 * text.
 */
json_t *json_from(const msgpack_object *o);

/* Pack a tree; what json_from() made of strings, numbers, lists and maps comes back the same.
 */
void json_pack_into(msgpack_packer *pk, const json_t *v);

/*
 * Append a tree as JSON text: on one line, or indented by two spaces a level. Numbers in the
 * shortest form that reads back the same; every control character escaped, also U+007F..U+009F.
 */
void json_text(struct buf *b, const json_t *v, bool is_indented);

/* The value at "key.key.key"; NULL when something on the way is missing, no map, or null. */
const json_t *json_at(const json_t *v, const char *path);
/* The same, read: "", 0 or false when it is missing or of another type. */
struct str json_str_at(const json_t *v, const char *path);
double json_number_at(const json_t *v, const char *path);
bool json_bool_at(const json_t *v, const char *path);

#endif
