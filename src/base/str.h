#ifndef COORDD_BASE_STR_H
#define COORDD_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Borrowed bytes: neither owned nor terminated, may hold NUL. */
struct str {
	const char *p;
	size_t n;
};

#define STR(literal) ((struct str){ "" literal, sizeof(literal) - 1 })

static inline struct str
str_of(const char *z)
{
	return (struct str){ z, strlen(z) };
}

/* Whether the bytes are valid UTF-8: shortest forms, no surrogates, nothing above U+10FFFF. */
bool str_is_utf8(struct str s);

/* Eight bytes at a time: a word of eight equal ones, one that is read, and the last one of a text. */
#define STR_EACH(byte) ((byte)*0x0101010101010101ull)

static inline uint64_t
str_word(const char *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/* Of a text that is shorter some come twice; of none it is blanks. */
static inline uint64_t
str_last_word(struct str s)
{
	uint32_t low, high;

	if (s.n >= 8)
		return str_word(s.p + s.n - 8);
	if (s.n >= 4) {
		memcpy(&low, s.p, 4);
		memcpy(&high, s.p + s.n - 4, 4);
		return low | (uint64_t)high << 32;
	}
	if (!s.n)
		return STR_EACH(' ');
	return (STR_EACH((uint64_t)(uint8_t)s.p[0]) & ~0xffffull) |
	       (uint64_t)(uint8_t)s.p[s.n / 2] << 8 | (uint8_t)s.p[s.n - 1];
}

static inline bool
str_eq(struct str a, struct str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Whether all bytes are printable ASCII: 0x20 to 0x7e. A lower one, and 0x7f, borrows from its top bit. */
static inline bool
str_is_plain(struct str s)
{
	uint64_t word = str_last_word(s), found = 0;

	for (size_t i = 0;; i += 8) {
		found |= word | (word - STR_EACH(0x20)) |
			 ((word ^ STR_EACH(0x7f)) - STR_EACH(1));
		if (i + 8 >= s.n)
			return !(found & STR_EACH(0x80));
		word = str_word(s.p + i);
	}
}

/* Whether a byte below 0x20 or 0x7f, or a C1 control (U+0080..U+009F), occurs in valid UTF-8. */
bool str_has_control(struct str s);

/* Whether all of `s` is as `pattern` says: * stands for any bytes, none as well, ? for any one byte. */
bool str_glob(struct str pattern, struct str s);

/* "00" to "99", two characters each. */
extern const char str_pairs[201];

#define STR_UINT_MAX 20
/* Write `v` in decimal, at most STR_UINT_MAX characters, not terminated; returns where it ends. */
char *str_put_uint(char *to, uint64_t v);
/* Read decimal digits and nothing else; false when there are none, others, or too many. */
bool str_read_uint(const char *z, uint64_t *v);

#endif
