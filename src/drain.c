/*
 * drain: how the server hands out no more, and how it stops.
 *
 *	server_drain()		parked receivers end, consumers are told; all else goes on
 *	server_stop()		no new connections, no new work, parked receivers end
 *	server_stop_step()	answered and settled all? close; all closed and Redis owes nothing? leave
 */
#include <signal.h>

#include "base/log.h"
#include "own.h"

enum {
	STEP_US = 5000,
	CLOSE_US =
		500000, /* what is left of the time when connections are closed whatever they hold: it goes back */
};

static void
log_drain(const struct server *srv, enum log_kind event, const char *by)
{
	log_event(event, log_text("by", by), log_uint("connections", conns_count(srv->conns)),
		  log_uint("in_flight", api_in_flight(srv->api)),
		  log_uint("unsettled", api_unsettled(srv->api)));
}

bool
server_drain(struct server *srv, bool drain, const char *by)
{
	if (srv->is_stopping || srv->is_draining == drain)
		return false;
	log_drain(srv, drain ? LOG_SERVER_DRAIN : LOG_SERVER_UNDRAIN, by);
	srv->is_draining = drain;
	api_hold_back(srv->api, drain);
	server_note_state(srv);
	return true;
}

void
server_stop_step(void *arg)
{
	struct server *srv = arg;
	struct store_info info;
	uint64_t now = loop_now_us(srv->loop);
	bool is_late = now >= srv->stop_until_us;

	if (!srv->is_closing && (now >= srv->close_at_us ||
				 (!api_in_flight(srv->api) && !api_unsettled(srv->api)))) {
		srv->is_closing = true;
		janitor_resign(srv->janitor);
		conns_close_all(srv->conns);
	}
	store_info(srv->store, &info);
	if (is_late || (srv->is_closing && !conns_count(srv->conns) && !info.pending)) {
		loop_stop(srv->loop);
		return;
	}
	timer_set(&srv->stopping, STEP_US);
}

void
server_stop(struct server *srv, int signal)
{
	uint64_t timeout = srv->cfg->server.drain_timeout_us;

	if (srv->is_stopping) {
		log_drain(srv, LOG_SERVER_STOP_NOW, signal == SIGINT ? "SIGINT" : "SIGTERM");
		loop_stop(srv->loop);
		return;
	}
	log_drain(srv, LOG_SERVER_STOP, signal == SIGINT ? "SIGINT" : "SIGTERM");
	srv->is_stopping = true;
	server_note_state(srv);
	srv->stop_until_us = loop_now_us(srv->loop) + timeout;
	srv->close_at_us =
		srv->stop_until_us - (timeout / 2 < CLOSE_US ? timeout / 2 : CLOSE_US);
	listeners_free(srv->listeners);
	srv->listeners = NULL;
	api_stop(srv->api);
	timer_set(&srv->stopping, STEP_US);
}
