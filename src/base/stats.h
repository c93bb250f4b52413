#ifndef COORDD_BASE_STATS_H
#define COORDD_BASE_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

#include "base/err.h"
#include "base/str.h"

/*
 * What stats.def lists, as numbers to be added to where things happen: `process_stats.log_suppressed[0]++`. All of it is of
 * this process and begins at 0 with it. src/admin/metrics.c tells it.
 */

/* Dimensions that belong to tables of higher layers, which assert that theirs fit. */
enum {
	STAT_CONN_ENDS = 8,
	STAT_METHODS = 96, /* the last one: methods that there are not */
	STAT_SCRIPTS = 64,
	STAT_ROUTES = 64,
	STAT_HTTP_CODES = 24,
	STAT_LOG_LEVELS = 8,
};
enum stat_listener { STAT_TCP, STAT_UNIX };
enum stat_rejected { STAT_LIMIT, STAT_ADDRESS_LIMIT };
enum stat_bad_frame { STAT_TOO_LARGE, STAT_TOO_DEEP, STAT_MALFORMED };
enum stat_failure { STAT_TRANSIENT, STAT_PERMANENT, STAT_CONNECTION };
enum stat_reload { STAT_RELOAD_OK, STAT_RELOAD_REJECTED };
enum stat_dead { STAT_DEAD_PERMANENT, STAT_DEAD_ATTEMPTS, STAT_DEAD_EXPIRED };
enum stat_message_state { STAT_READY, STAT_DELAYED, STAT_RESERVED, STAT_DEAD };

enum stat_kind {
	STAT_COUNTER,
	STAT_GAUGE,
	STAT_SAMPLED,
	STAT_SAMPLED_COUNTER,
	STAT_FAST,
	STAT_SLOW,
	STAT_SIZE,
	STAT_KINDS
};

enum stat_label {
	STAT_NONE,
	STAT_VERSION,
	STAT_RELOADED,
	STAT_LISTENER,
	STAT_CONN_END,
	STAT_REJECTED,
	STAT_BAD_FRAME,
	STAT_METHOD,
	STAT_CODE,
	STAT_PRIORITY,
	STAT_SEND_REFUSED,
	STAT_FAILURE,
	STAT_DEAD_REASON,
	STAT_PURGED,
	STAT_MESSAGE_STATE,
	STAT_AGENT_STATE,
	STAT_BREAKER_STATE,
	STAT_BREAKER_RESULT,
	STAT_SCRIPT,
	STAT_RESULT,
	STAT_ROUTE,
	STAT_HTTP_CODE,
	STAT_LOG_LEVEL,
	STAT_LABELS
};

/* Histograms ------------------------------------------------------------------------------------- */

/* bounds[i] is the greatest value of bucket i; the last bucket has what is above all of them. */
#define STAT_BOUNDS 15
struct stat_hist {
	uint64_t sum;
	uint64_t buckets[STAT_BOUNDS + 1];
};
extern const uint64_t stat_bounds[STAT_KINDS][STAT_BOUNDS]; /* microseconds, or bytes */

/* Four comparisons, none of which is a branch. */
static inline void
stat_hist_add(struct stat_hist *h, const uint64_t bounds[STAT_BOUNDS], uint64_t value)
{
	unsigned i = (value > bounds[7]) * 8u;

	i += (value > bounds[i + 3]) * 4u;
	i += (value > bounds[i + 1]) * 2u;
	i += value > bounds[i];
	h->buckets[i]++;
	h->sum += value;
}

/* Of the process --------------------------------------------------------------------------------- */

typedef uint64_t stat_type_COUNTER, stat_type_GAUGE, stat_type_SAMPLED,
	stat_type_SAMPLED_COUNTER;
typedef struct stat_hist stat_type_FAST, stat_type_SLOW, stat_type_SIZE;
#define STAT_MEMBER(kind, member, dims, family, label, label2, help) \
	stat_type_##kind member dims;

struct process_stats {
#define STAT STAT_MEMBER
#include "base/stats.def"
};
extern struct process_stats process_stats;

/* Of queues, types of agents, circuit breakers ---------------------------------------------------- */

/*
 * A slot counts for one name; a set has few of them, and one more for all other names. Who counts often keeps the slot's
 * address: it is valid until it is dropped. Slots that nobody keeps stay until another name needs one. What such a one counted is
 * forgotten: the others' counts would jump by it, and look as if that had happened just now.
 */
struct stat_slot {
	UT_hash_handle hh;
	unsigned users;
	uint64_t seen; /* the last sample that told of it */
	char *name;    /* as in Redis: parts encoded, joined by ':' */
	size_t name_len;
};

struct stat_set {
	size_t size; /* of its slots, which are structs that begin with one */
	struct stat_slot *by_name;
	struct stat_slot *others;
	unsigned max;
};

struct queue_counts {
	struct stat_slot slot;
#define QUEUE_STAT STAT_MEMBER
#include "base/stats.def"
};
struct agent_counts {
	struct stat_slot slot;
#define AGENT_STAT STAT_MEMBER
#include "base/stats.def"
};
struct breaker_seen {
	struct stat_slot slot;
#define BREAKER_STAT STAT_MEMBER
#include "base/stats.def"
};
#undef STAT_MEMBER

enum stat_scope { STAT_PROCESS, STAT_QUEUE, STAT_AGENT, STAT_BREAKER, STAT_SCOPES };
extern struct stat_set stat_sets[STAT_SCOPES]; /* none of the process */

/* At most so many slots from now on, 0: all names are others. Of those that are too many, the ones that nobody keeps go at once, the others with
 * stat_keep_anew(). */
void stat_limit(enum stat_scope scope, unsigned max);
/* The slot of `name`, never NULL; keep it until it is dropped as often. */
struct stat_slot *stat_keep(enum stat_scope scope, struct str name);
void stat_drop(struct stat_slot *slot);
/* Drop it and keep the slot that `name` has after a stat_limit(): the same, one of its own instead of the others', or theirs. */
struct stat_slot *
stat_keep_anew(enum stat_scope scope, struct stat_slot *slot, struct str name);
/* The same to look at or count once, without keeping it. One that is not there is made only while the set has room, so that looking at many names does
 * not push out those that are in use. */
struct stat_slot *stat_find(enum stat_scope scope, struct str name);
/* Forget those that nobody keeps and of which no sample since that one told. */
void stat_forget(enum stat_scope scope, uint64_t seen);
/* Forget all names and what was counted; for tests. Nobody keeps a slot. */
void stat_reset(void);

static inline struct queue_counts *
stat_keep_queue(struct str name)
{
	return (struct queue_counts *)stat_keep(STAT_QUEUE, name);
}

static inline struct agent_counts *
stat_find_agents(struct str name)
{
	return (struct agent_counts *)stat_find(STAT_AGENT, name);
}

/* The table ---------------------------------------------------------------------------------------- */

struct stat_row {
	enum stat_scope scope;
	enum stat_kind kind;
	size_t offset, size; /* of the member, in process_stats or in a slot */
	const char *family;
	enum stat_label label, label2;
	size_t stride; /* bytes from one value of `label` to the next */
	const char *help;
};
enum {
	STAT_ROWS = 0
#define STAT(...)         +1
#define QUEUE_STAT(...)   +1
#define AGENT_STAT(...)   +1
#define BREAKER_STAT(...) +1
#include "base/stats.def"
};
extern const struct stat_row stat_rows[STAT_ROWS];

#endif
