/*
 * server: build all objects and wire them, serve, free in reverse.
 *
 *	server_run()		from configuration to exit code
 *	on_redis_ready()	Redis is reached: the janitor looks first
 *	server_note_state()	starting, ready, reloading, draining, stopping: whoever is told of it
 *	server_stop()		drain.c
 */
#include "server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/id.h"
#include "base/log.h"
#include "base/log_page.h"
#include "base/unit.h"
#include "net/passed.h"
#include "own.h"
#include "settings.h"

enum { ANNOUNCE_MAX_US = 5000000 /* whoever started us waits for it */ };

const char *const server_state_names[SERVER_STATES] = { "starting", "ready", "reloading",
							"draining", "stopping" };

/* State ------------------------------------------------------------------------------------------ */

static const enum service_phase service_phases[SERVER_STATES] = {
	[SERVER_STARTING] = SERVICE_STARTING,   [SERVER_READY] = SERVICE_RUNNING,
	[SERVER_RELOADING] = SERVICE_RELOADING, [SERVER_DRAINING] = SERVICE_RUNNING,
	[SERVER_STOPPING] = SERVICE_STOPPING,
};

static void
describe(void *arg, char *out, size_t size)
{
	struct server *srv = arg;
	unsigned clients = conns_count(srv->conns);
	struct store_info info;
	size_t n;

	store_info(srv->store, &info);
	n = (size_t)snprintf(out, size, "%s, %u client%s", server_state_names[srv->state],
			     clients, clients == 1 ? "" : "s");
	if (srv->is_stopping)
		n += (size_t)snprintf(out + n, size - n, ", %u in flight",
				      api_in_flight(srv->api));
	snprintf(out + n, size - n, ", redis %s%s", info.ready ? "up" : "down: ", info.problem);
}

/* Redis may be away; that we look for it, and for what is due there, must go on. */
static bool
is_alive(void *arg)
{
	struct server *srv = arg;

	return link_is_alive(srv->store) && janitor_is_alive(srv->janitor);
}

static const struct service_ops service_ops = { describe, is_alive };

void
server_note_state(struct server *srv)
{
	enum server_state state = srv->is_stopping    ? SERVER_STOPPING
				  : srv->is_reloading ? SERVER_RELOADING
				  : srv->is_draining  ? SERVER_DRAINING
				  : srv->is_announced ? SERVER_READY
						      : SERVER_STARTING;

	if (state == srv->state)
		return;
	log_event(LOG_SERVER_STATE, log_text("from", server_state_names[srv->state]),
		  log_text("to", server_state_names[state]));
	srv->state = state;
	service_note(srv->service, service_phases[state]);
	server_page(srv);
}

/* Redis ------------------------------------------------------------------------------------------ */

/* It cannot serve, and leaves. Whoever started it by hand reads why, wherever the log is. */
static void
server_fail(struct server *srv, int status, const char *why)
{
	srv->status = status;
	log_event(LOG_SERVER_FAILED, log_text("reason", why), log_int("status", status));
	if (*log_file())
		fprintf(stderr, "coordd: %s\n", why);
	loop_stop(srv->loop);
}

/* Say once that we serve: when Redis is there, or when it has had its time. */
static void
announce(void *arg)
{
	struct server *srv = arg;
	struct store_info info;
	char message[200];
	struct errmsg why;

	if (srv->is_announced || srv->is_stopping)
		return;
	store_info(srv->store, &info);
	if (!info.ready && srv->cfg->redis.require_at_start) {
		errmsg_set(&why, ERR_UNSENT, "Redis is not there: %s", info.problem);
		server_fail(srv, EX_UNAVAILABLE, why.text);
		return;
	}
	srv->is_announced = true;
	server_note_state(srv);
	timer_clear(&srv->announce);
	log_event(LOG_SERVER_READY, log_text("listen", listeners_text(srv->listeners)),
		  log_text("admin", srv->admin ? admin_text(srv->admin) : ""),
		  log_text("redis", info.ready ? info.version : "down"),
		  log_text("version", COORDD_VERSION));
	if (info.ready && strcmp(store_durability(&info, message, sizeof(message)), "ok") != 0)
		log_event(LOG_REDIS_PERSISTENCE, log_text("problem", message));
	if (!info.ready && service_is_watched(srv->service) && !link_is_local(srv->store))
		log_event(LOG_REDIS_FILTERED, log_text("perhaps", UNIT_REDIS_WHY),
			  log_text("fix", UNIT_REDIS_FIX));
}

