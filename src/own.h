#ifndef COORDD_OWN_H
#define COORDD_OWN_H

#include "admin/admin.h"
#include "admin/metrics.h"
#include "api/api.h"
#include "base/loop.h"
#include "breaker/breaker.h"
#include "config/config.h"
#include "events/events.h"
#include "janitor.h"
#include "loglevel.h"
#include "net/listener.h"
#include "operate/operate.h"
#include "queue/queue.h"
#include "registry/registry.h"
#include "reload.h"
#include "service.h"
#include "store/bell.h"
#include "store/embedded.h"
#include "store/link.h"

/*
 * The server's objects, and what its parts share: server.c builds, drain.c stops. Inside src/ itself only.
 */

/* What the broker is doing, as others are told. */
enum server_state {
	SERVER_STARTING,
	SERVER_READY,
	SERVER_RELOADING,
	SERVER_DRAINING, /* hands out nothing, and stays until it is told otherwise */
	SERVER_STOPPING,
	SERVER_STATES
};

extern const char *const server_state_names[SERVER_STATES];

struct server {
	struct config *cfg;
	struct config_source *source;
	struct reloads reloads;
	struct loop *loop;
	struct embedded *embedded;
	struct store *store;
	struct queues *queues;
	struct events *events;
	struct registry *registry;
	struct breakers *breakers;
	struct operate *operate;
	struct api *api;
	struct conns *conns;
	struct listeners *listeners;
	struct janitor *janitor;
	struct metrics *metrics;
	struct service *service; /* the manager that runs us, if one does */
	struct admin *admin;     /* NULL when it is not enabled */
	struct event *on_term, *on_int, *on_hup, *on_usr1, *on_usr2;
	struct timer stopping, announce, page;
	struct bell *bell;
	struct loglevel loglevel;
	char instance_id[QUEUES_BROKER_LEN +
			 1]; /* random, of this process: "b-" and 16 characters */
	enum server_state state;
	bool is_announced, is_reloading, is_draining,
		is_stopping; /* what the state is made of */
	bool is_closing;
	uint64_t started_us, close_at_us, stop_until_us;
	int status;
};

/* One of the bits above has changed: whoever is told of the state is told. */
void server_note_state(struct server *srv);

/* drain.c */
/* Hand out nothing any more, and stay; or (false) hand out again. `by` is who asks, for the log. False: it did so before. */
bool server_drain(struct server *srv, bool drain, const char *by);
/* TERM or INT: no new connections, no new work; leave once all is answered, or in time. The second one leaves at once. */
void server_stop(struct server *srv, int signal);
void server_stop_step(void *srv);

/* page.c: the page of base/log_page.h, once a second. */
void server_page(void *srv);

/* control.c */
extern const struct control_ops server_control_ops;

#endif
