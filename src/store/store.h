#ifndef COORDD_STORE_STORE_H
#define COORDD_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "store/reply.h"

/*
 * The contract with Redis: run a script. store/link.c keeps it over a real connection, the
 * tests' fake keeps it in memory. Calls reach Redis in the order in which they were made.
 */
struct store;

enum script {
#define SCRIPT(name, file, oom) SCRIPT_##name,
#include "store/scripts.def"
#undef SCRIPT
	SCRIPT_COUNT
};

/* Arguments of a call, already in Redis's wire form. All zero is none. */
struct args {
	unsigned n;
	struct buf buf;
};
void args_str(struct args *args, struct str s);
void args_uint(struct args *args, uint64_t v); /* as decimal text */
/* Begin an argument of exactly `len` bytes and return where they go: the caller fills all. */
char *args_reserve(struct args *args, size_t len);
/* Move what `from` holds behind what `args` holds; `from` is empty afterwards, its memory kept. */
void args_join(struct args *args, struct args *from);
/* Append a copy of what `from` holds. */
void args_copy(struct args *args, const struct args *from);
void args_done(struct args *args);

/*
 *	OK		`reply` is the script's answer, never an error or NULL; it lives until
 *			the callback returns
 *	ERR_UNSENT	the call did not reach Redis or was refused there before it ran
 *			(link down, LOADING, READONLY, BUSY, no credentials, too many pending)
 *	ERR_REFUSED	Redis refuses writes now, nothing ran: out of memory, MISCONF, NOREPLICAS
 *	ERR_UNKNOWN	sent, and no answer: it may have run
 *	ERR_INTERNAL	the script failed (a foreign type under one of our keys, a defect); `reply`
 *			is Redis's error text, for the log
 * Except where said, `reply` is NULL on error.
 */
typedef void store_cb(void *arg, enum err err, const struct reply *reply);

/*
 * Run `script` with the first `nkeys` arguments as keys. Takes the contents of `args` and leaves it
 * empty. `cb` runs exactly once and never before this returns. The call leaves with the others
 * of this turn (TURN_STORE).
 */
void store_run(struct store *store, enum script script, unsigned nkeys, struct args *args,
	       store_cb *cb, void *arg);

/* Redis is reached, its version and policy are accepted, scripts are loaded. */
bool store_is_ready(const struct store *store);

/* How well Redis keeps what is acknowledged, and what it is; for the start-up log and `status`. */
struct store_info {
	bool ready;
	char version[32]; /* of Redis, "" before the first connection */
	bool aof;         /* appendonly */
	char appendfsync
		[16]; /* "always", "everysec", "no", "" when AOF is off or CONFIG is forbidden */
	char policy[32];      /* maxmemory-policy */
	char problem[160];    /* why it is not ready, or "" */
	double round_trip_ms; /* of the last call */
	unsigned pending;     /* calls in flight */
	uint64_t calls, errors, reconnects;
};
void store_info(const struct store *store, struct store_info *out);
/* How safe an acknowledged write is there: "ok" or "warn", with a sentence in `message`. */
const char *store_durability(const struct store_info *info, char *message, size_t size);

/*
 * Redis's clock in microseconds since 1970, estimated from its answers and our monotonic clock (never
 * from our host's time of day). 0 before the first connection.
 */
uint64_t store_now_us(struct store *store);
/* A script's answer carried Redis's time: keep the estimate fresh. */
void store_saw_time(struct store *store, uint64_t redis_us);

#endif
