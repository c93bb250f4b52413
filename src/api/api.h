#ifndef COORDD_API_API_H
#define COORDD_API_API_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "breaker/breaker.h"
#include "config/config.h"
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
	const char *name; /* of the broker, for people; "" the host's */
	size_t max_frame;
	unsigned
		max_inflight; /* requests unanswered on one connection before its reading rests */
	unsigned max_parked; /* waiting receives on one connection before `overloaded` */
	bool portable_payloads;
	bool audit;               /* what operators do is kept in Redis */
	unsigned audit_keep;      /* so many of the last entries */
	uint64_t slow_request_us; /* one that took longer is logged; 0 none */
};

/* `conns` are made with api_conn_ops and the api as their argument; hand them over with
 * api_set_conns(), who reads the events with api_set_events(), the agents with api_set_registry(), the breakers with
 * api_set_breakers(), and what operators ask for with api_set_operate(). */
struct api *api_new(struct loop *loop, struct store *store, struct queues *queues,
		    const char *instance_id, const struct api_config *config);
/* What applies from now on, to connections that are there too. */
void api_set_config(struct api *api, const struct api_config *config);
void api_set_conns(struct api *api, struct conns *conns);
void api_set_events(struct api *api, struct events *events);
void api_set_registry(struct api *api, struct registry *registry);
void api_set_breakers(struct api *api, struct breakers *breakers);
void api_set_operate(struct api *api, struct operate *operate);
void api_free(struct api *api);
extern const struct conn_ops api_conn_ops;

/* What operators ask of the broker as a whole. `by` is who does, for the log. */
struct level_info {
	enum log_level level, configured;
	uint64_t for_us; /* until then the one is in the place of the other; 0 no end */
};
/* The configuration, and how reading it again went. */
struct config_state {
	const struct config *in_force;
	uint64_t since_us;   /* when it was read; our clock's time of day */
	const char *problem; /* why the last reload was refused; NULL where it was not */
};
struct control_ops {
	/* False: it did so before. */
	bool (*drain)(void *arg, bool drain, const char *by);
	void (*level)(void *arg, struct level_info *out);
	/* `for_us` 0: until a reload brings another one. */
	void (*set_level)(void *arg, enum log_level level, uint64_t for_us, const char *by);
	/* src/reload.h; with `dry_run` what would change is told and nothing done. */
	enum err (*reload)(void *arg, bool dry_run, const char *by, struct config_errors *why,
			   config_change_cb *cb, void *cb_arg);
	void (*config)(void *arg, struct config_state *out);
};
void api_set_control(struct api *api, const struct control_ops *ops, void *arg);

/* Hand out nothing any more, and tell so whoever waits or consumes; everything else goes on. Or (false) hand out again. */
void api_hold_back(struct api *api, bool hold);
/* The broker stops: as that, and most methods answer `shutting_down`. */
void api_stop(struct api *api);
/* Messages that connections were given and have not settled: leases of theirs, and what consumers hold, before its deadline. */
unsigned api_unsettled(const struct api *api);
/* Requests unanswered, over all connections, parked receives included. */
unsigned api_in_flight(const struct api *api);
/* Of these, receives that wait. */
unsigned api_parked(const struct api *api);
/* Once a second: forget what needs no watch any more. */
void api_on_second(struct api *api);
/* How the broker is, and what is in the namespace `ns` (borrowed until `cb` runs): what `status` answers. `cb` runs exactly once,
 * and never before this returns, whatever Redis does; `look` dies with it. */
struct look;
typedef void look_cb(void *arg, const struct look *look);
void api_look(struct api *api, struct str ns, look_cb *cb, void *arg);
/* As MessagePack, a map. */
void look_put(struct buf *b, const struct look *look);
/* The checks of `status` that need nobody to be asked, as one MessagePack array. */
void api_put_checks(struct api *api, struct buf *b);
const char *api_instance_id(const struct api *api);

#endif
