#include "base/id.h"

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

void
id_encode(char *text, const void *p, size_t n)
{
	const uint8_t *from = p;
	uint32_t bits = 0;
	unsigned have = 0;

	for (size_t i = 0; i < n; i++) {
		bits = bits << 8 | from[i];
		have += 8;
		while (have >= 6) {
			have -= 6;
			*text++ = alphabet[bits >> have & 63];
		}
	}
	if (have)
		*text = alphabet[bits << (6 - have) & 63];
}

static int
sextet(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool
id_decode(void *p, size_t n, struct str text)
{
	uint8_t *to = p;
	uint32_t bits = 0;
	unsigned have = 0;

	if (text.n != ID_TEXT_LEN(n))
		return false;
	for (size_t i = 0; i < text.n; i++) {
		int six = sextet(text.p[i]);

		if (six < 0)
			return false;
		bits = bits << 6 | (uint32_t)six;
		have += 6;
		if (have >= 8) {
			have -= 8;
			*to++ = (uint8_t)(bits >> have);
		}
	}
	return (bits & ((1u << have) - 1)) == 0;
}
