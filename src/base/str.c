#include "base/str.h"

/* Nearly all text is ASCII: eight bytes at a time prove it. */
static bool
is_ascii(struct str s)
{
	uint64_t all = str_last_word(s);

	for (size_t i = 0; i + 8 < s.n; i += 8)
		all |= str_word(s.p + i);
	return !(all & STR_EACH(0x80));
}

bool
str_is_utf8(struct str s)
{
	const uint8_t *p = (const uint8_t *)s.p, *end = p + s.n;

	if (is_ascii(s))
		return true;
	while (p < end) {
		uint8_t c = *p;
		size_t more;
		uint32_t cp, min;

		if (c < 0x80) {
			p++;
			continue;
		}
		if ((c & 0xe0) == 0xc0) {
			more = 1, cp = c & 0x1f, min = 0x80;
		} else if ((c & 0xf0) == 0xe0) {
			more = 2, cp = c & 0x0f, min = 0x800;
		} else if ((c & 0xf8) == 0xf0) {
			more = 3, cp = c & 0x07, min = 0x10000;
		} else {
			return false;
		}
		if ((size_t)(end - p) <= more)
			return false;
		for (size_t i = 1; i <= more; i++) {
			if ((p[i] & 0xc0) != 0x80)
				return false;
			cp = cp << 6 | (p[i] & 0x3f);
		}
		if (cp < min || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
			return false;
		p += more + 1;
	}
	return true;
}

bool
str_has_control(struct str s)
{
	const uint8_t *p = (const uint8_t *)s.p;

	for (size_t i = 0; i < s.n; i++) {
		if (p[i] < 0x20 || p[i] == 0x7f)
			return true;
		if (p[i] == 0xc2 && i + 1 < s.n && p[i + 1] < 0xa0)
			return true;
	}
	return false;
}

bool
str_glob(struct str pattern, struct str s)
{
	size_t p = 0, i = 0, after_star = 0, from = 0;
	bool has_star = false;

	while (i < s.n) {
		if (p < pattern.n && pattern.p[p] == '*') {
			has_star = true;
			after_star = ++p;
			from = i;
		} else if (p < pattern.n && (pattern.p[p] == '?' || pattern.p[p] == s.p[i])) {
			p++;
			i++;
		} else if (has_star) { /* the last star takes one more */
			p = after_star;
			i = ++from;
		} else {
			return false;
		}
	}
	while (p < pattern.n && pattern.p[p] == '*')
		p++;
	return p == pattern.n;
}

const char str_pairs[201] = "0001020304050607080910111213141516171819"
			    "2021222324252627282930313233343536373839"
			    "4041424344454647484950515253545556575859"
			    "6061626364656667686970717273747576777879"
			    "8081828384858687888990919293949596979899";

char *
str_put_uint(char *to, uint64_t v)
{
	unsigned n = 1;
	char *end;

	for (uint64_t least = 10; v >= least && n < STR_UINT_MAX; least *= 10)
		n++;
	end = to + n;
	for (; n > 1; n -= 2, v /= 100)
		memcpy(to + n - 2, str_pairs + v % 100 * 2, 2);
	if (n)
		*to = (char)('0' + v);
	return end;
}

bool
str_read_uint(const char *z, uint64_t *v)
{
	uint64_t sum = 0;

	if (!*z)
		return false;
	for (; *z; z++) {
		unsigned digit = (unsigned)(*z - '0');

		if (digit > 9 || sum > (UINT64_MAX - digit) / 10)
			return false;
		sum = sum * 10 + digit;
	}
	*v = sum;
	return true;
}
