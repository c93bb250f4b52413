/*
 * page: once a second, what the broker would say if a signal ended it now.
 */
#include <unistd.h>

#include "base/log_page.h"
#include "base/stats.h"
#include "own.h"

enum { PAGE_US = 1000000 };

static void
add_requests(struct server *srv)
{
	uint64_t all = 0, internal = 0;

	for (unsigned m = 0; m < STAT_METHODS; m++) {
		for (unsigned e = 0; e < ERR_COUNT; e++)
			all += process_stats.requests[m][e];
		internal += process_stats.requests[m][ERR_INTERNAL];
	}
	log_page_add(LOG_STATE_REQUESTS, log_uint("unanswered", api_in_flight(srv->api)),
		     log_uint("answered", all), log_uint("internal", internal));
}

void
server_page(void *arg)
{
	struct server *srv = arg;
	struct store_info info;

	store_info(srv->store, &info);
	log_page_begin();
	log_page_add(
		LOG_STATE_SERVER, log_text("state", server_state_names[srv->state]),
		log_text("version", COORDD_VERSION), log_int("pid", getpid()),
		log_text("instance", srv->instance_id),
		log_uint("uptime_s", (loop_now_us(srv->loop) - srv->started_us) / 1000000));
	log_page_add(LOG_STATE_CLIENTS, log_uint("connections", conns_count(srv->conns)),
		     log_uint("received_bytes", process_stats.received_bytes[0]),
		     log_uint("sent_bytes", process_stats.sent_bytes[0]));
	add_requests(srv);
	log_page_add(LOG_STATE_REDIS, log_flag("up", info.ready),
		     log_text("version", info.version), log_text("problem", info.problem),
		     log_uint("pending", info.pending), log_uint("calls", info.calls),
		     log_uint("errors", info.errors), log_uint("reconnects", info.reconnects),
		     log_ms("round_trip_ms", (uint64_t)(info.round_trip_ms * 1e3)));
	log_page_end();
	timer_set(&srv->page, PAGE_US);
}
