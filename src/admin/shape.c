/* The results of methods, as HTTP has them: lists are {items, next}, bare values have a name. */
#include "admin/own.h"

/* `type:instance`, in which ':' and '%' are percent-encoded. */
static void
put_encoded(struct buf *b, struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == ':' || s.p[i] == '%')
			buf_printf(b, "%%%02X", s.p[i]);
		else
			buf_putc(b, s.p[i]);
	}
}

struct str
value_of(struct str map, const char *wanted)
{
	struct mp m = mp_of(map);
	uint32_t n = 0;
	struct str key;

	for (mp_read_map(&m, &n); n; n--) {
		if (!mp_read_str(&m, &key))
			break;
		if (str_eq(key, str_of(wanted)))
			return mp_skip(&m);
		mp_skip(&m);
	}
	return STR("");
}

struct str
text_of(struct str map, const char *wanted)
{
	struct mp m = mp_of(value_of(map, wanted));
	struct str s = STR("");

	mp_read_str(&m, &s);
	return s;
}

static void
put_next(struct buf *b, const struct route *route, struct str last)
{
	struct buf text = { 0 };
	struct str id;

	if (!last.n) {
		buf_puts(b, "null");
	} else if (route->shape == SHAPE_AGENTS) {
		id = value_of(last, "agent_id");
		put_encoded(&text, text_of(id, "type"));
		buf_putc(&text, ':');
		put_encoded(&text, text_of(id, "instance"));
		json_put_str(b, buf_str(&text));
		buf_done(&text);
	} else {
		struct mp m = mp_of(value_of(last, route->key));

		json_put(b, &m, &(struct json_how){ false });
	}
}

/* An array whose last row says where the next page begins. */
static void
put_rows(struct buf *b, const struct route *route, struct str result,
	 const struct json_how *how)
{
	struct mp m = mp_of(result);
	struct str last = STR("");
	uint32_t n = 0;

	mp_read_array(&m, &n);
	buf_puts(b, "{\"items\":[");
	for (uint32_t i = 0; i < n; i++) {
		struct mp row = m;

		last = mp_skip(&m);
		if (i)
			buf_putc(b, ',');
		json_put(b, &row, how);
	}
	buf_puts(b, "],\"next\":");
	put_next(b, route, route->shape == SHAPE_ITEMS ? STR("") : last);
	buf_putc(b, '}');
}

static void
put_member(struct buf *b, struct str map, const char *key, const struct json_how *how)
{
	struct mp m = mp_of(value_of(map, key));

	json_put(b, &m, how);
}

bool
shape_put(struct buf *b, const struct route *route, struct str result,
	  const struct json_how *how)
{
	struct mp m = mp_of(result), ahead = m;
	uint64_t count = 1;
	bool done = true;

	switch (route->shape) {
	case SHAPE_OWN:
	case SHAPE_PLAIN:
		if (mp_type(&m) == MP_NIL)
			return false;
		json_put(b, &m, how);
		break;
	case SHAPE_PAGE:
		buf_puts(b, "{\"items\":");
		put_member(b, result, route->key, how);
		buf_puts(b, ",\"next\":");
		put_member(b, result, "after", how);
		buf_putc(b, '}');
		break;
	case SHAPE_ITEMS:
	case SHAPE_ROWS:
	case SHAPE_AGENTS:
		put_rows(b, route, result, how);
		break;
	case SHAPE_GONE:
		mp_read_bool(&ahead, &done);
		mp_read_uint(&ahead, &count);
		if (!done || !count)
			return false;
		/* fall through */
	case SHAPE_VALUE:
		buf_printf(b, "{\"%s\":", route->key);
		json_put(b, &m, how);
		buf_putc(b, '}');
		break;
	}
	buf_putc(b, '\n');
	return true;
}
