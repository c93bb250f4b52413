/*
 * The ledger of a benchmark: see bench_ledger.h for what is judged.
 *
 * Messages live in chunks, found by number. A chunk is freed when all of its messages are over:
 * answered and either refused, or acked and judged.
 *
 * A lane is what one producer sent to one queue with one priority: a list through the messages.
 * It is judged from its head on, as far as fences are known; each must be above the last.
 *
 * Across priorities time is cut into slots of about a millisecond, of which the latest SLOTS are
 * kept for each queue and priority:
 *	accepted[s]	the highest fence among messages accepted in slot s or before
 *	asked[s]	the lowest fence among those asked for in slot s or later
 * A message that was accepted in slot s is out of order with a lower priority whose asked[s+1]
 * is below its fence. What is older than all slots is taken as of the oldest, or not judged:
 * either way nothing right is called wrong.
 */
#include "ctl/bench_ledger.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { CHUNK = 4096, SLOTS = 64, SLOT_SHIFT = 20 };
#define NOBODY UINT64_MAX

struct message {
	uint64_t sent_ns, accepted_ns; /* 0: not known */
	uint64_t fence;                /* 0: not delivered yet, or not to be judged */
	uint64_t next;                 /* in its lane */
	uint32_t lane;
	uint16_t failures; /* of its latest delivery */
	bool is_answered, is_refused, is_delivered, is_acked, is_judged;
};

struct chunk {
	unsigned over; /* messages of which nothing more is expected */
	struct message messages[CHUNK];
};

struct lane {
	uint64_t head, tail; /* NOBODY when it is empty */
	uint64_t fence;      /* of the last one that was judged */
};

/* Of one queue and priority. Slot s is at index s % SLOTS, for the SLOTS up to `newest`. */
struct order {
	uint64_t newest;
	uint64_t accepted[SLOTS], asked[SLOTS];
};

struct ledger {
	struct ledger_counts counts;
	unsigned queues;
	struct chunk **chunks; /* NULL: all of its messages are over */
	size_t n_chunks;
	struct lane *lanes;   /* [producer][queue][priority] */
	struct order *orders; /* [queue][priority] */
	bool has_priorities;  /* more than one was sent */
	unsigned priority;    /* the first one sent */
};

struct ledger *
ledger_new(unsigned producers, unsigned queues)
{
	struct ledger *l = xcalloc(1, sizeof(*l));

	l->queues = queues;
	l->lanes = xcalloc((size_t)producers * queues * LEDGER_PRIORITIES, sizeof(*l->lanes));
	l->orders = xcalloc((size_t)queues * LEDGER_PRIORITIES, sizeof(*l->orders));
	return l;
}

void
ledger_free(struct ledger *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->n_chunks; i++)
		free(l->chunks[i]);
	free(l->chunks);
	free(l->lanes);
	free(l->orders);
	free(l);
}

const struct ledger_counts *
ledger_counts(const struct ledger *l)
{
	return &l->counts;
}

/* NULL: it was never sent, or is over. */
static struct message *
message_at(const struct ledger *l, uint64_t number)
{
	struct chunk *chunk = number < l->counts.issued ? l->chunks[number / CHUNK] : NULL;

	return chunk ? &chunk->messages[number % CHUNK] : NULL;
}

/* `m` has just become over in one respect; the chunk may go, and `m` with it. */
static void
message_over(struct ledger *l, uint64_t number, const struct message *m)
{
	struct chunk *chunk = l->chunks[number / CHUNK];

	if (!m->is_judged || !m->is_answered || (!m->is_acked && !m->is_refused))
		return;
	if (++chunk->over == CHUNK) {
		free(chunk);
		l->chunks[number / CHUNK] = NULL;
	}
}

/* --- the order in a lane ----------------------------------------------------- */

/* Lanes are used from number 1 on, so that zeroed memory is an empty one. */
static void
lane_add(struct ledger *l, uint32_t lane, uint64_t number)
{
	struct lane *at = &l->lanes[lane];

	if (at->head)
		message_at(l, at->tail - 1)->next = number;
	else
		at->head = number + 1;
	at->tail = number + 1;
}

