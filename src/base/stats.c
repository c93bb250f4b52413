#include "base/stats.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define NEVER UINT64_MAX

const uint64_t stat_bounds[STAT_KINDS][STAT_BOUNDS] = {
	[STAT_FAST] = { 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000,
			500000, 1000000, 2500000, 10000000 },
	[STAT_SLOW] = { 1000, 5000, 10000, 50000, 100000, 500000, 1000000, 5000000, 10000000,
			30000000, 60000000, 300000000, 900000000, 3600000000, 21600000000 },
	[STAT_SIZE] = { 64, 128, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304,
			16777216, 67108864, NEVER, NEVER },
};

struct process_stats process_stats;

struct stat_set stat_sets[STAT_SCOPES] = {
	[STAT_QUEUE] = { .size = sizeof(struct queue_counts), .max = 200 },
	[STAT_AGENT] = { .size = sizeof(struct agent_counts), .max = 200 },
	[STAT_BREAKER] = { .size = sizeof(struct breaker_seen), .max = 200 },
};

const struct stat_row stat_rows[STAT_ROWS] = {
#define ROW(scope, owner, kind, member, dims, family, label, label2, help) \
	{ scope,                                                           \
	  STAT_##kind,                                                     \
	  offsetof(struct owner, member),                                  \
	  sizeof(((struct owner *)0)->member),                             \
	  family,                                                          \
	  STAT_##label,                                                    \
	  STAT_##label2,                                                   \
	  sizeof(((struct owner *)0)->member[0]),                          \
	  help },
#define STAT(...)         ROW(STAT_PROCESS, process_stats, __VA_ARGS__)
#define QUEUE_STAT(...)   ROW(STAT_QUEUE, queue_counts, __VA_ARGS__)
#define AGENT_STAT(...)   ROW(STAT_AGENT, agent_counts, __VA_ARGS__)
#define BREAKER_STAT(...) ROW(STAT_BREAKER, breaker_seen, __VA_ARGS__)
#include "base/stats.def"
};

static struct stat_slot *
others(struct stat_set *set)
{
	if (!set->others)
		set->others = xcalloc(1, set->size);
	return set->others;
}

static void
slot_free(struct stat_set *set, struct stat_slot *slot)
{
	HASH_DEL(set->by_name, slot);
	free(slot->name);
	free(slot);
}

static struct stat_slot *
slot_new(struct stat_set *set, struct str name)
{
	struct stat_slot *slot = xcalloc(1, set->size);

	slot->name = xmemdup(name.p, name.n);
	slot->name_len = name.n;
	HASH_ADD_KEYPTR(hh, set->by_name, slot->name, slot->name_len, slot);
	return slot;
}

/* Of types of agents and of breakers: the labels of the others would stand twice. */
static bool
is_called_as_others(struct str name)
{
	return str_eq(name, STR("_other:_other"));
}

/* No more than `max`, as far as nobody keeps them; the oldest go first. */
static void
trim(struct stat_set *set, unsigned max)
{
	struct stat_slot *slot, *next;

	HASH_ITER (hh, set->by_name, slot, next) {
		if (HASH_COUNT(set->by_name) <= max)
			break;
		if (!slot->users)
			slot_free(set, slot);
	}
}

void
stat_limit(enum stat_scope scope, unsigned max)
{
	stat_sets[scope].max = max;
	trim(&stat_sets[scope], max);
}

/* Room for one more. */
static bool
make_room(struct stat_set *set)
{
	if (set->max)
		trim(set, set->max - 1);
	return HASH_COUNT(set->by_name) < set->max;
}

static struct stat_slot *
slot_of(const struct stat_set *set, struct str name)
{
	struct stat_slot *slot;

	HASH_FIND(hh, set->by_name, name.p, name.n, slot);
	return slot;
}

struct stat_slot *
stat_keep(enum stat_scope scope, struct str name)
{
	struct stat_set *set = &stat_sets[scope];
	struct stat_slot *slot = slot_of(set, name);

	if (!slot)
		slot = !is_called_as_others(name) && make_room(set) ? slot_new(set, name)
								    : others(set);
	slot->users++;
	return slot;
}

void
stat_drop(struct stat_slot *slot)
{
	slot->users--;
}

struct stat_slot *
stat_keep_anew(enum stat_scope scope, struct stat_slot *slot, struct str name)
{
	struct stat_set *set = &stat_sets[scope];

	stat_drop(slot);
	if (slot != set->others && !slot->users && HASH_COUNT(set->by_name) > set->max)
		slot_free(set, slot);
	return stat_keep(scope, name);
}

struct stat_slot *
stat_find(enum stat_scope scope, struct str name)
{
	struct stat_set *set = &stat_sets[scope];
	struct stat_slot *slot = slot_of(set, name);

	if (slot)
		return slot;
	return !is_called_as_others(name) && HASH_COUNT(set->by_name) < set->max
		       ? slot_new(set, name)
		       : others(set);
}

void
stat_forget(enum stat_scope scope, uint64_t seen)
{
	struct stat_set *set = &stat_sets[scope];
	struct stat_slot *slot, *next;

	HASH_ITER (hh, set->by_name, slot, next) {
		if (!slot->users && slot->seen < seen)
			slot_free(set, slot);
	}
}

void
stat_reset(void)
{
	for (enum stat_scope scope = STAT_PROCESS; scope < STAT_SCOPES; scope++) {
		struct stat_set *set = &stat_sets[scope];
		struct stat_slot *slot, *next;

		HASH_ITER (hh, set->by_name, slot, next) {
			slot_free(set, slot);
		}
		free(set->others);
		set->others = NULL;
	}
	process_stats = (struct process_stats){ 0 };
}
