#ifndef COORDD_JANITOR_H
#define COORDD_JANITOR_H

#include <stdint.h>

#include "api/api.h"
#include "breaker/breaker.h"
#include "queue/queue.h"
#include "registry/registry.h"

/*
 * Periodic work: expired reservations, delayed messages, idle queues, silent agents, breakers (docs/ARCHITECTURE.md,
 * "Sweeping"). One broker at a time does it for all that share a Redis; the others ask again when its
 * lease ends.
 */
struct janitor;

struct janitor *janitor_new(struct loop *loop, struct store *store, struct queues *queues,
			    struct api *api, const char *key_prefix, uint64_t grace_us);
void janitor_free(struct janitor *janitor);
/* Sweep them, too, from now on. */
void janitor_set_registry(struct janitor *janitor, struct registry *registry);
void janitor_set_breakers(struct janitor *janitor, struct breakers *breakers);
void janitor_set_grace(struct janitor *janitor, uint64_t grace_us);
/* Redis was reached (again): look at once, before anything else happens there. */
void janitor_on_ready(struct janitor *janitor);
/* Something is due at `due_us` of Redis's clock. */
void janitor_wake(struct janitor *janitor, uint64_t due_us);
/* Another broker has come, or leads no longer: look at once. */
void janitor_look(struct janitor *janitor);
/* Lead no longer, and tell the others: this broker stops. */
void janitor_resign(struct janitor *janitor);

/* Whether its timers still run; for a watchdog. */
bool janitor_is_alive(const struct janitor *janitor);

#endif
