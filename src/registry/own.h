#ifndef COORDD_REGISTRY_OWN_H
#define COORDD_REGISTRY_OWN_H

#include "base/stats.h"
#include "registry/registry.h"

/* Inside src/registry only. */
struct registry {
	struct loop *loop;
	struct store *store;
	char *prefix; /* of all keys */
	uint64_t ttl_us, forget_after_us, late_after_us;
	unsigned max_agents;
	size_t max_frame;
	const struct registry_ops *ops;
	void *arg;
	struct beats *open;  /* heartbeats that have not left, or NULL */
	struct defer turn;   /* they leave at the end of this turn, */
	struct timer gather; /* or then */
	uint64_t sent_us;    /* when the last ones left, our clock */
	unsigned lone;       /* so many times there is no use in waiting for more */
};

/* Append the key PREFIX:KIND:NAME of an agent, the prefix, the namespace (encoded) and the NAME: what scripts about one agent begin with. */
void args_agent(struct args *args, const struct registry *registry, struct str ns,
		const struct agent_id *agent);
/* Append PREFIX:`name`. */
void args_key(struct args *args, const struct registry *registry, const char *name);
/* Append `v`, or nothing where it was not given. */
void args_uint_if(struct args *args, bool is_given, uint64_t v);

/* What is counted of the type of an agent, by the NAME of that. */
struct agent_counts *agent_counts(struct str name);

/* heartbeat.c */
void heartbeats_init(struct registry *registry);
/* What has not left never will. */
void heartbeats_done(struct registry *registry);

#endif