static void
on_redis_ready(void *arg)
{
	struct server *srv = arg;

	bell_follow(srv->bell, link_address(srv->store));
	janitor_on_ready(srv->janitor);
	events_look_all(srv->events);
	announce(srv);
}

static void
on_redis_down(void *arg, const char *why)
{
	(void)arg;
	(void)why; /* the link has logged it; requests are told by their own calls */
}

/* Before we ever served, a Redis that will not do is a matter of configuration. */
static void
on_redis_refused(void *arg, const char *why)
{
	struct server *srv = arg;

	if (srv->is_announced || srv->is_stopping)
		return;
	server_fail(srv, EX_CONFIG, why);
}

static const struct link_ops link_ops = { on_redis_ready, on_redis_down, on_redis_refused };

static void
on_ring(void *arg, struct str name)
{
	struct server *srv = arg;

	if (str_eq(name, STR("lead")))
		janitor_look(srv->janitor);
	else if (name.n)
		queues_look(srv->queues, name);
	else
		queues_note_settings(srv->queues);
}

static void
on_bell_event(void *arg, struct str ns)
{
	struct server *srv = arg;

	events_ring(srv->events, ns);
}

static void
on_bell_open(void *arg)
{
	struct server *srv = arg;

	queues_look_all(srv->queues);
	events_look_all(srv->events);
}

static const struct bell_ops bell_ops = { on_ring, on_bell_event, on_bell_open };

static void
on_queue_wake(void *arg, uint64_t due_us)
{
	struct server *srv = arg;

	janitor_wake(srv->janitor, due_us);
}

static const struct queues_ops queues_ops = { on_queue_wake };
static const struct registry_ops registry_ops = { on_queue_wake };

/* Signals ---------------------------------------------------------------------------------------- */

static void
on_stop_signal(evutil_socket_t sig, short what, void *arg)
{
	(void)what;
	server_stop(arg, (int)sig);
}

static void
on_drain_signal(evutil_socket_t sig, short what, void *arg)
{
	(void)sig;
	(void)what;
	server_drain(arg, true, "SIGUSR2");
}

static void
on_hup(evutil_socket_t sig, short what, void *arg)
{
	struct server *srv = arg;
	struct config_errors why = { 0 };

	(void)sig;
	(void)what;
	if (!srv->is_stopping)
		server_reload(srv, "SIGHUP", &why, NULL, NULL);
	config_errors_done(&why);
}

static void
on_usr1(evutil_socket_t sig, short what, void *arg)
{
	(void)sig;
	(void)what;
	(void)arg;
	if (!*log_file())
		return;
	if (log_reopen())
		log_event(LOG_LOG_REOPENED, log_text("file", log_file()));
	else
		log_event(LOG_LOG_REOPEN_FAILED, log_text("file", log_file()),
			  log_text("error", strerror(errno)));
}

static bool
is_serving(void *arg)
{
	const struct server *srv = arg;

	return srv->state == SERVER_READY || srv->state == SERVER_RELOADING;
}

/* Build ------------------------------------------------------------------------------------------ */

static bool
open_admin(struct server *srv, struct errmsg *why)
{
	const struct config *cfg = srv->cfg;
	struct admin_parts parts = { srv->loop, srv->store, srv->events, srv->api,
				     srv->metrics };
	struct admin_config config = settings_admin(cfg);

	if (!cfg->admin.enabled)
		return true;
	srv->admin = admin_new(&parts, &config, (const char *const *)cfg->admin.listen.items,
			       cfg->admin.listen.n, cfg->server.unix_mode, why);
	return srv->admin != NULL;
}

