#include "base/id.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* One system call serves many ids: a turn that hands out 64 messages needs 1 KiB at once. */
static uint8_t pool[4096];
static size_t pool_left;

static void
pool_fill(void)
{
	size_t have = 0;

	while (have < sizeof(pool)) {
		ssize_t n = getrandom(pool + have, sizeof(pool) - have, 0);

		if (n > 0)
			have += (size_t)n;
		else if (errno != EINTR)
			abort();
	}
	pool_left = sizeof(pool);
}

void
id_random(void *p, size_t n)
{
	uint8_t *to = p;

	while (n) {
		size_t take;

		if (!pool_left)
			pool_fill();
		take = n < pool_left ? n : pool_left;
		memcpy(to, pool + sizeof(pool) - pool_left, take);
		memset(pool + sizeof(pool) - pool_left, 0, take);
		pool_left -= take;
		to += take;
		n -= take;
	}
}

double
id_random_unit(void)
{
	uint32_t r;

	id_random(&r, sizeof(r));
	return r / 4294967296.0;
}

static const char alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static inline void
put_four(char *text, uint32_t bits)
{
	text[0] = alphabet[bits >> 18 & 63];
	text[1] = alphabet[bits >> 12 & 63];
	text[2] = alphabet[bits >> 6 & 63];
	text[3] = alphabet[bits & 63];
}

void
id_encode(char *text, const void *p, size_t n)
{
	const uint8_t *from = p;
	uint64_t bits;

	/* Six bytes are eight characters, three are four. */
	for (; n >= sizeof(bits); n -= 6, from += 6, text += 8) {
		memcpy(&bits, from, sizeof(bits));
		bits = be64toh(bits);
		put_four(text, (uint32_t)(bits >> 40));
		put_four(text + 4, (uint32_t)(bits >> 16));
	}
	for (; n >= 3; n -= 3, from += 3, text += 4)
		put_four(text, (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2]);
	if (n) {
		char rest[4];

		put_four(rest, (uint32_t)from[0] << 16 | (n > 1 ? (uint32_t)from[1] << 8 : 0));
		memcpy(text, rest, n + 1);
	}
}

/* What each character stands for, at each of four places in three bytes; NONE is in none of these. */
#define NONE (1u << 31)
static uint32_t sextets[4][256];

static void
sextets_fill(void)
{
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned c = 0; c < 256; c++)
			sextets[i][c] = NONE;
		for (unsigned v = 0; v < 64; v++)
			sextets[i][(uint8_t)alphabet[v]] = v << (18 - 6 * i);
	}
}

bool
id_decode(void *p, size_t n, struct str text)
{
	const uint8_t *from = (const uint8_t *)text.p;
	uint8_t *to = p;
	uint32_t bits, all = 0;

	if (text.n != ID_TEXT_LEN(n))
		return false;
	if (!sextets[0][0])
		sextets_fill();
	for (; n >= 3; n -= 3, from += 4, to += 3) {
		bits = sextets[0][from[0]] | sextets[1][from[1]] | sextets[2][from[2]] |
		       sextets[3][from[3]];
		all |= bits;
		to[0] = (uint8_t)(bits >> 16);
		to[1] = (uint8_t)(bits >> 8);
		to[2] = (uint8_t)bits;
	}
	bits = 0;
	for (unsigned i = 0; n && i <= n; i++)
		bits |= sextets[i][from[i]];
	for (unsigned i = 0; i < n; i++)
		to[i] = (uint8_t)(bits >> (16 - 8 * i));
	/* Unused bits are zeros, so that each value has one spelling. */
	return !((all | bits) & NONE) && !(n && bits << (8 + 8 * n));
}

/* Where the two digits of each byte stand. */
static const uint8_t uuid_at[UUID_BYTES] = { 0,  2,  4,  6,  9,  11, 14, 16,
					     19, 21, 24, 26, 28, 30, 32, 34 };
static const char hex[] = "0123456789abcdef";
enum { NO_DIGIT = 128 };

bool
uuid_read(uint8_t uuid[UUID_BYTES], struct str text)
{
	static uint8_t digits[256];
	uint8_t all = 0;

	if (text.n != UUID_TEXT_LEN || text.p[8] != '-' || text.p[13] != '-' ||
	    text.p[18] != '-' || text.p[23] != '-')
		return false;
	if (!digits[0]) {
		memset(digits, NO_DIGIT, sizeof(digits));
		for (unsigned i = 0; i < 16; i++)
			digits[(uint8_t)hex[i]] = (uint8_t)i;
	}
	for (unsigned i = 0; i < UUID_BYTES; i++) {
		uint8_t high = digits[(uint8_t)text.p[uuid_at[i]]],
			low = digits[(uint8_t)text.p[uuid_at[i] + 1]];

		all |= high | low;
		uuid[i] = (uint8_t)(high << 4 | low);
	}
	return !(all & NO_DIGIT);
}

void
uuid_write(char text[UUID_TEXT_LEN], const void *uuid)
{
	static char pairs[256][2];
	const uint8_t *from = uuid;

	if (!pairs[0][0])
		for (unsigned i = 0; i < 256; i++)
			memcpy(pairs[i], (char[2]){ hex[i >> 4], hex[i & 15] }, 2);
	for (unsigned i = 0; i < UUID_BYTES; i++)
		memcpy(text + uuid_at[i], pairs[from[i]], 2);
	text[8] = text[13] = text[18] = text[23] = '-';
}
