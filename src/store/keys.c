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
key_name_split(struct str name, struct buf *b, struct str parts[3])
{
	size_t starts[4] = { b->len };
	unsigned n = 0;

	buf_reserve(b, name.n); /* so that the views stay where they are */
	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];

		if (c == ':') {
			if (++n > 2)
				return false;
			starts[n] = b->len;
		} else if (c == '%') {
			struct str code = { name.p + i + 1, 2 };

			if (name.n - i < 3)
				return false;
			if (str_eq(code, STR("3A")))
				buf_putc(b, ':');
			else if (str_eq(code, STR("25")))
				buf_putc(b, '%');
			else
				return false;
			i += 2;
		} else {
			buf_putc(b, c);
		}
	}
	starts[3] = b->len;
	for (unsigned i = 0; n == 2 && i < 3; i++)
		parts[i] = (struct str){ b->data + starts[i], starts[i + 1] - starts[i] };
	return n == 2;
}
