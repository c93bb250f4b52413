#ifndef COORDD_STORE_CLOCK_H
#define COORDD_STORE_CLOCK_H

#include <stdint.h>

/*
 * Redis's clock, from what its answers say and our monotonic clock. An answer that was delayed
 * makes Redis look behind, never ahead, so the largest difference of the last second or two is
 * the best. Old ones are dropped, so that a jump of Redis's clock, also backwards, is followed
 * within two seconds. All zero knows nothing.
 */
struct clock_window {
	uint64_t since_us; /* monotonic; 0 unused */
	int64_t offset;    /* Redis's clock less ours: the largest seen */
};
struct clock {
	struct clock_window now, before;
};

/* Redis said `redis_us`, which we learned at `mono_us`. */
void clock_saw(struct clock *clock, uint64_t mono_us, uint64_t redis_us);
/* Redis's time at `mono_us`; 0 when it never said one. */
uint64_t clock_at(const struct clock *clock, uint64_t mono_us);

#endif
