/*
 * drain: how the server stops.
 *
 *	server_stop()		no new connections, no new work, parked receivers end
 *	server_stop_step()	answered all? close; all closed and Redis owes nothing? leave
 */
#include "base/log.h"
#include "own.h"

enum { STEP_US = 5000 };

void
server_stop_step(void *arg)
{
	struct server *srv = arg;
	struct store_info info;
	bool is_late = loop_now_us(srv->loop) >= srv->stop_until_us;

	if (!srv->is_closing && (is_late || !api_in_flight(srv->api))) {
		srv->is_closing = true;
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
	if (srv->is_stopping) {
		log_event(LOG_SERVER_STOP, log_int("signal", signal));
		loop_stop(srv->loop);
		return;
	}
	log_event(LOG_SERVER_DRAIN, log_int("signal", signal),
		  log_uint("connections", conns_count(srv->conns)),
		  log_uint("in_flight", api_in_flight(srv->api)));
	srv->is_stopping = true;
	server_note_state(srv);
	srv->stop_until_us = loop_now_us(srv->loop) + srv->cfg->server.drain_timeout_us;
	listeners_free(srv->listeners);
	srv->listeners = NULL;
	janitor_resign(srv->janitor);
	api_drain(srv->api);
	queues_end_waits(srv->queues, ERR_SHUTTING_DOWN);
	timer_set(&srv->stopping, STEP_US);
}
