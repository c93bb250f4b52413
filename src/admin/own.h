#ifndef COORDD_ADMIN_OWN_H
#define COORDD_ADMIN_OWN_H

#include "admin/admin.h"
#include "admin/json.h"
#include "admin/problem.h"
#include "admin/route.h"

/* What the parts of the admin port share. Inside src/admin only. */

struct admin {
	struct admin_parts parts;
	struct admin_config config;
	struct http *http;
	uid_t *operators;
	unsigned n_operators;
	TAILQ_HEAD(, ask) asks;
	TAILQ_HEAD(, tail) tails;
	uint64_t last_event_id;
};

/* A request that was found good: its route, and what its path and query name. Borrowed for the call. */
struct asked {
	const struct route *route;
	struct route_match match;
	struct query query;
	struct buf *text; /* of both, with room to decode more */
};

/* What answers a route; each answers `req`, now or later. */
#define ROUTE(verb, path, handler, method, access, queries, shape, key, help) \
	void admin_##handler(struct admin *admin, struct http_request *req,   \
			     struct asked *asked);
#include "admin/routes.def"
#undef ROUTE

/* ask.c: all that waits for an answer of the dispatch. */
void asks_free(struct admin *admin);
/* tail.c: all streams. */
void tails_free(struct admin *admin);

/* body.c: the pairs of a body, a JSON object, as MessagePack; how many is added to `n`. No body has none. */
enum err
body_read(struct http_request *req, struct buf *pairs, uint32_t *n, struct errmsg *why);
/* shape.c: the value of a key of a map, raw, and the text that it is; n 0 when there is none. */
struct str value_of(struct str map, const char *key);
struct str text_of(struct str map, const char *key);
/* shape.c: the JSON of a result, as its route has it; false when it is the answer of what is not there. */
bool shape_put(struct buf *b, const struct route *route, struct str result,
	       const struct json_how *how);

#endif
