#include "base/hist.h"

/* Values below 128 have a bucket each; above, the highest seven bits choose one. */
void
hist_add(struct hist *h, uint64_t value)
{
	unsigned shift = value < 128 ? 0 : 57 - (unsigned)__builtin_clzll(value);

	h->buckets[64 * shift + (value >> shift)]++;
	if (!h->count++ || value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
}

/* The greatest value that belongs to a bucket. */
static uint64_t
bucket_top(unsigned i)
{
	unsigned shift = i < 128 ? 0 : i / 64 - 1;
	uint64_t top = i - 64 * shift + 1;

	return (top << shift) - 1; /* of the last bucket UINT64_MAX: 128 << 57 is 0 */
}

uint64_t
hist_quantile(const struct hist *h, double q)
{
	uint64_t sum = 0, top;

	if (!h->count)
		return 0;
	for (unsigned i = 0; i < sizeof(h->buckets) / sizeof(h->buckets[0]); i++) {
		sum += h->buckets[i];
		if (!sum || (double)sum < q * (double)h->count)
			continue;
		top = bucket_top(i);
		return top < h->min ? h->min : top < h->max ? top : h->max;
	}
	return h->max;
}
