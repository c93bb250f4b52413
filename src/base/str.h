#ifndef COORDD_BASE_STR_H
#define COORDD_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
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

static inline bool
str_eq(struct str a, struct str b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Whether the bytes are valid UTF-8: shortest forms, no surrogates, nothing above U+10FFFF. */
bool str_is_utf8(struct str s);

/* Whether a byte below 0x20 or 0x7f, or a C1 control (U+0080..U+009F), occurs in valid UTF-8. */
bool str_has_control(struct str s);

#endif
