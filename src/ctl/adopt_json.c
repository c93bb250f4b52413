/*
 * adopt: JSON to MessagePack, always to the same bytes: a message that is sent again after a crash must be known again by its payload.
 * A tree in between (json.h) would lose whole numbers above 2^63, which Python writes.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl/adopt.h"
#include "proto/mp.h"

enum { DEPTH = 64 };

struct reader {
	const char *p, *end;
	struct buf *to, text;
	char *why;
	size_t size;
	unsigned depth;
};

static bool value(struct reader *r);

static bool
wrong(struct reader *r, const char *what)
{
	snprintf(r->why, r->size, "%s", what);
	return false;
}

static bool
no_json(struct reader *r)
{
	return wrong(r, r->p == r->end ? "is no JSON: it ends too early" : "is no JSON");
}

static char
next(struct reader *r)
{
	while (r->p < r->end &&
	       (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
		r->p++;
	return r->p < r->end ? *r->p : '\0';
}

static bool
word(struct reader *r, const char *text)
{
	size_t n = strlen(text);

	if ((size_t)(r->end - r->p) < n || memcmp(r->p, text, n) != 0)
		return false;
	r->p += n;
	return true;
}

/* --- strings ------------------------------------------------------------------- */

static bool
four_digits(struct reader *r, unsigned *code)
{
	char text[5], *end;

	if (r->end - r->p < 4)
		return false;
	memcpy(text, r->p, 4);
	text[4] = '\0';
	r->p += 4;
	*code = (unsigned)strtoul(text, &end, 16);
	return !*end && text[0] != '-' && text[0] != '+' && text[0] != ' ';
}