static void
name_instance(struct server *srv)
{
	uint8_t id[12];

	id_random(id, sizeof(id));
	memcpy(srv->instance_id, "b-", 2);
	id_encode(srv->instance_id + 2, id, sizeof(id));
}

static bool
open_store(struct server *srv, struct errmsg *why)
{
	const struct config *cfg = srv->cfg;
	struct link_config link;

	if (cfg->redis.embedded.enabled) {
		struct embedded_config embedded = {
			.binary = cfg->redis.embedded.binary,
			.directory = cfg->redis.embedded.directory,
			.socket = cfg->redis.embedded.socket,
			.appendfsync = cfg->redis.embedded.appendfsync,
			.maxmemory = cfg->redis.embedded.maxmemory,
		};

		srv->embedded = embedded_new(srv->loop, &embedded, why);
		if (!srv->embedded)
			return false;
	}
	link = settings_link(srv);
	name_instance(srv);
	srv->store = link_new(srv->loop, &link, &link_ops, srv);
	srv->bell = bell_new(srv->loop, &link, srv->instance_id, &bell_ops, srv);
	return true;
}

/* What a start fails of, as an exit status. */
static int
status_of(enum err err)
{
	switch (err) {
	case ERR_UNSENT: /* an address, a directory: another has it */
		return EX_UNAVAILABLE;
	case ERR_FORBIDDEN: /* a file, a directory, a socket's file */
		return EX_CANTCREAT;
	case ERR_INTERNAL: /* a process, a pipe */
		return EX_OSERR;
	default:
		return EX_CONFIG;
	}
}

static enum err
server_start(struct server *srv, struct errmsg *why)
{
	const struct config *cfg = srv->cfg;
	struct conn_limits limits = settings_conns(cfg);
	struct queue_policy policy = settings_queues(cfg);
	struct registry_config registry = settings_registry(cfg);
	struct breaker_config breaker = settings_breakers(cfg);
	struct api_config api = settings_api(cfg);
	struct metrics_config metrics = settings_metrics(cfg);

	if (!open_store(srv, why))
		return why->err;
	srv->queues = queues_new(srv->loop, srv->store, cfg->redis.key_prefix, srv->instance_id,
				 &policy, cfg->limits.max_frame, &queues_ops, srv);
	srv->events = events_new(srv->loop, srv->store, cfg->redis.key_prefix);
	srv->registry = registry_new(srv->loop, srv->store, &registry, &registry_ops, srv);
	srv->breakers = breakers_new(srv->store, cfg->redis.key_prefix, &breaker,
				     cfg->breakers.state_ttl_us);
	settings_policies(srv);
	srv->api = api_new(srv->loop, srv->store, srv->queues, srv->instance_id, &api);
	api_set_events(srv->api, srv->events);
	api_set_registry(srv->api, srv->registry);
	api_set_breakers(srv->api, srv->breakers);
	srv->operate = operate_new(srv->store, cfg->redis.key_prefix);
	api_set_operate(srv->api, srv->operate);
	srv->conns = conns_new(srv->loop, &limits, &api_conn_ops, srv->api);
	api_set_conns(srv->api, srv->conns);
	api_set_control(srv->api, &server_control_ops, srv);
	srv->janitor = janitor_new(srv->loop, srv->store, srv->queues, srv->api,
				   cfg->redis.key_prefix, cfg->sweep.grace_us);
	janitor_set_registry(srv->janitor, srv->registry);
	janitor_set_breakers(srv->janitor, srv->breakers);
	srv->metrics = metrics_new(srv->loop, srv->store, srv->queues, srv->api, &metrics,
				   is_serving, srv);
	srv->listeners = listeners_new(
		srv->loop, srv->conns, (const char *const *)cfg->server.listen.items,
		cfg->server.listen.n, cfg->server.unix_mode, (int)cfg->server.backlog, why);
	if (!srv->listeners || !open_admin(srv, why))
		return why->err == ERR_FORBIDDEN ? ERR_FORBIDDEN : ERR_UNSENT;
	if (!listeners_are_local(srv->listeners))
		return errmsg_set(
			why, ERR_BAD_REQUEST,
			"%.200s: a socket that was passed is open to other machines; without "
			"authentication only loopback addresses and Unix sockets are served",
			listeners_text(srv->listeners));
	passed_close_rest();
	timer_set(&srv->announce, cfg->redis.connect_timeout_us < ANNOUNCE_MAX_US
					  ? cfg->redis.connect_timeout_us
					  : ANNOUNCE_MAX_US);
	return OK;
}

