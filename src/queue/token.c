#include "queue/token.h"

#include <string.h>

#include "queue/pack.h"

uint8_t
token_width(uint64_t visibility_us)
{
	uint8_t width = 14;

	while (width < 39 && 2ull << width <= visibility_us / 20)
		width++;
	return width;
}

void
token_write(char text[TOKEN_TEXT_LEN], const struct token *token)
{
	char raw[TOKEN_BYTES], *to = raw;

	to = pack_uint(to, 4, token->epoch);
	to = pack_uint(to, 1, token->width);
	to = pack_uint(to, 6, token->ends);
	to = pack_uint(to, 7, token->fence);
	to = pack_uint(to, 4, token->size);
	to = pack_uint(to, 5, (token->ends << token->width) - token->deadline_us);
	memcpy(to, token->random, TOKEN_RANDOM_LEN);
	id_encode(text, raw, sizeof(raw));
}

bool
token_read(struct token *token, struct str text)
{
	char raw[TOKEN_BYTES];
	uint64_t before_end;

	if (!id_decode(raw, sizeof(raw), text))
		return false;
	token->epoch = (uint32_t)unpack_uint(raw, 4);
	token->width = (uint8_t)unpack_uint(raw + 4, 1);
	token->ends = unpack_uint(raw + 5, 6);
	token->fence = unpack_uint(raw + 11, 7);
	token->size = (uint32_t)unpack_uint(raw + 18, 4);
	before_end = unpack_uint(raw + 22, 5);
	memcpy(token->random, raw + 27, TOKEN_RANDOM_LEN);
	/* What Lua's numbers hold exactly. */
	if (token->width < 14 || token->width >= 40 || token->fence >= 1ull << 53 ||
	    token->ends >= 1ull << 53 >> token->width || before_end >= 1ull << token->width ||
	    before_end > token->ends << token->width)
		return false;
	token->deadline_us = (token->ends << token->width) - before_end;
	return true;
}

static char *
put_decimal(char *to, uint64_t v)
{
	char digits[20];
	unsigned n = 0;

	do
		digits[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		*to++ = digits[--n];
	return to;
}

size_t
token_bucket(char out[TOKEN_BUCKET_MAX], const struct token *token)
{
	char *to = put_decimal(out, token->fence / 256);

	*to++ = '.';
	to = put_decimal(to, token->epoch);
	*to++ = '.';
	to = put_decimal(to, token->width);
	*to++ = '.';
	to = put_decimal(to, token->ends);
	return (size_t)(to - out);
}

void
token_field(char out[TOKEN_FIELD_LEN], const struct token *token)
{
	char *to = pack_uint(out, 1, token->fence & 255);

	to = pack_uint(to, 4, token->size);
	memcpy(to, token->random, TOKEN_RANDOM_LEN);
}
