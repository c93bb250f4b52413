#ifndef COORDD_BASE_HIST_H
#define COORDD_BASE_HIST_H

#include <stdint.h>

/*
 * A histogram of durations, in any unit: 64 buckets for each doubling, so that what it tells is
 * at most 1.6 % too high, from 0 to UINT64_MAX in 30 KB. All zero is an empty one.
 */
struct hist {
	uint64_t count, min, max; /* of all that were added; exact */
	uint64_t buckets[64 * 59];
};

void hist_add(struct hist *h, uint64_t value);

/*
 * The value that a part `q` (0 to 1) of all are not above: 0.5 is the median. Never below the
 * true one nor above the greatest; 0 when the histogram is empty.
 */
uint64_t hist_quantile(const struct hist *h, double q);

#endif
