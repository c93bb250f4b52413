#include "admin/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/id.h"
#include "base/mem.h"

#define SAFE_MAX \
	(1ull    \
	 << 53) /* up to here a double is exact, which is what most readers of JSON make of a number */

static void
put_base64(struct buf *b, struct str s)
{
	char *text = xcalloc(1, ID_TEXT_LEN(s.n) + 1);

	id_encode(text, s.p, s.n);
	buf_printf(b, "\"base64url\":\"%s\"", text);
	free(text);
}

void
json_put_str(struct buf *b, struct str s)
{
	if (str_is_utf8(s)) {
		buf_put_json(b, s, true);
		return;
	}
	buf_putc(b, '{');
	put_base64(b, s);
	buf_putc(b, '}');
}

static void
put_double(struct buf *b, double v)
{
	char text[40];

	if (!isfinite(v)) {
		buf_puts(b, "null");
		return;
	}
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	buf_puts(b, text);
}

static void
put_int(struct buf *b, struct mp *m)
{
	uint64_t u = 0;
	int64_t i = 0;

	if (mp_read_uint(m, &u))
		buf_printf(b, u > SAFE_MAX ? "\"%" PRIu64 "\"" : "%" PRIu64, u);
	else if (mp_read_int(m, &i))
		buf_printf(b, i < -(int64_t)SAFE_MAX ? "\"%" PRId64 "\"" : "%" PRId64, i);
}

/* fixext and ext 8, 16, 32: a head, the type, the data. */
static void
put_ext(struct buf *b, struct str raw)
{
	uint8_t head = (uint8_t)raw.p[0];
	size_t at = head >= 0xd4 ? 1 : head == 0xc7 ? 2 : head == 0xc8 ? 3 : 5;

	buf_printf(b, "{\"ext\":%d,", (int8_t)raw.p[at]);
	put_base64(b, (struct str){ raw.p + at + 1, raw.n - at - 1 });
	buf_putc(b, '}');
}

static void put_value(struct buf *b, struct mp *m, const struct json_how *how, bool is_message);

/*
 * A key is a string in JSON. One that holds others stands as its bytes: as text in quotes it would be quoted anew at each level, and
 * be twice as long. Returns the key, or n 0 when it is no text.
 */
static struct str
put_key(struct buf *b, struct mp *m, const struct json_how *how)
{
	struct mp ahead = *m;
	struct buf text = { 0 };
	struct str key;

	if (mp_type(m) == MP_STR && mp_read_str(&ahead, &key) && str_is_utf8(key)) {
		*m = ahead;
		buf_put_json(b, key, true);
		return key;
	}
	if (mp_type(m) == MP_MAP || mp_type(m) == MP_ARRAY) {
		buf_putc(&text, '{');
		put_base64(&text, mp_skip(m));
		buf_putc(&text, '}');
	} else {
		put_value(&text, m, how, false);
	}
	buf_put_json(b, buf_str(&text), true);
	buf_done(&text);
	return STR("");
}

static void
put_map(struct buf *b, struct mp *m, const struct json_how *how, bool is_message)
{
	uint32_t n = 0;

	mp_read_map(m, &n);
	buf_putc(b, '{');
	for (uint32_t i = 0; i < n; i++) {
		struct mp ahead = *m;
		struct str key = STR("");

		if (i)
			buf_putc(b, ',');
		if (is_message && how->hides_payloads && mp_type(m) == MP_STR &&
		    mp_read_str(&ahead, &key) && str_eq(key, STR("payload"))) {
			*m = ahead;
			buf_printf(b, "\"payload_bytes\":%zu", mp_skip(m).n);
			continue;
		}
		key = put_key(b, m, how);
		buf_putc(b, ':');
		put_value(b, m, how, str_eq(key, STR("message")));
	}
	buf_putc(b, '}');
}

static void
put_array(struct buf *b, struct mp *m, const struct json_how *how)
{
	uint32_t n = 0;

	mp_read_array(m, &n);
	buf_putc(b, '[');
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			buf_putc(b, ',');
		put_value(b, m, how, false);
	}
	buf_putc(b, ']');
}

static void
put_value(struct buf *b, struct mp *m, const struct json_how *how, bool is_message)
{
	struct str s = STR("");
	bool is = false;
	double v = 0;

	switch (mp_type(m)) {
	case MP_BOOL:
		mp_read_bool(m, &is);
		buf_puts(b, is ? "true" : "false");
		break;
	case MP_INT:
		put_int(b, m);
		break;
	case MP_FLOAT:
		mp_read_double(m, &v);
		put_double(b, v);
		break;
	case MP_STR:
	case MP_BIN:
		mp_read_str(m, &s);
		json_put_str(b, s);
		break;
	case MP_ARRAY:
		put_array(b, m, how);
		break;
	case MP_MAP:
		put_map(b, m, how, is_message);
		break;
	case MP_EXT:
		put_ext(b, mp_skip(m));
		break;
	case MP_NIL:
	case MP_NONE:
		mp_skip(m);
		buf_puts(b, "null");
		break;
	}
}

void
json_put(struct buf *b, struct mp *m, const struct json_how *how)
{
	put_value(b, m, how, false);
}
