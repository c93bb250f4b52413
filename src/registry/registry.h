#ifndef COORDD_REGISTRY_REGISTRY_H
#define COORDD_REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "proto/fields.h"
#include "store/store.h"

/*
 * Which agents there are, and which of them live (docs/PROTOCOL.md, section 5). All of it is in Redis, and judged by
 * Redis's clock.
 *
 * Namespaces and names are as clients name them. Callbacks run exactly once and never before the function that took them
 * returns; what they are given dies with them. `err` is OK or one of store_run()'s, and where said ERR_NOT_FOUND.
 */
struct registry;

struct registry_config {
	const char *key_prefix;
	uint64_t ttl_us;          /* of who names none */
	uint64_t forget_after_us; /* a dead agent; 0: after ten times its ttl */
	uint64_t late_after_us;   /* silent so long, a live one is counted as late */
	unsigned max_agents;      /* over all namespaces */
	size_t max_frame;         /* a list ends at about so many bytes */
};

struct registry_ops {
	/* Queues are due at `now_us`, Redis's clock, because leases have ended. */
	void (*on_wake)(void *arg, uint64_t now_us);
};

struct registry *
registry_new(struct loop *loop, struct store *store, const struct registry_config *config,
	     const struct registry_ops *ops, void *arg);
/* What applies from now on; its key prefix is not looked at. Agents that are registered keep their ttl. */
void registry_set_config(struct registry *registry, const struct registry_config *config);
/* The store was freed before. Heartbeats that were not sent are told ERR_UNSENT. */
void registry_free(struct registry *registry);

/* Register ---------------------------------------------------------------------------------- */

struct registration {
	struct agent_id agent;
	bool has_resume;
	uint64_t resume; /* the incarnation to go on with */
	/* Where not given (n 0) these are as they were in an incarnation that goes on; in a new one the registry's ttl,
	 * `type:instance` encoded as in keys, and nothing. `state` is as it was in both. */
	bool has_ttl;
	uint64_t ttl_us;
	struct str name;
	struct str status, capabilities, metadata, state; /* MessagePack */
};

struct registered {
	struct str name; /* what it is called now */
	uint64_t incarnation, ttl_us;
	struct str state; /* what was stored before, MessagePack; n 0 nothing */
};
/* ERR_OVERLOADED: it is new, and there are max_agents. */
typedef void register_cb(void *arg, enum err err, const struct registered *registered);
void registry_register(struct registry *registry, struct str ns,
		       const struct registration *registration, register_cb *cb, void *arg);

/* Heartbeat --------------------------------------------------------------------------------- */

struct heartbeat {
	struct agent_id agent;
	bool has_incarnation;
	uint64_t incarnation;
	struct str status, state; /* MessagePack; n 0: as it was */
};
/* ERR_NOT_FOUND: it is not registered, or in another incarnation. */
typedef void heartbeat_cb(void *arg, enum err err, uint64_t ttl_us);
/* It travels with others in one call, at the end of this turn or, where many come, up to 10 ms later. */
void registry_heartbeat(struct registry *registry, struct str ns,
			const struct heartbeat *heartbeat, heartbeat_cb *cb, void *arg);

/* What comes next must see them: they leave now. The functions below do so themselves. */
void registry_flush(struct registry *registry);

/* Deregister -------------------------------------------------------------------------------- */

/* `done` is false when it was not registered. */
typedef void deregister_cb(void *arg, enum err err, bool done);
void registry_deregister(struct registry *registry, struct str ns, const struct agent_id *agent,
			 deregister_cb *cb, void *arg);

/* List -------------------------------------------------------------------------------------- */

struct agent_info {
	struct agent_id agent;
	struct str name;
	uint64_t incarnation, ttl_us, beat_us; /* the last heartbeat, Redis's clock */
	uint64_t now_us;                       /* when that was looked up */
	bool is_alive;
	struct str status, capabilities, metadata; /* MessagePack; n 0 where there is none */
};

struct agent_filter {
	struct str type;                /* n 0: any */
	bool has_capability, has_alive; /* false: any */
	struct str capability;          /* the name of one */
	bool is_alive;                  /* only who is so */
	const struct agent_id *after;   /* NULL: from the start */
};

/* Agents of a namespace in the order of the bytes of their names in Redis: at most `limit`, fewer when they are large or no
 * more are left. */
typedef void
agent_infos_cb(void *arg, enum err err, const struct agent_info *infos, unsigned n);
void registry_list(struct registry *registry, struct str ns, const struct agent_filter *filter,
		   unsigned limit, agent_infos_cb *cb, void *arg);
/* One of them: `n` is 0 or 1. */
void registry_get(struct registry *registry, struct str ns, const struct agent_id *agent,
		  agent_infos_cb *cb, void *arg);
/* How many there are, how many of them live, and how many of those are late, among the first REGISTRY_COUNTED. */
enum { REGISTRY_COUNTED = 10000 };
typedef void
agent_count_cb(void *arg, enum err err, uint64_t known, uint64_t alive, uint64_t late);
void registry_count(struct registry *registry, struct str ns, agent_count_cb *cb, void *arg);

/* Sweep ------------------------------------------------------------------------------------- */

/* For the janitor: agents that are silent for too long are dead, and forgotten later. `again_us` is when to look next
 * (Redis's clock, 0 never), `lead` true when somebody must ask to lead first. */
typedef void agents_swept_cb(void *arg, enum err err, uint64_t again_us, bool lead);
void registry_sweep(struct registry *registry, agents_swept_cb *cb, void *arg);

#endif
