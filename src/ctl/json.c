#include "ctl/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/id.h"
#include "base/mem.h"
#include "base/str.h"

/* jansson returns NULL only without memory here; end like the rest of the process does. */
static json_t *
made(json_t *v)
{
	if (!v)
		abort();
	return v;
}

static json_t *
from_bytes(const char *p, uint32_t n)
{
	char *text;
	json_t *v;

	if (str_is_utf8((struct str){ p, n }))
		return made(json_stringn(p, n));
	text = xcalloc(1, ID_TEXT_LEN((size_t)n) + 1);
	id_encode(text, p, n);
	v = made(json_pack("{s:s}", "base64url", text));
	free(text);
	return v;
}

/* jansson ends keys at their first NUL byte; what follows it in a key is not shown. */
static void
set_member(json_t *map, const msgpack_object *key, json_t *value)
{
	json_t *k = json_from(key);
	struct buf text = { 0 };

	if (json_is_string(k))
		buf_put(&text, json_string_value(k), json_string_length(k));
	else
		json_text(&text, k, false);
	buf_putc(&text, '\0');
	if (json_object_set_new(map, text.data, value) < 0)
		abort();
	buf_done(&text);
	json_decref(k);
}

json_t *
json_from(const msgpack_object *o)
{
	json_t *v;

	switch (o->type) {
	case MSGPACK_OBJECT_NIL:
		return json_null();
	case MSGPACK_OBJECT_BOOLEAN:
		return json_boolean(o->via.boolean);
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		if (o->via.u64 <= INT64_MAX)
			return made(json_integer((json_int_t)o->via.u64));
		return made(json_sprintf("%" PRIu64, o->via.u64));
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		return made(json_integer(o->via.i64));
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		return isfinite(o->via.f64) ? made(json_real(o->via.f64)) : json_null();
	case MSGPACK_OBJECT_STR:
		return from_bytes(o->via.str.ptr, o->via.str.size);
	case MSGPACK_OBJECT_BIN:
		return from_bytes(o->via.bin.ptr, o->via.bin.size);
	case MSGPACK_OBJECT_ARRAY:
		v = made(json_array());
		for (uint32_t i = 0; i < o->via.array.size; i++) {
			if (json_array_append_new(v, json_from(&o->via.array.ptr[i])) < 0)
				abort();
		}
		return v;
	case MSGPACK_OBJECT_MAP:
		v = made(json_object());
		for (uint32_t i = 0; i < o->via.map.size; i++)
			set_member(v, &o->via.map.ptr[i].key,
				   json_from(&o->via.map.ptr[i].val));
		return v;
	case MSGPACK_OBJECT_EXT: {
		char *text = xcalloc(1, ID_TEXT_LEN((size_t)o->via.ext.size) + 1);

		id_encode(text, o->via.ext.ptr, o->via.ext.size);
		v = made(json_pack("{s:i, s:s}", "ext", o->via.ext.type, "base64url", text));
		free(text);
		return v;
	}
	}
	return json_null();
}

void
json_pack_into(msgpack_packer *pk, const json_t *v)
{
	const char *key;
	json_t *value;
	size_t i;

	switch (json_typeof(v)) {
	case JSON_NULL:
		msgpack_pack_nil(pk);
		break;
	case JSON_TRUE:
		msgpack_pack_true(pk);
		break;
	case JSON_FALSE:
		msgpack_pack_false(pk);
		break;
	case JSON_INTEGER:
		msgpack_pack_int64(pk, json_integer_value(v));
		break;
	case JSON_REAL:
		msgpack_pack_double(pk, json_real_value(v));
		break;
	case JSON_STRING:
		msgpack_pack_str(pk, json_string_length(v));
		msgpack_pack_str_body(pk, json_string_value(v), json_string_length(v));
		break;
	case JSON_ARRAY:
		msgpack_pack_array(pk, json_array_size(v));
		json_array_foreach(v, i, value)
		{
			json_pack_into(pk, value);
		}
		break;
	case JSON_OBJECT:
		msgpack_pack_map(pk, json_object_size(v));
		json_object_foreach((json_t *)v, key, value)
		{
			coord_pack_str(pk, key);
			json_pack_into(pk, value);
		}
		break;
	}
}

/* --- text -------------------------------------------------------------------- */

static void
real_text(struct buf *b, double v)
{
	char text[40];

	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	buf_puts(b, text);
	if (!strpbrk(text, ".e"))
		buf_puts(b, ".0"); /* it was no integer when it came */
}

static void
new_line(struct buf *b, bool is_indented, unsigned level)
{
	if (!is_indented)
		return;
	buf_putc(b, '\n');
	while (level--)
		buf_puts(b, "  ");
}

static void
text_at(struct buf *b, const json_t *v, bool is_indented, unsigned level)
{
	const char *key, *sep = "";
	json_t *value;
	size_t i;

	switch (json_typeof(v)) {
	case JSON_NULL:
		buf_puts(b, "null");
		break;
	case JSON_TRUE:
		buf_puts(b, "true");
		break;
	case JSON_FALSE:
		buf_puts(b, "false");
		break;
	case JSON_INTEGER:
		buf_printf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		break;
	case JSON_REAL:
		real_text(b, json_real_value(v));
		break;
	case JSON_STRING:
		buf_put_json(b, (struct str){ json_string_value(v), json_string_length(v) },
			     false);
		break;
	case JSON_ARRAY:
		buf_putc(b, '[');
		json_array_foreach(v, i, value)
		{
			buf_puts(b, sep);
			new_line(b, is_indented, level + 1);
			text_at(b, value, is_indented, level + 1);
			sep = is_indented ? "," : ", ";
		}
		if (json_array_size(v))
			new_line(b, is_indented, level);
		buf_putc(b, ']');
		break;
	case JSON_OBJECT:
		buf_putc(b, '{');
		json_object_foreach((json_t *)v, key, value)
		{
			buf_puts(b, sep);
			new_line(b, is_indented, level + 1);
			buf_put_json(b, str_of(key), false);
			buf_puts(b, ": ");
			text_at(b, value, is_indented, level + 1);
			sep = is_indented ? "," : ", ";
		}
		if (json_object_size(v))
			new_line(b, is_indented, level);
		buf_putc(b, '}');
		break;
	}
}

void
json_text(struct buf *b, const json_t *v, bool is_indented)
{
	text_at(b, v, is_indented, 0);
}

/* --- looking into it --------------------------------------------------------- */

const json_t *
json_at(const json_t *v, const char *path)
{
	char key[64];

	while (v && *path) {
		size_t n = strcspn(path, ".");

		if (n >= sizeof(key))
			return NULL;
		memcpy(key, path, n);
		key[n] = '\0';
		v = json_object_get(v, key);
		path += n + (path[n] == '.');
	}
	return v && !json_is_null(v) ? v : NULL;
}

struct str
json_str_at(const json_t *v, const char *path)
{
	const json_t *s = json_at(v, path);

	return json_is_string(s) ? (struct str){ json_string_value(s), json_string_length(s) }
				 : STR("");
}

double
json_number_at(const json_t *v, const char *path)
{
	return json_number_value(json_at(v, path));
}

bool
json_bool_at(const json_t *v, const char *path)
{
	return json_is_true(json_at(v, path));
}
