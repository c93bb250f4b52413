/* settings: from the configuration to the objects, at the start and after each reload. */
#include "settings.h"

#include <stdlib.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/mem.h"

enum { SPARE_FDS = 64, EMBEDDED_RECONNECT_US = 5000 };

struct conn_limits
settings_conns(const struct config *cfg)
{
	return (struct conn_limits){
		.frame = { cfg->limits.max_frame, cfg->limits.max_elements },
		.output_high_water = cfg->limits.output_high_water,
		.output_limit = cfg->limits.output_limit,
		.output_stall_us = cfg->limits.output_stall_timeout_us,
		.hello_timeout_us = cfg->server.hello_timeout_us,
		.frame_timeout_us = cfg->limits.frame_timeout_us,
		.idle_timeout_us = cfg->server.idle_timeout_us,
		.tcp_keepalive_us = cfg->server.tcp_keepalive_us,
		.tcp_nodelay = cfg->server.tcp_nodelay,
		.max_connections = cfg->server.max_connections,
		.max_per_ip = cfg->server.max_connections_per_ip,
	};
}

static struct queue_policy
queue_policy_of(const struct config *cfg, const struct config_queue *queue)
{
	return (struct queue_policy){
		.queue_size = queue->queue_size,
		.retry_attempts = queue->retry_attempts,
		.backoff_base_us = queue->backoff_base_us,
		.backoff_factor = queue->backoff_factor,
		.backoff_max_us = queue->backoff_max_us,
		.backoff_jitter = queue->backoff_jitter,
		.visibility_us = queue->visibility_timeout_us,
		.max_visibility_us = queue->max_visibility_timeout_us,
		.ttl_us = queue->message_ttl_us,
		.dead_letter_max = queue->dead_letter_max,
		.dedup_window_us = queue->dedup_window_us,
		.max_inflight = queue->max_inflight_per_consumer,
		.forget_after_us = cfg->queues.forget_after_us,
		.max_lease_us = queue->max_lease_us,
	};
}

struct queue_policy
settings_queues(const struct config *cfg)
{
	return queue_policy_of(cfg, &cfg->queues.defaults);
}

static struct breaker_config
breaker_config_of(const struct config_breaker *breaker)
{
	return (struct breaker_config){
		.have = (1u << BREAKER_SETTINGS) - 1,
		.values = {
			[BREAKER_FAILURE_THRESHOLD] = breaker->failure_threshold,
			[BREAKER_TIMEOUT] = breaker->timeout_us,
			[BREAKER_RECOVERY_TIMEOUT] = breaker->recovery_timeout_us,
			[BREAKER_HALF_OPEN_CALLS] = breaker->half_open_max_calls,
			[BREAKER_SUCCESS_THRESHOLD] = breaker->success_threshold,
		},
	};
}

struct breaker_config
settings_breakers(const struct config *cfg)
{
	return breaker_config_of(&cfg->breakers.defaults);
}

void
settings_policies(struct server *srv)
{
	const struct config *cfg = srv->cfg;
	const struct config_overrides *queues = &cfg->queues.overrides,
				      *breakers = &cfg->breakers.overrides;
	struct queue_override *for_queues = xcalloc(queues->n, sizeof(*for_queues));
	struct breaker_override *for_breakers = xcalloc(breakers->n, sizeof(*for_breakers));
	struct queue_policy policy = settings_queues(cfg);
	struct breaker_config breaker = settings_breakers(cfg);

	for (unsigned i = 0; i < queues->n; i++)
		for_queues[i] = (struct queue_override){
			queues->items[i].match, queue_policy_of(cfg, &queues->items[i].queue)
		};
	for (unsigned i = 0; i < breakers->n; i++)
		for_breakers[i] = (struct breaker_override){
			breakers->items[i].match, breaker_config_of(&breakers->items[i].breaker)
		};
	queues_set_policy(srv->queues, &policy, for_queues, queues->n, cfg->limits.max_frame);
	breakers_set_defaults(srv->breakers, &breaker, for_breakers, breakers->n,
			      cfg->breakers.state_ttl_us);
	breakers_set_max(srv->breakers, cfg->breakers.max_breakers);
	free(for_queues);
	free(for_breakers);
}

