#ifndef COORDD_OPERATE_OPERATE_H
#define COORDD_OPERATE_OPERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "store/store.h"

/*
 * What operators are told that belongs to no queue, agent or breaker: which namespaces there are, and what operators did
 * (docs/PROTOCOL.md, section 6, "Operating"). All of it is in Redis.
 *
 * Callbacks run exactly once and never before the function that took them returns; what they are given dies with them. `err`
 * is OK or one of store_run()'s.
 */
struct operate;

struct operate *operate_new(struct store *store, const char *key_prefix);
/* The store was freed before. */
void operate_free(struct operate *operate);

/* Namespaces ---------------------------------------------------------------------------------- */

struct namespace_info {
	struct str name;
	uint64_t queues, agents, breakers;
};
typedef void
namespaces_cb(void *arg, enum err err, const struct namespace_info *infos, unsigned n);
/* Those after `after` (n 0: from the start), in the order of the bytes of their names in Redis, `limit` at most. One exists while
 * it has a queue, a registered agent or a breaker. */
void operate_namespaces(struct operate *operate, struct str after, unsigned limit,
			namespaces_cb *cb, void *arg);
/* One of them, whether it exists or not: `n` is 1. */
void operate_namespace(struct operate *operate, struct str ns, namespaces_cb *cb, void *arg);

/* Audit --------------------------------------------------------------------------------------- */

enum audit_field {
	AUDIT_METHOD,
	AUDIT_TARGET, /* what it was done to, "" nothing in particular */
	AUDIT_RESULT,
	AUDIT_NAMESPACE,
	AUDIT_PEER,
	AUDIT_CLIENT, /* as it named itself, "" it did not */
	AUDIT_UID, /* of the process at the other end of a Unix socket, in decimal, else "" */
	AUDIT_BROKER, /* instance id of the broker it was done through */
	AUDIT_FIELDS
};
struct audit_entry {
	struct str id;  /* of the entry, in order of time */
	uint64_t at_us; /* Redis's clock, whole milliseconds */
	int64_t uid;    /* -1: none */
	struct str values[AUDIT_FIELDS];
};

/* Keep it, and of all the last `keep`. What cannot be kept is told to the log. */
void
operate_audit(struct operate *operate, const struct str values[AUDIT_FIELDS], unsigned keep);

typedef void audit_cb(void *arg, enum err err, const struct audit_entry *entries, unsigned n);
/* The last ones first, `limit` at most; `before` (n 0: all) is the id of one. */
void operate_audit_list(struct operate *operate, struct str before, unsigned limit,
			audit_cb *cb, void *arg);
/* Whether `id` can be one of an entry. */
bool audit_id_is_valid(struct str id);

#endif
