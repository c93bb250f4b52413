#include "store/clock.h"

enum { WINDOW_US = 1000000 };

void
clock_saw(struct clock *clock, uint64_t mono_us, uint64_t redis_us)
{
	int64_t offset = (int64_t)redis_us - (int64_t)mono_us;

	if (!clock->now.since_us || mono_us - clock->now.since_us > WINDOW_US) {
		clock->before = clock->now;
		clock->now = (struct clock_window){ mono_us, offset };
	} else if (offset > clock->now.offset) {
		clock->now.offset = offset;
	}
}

uint64_t
clock_at(const struct clock *clock, uint64_t mono_us)
{
	int64_t offset = clock->now.offset;

	if (!clock->now.since_us)
		return 0;
	/* A young window may hold a single late answer; but a large difference is a jump. */
	if (clock->before.since_us && clock->before.offset > offset &&
	    clock->before.offset - offset < WINDOW_US)
		offset = clock->before.offset;
	return (uint64_t)((int64_t)mono_us + offset);
}
