#ifndef COORDD_ADMIN_ROUTE_H
#define COORDD_ADMIN_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* Paths and queries against routes.def and queries.def. Pure text: what is matched is decoded
 * into a buffer of the caller, which must have room for twice what path and query are long, as it may not move. */

enum route_access { ROUTE_READ, ROUTE_INSPECT, ROUTE_WRITE };
enum route_shape {
	SHAPE_OWN,
	SHAPE_PLAIN,
	SHAPE_PAGE,
	SHAPE_ITEMS,
	SHAPE_ROWS,
	SHAPE_AGENTS,
	SHAPE_VALUE,
	SHAPE_GONE
};

enum query_name {
#define QUERY(name, kind, param)            QUERY_##name,
#define QUERY_AS(member, name, kind, param) QUERY_##member,
#include "admin/queries.def"
#undef QUERY
#undef QUERY_AS
	QUERY_COUNT
};
#define Q(name) (1u << QUERY_##name)
enum query_kind { QUERY_LOCAL, QUERY_TEXT, QUERY_COUNT_OF, QUERY_BOOL, QUERY_AGENT };

enum path_part {
	PART_queue,
	PART_type,
	PART_instance,
	PART_name,
	PART_dead,
	PART_connection,
	PATH_PARTS
};

struct route {
	const char *verb, *path, *method;
	enum route_access access;
	unsigned queries;
	enum route_shape shape;
	const char *key, *help;
};

enum {
	ROUTES = 0
#define ROUTE(verb, path, handler, method, access, queries, shape, key, help) +1
#include "admin/routes.def"
#undef ROUTE
};
extern const struct route routes[ROUTES];

/* What a path names; `have` has a bit for each. */
struct route_match {
	unsigned have;
	struct str parts[PATH_PARTS];
};

struct query {
	unsigned have; /* Q(name) */
	struct str values[QUERY_COUNT];
};

extern const char *const path_part_names[PATH_PARTS];
const char *query_param(enum query_name q); /* of the method; "" for a local one */
enum query_kind query_kind(enum query_name q);

/*
 * The route of a path (as sent) with this verb; HEAD is GET. NULL when there is none: then `allow`, of 64 bytes, has the
 * verbs that the path knows, "" for none. What the path names is put into `match`, decoded into `text`, and lives as long. `why` is set, and NULL returned, for a path that is wrong in itself.
 */
const struct route *route_find(const char *verb, struct str path, struct route_match *match,
			       char *allow, struct buf *text, struct errmsg *why);

/* Read the query of a route; `text` as above, behind what it holds. `namespace` may always be there. */
enum err query_read(struct query *query, const struct route *route, struct str raw,
		    struct buf *text, struct errmsg *why);

/* "type:instance", in which ':' and '%' of the two are percent-encoded; decoded in place. False when it is none. */
bool agent_read(struct str s, struct str *type, struct str *instance, struct buf *text);

#endif
