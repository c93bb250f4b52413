#ifndef COORDD_BASE_BACKOFF_H
#define COORDD_BASE_BACKOFF_H

#include <stdint.h>

/* Growing pauses with full jitter between attempts to reach something that is away. */
struct backoff {
	uint64_t min_us, max_us;
	unsigned attempts; /* failed ones since the last success */
};

/* How long to wait now: uniform in [min, min(max, min * 2^attempts)]; counts one attempt. */
uint64_t backoff_next(struct backoff *b);
void backoff_reset(struct backoff *b);

#endif
