#include "base/backoff.h"

#include "base/id.h"

uint64_t
backoff_next(struct backoff *b)
{
	uint64_t top = b->min_us;

	for (unsigned i = 0; i < b->attempts && top < b->max_us; i++)
		top *= 2;
	if (top > b->max_us)
		top = b->max_us;
	b->attempts++;
	if (top <= b->min_us)
		return b->min_us;
	return b->min_us + (uint64_t)((double)(top - b->min_us) * id_random_unit());
}

void
backoff_reset(struct backoff *b)
{
	b->attempts = 0;
}
