#ifndef COORDD_QUEUE_TOKEN_H
#define COORDD_QUEUE_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/id.h"
#include "base/str.h"

/*
 * The token of a reservation: where Redis keeps it, and 128 random bits without which nobody
 * settles it (docs/REDIS.md, "Reservations"). Buckets end a little after the deadlines that they hold: at
 * `ends` << `width` microseconds of Redis's clock.
 */
#define TOKEN_RANDOM_LEN 16
#define TOKEN_BYTES      43 /* and 7 more of a heartbeat lease */
#define TOKEN_BYTES_MAX  50
#define TOKEN_TEXT_MAX   ID_TEXT_LEN(TOKEN_BYTES_MAX)
#define TOKEN_FIELD_LEN  (1 + 4 + TOKEN_RANDOM_LEN)
#define TOKEN_BUCKET_MAX 96

struct token {
	uint64_t
		fence; /* of the reservation; the bucket holds fences with the same fence / 256 */
	uint32_t epoch;       /* of the sweep, when it was reserved */
	uint8_t width;        /* power of two, microseconds */
	uint64_t ends;        /* in units of the width */
	uint64_t deadline_us; /* its own, at most one width before the bucket's end */
	uint32_t size;        /* of the item, bytes */
	uint64_t lease;       /* number of the heartbeat lease that it is of; 0: none */
	uint8_t random[TOKEN_RANDOM_LEN];
};

/* The width of the buckets for a visibility timeout: at most a twentieth of it, but no less than 16 ms. */
uint8_t token_width(uint64_t visibility_us);

/* As text for a client, not terminated. */
struct str token_write(char text[TOKEN_TEXT_MAX], const struct token *token);
/* False for anything that token_write() did not make the form of. */
bool token_read(struct token *token, struct str text);

/* The bucket's name in its key, and the reservation's field there. */
size_t token_bucket(char out[TOKEN_BUCKET_MAX], const struct token *token);
void token_field(char out[TOKEN_FIELD_LEN], const struct token *token);

#endif