static void
watch_signals(struct server *srv)
{
	struct event_base *base = loop_base(srv->loop);

	signal(SIGPIPE, SIG_IGN);
	srv->on_term = evsignal_new(base, SIGTERM, on_stop_signal, srv);
	srv->on_int = evsignal_new(base, SIGINT, on_stop_signal, srv);
	srv->on_hup = evsignal_new(base, SIGHUP, on_hup, srv);
	event_add(srv->on_term, NULL);
	event_add(srv->on_int, NULL);
	srv->on_usr1 = evsignal_new(base, SIGUSR1, on_usr1, srv);
	event_add(srv->on_hup, NULL);
	event_add(srv->on_usr1, NULL);
	srv->on_usr2 = evsignal_new(base, SIGUSR2, on_drain_signal, srv);
	event_add(srv->on_usr2, NULL);
}

/* It has stopped: who asks for that once more has no reason to see it killed. */
static void
hold_signals(void)
{
	sigset_t held;

	sigemptyset(&held);
	sigaddset(&held, SIGTERM);
	sigaddset(&held, SIGINT);
	sigprocmask(SIG_BLOCK, &held, NULL);
}

static void
server_free(struct server *srv)
{
	listeners_free(srv->listeners);
	admin_free(srv->admin); /* its calls and watches are gone */
	conns_free(srv->conns);
	bell_free(srv->bell);
	link_free(srv->store); /* what is left of operations is told now */
	queues_free(srv->queues);
	events_free(srv->events);
	registry_free(srv->registry);
	breakers_free(srv->breakers);
	operate_free(srv->operate);
	janitor_free(srv->janitor);
	metrics_free(srv->metrics);
	api_free(srv->api);
	embedded_free(srv->embedded);
	hold_signals();
	event_free(srv->on_term);
	event_free(srv->on_int);
	event_free(srv->on_hup);
	event_free(srv->on_usr1);
	event_free(srv->on_usr2);
	loglevel_done(&srv->loglevel);
	free(srv->reloads.problem);
	timer_done(&srv->stopping);
	timer_done(&srv->announce);
	timer_done(&srv->page);
	service_free(srv->service);
	loop_free(srv->loop);
}

static void
serve(struct server *srv)
{
	server_page(srv);
	log_page_catch();
	loop_run(srv->loop);
}

int
server_run(struct config *cfg, struct config_source *source)
{
	struct server srv = { .cfg = cfg, .source = source, .loop = loop_new() };
	struct errmsg why = { 0 };
	enum err err;

	if (!srv.loop) {
		fputs("coordd: no event loop\n", stderr);
		return EX_OSERR;
	}
	timer_init(&srv.stopping, srv.loop, server_stop_step, &srv);
	timer_init(&srv.announce, srv.loop, announce, &srv);
	timer_init(&srv.page, srv.loop, server_page, &srv);
	srv.started_us = loop_now_us(srv.loop);
	srv.reloads.ok_us = reload_time_us();
	srv.service = service_new(srv.loop, &service_ops, &srv);
	loglevel_init(&srv.loglevel, srv.loop, cfg->log.level);
	watch_signals(&srv);
	settings_descriptors(cfg);
	err = server_start(&srv, &why);
	if (err)
		server_fail(&srv, status_of(err), why.text);
	else
		serve(&srv);
	if (!srv.status)
		log_event(LOG_SERVER_STOPPED);
	server_free(&srv);
	return srv.status;
}
