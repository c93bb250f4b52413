#ifndef COORDD_CONFIG_CONFIG_H
#define COORDD_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/log.h"

/*
 * What options.def lists, as values. A flag wins over the environment, that over a file, a later
 * file over an earlier one, a file over the default (struct config_source). Durations are in
 * microseconds, sizes in bytes; texts are never NULL and belong to the config. All zero is an
 * empty one, good for config_load() and config_done() only.
 */
struct config_list {
	char **items;
	unsigned n;
};

/* What may differ from queue to queue. */
struct config_queue {
	unsigned queue_size, retry_attempts, max_inflight_per_consumer, dead_letter_max;
	uint64_t visibility_timeout_us, max_visibility_timeout_us, message_ttl_us;
	uint64_t backoff_base_us, backoff_max_us, dedup_window_us, max_lease_us;
	double backoff_factor, backoff_jitter;
};

/* What may differ from breaker to breaker. */
struct config_breaker {
	unsigned failure_threshold, half_open_max_calls, success_threshold;
	uint64_t timeout_us, recovery_timeout_us;
};

/* One entry of an `overrides`: for whom it is, and the whole of what is in force there. */
struct config_override {
	char *match;  /* * stands for any bytes, ? for one */
	uint64_t set; /* bit i: the i-th option of the defaults is from here */
	union {
		struct config_queue queue;
		struct config_breaker breaker;
	};
};
struct config_overrides {
	struct config_override *items; /* the first that matches counts */
	unsigned n;
};

struct config {
	unsigned version;
	struct {
		char *name;
		struct config_list listen;
		unsigned unix_mode, backlog, max_connections, max_connections_per_ip;
		uint64_t hello_timeout_us, idle_timeout_us, tcp_keepalive_us, drain_timeout_us;
		bool tcp_nodelay;
	} server;
	struct {
		uint64_t max_frame, output_high_water, output_limit;
		unsigned max_elements, max_inflight_per_connection, max_parked_per_connection;
		uint64_t output_stall_timeout_us, frame_timeout_us;
		bool portable_payloads;
	} limits;
	struct {
		struct config_list listen, allow_hosts, operators;
		enum config_write { WRITE_NEVER, WRITE_UNIX, WRITE_ALWAYS } write;
		uint64_t header_timeout_us, idle_timeout_us, max_header, max_body;
		unsigned max_connections, max_streams;
		bool enabled, show_payloads;
	} admin;
	struct {
		char *url, *username, *password, *password_file, *key_prefix;
		uint64_t connect_timeout_us, command_timeout_us, reconnect_min_us,
			reconnect_max_us;
		unsigned pending_limit;
		bool require_noeviction, require_at_start;
		struct {
			bool enabled;
			char *binary, *directory, *socket, *appendfsync;
			uint64_t maxmemory;
		} embedded;
	} redis;
	struct {
		struct config_queue defaults;
		struct config_overrides overrides; /* of struct config_queue */
		uint64_t forget_after_us;
	} queues;
	struct {
		uint64_t grace_us;
	} sweep;
	struct {
		struct config_breaker defaults;
		struct config_overrides overrides; /* of struct config_breaker */
		uint64_t state_ttl_us;
		unsigned max_breakers;
	} breakers;
	struct {
		uint64_t heartbeat_ttl_us, late_after_us, forget_after_us;
		unsigned max_agents;
	} registry;
	struct {
		bool enabled;
		unsigned keep;
	} audit;
	struct {
		bool per_queue;
		unsigned max_label_values;
	} metrics;
	struct {
		enum log_level level;
		enum log_format format;
		char *file;
		uint64_t slow_request_us;
		unsigned rate_limit;
	} log;
	struct config_origin
		*origins; /* where each value came from, in the order of options.def */
};

/* One `--set PATH=VALUE`. The entries of a list are separated by commas. */
struct config_set {
	const char *path, *value;
};

/* Judges of addresses, from the layers above; NULL takes everything. False and `why` for a bad
 * one. */
