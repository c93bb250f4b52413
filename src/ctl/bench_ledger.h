#ifndef COORDD_CTL_BENCH_LEDGER_H
#define COORDD_CTL_BENCH_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What `coordctl bench` knows of every message, so that what was lost, doubled or handed out in
 * the wrong order is seen. Messages are numbered from 0 in the order they are sent. Memory is
 * held only for those under way. Times are nanoseconds of one monotonic clock.
 *
 * The order is judged by `fence`, which rises with every reservation of a queue: answers to
 * several receivers may be read in another order than the broker handed out. Judged are first
 * deliveries alone, since what failed comes back elsewhere:
 *	- of one producer, queue and priority: in the order sent;
 *	- of two priorities in one queue: nothing lower goes before what was certainly waiting,
 *	  its acceptance read (to about a millisecond) before the lower one was asked for.
 */
struct ledger;

/* Priorities 0 (low), 1, 2 (high). */
enum { LEDGER_PRIORITIES = 3 };

struct ledger_counts {
	uint64_t issued, answered;
	uint64_t accepted, refused; /* together: answered */
	uint64_t delivered;         /* messages, each once */
	uint64_t acked, unacked;    /* unacked: the broker said that it was no more */
	uint64_t duplicated;        /* deliveries too many */
	uint64_t redelivered;       /* deliveries after one that failed */
	uint64_t out_of_order;      /* messages found on the wrong side of another */
	uint64_t unknown;           /* deliveries of what was refused or not sent so */
	uint64_t lost;              /* of those accepted and not delivered; ledger_close() */
};

/* A delivery, as it was read. */
struct delivery {
	uint64_t number, fence;
	uint64_t asked_ns; /* when its receiver was ready for it */
	unsigned producer, queue;
	unsigned failures; /* delivery_attempts */
};

struct ledger *ledger_new(unsigned producers, unsigned queues);
void ledger_free(struct ledger *l);

/* A message is sent, meant to be so at `sent_ns`: its number. */
uint64_t ledger_send(struct ledger *l, unsigned producer, unsigned queue, unsigned priority,
		     uint64_t sent_ns);
void ledger_answer(struct ledger *l, uint64_t number, bool is_accepted, uint64_t now_ns);
/* When it was meant to be sent; 0 when it is unknown or a duplicate: its ack is then of no
 * interest. */
uint64_t ledger_deliver(struct ledger *l, const struct delivery *d);
/* When it was sent, as above. */
uint64_t ledger_ack(struct ledger *l, uint64_t number, bool is_live);

/* Nothing comes any more: count what is missing. */
void ledger_close(struct ledger *l);
const struct ledger_counts *ledger_counts(const struct ledger *l);

#endif
