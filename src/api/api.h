#ifndef COORDD_API_API_H
#define COORDD_API_API_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "breaker/breaker.h"
#include "events/events.h"
#include "net/conn.h"
#include "operate/operate.h"
#include "queue/queue.h"
#include "registry/registry.h"

/*
 * Methods to operations: decode, call one operation, encode. Every decision is below this layer.
 */
struct api;

enum { API_MAX_BATCH = 1000 }; /* elements of a batch: fixed by the protocol */
#ifndef COORDD_VERSION
#define COORDD_VERSION "0.0.0" /* the Makefile knows better */
#endif

struct api_config {
	size_t max_frame;
	unsigned
		max_inflight; /* requests unanswered on one connection before its reading rests */
	unsigned max_parked; /* waiting receives on one connection before `overloaded` */
	bool portable_payloads;
	uint64_t visibility_us; /* of a receive that names none */
	bool audit;             /* what operators do is kept in Redis */
	unsigned audit_keep;    /* so many of the last entries */
};

/* `conns` are made with api_conn_ops and the api as their argument; hand them over with
 * api_set_conns(), who reads the events with api_set_events(), the agents with api_set_registry(), the breakers with
 * api_set_breakers(), and what operators ask for with api_set_operate(). */
struct api *api_new(struct loop *loop, struct store *store, struct queues *queues,
		    const char *instance_id, const struct api_config *config);
void api_set_conns(struct api *api, struct conns *conns);
void api_set_events(struct api *api, struct events *events);
void api_set_registry(struct api *api, struct registry *registry);
void api_set_breakers(struct api *api, struct breakers *breakers);
void api_set_operate(struct api *api, struct operate *operate);
void api_free(struct api *api);
extern const struct conn_ops api_conn_ops;

/* The broker stops: from now on most methods answer `shutting_down`. */
void api_drain(struct api *api);
/* Requests unanswered, over all connections, parked receives included. */
unsigned api_in_flight(const struct api *api);
/* Once a second: forget what needs no watch any more. */
void api_on_second(struct api *api);
const char *api_instance_id(const struct api *api);

#endif