struct config_checks {
	bool (*listen)(const char *url, struct errmsg *why);
	bool (*redis)(const char *url, struct errmsg *why);
};

/*
 * What a configuration is read from, at the start and by each reload alike. All zero is nothing:
 * the defaults. Everything but `input` is the owner's.
 */
struct config_source {
	const char *const *files; /* "-" is standard input */
	unsigned n_files;
	const char *const *environment; /* "NAME=VALUE", NULL at the end; NULL is none */
	const struct config_set *sets;
	unsigned n_sets;
	const struct config_checks *checks; /* NULL takes every address */
	char *input; /* what standard input held: it can be read once only */
};
void config_source_done(struct config_source *source);

/* Variables that begin with this are keys: COORDD_LOG__LEVEL is log.level. */
#define CONFIG_ENVIRONMENT "COORDD_"

/* What is wrong, line by line ("FILE:LINE:COLUMN: text"), in the order found. All zero is none.
 */
#define CONFIG_ERRORS_KEPT 20
#define CONFIG_FLAGS       "command line" /* stands for FILE when a flag is wrong */
struct config_error {
	char *text;            /* the whole line */
	const char *message;   /* the end of it, without the place */
	char *file, *key;      /* as in it; `key` NULL where it is about none */
	unsigned line, column; /* 0 no place */
};
struct config_errors {
	unsigned n;          /* found; the first CONFIG_ERRORS_KEPT are kept */
	unsigned n_warnings; /* the same; these refuse nothing */
	struct config_error list[CONFIG_ERRORS_KEPT];
	char *warnings[CONFIG_ERRORS_KEPT];
	char *where;          /* the file that the first error is about */
	bool is_mixed;        /* others are about another */
	bool is_about_rights; /* one is about a file of secrets that others may read */
};

/*
 * Read all of `source`, and check all of it. OK, or ERR_BAD_REQUEST with every error in `why`;
 * then `cfg` is untouched. What `cfg` held before is freed. `why` may hold warnings either way.
 */
enum err
config_load(struct config *cfg, struct config_source *source, struct config_errors *why);
void config_done(struct config *cfg);

/* Print them, the warnings first, and last how many errors there are. */
void config_errors_print(const struct config_errors *why, FILE *out);
void config_errors_done(struct config_errors *why);

/* --- as text -------------------------------------------------------------------------- */

/* One value. `text` is what --set takes for it; a password in it is written "***". */
struct config_value {
	const char *path, *text;
	const char *origin; /* "default", "coordd.yaml:12", "env" or "flag" */
	const char *place;  /* the same as errors begin: "coordd.yaml:12:9", CONFIG_FLAGS ... */
	bool is_reloadable; /* else a change needs a restart */
};

/* Every value, in the order of options.def. What `cb` is given dies with it. */
typedef void config_value_cb(void *arg, const struct config_value *value);
void config_each(const struct config *cfg, config_value_cb *cb, void *arg);

/* The values that differ; returns how many. Passwords are compared, not shown. `cb` may be NULL. */
typedef void
config_change_cb(void *arg, const struct config_value *from, const struct config_value *to);
unsigned config_diff(const struct config *from, const struct config *to, config_change_cb *cb,
		     void *arg);

/* Whether `to` may take the place of `from` in a running coordd: ERR_BAD_REQUEST, and an error
 * for each value that needs a restart, when it may not. */
enum err config_check_reload(const struct config *from, const struct config *to,
			     struct config_errors *why);

/* One more error, about a value: where it comes from, and "KEY: TEXT". Returns ERR_BAD_REQUEST. */
enum err config_complain(const struct config *cfg, const char *path, const char *text,
			 struct config_errors *why);

/* What is in force, as a file with the origin of each value beside it. */
void config_print(const struct config *cfg, FILE *out);

/* The commented file of all defaults: conf/coordd.yaml. */
void config_print_defaults(FILE *out);

#endif
