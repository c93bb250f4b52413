/* The queues of a benchmark: how much they may hold, and how nothing is left of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "ctl/bench.h"
#include "ctl/bench_item.h"

#define AHEAD_LEAST 1000 /* messages that wait in a queue, at least and at most */
#define AHEAD_MOST  8000

struct bench_queue *
bench_queues_new(unsigned n, const char id[9])
{
	struct bench_queue *queues = xcalloc(n, sizeof(*queues));

	for (unsigned i = 0; i < n; i++) {
		struct name *name = &queues[i].name;

		strcpy(name->type, BENCH_TYPE);
		snprintf(name->instance, sizeof(name->instance), "%s-%05u", id, i);
	}
	return queues;
}

/* The number under `key` of a queue's statistics. */
static uint64_t
number_of(const json_t *stats, const char *key)
{
	return (uint64_t)json_number_at(stats, key);
}

/* Change a queue's capacity; 0 takes the setting back. */
static int
capacity_set(struct ctl *ctl, struct bench_queue *q, uint64_t capacity)
{
	struct coord_params *p = ctl_params(&q->name);
	json_t *settings;

	if (capacity)
		coord_param_int(p, "queue_size", (int64_t)capacity);
	else
		msgpack_pack_nil(coord_param(p, "queue_size"));
	settings = ctl_call(ctl, "configure", p, 0);
	if (!settings)
		return ctl->status;
	json_decref(settings);
	return EX_OK;
}

int
bench_queues_limit(struct ctl *ctl, struct bench_plan *plan, struct bench_queue *queues)
{
	uint64_t limit = 8 * (uint64_t)plan->clients * plan->pipeline * plan->batch;
	bool is_kept = plan->mode == BENCH_BACKLOG || plan->mode == BENCH_SEND;
	uint64_t capacity, each;
	json_t *stats = ctl_call(ctl, "queue_stats", ctl_params(&queues[0].name), 0);
	int status = EX_OK;

	if (!stats)
		return ctl->status;
	capacity = number_of(stats, "capacity");
	json_decref(stats);

	limit = limit / plan->queues + plan->batch;
	limit = limit < AHEAD_LEAST ? AHEAD_LEAST : limit > AHEAD_MOST ? AHEAD_MOST : limit;
	limit = limit < capacity ? limit : capacity;
	/* Each producer has a queue of its own: shares differ by a batch for each. */
	each = plan->count / plan->queues + (uint64_t)plan->clients * plan->batch;
	for (unsigned i = 0; i < plan->queues && !status; i++) {
		struct bench_queue *q = &queues[i];

		q->limit = is_kept ? capacity : limit;
		if (!is_kept || each <= capacity)
			continue;
		status = capacity_set(ctl, q, plan->count);
		if (!status) {
			q->is_configured = true;
			q->limit = plan->count;
		}
	}
	if (status == EX_NOPERM) {
		plan->count = capacity / 2 * plan->queues;
		ctl_fail(EX_OK, "so only %llu messages are sent",
			 (unsigned long long)plan->count);
		return EX_OK;
	}
	return status;
}

/* Empty a queue, and count what was in it. */
static int
queue_empty(struct ctl *ctl, const struct bench_queue *q, uint64_t limit_ns, uint64_t *found,
	    uint64_t *stuck)
{
	const struct timespec pause = { .tv_nsec = 20000000 };
	bool is_first = true;

	for (;;) {
		json_t *s = ctl_call(ctl, "queue_stats", ctl_params(&q->name), 0), *done;
		uint64_t size, dead, reserved;

		if (!s)
			return ctl->status;
		size = number_of(s, "size");
		dead = number_of(s, "dead");
		reserved = number_of(s, "reserved");
		json_decref(s);
		*found += is_first ? size + dead : 0;
		is_first = false;
		if (!size && !dead)
			return EX_OK;
		if (size == reserved && !dead) {
			if (bench_now_ns() > limit_ns) {
				*stuck += reserved;
				return EX_OK;
			}
			nanosleep(&pause, NULL);
			continue;
		}
		done = ctl_call(ctl, dead ? "dlq_purge" : "purge", ctl_params(&q->name), 0);
		if (!done)
			return ctl->status;
		json_decref(done);
	}
}

/* Over a new connection: the old one may have been idle too long. */
int
bench_queues_clean(struct ctl *ctl, const struct bench_plan *plan, struct bench_queue *queues,
		   uint64_t *found, uint64_t *stuck)
{
	double seconds = GIVEN(ctl, timeout) ? ctl->opt[OPT_timeout].seconds : 5;
	uint64_t limit_ns = bench_now_ns() + (uint64_t)(seconds * 1e9);
	int status = EX_OK;

	coord_free(ctl->conn);
	ctl->conn = NULL;
	for (unsigned i = 0; i < plan->queues && !status; i++) {
		struct bench_queue *q = &queues[i];

		status = queue_empty(ctl, q, limit_ns, found, stuck);
		if (!status && q->is_configured)
			status = capacity_set(ctl, q, 0);
	}
	if (status || *stuck)
		ctl_fail(status,
			 "something may be left in the queues " BENCH_TYPE ":%.8s-*, see "
			 "\"coordctl queue ls " BENCH_TYPE "\"",
			 queues[0].name.instance);
	return status;
}
