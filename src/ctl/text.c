#include "ctl/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

bool
text_duration(const char *z, double *seconds)
{
	static const struct {
		const char *name;
		double seconds;
	} units[] = { { "", 1 },   { "ms", 1e-3 }, { "s", 1 },
		      { "m", 60 }, { "h", 3600 },  { "d", 86400 } };
	size_t whole = strspn(z, "0123456789"), n = whole;
	double v;

	if (!whole)
		return false;
	if (z[n] == '.') {
		size_t fraction = strspn(z + n + 1, "0123456789");

		if (!fraction)
			return false;
		n += 1 + fraction;
	}
	v = strtod(z, NULL);
	for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
		if (strcmp(z + n, units[i].name))
			continue;
		v *= units[i].seconds;
		if (!(v <= 10 * 366 * 86400.0))
			return false;
		*seconds = v;
		return true;
	}
	return false;
}

bool
text_count(const char *z, uint64_t *n)
{
	size_t digits = strspn(z, "0123456789");
	uint64_t v;

	if (!digits || digits > 10 || z[digits])
		return false;
	v = strtoull(z, NULL, 10);
	if (v < 1 || v > 1000000000)
		return false;
	*n = v;
	return true;
}

/* --- names ------------------------------------------------------------------- */

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode `z` up to its end or a `:`; where that is, or NULL and why. */
static const char *
name_part(char part[129], const char *z, const char **why)
{
	struct str s = { part, 0 };

	while (*z && *z != ':') {
		char c = *z++;

		if (c == '%') {
			int high = hex_digit(z[0]), low = high < 0 ? -1 : hex_digit(z[1]);

			if (low < 0) {
				*why = "% is followed by two hexadecimal digits";
				return NULL;
			}
			c = (char)(high << 4 | low);
			z += 2;
		}
		if (s.n == 128) {
			*why = "each part has at most 128 bytes";
			return NULL;
		}
		part[s.n++] = c;
	}
	part[s.n] = '\0';
	if (!str_is_utf8(s) || str_has_control(s)) {
		*why = "it is UTF-8 without control characters";
		return NULL;
	}
	return z;
}

const char *
text_name_read(struct name *name, const char *z)
{
	struct name read = { .instance = "" };
	const char *why = NULL;

	z = name_part(read.type, z, &why);
	if (z && !read.type[0])
		return "it begins with a type";
	if (z && *z == ':')
		z = name_part(read.instance, z + 1, &why);
	if (z && *z)
		return "a : inside a part is written %3A";
	if (!z)
		return why;
	if (!read.instance[0])
		strcpy(read.instance, "default");
	*name = read;
	return NULL;
}

static void
name_put(struct buf *b, struct str part)
{
	for (size_t i = 0; i < part.n; i++) {
		if (part.p[i] == ':')
			buf_puts(b, "%3A");
		else if (part.p[i] == '%')
			buf_puts(b, "%25");
		else
			buf_putc(b, part.p[i]);
	}
}

void
text_name(struct buf *b, struct str type, struct str instance)
{
	name_put(b, type);
	buf_putc(b, ':');
	name_put(b, instance);
}

/* --- for a terminal ---------------------------------------------------------- */

/* Bytes of the character at the start of `s`, 1 when they are none. */
static size_t
char_len(struct str s, bool *is_utf8)
{
	uint8_t c = (uint8_t)s.p[0];
	size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

	*is_utf8 = n <= s.n && str_is_utf8((struct str){ s.p, n });
	return *is_utf8 ? n : 1;
}

void
text_escape(struct buf *b, struct str s)
{
	while (s.n) {
		bool is_utf8;
		size_t n = char_len(s, &is_utf8);

		if (is_utf8 && !str_has_control((struct str){ s.p, n }))
			buf_put(b, s.p, n);
		else if (*s.p == '\n' || *s.p == '\r' || *s.p == '\t')
			buf_printf(b, "\\%c", *s.p == '\n' ? 'n' : *s.p == '\r' ? 'r' : 't');
		else
			for (size_t i = 0; i < n; i++)
				buf_printf(b, "\\x%02x", (uint8_t)s.p[i]);
		s.p += n;
		s.n -= n;
	}
}

/* Columns of the character in the first `n` bytes; the locale may not know it, then 1. */
static size_t
char_width(struct str s, size_t n)
{
	mbstate_t state;
	wchar_t wc;
	int width;

	if (n == 1)
		return 1;
	memset(&state, 0, sizeof(state));
	if (mbrtowc(&wc, s.p, n, &state) != n)
		return 1;
	width = wcwidth(wc);
	return width < 0 ? 1 : (size_t)width;
}

size_t
text_fit(struct str s, size_t columns)
{
	struct str all = s;

	while (s.n) {
		bool is_utf8;
		size_t n = char_len(s, &is_utf8), width = char_width(s, n);

		if (width > columns)
			break;
		columns -= width;
		s.p += n;
		s.n -= n;
	}
	return all.n - s.n;
}

size_t
text_width(struct str s)
{
	size_t width = 0;

	while (s.n) {
		bool is_utf8;
		size_t n = char_len(s, &is_utf8);

		width += char_width(s, n);
		s.p += n;
		s.n -= n;
	}
	return width;
}

void
text_number(struct buf *b, int64_t n)
{
	char digits[32];
	int len = snprintf(digits, sizeof(digits), "%lld", (long long)n);

	for (int i = 0; i < len; i++) {
		buf_putc(b, digits[i]);
		if (i + 1 < len && (len - i - 1) % 3 == 0 && digits[i] != '-')
			buf_putc(b, ',');
	}
}

void
text_age(struct buf *b, double seconds)
{
	long long s;

	if (!isfinite(seconds) || seconds > 1e12 || seconds < 0) {
		buf_puts(b, "?");
		return;
	}
	s = (long long)seconds;
	if (seconds < 1)
		buf_printf(b, "%lldms", (long long)(seconds * 1e3));
	else if (s < 60)
		buf_printf(b, "%.1fs", floor(seconds * 10) / 10);
	else if (s < 3600)
		buf_printf(b, "%lldm%02llds", s / 60, s % 60);
	else if (s < 86400)
		buf_printf(b, "%lldh%02lldm", s / 3600, s / 60 % 60);
	else
		buf_printf(b, "%lldd%02lldh", s / 86400, s / 3600 % 24);
}
