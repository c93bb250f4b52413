#ifndef COORDD_BREAKER_BREAKER_H
#define COORDD_BREAKER_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/fields.h"
#include "store/store.h"

/*
 * Circuit breakers (docs/PROTOCOL.md, section 6). Their state is in Redis, and each transition is one script; nothing of a
 * breaker is kept here.
 *
 * Namespaces and names are as clients give them. Callbacks run exactly once and never before the function that took them
 * returns; what they are given dies with them.
 */
struct breakers;

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct breaker_info {
	enum breaker_state state;
	uint64_t failures;       /* in a row */
	uint64_t out, successes; /* permits that are out, and successes; while half-open */
	uint64_t total, succeeded, failed, rejected, changes;
	uint64_t failed_us, succeeded_us, changed_us; /* Redis's clock, 0 never */
	struct breaker_config config;                 /* all of it */
};

/* The defaults of breakers whose name matches, in any namespace (str_glob). */
struct breaker_override {
	const char *match;
	struct breaker_config defaults; /* all settings */
};

/* `defaults` has all settings. A breaker that nobody used for `state_ttl_us` is forgotten. */
struct breakers *breakers_new(struct store *store, const char *key_prefix,
			      const struct breaker_config *defaults, uint64_t state_ttl_us);
/* What applies from now on: the first override that matches, else `defaults`. They are copied. Breakers that are there
 * keep their settings. */
void breakers_set_defaults(struct breakers *breakers, const struct breaker_config *defaults,
			   const struct breaker_override *overrides, unsigned n_overrides,
			   uint64_t state_ttl_us);
/* How many there may be over all namespaces; 10000 until it is told. */
void breakers_set_max(struct breakers *breakers, unsigned max);
/* The store was freed before. */
void breakers_free(struct breakers *breakers);

/* OK, ERR_NOT_FOUND, ERR_OVERLOADED when it would be one too many, or one of store_run()'s; `info` is NULL on error. */
typedef void breaker_cb(void *arg, enum err err, const struct breaker_info *info);

/*
 * Whether a call may be made. `permit` is empty when it may not; then `retry_us` says when to ask again, 0 when nobody
 * knows. Makes the breaker, with what `config` has and else the defaults, when there is none.
 */
struct breaker_answer {
	struct str permit;
	uint64_t retry_us;
	enum breaker_state state;
};
typedef void acquire_cb(void *arg, enum err err, const struct breaker_answer *answer);
void breaker_acquire(struct breakers *breakers, struct str ns, struct str name,
		     const struct breaker_config *config, acquire_cb *cb, void *arg);

/* How the call of `permit` ended; `error` may be empty. One that is not known counts nothing. */
void
breaker_report(struct breakers *breakers, struct str ns, struct str name, struct str permit,
	       enum outcome outcome, struct str error, breaker_cb *cb, void *arg);
void breaker_get(struct breakers *breakers, struct str ns, struct str name, breaker_cb *cb,
		 void *arg);
/* Change what `config` has; makes the breaker when there is none. */
void breaker_configure(struct breakers *breakers, struct str ns, struct str name,
		       const struct breaker_config *config, breaker_cb *cb, void *arg);
/* Open it for so long from now; 0: for its timeout. */
void breaker_trip(struct breakers *breakers, struct str ns, struct str name, uint64_t for_us,
		  breaker_cb *cb, void *arg);
void breaker_reset(struct breakers *breakers, struct str ns, struct str name, breaker_cb *cb,
		   void *arg);
/* `info` is what it was. */
void breaker_remove(struct breakers *breakers, struct str ns, struct str name, breaker_cb *cb,
		    void *arg);

/* The breakers of a namespace after the one of that name ("" from the start), in the order of the bytes of their names
 * in Redis, where `:` and `%` are encoded. On error `n` is 0. */
struct breaker_row {
	struct str name;
	struct breaker_info info;
};
typedef void breakers_cb(void *arg, enum err err, const struct breaker_row *rows, unsigned n);
void breakers_list(struct breakers *breakers, struct str ns, struct str after, unsigned limit,
		   breakers_cb *cb, void *arg);

/* How many of the first 1000 there are, and are open and half-open. */
struct breaker_counts {
	uint64_t known, open, half_open;
};
typedef void counts_cb(void *arg, enum err err, const struct breaker_counts *counts);
void breakers_count(struct breakers *breakers, struct str ns, counts_cb *cb, void *arg);

/*
 * Do what time alone does to the breakers of all namespaces: lost permits open them, unused ones are forgotten. To be called often by the broker
 * that sweeps; it asks Redis four times a second, and as soon as something is due that is known of.
 */
void breakers_sweep(struct breakers *breakers);

#endif
