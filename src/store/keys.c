#include "store/keys.h"

static char *
put_part(char *to, struct str part)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < part.n; i++) {
		char c = part.p[i];

		if (c == ':' || c == '%') {
			*to++ = '%';
			*to++ = hex[c >> 4];
			*to++ = hex[c & 15];
		} else {
			*to++ = c;
		}
	}
	return to;
}

void
key_put_part(struct buf *b, struct str part)
{
	char *to = buf_reserve(b, 3 * part.n);

	b->len += (size_t)(put_part(to, part) - to);
}

size_t
key_name(char *out, struct str ns, struct str type, struct str instance)
{
	char *to = put_part(out, ns);

	*to++ = ':';
	to = put_part(to, type);
	*to++ = ':';
	to = put_part(to, instance);
	return (size_t)(to - out);
}

bool
key_part_decode(struct buf *b, struct str part)
{
	for (size_t i = 0; i < part.n; i++) {
		char c = part.p[i];

		if (c == ':')
			return false;
		if (c == '%') {
			struct str code = { part.p + i + 1, 2 };

			if (part.n - i < 3)
				return false;
			if (!str_eq(code, STR("3A")) && !str_eq(code, STR("25")))
				return false;
			c = str_eq(code, STR("25")) ? '%' : ':';
			i += 2;
		}
		buf_putc(b, c);
	}
	return true;
}

bool
key_name_split(struct str name, struct buf *b, struct str parts[3])
{
	const char *p = name.p, *end = name.p + name.n;
	size_t starts[4];

	buf_reserve(b, name.n); /* so that the views stay where they are */
	for (unsigned i = 0; i < 3; i++) {
		const char *to = i == 2    ? end
				 : p < end ? memchr(p, ':', (size_t)(end - p))
					   : NULL;

		starts[i] = b->len;
		if (!to || !key_part_decode(b, (struct str){ p, (size_t)(to - p) }))
			return false;
		p = to + 1;
	}
	starts[3] = b->len;
	for (unsigned i = 0; i < 3; i++)
		parts[i] = (struct str){ b->data + starts[i], starts[i + 1] - starts[i] };
	return true;
}