struct api_config
settings_api(const struct config *cfg)
{
	return (struct api_config){
		.name = cfg->server.name,
		.max_frame = cfg->limits.max_frame,
		.max_inflight = cfg->limits.max_inflight_per_connection,
		.max_parked = cfg->limits.max_parked_per_connection,
		.portable_payloads = cfg->limits.portable_payloads,
		.audit = cfg->audit.enabled,
		.audit_keep = cfg->audit.keep,
		.slow_request_us = cfg->log.slow_request_us,
	};
}

struct admin_config
settings_admin(const struct config *cfg)
{
	return (struct admin_config){
		.http = {
			.header_timeout_us = cfg->admin.header_timeout_us,
			.idle_timeout_us = cfg->admin.idle_timeout_us,
			.max_connections = cfg->admin.max_connections,
			.max_streams = cfg->admin.max_streams,
			.max_header = cfg->admin.max_header,
			.max_body = cfg->admin.max_body,
			.allow_hosts = (const char *const *)cfg->admin.allow_hosts.items,
			.n_allow_hosts = cfg->admin.allow_hosts.n,
		},
		.write = cfg->admin.write,
		.operators = (const char *const *)cfg->admin.operators.items,
		.n_operators = cfg->admin.operators.n,
		.show_payloads = cfg->admin.show_payloads,
	};
}

struct registry_config
settings_registry(const struct config *cfg)
{
	return (struct registry_config){
		.key_prefix = cfg->redis.key_prefix,
		.ttl_us = cfg->registry.heartbeat_ttl_us,
		.forget_after_us = cfg->registry.forget_after_us,
		.late_after_us = cfg->registry.late_after_us,
		.max_agents = cfg->registry.max_agents,
		.max_frame = cfg->limits.max_frame,
	};
}

struct metrics_config
settings_metrics(const struct config *cfg)
{
	return (struct metrics_config){
		.key_prefix = cfg->redis.key_prefix,
		.per_queue = cfg->metrics.per_queue,
		.max_names = cfg->metrics.max_label_values,
	};
}

struct log_config
settings_log(const struct config *cfg)
{
	return (struct log_config){
		.file = cfg->log.file,
		.format = cfg->log.format,
		.level = cfg->log.level,
		.rate_limit = cfg->log.rate_limit,
	};
}

struct link_config
settings_link(const struct server *srv)
{
	const struct config *cfg = srv->cfg;
	struct link_config link = {
		.url = cfg->redis.url,
		.username = cfg->redis.username,
		.password = cfg->redis.password,
		.key_prefix = cfg->redis.key_prefix,
		.connect_timeout_us = cfg->redis.connect_timeout_us,
		.command_timeout_us = cfg->redis.command_timeout_us,
		.reconnect_min_us = cfg->redis.reconnect_min_us,
		.reconnect_max_us = cfg->redis.reconnect_max_us,
		.pending_limit = cfg->redis.pending_limit,
		.require_noeviction = cfg->redis.require_noeviction,
	};

	if (srv->embedded) {
		link.url = embedded_url(srv->embedded);
		link.username = link.password = "";
		/* It answers within milliseconds, or loads its data: ask often. */
		link.reconnect_min_us = EMBEDDED_RECONNECT_US;
	}
	return link;
}

void
settings_descriptors(const struct config *cfg)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < cfg->server.max_connections + SPARE_FDS)
		log_event(LOG_SERVER_DESCRIPTORS, log_uint("limit", limit.rlim_cur),
			  log_uint("max_connections", cfg->server.max_connections),
			  log_text("hint", "raise LimitNOFILE"));
}

void
settings_apply(struct server *srv)
{
	const struct config *cfg = srv->cfg;
	struct conn_limits limits = settings_conns(cfg);
	struct registry_config registry = settings_registry(cfg);
	struct api_config api = settings_api(cfg);
	struct admin_config admin = settings_admin(cfg);
	struct link_config link = settings_link(srv);

	loglevel_configure(&srv->loglevel, cfg->log.level);
	settings_descriptors(cfg);
	link_set_config(srv->store, &link);
	bell_set_config(srv->bell, &link);
	settings_policies(srv);
	registry_set_config(srv->registry, &registry);
	api_set_config(srv->api, &api);
	conns_set_limits(srv->conns, &limits);
	janitor_set_grace(srv->janitor, cfg->sweep.grace_us);
	metrics_set_config(srv->metrics, cfg->metrics.per_queue, cfg->metrics.max_label_values);
	if (srv->admin)
		admin_set_config(srv->admin, &admin);
}
