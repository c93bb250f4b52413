#ifndef COORDD_BASE_ID_H
#define COORDD_BASE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/* Fill `p` with random bytes of the kernel's generator; ends the process when it has none. */
void id_random(void *p, size_t n);

/* A uniform number in [0, 1), for jitter. */
double id_random_unit(void);

/* Length of base64url text (RFC 4648, section 5, without padding) for `n` bytes. */
#define ID_TEXT_LEN(n) (((n)*4 + 2) / 3)

/* Write ID_TEXT_LEN(n) characters to `text`; not terminated. */
void id_encode(char *text, const void *p, size_t n);

/*
 * Read exactly `n` bytes back. False when the length or alphabet is wrong or unused bits are
 * set, so that each value has one spelling.
 */
bool id_decode(void *p, size_t n, struct str text);

/* A UUID in its usual spelling: 36 characters, lower case. */
#define UUID_BYTES    16
#define UUID_TEXT_LEN 36

/* False when `text` is none, or is spelled otherwise. */
bool uuid_read(uint8_t uuid[UUID_BYTES], struct str text);
void uuid_write(char text[UUID_TEXT_LEN], const void *uuid);

#endif
