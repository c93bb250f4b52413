#ifndef COORDD_QUEUE_PACK_H
#define COORDD_QUEUE_PACK_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline void
pack_four(char *to, uint32_t v)
{
	v = htobe32(v);
	memcpy(to, &v, 4);
}

static inline uint32_t
unpack_four(const char *from)
{
	uint32_t v;

	memcpy(&v, from, 4);
	return be32toh(v);
}

/*
 * Fixed-width numbers as the scripts' struct.pack writes them: big endian, `n` bytes. From four on,
 * the first four and the last four are it, whatever both have in common.
 */
static inline char *
pack_uint(char *to, unsigned n, uint64_t v)
{
	if (n >= 4) {
		pack_four(to, (uint32_t)(v >> 8 * (n - 4)));
		pack_four(to + n - 4, (uint32_t)v);
		return to + n;
	}
	for (unsigned i = 0; i < n; i++)
		to[i] = (char)(v >> 8 * (n - 1 - i));
	return to + n;
}

static inline uint64_t
unpack_uint(const char *from, unsigned n)
{
	uint64_t v = 0;

	if (n >= 4)
		return (uint64_t)unpack_four(from) << 8 * (n - 4) | unpack_four(from + n - 4);
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