/* Judge what can be judged. Frees messages that are over. */
static void
lane_judge(struct ledger *l, uint32_t lane)
{
	struct lane *at = &l->lanes[lane];

	while (at->head) {
		uint64_t number = at->head - 1;
		struct message *m = message_at(l, number);

		if (!m->is_delivered && !m->is_refused)
			return;
		if (m->fence && m->fence < at->fence)
			l->counts.out_of_order++;
		else if (m->fence)
			at->fence = m->fence;
		at->head = m->next == NOBODY ? 0 : m->next + 1;
		m->is_judged = true;
		message_over(l, number, m);
	}
}

/* --- the order between priorities -------------------------------------------- */

/* Slots are numbered from SLOTS on, so that none is before 0. */
static uint64_t
slot_at(uint64_t ns)
{
	return (ns >> SLOT_SHIFT) + SLOTS;
}

static void
order_advance(struct order *o, uint64_t slot)
{
	if (slot <= o->newest)
		return;
	if (slot - o->newest > SLOTS) {
		uint64_t last = o->accepted[o->newest % SLOTS];

		for (unsigned i = 0; i < SLOTS; i++) {
			o->accepted[i] = last;
			o->asked[i] = NOBODY;
		}
		o->newest = slot;
	}
	while (o->newest < slot) {
		uint64_t last = o->accepted[o->newest++ % SLOTS];

		o->accepted[o->newest % SLOTS] = last;
		o->asked[o->newest % SLOTS] = NOBODY;
	}
}

static uint64_t
order_oldest(const struct order *o)
{
	return o->newest < SLOTS ? 0 : o->newest - SLOTS + 1;
}

/* The lowest fence of what was asked for in `slot` or later. */
static uint64_t
order_asked(const struct order *o, uint64_t slot)
{
	if (slot > o->newest)
		return NOBODY;
	return o->asked[(slot < order_oldest(o) ? order_oldest(o) : slot) % SLOTS];
}

/* The highest fence of what was accepted in `slot` or before. */
static uint64_t
order_accepted(const struct order *o, uint64_t slot)
{
	if (slot < order_oldest(o))
		return 0;
	return o->accepted[(slot > o->newest ? o->newest : slot) % SLOTS];
}

/* Whether a message is on the wrong side of others of its queue; then they know of it too. */
static bool
order_judge(struct ledger *l, unsigned queue, unsigned priority, const struct message *m,
	    uint64_t asked_ns)
{
	struct order *orders = &l->orders[(size_t)queue * LEDGER_PRIORITIES];
	struct order *mine = &orders[priority];
	uint64_t asked = slot_at(asked_ns);
	uint64_t accepted = m->accepted_ns ? slot_at(m->accepted_ns) : 0;
	bool is_wrong = false;

	for (unsigned p = 0; p < LEDGER_PRIORITIES; p++) {
		if (p < priority && m->accepted_ns)
			is_wrong |= order_asked(&orders[p], accepted + 1) < m->fence;
		else if (p > priority)
			is_wrong |= order_accepted(&orders[p], asked - 1) > m->fence;
	}
	order_advance(mine, asked > accepted ? asked : accepted);
	for (uint64_t s = asked; s >= order_oldest(mine) && mine->asked[s % SLOTS] > m->fence;
	     s--)
		mine->asked[s % SLOTS] = m->fence;
	if (accepted && accepted < order_oldest(mine))
		accepted = order_oldest(mine);
	for (uint64_t s = accepted; s && s <= mine->newest; s++) {
		if (mine->accepted[s % SLOTS] < m->fence)
			mine->accepted[s % SLOTS] = m->fence;
	}
	return is_wrong;
}

/* --- what happens to a message ----------------------------------------------- */

