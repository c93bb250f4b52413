#ifndef COORDD_ADMIN_METRICS_H
#define COORDD_ADMIN_METRICS_H

#include "api/api.h"
#include "base/buf.h"
#include "base/loop.h"
#include "queue/queue.h"
#include "store/store.h"

/*
 * base/stats.def as Prometheus reads it: text format 0.0.4 (METRICS_TYPE). docs/METRICS.md explains what it tells.
 */
struct metrics;
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct metrics_config {
	const char *key_prefix;
	bool per_queue; /* queues have labels of their own */
	unsigned
		max_names; /* of queues, of types of agents, of breakers; the others share a label */
};

/* `is_serving` says whether requests are served, Redis aside. */
struct metrics *
metrics_new(struct loop *loop, struct store *store, struct queues *queues, struct api *api,
	    const struct metrics_config *config, bool (*is_serving)(void *arg), void *arg);
void metrics_set_config(struct metrics *metrics, bool per_queue, unsigned max_names);
/* The store was freed before. */
void metrics_free(struct metrics *metrics);

/*
 * Append all of it, of queues those whose encoded type:instance is as `queues` says (str_glob; n 0: all), at most some megabytes: what is in Redis as it was some seconds ago, and not at all the first time. Never
 * waits: of files only those of /proc are read, which are none.
 */
void metrics_write(struct metrics *metrics, struct str queues, struct buf *out);

/* A request to the admin port was answered with the HTTP status `code`; `route` is its row in routes.def, or too large for none. */
void metrics_count_request(unsigned route, unsigned code);

#endif
