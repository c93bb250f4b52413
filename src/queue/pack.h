#ifndef COORDD_QUEUE_PACK_H
#define COORDD_QUEUE_PACK_H

#include <stdint.h>
#include <string.h>

/* Fixed-width numbers as the scripts' struct.pack writes them: big endian, `n` bytes. */
static inline char *
pack_uint(char *to, unsigned n, uint64_t v)
{
	for (unsigned i = 0; i < n; i++)
		to[i] = (char)(v >> 8 * (n - 1 - i));
	return to + n;
}

static inline uint64_t
unpack_uint(const char *from, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v = v << 8 | (uint8_t)from[i];
	return v;
}

static inline char *
pack_double(char *to, double d)
{
	uint64_t bits;

	memcpy(&bits, &d, sizeof(bits));
	return pack_uint(to, 8, bits);
}

#endif