uint64_t
ledger_send(struct ledger *l, unsigned producer, unsigned queue, unsigned priority,
	    uint64_t sent_ns)
{
	uint64_t number = l->counts.issued++;
	uint32_t lane = (producer * l->queues + queue) * LEDGER_PRIORITIES + priority;
	struct message *m;

	if (number / CHUNK >= l->n_chunks) {
		l->n_chunks = l->n_chunks * 2 + 64;
		l->chunks = xrealloc(l->chunks, l->n_chunks * sizeof(void *));
		for (size_t i = number / CHUNK; i < l->n_chunks; i++)
			l->chunks[i] = NULL;
	}
	if (number % CHUNK == 0)
		l->chunks[number / CHUNK] = xcalloc(1, sizeof(struct chunk));
	if (number == 0)
		l->priority = priority;
	l->has_priorities |= priority != l->priority;
	m = message_at(l, number);
	m->sent_ns = sent_ns;
	m->next = NOBODY;
	m->lane = lane;
	lane_add(l, lane, number);
	return number;
}

void
ledger_answer(struct ledger *l, uint64_t number, bool is_accepted, uint64_t now_ns)
{
	struct message *m = message_at(l, number);

	if (!m || m->is_answered)
		return;
	l->counts.answered++;
	m->is_answered = true;
	m->is_refused = !is_accepted;
	if (is_accepted) {
		l->counts.accepted++;
		m->accepted_ns = now_ns;
		message_over(l, number, m);
		return;
	}
	l->counts.refused++;
	if (m->is_delivered)
		l->counts.unknown++;
	if (m->is_judged)
		message_over(l, number, m);
	else
		lane_judge(l, m->lane);
}

uint64_t
ledger_deliver(struct ledger *l, const struct delivery *d)
{
	struct message *m = message_at(l, d->number);
	uint64_t sent_ns, asked_ns = d->asked_ns;
	unsigned producer, queue, priority;

	if (!m && d->number < l->counts.issued) {
		l->counts.duplicated++; /* it was over */
		return 0;
	}
	producer = m ? m->lane / LEDGER_PRIORITIES / l->queues : 0;
	queue = m ? m->lane / LEDGER_PRIORITIES % l->queues : 0;
	if (!m || m->is_refused || producer != d->producer || queue != d->queue) {
		l->counts.unknown++;
		return 0;
	}
	if (m->is_acked || (m->is_delivered && d->failures <= m->failures)) {
		l->counts.duplicated++;
		return 0;
	}
	m->failures = d->failures < UINT16_MAX ? (uint16_t)d->failures : UINT16_MAX;
	sent_ns = m->sent_ns;
	if (m->is_delivered) {
		l->counts.redelivered++;
		return sent_ns;
	}

	l->counts.delivered++;
	m->is_delivered = true;
	if (d->failures) {
		l->counts.redelivered++; /* the first was never read */
	} else {
		m->fence = d->fence;
		priority = m->lane % LEDGER_PRIORITIES;
		if (asked_ns < sent_ns)
			asked_ns = sent_ns;
		if (l->has_priorities && order_judge(l, queue, priority, m, asked_ns))
			l->counts.out_of_order++;
	}
	lane_judge(l, m->lane);
	return sent_ns;
}

uint64_t
ledger_ack(struct ledger *l, uint64_t number, bool is_live)
{
	struct message *m = message_at(l, number);
	uint64_t sent_ns;

	if (!is_live || !m || m->is_acked || m->is_refused) {
		l->counts.unacked++;
		return 0;
	}
	l->counts.acked++;
	m->is_acked = true;
	sent_ns = m->sent_ns;
	message_over(l, number, m);
	return sent_ns;
}

void
ledger_close(struct ledger *l)
{
	l->counts.lost = 0;
	for (size_t i = 0; i < l->n_chunks; i++) {
		for (unsigned k = 0; l->chunks[i] && k < CHUNK; k++) {
			const struct message *m = &l->chunks[i]->messages[k];

			l->counts.lost += m->is_answered && !m->is_refused && !m->is_delivered;
		}
	}
}
