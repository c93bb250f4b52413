#include "pack.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/mp.h"

static void pack_value(struct buf *b, const char **p);

static _Noreturn void
fail(const char *at)
{
	fprintf(stderr, "pack: cannot read \"%s\"\n", at);
	abort();
}

static void
skip_blanks(const char **p)
{
	while (isspace((unsigned char)**p))
		++*p;
}

static bool
take(const char **p, const char *word)
{
	size_t n = strlen(word);

	if (strncmp(*p, word, n) != 0)
		return false;
	*p += n;
	return true;
}

static void
pack_quoted(struct buf *b, const char **p, bool is_bin)
{
	struct buf s = { 0 };

	for (++*p; **p && **p != '\''; ++*p) {
		char c = **p;

		if (c == '\\') {
			char hex[3] = { (*p)[2], (*p)[3], '\0' };

			c = (char)strtoul(hex, NULL, 16);
			*p += 3;
		}
		buf_putc(&s, c);
	}
	if (!take(p, "'"))
		fail(*p);
	if (is_bin)
		mp_put_bin(b, buf_str(&s));
	else
		mp_put_str(b, buf_str(&s));
	buf_done(&s);
}

static void
pack_items(struct buf *b, const char **p, char end)
{
	struct buf items = { 0 };
	uint32_t n = 0;

	for (++*p, skip_blanks(p); **p != end; n++) {
		if (n && !take(p, ","))
			fail(*p);
		if (end == '}') {
			pack_value(&items, p);
			if (!take(p, ":"))
				fail(*p);
		}
		pack_value(&items, p);
	}
	++*p;
	if (end == '}')
		mp_put_map(b, n);
	else
		mp_put_array(b, n);
	mp_put_raw(b, buf_str(&items));
	buf_done(&items);
}

static void
pack_number(struct buf *b, const char **p)
{
	bool is_float32 = take(p, "f");
	size_t n = strspn(*p, "+-.0123456789einfa");
	char *end;
	double d = strtod(*p, &end);

	if (!n || end != *p + n)
		fail(*p);
	if (is_float32) {
		float f = (float)d;
		uint32_t bits;

		memcpy(&bits, &f, sizeof(bits));
		buf_putc(b, '\xca');
		for (int shift = 24; shift >= 0; shift -= 8)
			buf_putc(b, (char)(bits >> shift));
	} else if (memchr(*p, '.', n) || memchr(*p, 'n', n)) {
		mp_put_double(b, d);
	} else if (**p == '-') {
		mp_put_int(b, strtoll(*p, NULL, 10));
	} else {
		mp_put_uint(b, strtoull(*p, NULL, 10));
	}
	*p = end;
}

static void
pack_raw(struct buf *b, const char **p)
{
	for (++*p, skip_blanks(p); **p != '>'; skip_blanks(p)) {
		char hex[3] = { (*p)[0], (*p)[1], '\0' };

		if (!isxdigit((unsigned char)hex[0]) || !isxdigit((unsigned char)hex[1]))
			fail(*p);
		buf_putc(b, (char)strtoul(hex, NULL, 16));
		*p += 2;
	}
	++*p;
}

static void
pack_value(struct buf *b, const char **p)
{
	skip_blanks(p);
	if (**p == '{')
		pack_items(b, p, '}');
	else if (**p == '[')
		pack_items(b, p, ']');
	else if (**p == '\'')
		pack_quoted(b, p, false);
	else if (take(p, "b"))
		pack_quoted(b, p, true);
	else if (**p == '<')
		pack_raw(b, p);
	else if (take(p, "nil"))
		mp_put_nil(b);
	else if (take(p, "true"))
		mp_put_bool(b, true);
	else if (take(p, "false"))
		mp_put_bool(b, false);
	else
		pack_number(b, p);
	skip_blanks(p);
}

void
pack_text(struct buf *b, const char *text)
{
	pack_value(b, &text);
	if (*text)
		fail(text);
}

struct buf
packed(const char *text)
{
	struct buf b = { 0 };

	pack_text(&b, text);
	return b;
}
