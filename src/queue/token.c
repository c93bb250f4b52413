#include "queue/token.h"

#include <string.h>

#include "queue/pack.h"

uint8_t
token_width(uint64_t visibility_us)
{
	uint64_t most = visibility_us / 20;

	if (most < 2ull << 14)
		return 14;
	if (most >= 1ull << 39)
		return 39;
	return (uint8_t)(63 - __builtin_clzll(most));
}

struct str
token_write(char text[TOKEN_TEXT_MAX], const struct token *token)
{
	char raw[TOKEN_BYTES_MAX], *to = raw;

	to = pack_uint(to, 4, token->epoch);
	to = pack_uint(to, 1, token->width);
	to = pack_uint(to, 6, token->ends);
	to = pack_uint(to, 7, token->fence);
	to = pack_uint(to, 4, token->size);
	to = pack_uint(to, 5, (token->ends << token->width) - token->deadline_us);
	memcpy(to, token->random, TOKEN_RANDOM_LEN);
	to += TOKEN_RANDOM_LEN;
	if (token->lease)
		to = pack_uint(to, 7, token->lease);
	id_encode(text, raw, (size_t)(to - raw));
	return (struct str){ text, ID_TEXT_LEN((size_t)(to - raw)) };
}

bool
token_read(struct token *token, struct str text)
{
	char raw[TOKEN_BYTES_MAX];
	uint64_t before_end;
	bool is_leased = text.n == ID_TEXT_LEN(TOKEN_BYTES_MAX);

	if (!id_decode(raw, is_leased ? TOKEN_BYTES_MAX : TOKEN_BYTES, text))
		return false;
	token->epoch = (uint32_t)unpack_uint(raw, 4);
	token->width = (uint8_t)unpack_uint(raw + 4, 1);
	token->ends = unpack_uint(raw + 5, 6);
	token->fence = unpack_uint(raw + 11, 7);
	token->size = (uint32_t)unpack_uint(raw + 18, 4);
	before_end = unpack_uint(raw + 22, 5);
	memcpy(token->random, raw + 27, TOKEN_RANDOM_LEN);
	token->lease = is_leased ? unpack_uint(raw + TOKEN_BYTES, 7) : 0;
	/* What Lua's numbers hold exactly. */
	if (token->width < 14 || token->width >= 40 || token->fence >= 1ull << 53 ||
	    token->ends >= 1ull << 53 >> token->width || before_end >= 1ull << token->width ||
	    before_end > token->ends << token->width || token->lease >= 1ull << 53 ||
	    is_leased != (token->lease != 0))
		return false;
	token->deadline_us = (token->ends << token->width) - before_end;
	return true;
}

size_t
token_bucket(char out[TOKEN_BUCKET_MAX], const struct token *token)
{
	/* Many in a row are of one bucket. */
	static struct {
		uint64_t fences, ends, lease;
		uint32_t epoch;
		uint8_t width; /* 0: nothing is here yet */
		uint8_t len;
		char text[TOKEN_BUCKET_MAX];
	} last;

	if (last.ends != token->ends || last.fences != token->fence / 256 ||
	    last.epoch != token->epoch || last.width != token->width ||
	    last.lease != token->lease) {
		char *to = str_put_uint(last.text, token->fence / 256);

		*to++ = '.';
		to = str_put_uint(to, token->epoch);
		*to++ = '.';
		to = str_put_uint(to, token->width);
		*to++ = '.';
		to = str_put_uint(to, token->ends);
		if (token->lease) {
			*to++ = '.';
			to = str_put_uint(to, token->lease);
		}
		last.fences = token->fence / 256;
		last.epoch = token->epoch;
		last.width = token->width;
		last.ends = token->ends;
		last.lease = token->lease;
		last.len = (uint8_t)(to - last.text);
	}
	memcpy(out, last.text, TOKEN_BUCKET_MAX);
	return last.len;
}

void
token_field(char out[TOKEN_FIELD_LEN], const struct token *token)
{
	char *to = pack_uint(out, 1, token->fence & 255);

	to = pack_uint(to, 4, token->size);
	memcpy(to, token->random, TOKEN_RANDOM_LEN);
}