static void
put_utf8(struct buf *b, unsigned c)
{
	if (c < 0x80) {
		buf_putc(b, (char)c);
	} else if (c < 0x800) {
		buf_putc(b, (char)(0xc0 | c >> 6));
		buf_putc(b, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		buf_putc(b, (char)(0xe0 | c >> 12));
		buf_putc(b, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_putc(b, (char)(0x80 | (c & 0x3f)));
	} else {
		buf_putc(b, (char)(0xf0 | c >> 18));
		buf_putc(b, (char)(0x80 | (c >> 12 & 0x3f)));
		buf_putc(b, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_putc(b, (char)(0x80 | (c & 0x3f)));
	}
}

static bool
escaped(struct reader *r)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at = r->p < r->end && *r->p ? strchr(from, *r->p) : NULL;
	unsigned code, low;

	if (at) {
		r->p++;
		buf_putc(&r->text, to[at - from]);
		return true;
	}
	if (!word(r, "u") || !four_digits(r, &code))
		return no_json(r);
	if (code >= 0xd800 && code < 0xdc00 && word(r, "\\u") && four_digits(r, &low) &&
	    low >= 0xdc00 && low < 0xe000)
		code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
	else if (code >= 0xd800 && code < 0xe000)
		return wrong(r, "has a surrogate that is no character");
	put_utf8(&r->text, code);
	return true;
}

static bool
string(struct reader *r)
{
	buf_clear(&r->text);
	for (r->p++; r->p < r->end && *r->p != '"';) {
		unsigned char c = (unsigned char)*r->p;

		if (c < 0x20)
			return no_json(r);
		r->p++;
		if (c != '\\')
			buf_putc(&r->text, (char)c);
		else if (!escaped(r))
			return false;
	}
	if (!word(r, "\""))
		return no_json(r);
	if (!str_is_utf8(buf_str(&r->text)))
		return wrong(r, "has text that is no UTF-8");
	mp_put_str(r->to, buf_str(&r->text));
	return true;
}

/* --- numbers ------------------------------------------------------------------- */

static size_t
digits(struct reader *r)
{
	const char *from = r->p;

	while (r->p < r->end && *r->p >= '0' && *r->p <= '9')
		r->p++;
	return (size_t)(r->p - from);
}

static bool
number(struct reader *r)
{
	const char *from = r->p;
	bool is_negative = word(r, "-"), is_whole = true,
	     has_zero = r->p < r->end && *r->p == '0';
	size_t n = digits(r);
	double d;

	if (!n || (has_zero && n > 1))
		return no_json(r);
	if (word(r, ".")) {
		is_whole = false;
		if (!digits(r))
			return no_json(r);
	}
	if (word(r, "e") || word(r, "E")) {
		is_whole = false;
		if (!word(r, "+"))
			word(r, "-");
		if (!digits(r))
			return no_json(r);
	}
	buf_clear(&r->text);
	buf_put(&r->text, from, (size_t)(r->p - from));
	buf_putc(&r->text, '\0');
	errno = 0;
	if (is_whole && is_negative) {
		long long v = strtoll(r->text.data, NULL, 10);

		if (errno)
			return wrong(r, "has a whole number that 64 bits do not hold");
		mp_put_int(r->to, v);
		return true;
	}
	if (is_whole) {
		unsigned long long v = strtoull(r->text.data, NULL, 10);

		if (errno)
			return wrong(r, "has a whole number that 64 bits do not hold");
		mp_put_uint(r->to, v);
		return true;
	}
	d = strtod(r->text.data, NULL);
	if (!isfinite(d))
		return wrong(r, "has a number beyond the range of doubles");
	mp_put_double(r->to, d);
	return true;
}

/* --- lists and maps ------------------------------------------------------------ */

/* Put the head of a container before what was appended since `at`. */
static void
put_head(struct buf *to, size_t at, bool is_map, uint32_t n)
{
	unsigned char head[5];
	size_t len = n < 16 ? 1 : n < 65536 ? 3 : 5;

	head[0] = (unsigned char)(len == 1   ? (is_map ? 0x80u : 0x90u) | n
				  : len == 3 ? (is_map ? 0xdeu : 0xdcu)
					     : (is_map ? 0xdfu : 0xddu));
	for (size_t i = 1; i < len; i++)
		head[i] = (unsigned char)(n >> 8 * (len - 1 - i));
	buf_reserve(to, len);
	memmove(to->data + at + len, to->data + at, to->len - at);
	memcpy(to->data + at, head, len);
	to->len += len;
}

static bool
container(struct reader *r, bool is_map)
{
	size_t at = r->to->len;
	char close = is_map ? '}' : ']';
	uint32_t n = 0;

	if (++r->depth > DEPTH)
		return wrong(r, "is nested too deep");
	r->p++;
	if (next(r) == close) {
		r->p++;
	} else {
		do {
			if (is_map && (next(r) != '"' || !string(r)))
				return *r->why ? false : no_json(r);
			if (is_map && (next(r) != ':' || !r->p++))
				return no_json(r);
			if (!value(r))
				return false;
			n++;
		} while (next(r) == ',' && r->p++);
		if (next(r) != close)
			return no_json(r);
		r->p++;
	}
	r->depth--;
	put_head(r->to, at, is_map, n);
	return true;
}

static bool
value(struct reader *r)
{
	switch (next(r)) {
	case '{':
		return container(r, true);
	case '[':
		return container(r, false);
	case '"':
		return string(r);
	case 't':
	case 'f':
		if (word(r, "true"))
			mp_put_bool(r->to, true);
		else if (word(r, "false"))
			mp_put_bool(r->to, false);
		else
			return no_json(r);
		return true;
	case 'n':
		if (!word(r, "null"))
			return no_json(r);
		mp_put_nil(r->to);
		return true;
	default:
		if (word(r, "NaN") || word(r, "Infinity") || word(r, "-Infinity"))
			return wrong(r, "has NaN or an infinity, which are no JSON");
		return number(r);
	}
}

bool
adopt_json(struct buf *to, struct str text, char *why, size_t size)
{
	struct reader r = {
		.p = text.p, .end = text.p + text.n, .to = to, .why = why, .size = size
	};
	bool is_good;

	*why = '\0';
	is_good = value(&r);
	if (is_good && (next(&r), r.p != r.end))
		is_good = wrong(&r, "is no JSON: something follows it");
	buf_done(&r.text);
	return is_good;
}
