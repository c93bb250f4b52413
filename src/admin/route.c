#include "admin/route.h"

#include <stdio.h>

#include "base/log.h"

enum { MAX_PATH_BYTES = 8192 };

const struct route routes[ROUTES] = {
#define ROUTE(verb, path, handler, method, access, queries, shape, key, help) \
	{ #verb, path, method, ROUTE_##access, queries, SHAPE_##shape, key, help },
#include "admin/routes.def"
#undef ROUTE
};

const char *const path_part_names[PATH_PARTS] = { "queue", "type", "instance",
						  "name",  "dead", "connection" };

enum {
	KIND_LOCAL = QUERY_LOCAL,
	KIND_TEXT = QUERY_TEXT,
	KIND_COUNT = QUERY_COUNT_OF,
	KIND_BOOL = QUERY_BOOL,
	KIND_AGENT = QUERY_AGENT
};

static const struct {
	struct str name;
	enum query_kind kind;
	const char *param;
} queries[QUERY_COUNT] = {
#define QUERY(name, kind, param) \
	{ { #name, sizeof(#name) - 1 }, (enum query_kind)KIND_##kind, param },
#define QUERY_AS(member, name, kind, param) \
	{ { name, sizeof(name) - 1 }, (enum query_kind)KIND_##kind, param },
#include "admin/queries.def"
#undef QUERY
#undef QUERY_AS
};

const char *
query_param(enum query_name q)
{
	return queries[q].param;
}

enum query_kind
query_kind(enum query_name q)
{
	return queries[q].kind;
}

/* Percent-encoding ------------------------------------------------------------------------------- */

static int
hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decode `s` behind what `text` holds, which has room. False for a '%' without two digits, and for NUL. */
static bool
decode(struct str s, bool plus_is_blank, struct buf *text, struct str *out)
{
	char *start = text->data + text->len, *to = start;

	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];

		if (c == '%') {
			if (i + 2 >= s.n || hex(s.p[i + 1]) < 0 || hex(s.p[i + 2]) < 0)
				return false;
			c = (char)(hex(s.p[i + 1]) << 4 | hex(s.p[i + 2]));
			i += 2;
		} else if (c == '+' && plus_is_blank) {
			c = ' ';
		}
		if (!c)
			return false;
		*to++ = c;
	}
	*out = (struct str){ start, (size_t)(to - start) };
	text->len += out->n;
	return true;
}

bool
agent_read(struct str s, struct str *type, struct str *instance, struct buf *text)
{
	const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
	struct str first = { s.p, colon ? (size_t)(colon - s.p) : s.n }, rest = STR("");

	if (colon)
		rest = (struct str){ colon + 1, s.n - first.n - 1 };
	if (rest.n && memchr(rest.p, ':', rest.n))
		return false;
	return decode(first, false, text, type) && decode(rest, false, text, instance);
}

/* Paths ------------------------------------------------------------------------------------------ */

/* The next part of a path, which begins with '/'. */
static struct str
next_part(struct str *path)
{
	struct str part = { path->p + 1, path->n - 1 };
	const char *slash = part.n ? memchr(part.p, '/', part.n) : NULL;

	if (slash)
		part.n = (size_t)(slash - part.p);
	path->p += 1 + part.n;
	path->n -= 1 + part.n;
	return part;
}

static int
part_named(struct str pattern)
{
	for (int i = 0; i < PATH_PARTS; i++)
		if (pattern.n > 2 && pattern.p[0] == '{' &&
		    str_eq((struct str){ pattern.p + 1, pattern.n - 2 },
			   str_of(path_part_names[i])))
			return i;
	return -1;
}

/* `match` has the parts as they were sent. */
static bool
matches(const struct route *route, struct str path, struct route_match *match)
{
	struct str pattern = str_of(route->path);

	*match = (struct route_match){ 0 };
	while (pattern.n && path.n) {
		struct str want = next_part(&pattern), part = next_part(&path);
		int name = part_named(want);

		if (name < 0 ? !str_eq(want, part) : !part.n)
			return false;
		if (name >= 0) {
			match->have |= 1u << name;
			match->parts[name] = part;
		}
	}
	return !pattern.n && !path.n;
}

static enum err
decode_parts(struct route_match *match, struct buf *text, struct errmsg *why)
{
	for (unsigned i = 0; i < PATH_PARTS; i++) {
		struct str part = match->parts[i];

		if (!(match->have & 1u << i))
			continue;
		if (str_eq(part, STR(".")) || str_eq(part, STR("..")))
			return errmsg_set(why, ERR_BAD_REQUEST, "write . in a path as %%2E");
		if (!decode(part, false, text, &match->parts[i]))
			return errmsg_set(why, ERR_BAD_REQUEST,
					  "the path is not percent-encoded well");
	}
	return OK;
}

const struct route *
route_find(const char *verb, struct str path, struct route_match *match, char *allow,
	   struct buf *text, struct errmsg *why)
{
	const struct route *found = NULL;
	struct route_match m;

	why->err = OK;
	*allow = '\0';
	if (strcmp(verb, "HEAD") == 0)
		verb = "GET";
	if (path.n > MAX_PATH_BYTES) {
		errmsg_set(why, ERR_BAD_REQUEST, "the path is longer than %d bytes",
			   MAX_PATH_BYTES);
		return NULL;
	}
	for (unsigned i = 0; i < ROUTES; i++) {
		if (!matches(&routes[i], path, &m))
			continue;
		if (strcmp(routes[i].verb, verb) == 0) {
			found = &routes[i];
			*match = m;
		}
		snprintf(allow + strlen(allow), 64 - strlen(allow), "%s%s%s",
			 *allow ? ", " : "", routes[i].verb,
			 strcmp(routes[i].verb, "GET") == 0 ? ", HEAD" : "");
	}
	if (*allow)
		strncat(allow, ", OPTIONS", 64 - strlen(allow) - 1);
	if (!found)
		return NULL;
	return decode_parts(match, text, why) ? NULL : found;
}

/* Queries ---------------------------------------------------------------------------------------- */

static enum err
take_pair(struct query *query, const struct route *route, struct str pair, struct buf *text,
	  struct errmsg *why)
{
	const char *sign = memchr(pair.p, '=', pair.n);
	struct str name = { pair.p, sign ? (size_t)(sign - pair.p) : pair.n }, value = STR("");
	unsigned known = route->queries | Q(namespace);
	char quoted[96];

	if (sign)
		value = (struct str){ sign + 1, pair.n - name.n - 1 };
	if (!decode(name, true, text, &name) || !decode(value, true, text, &value))
		return errmsg_set(why, ERR_BAD_REQUEST,
				  "the query is not percent-encoded well");
	for (unsigned i = 0; i < QUERY_COUNT; i++) {
		if (!(known & 1u << i) || !str_eq(queries[i].name, name))
			continue;
		if (query->have & 1u << i)
			return errmsg_set(why, ERR_BAD_REQUEST, "%.*s is there twice",
					  (int)name.n, name.p);
		if (i == QUERY_namespace && !value.n)
			return errmsg_set(why, ERR_BAD_REQUEST, "namespace must not be empty");
		query->have |= 1u << i;
		query->values[i] = value;
		return OK;
	}
	return errmsg_set(why, ERR_BAD_REQUEST, "this route has no parameter %s",
			  log_quote(quoted, sizeof(quoted), name));
}

enum err
query_read(struct query *query, const struct route *route, struct str raw, struct buf *text,
	   struct errmsg *why)
{
	*query = (struct query){ 0 };
	if (raw.n > MAX_PATH_BYTES)
		return errmsg_set(why, ERR_BAD_REQUEST, "the query is longer than %d bytes",
				  MAX_PATH_BYTES);
	while (raw.n) {
		const char *end = memchr(raw.p, '&', raw.n);
		struct str pair = { raw.p, end ? (size_t)(end - raw.p) : raw.n };
		enum err err = pair.n ? take_pair(query, route, pair, text, why) : OK;

		if (err)
			return err;
		raw.p += pair.n + (end != NULL);
		raw.n -= pair.n + (end != NULL);
	}
	return OK;
}
