#ifndef COORDD_QUEUE_ITEM_H
#define COORDD_QUEUE_ITEM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/id.h"
#include "proto/fields.h"
#include "store/store.h"

/*
 * A message as Redis keeps it (docs/REDIS.md, "Items"): a fixed header that the scripts read and
 * change, then what the broker alone reads. Payload and unknown keys are raw, as they were sent.
 */
struct item {
	uint8_t priority; /* 1, 5, 9 */
	enum message_type type;
	uint64_t enqueued_us; /* Redis's clock */
	unsigned attempts;    /* failed deliveries so far */
	bool has_error;
	struct str last_error; /* with has_error */
	struct agent_id sender;
	bool has_uuid;         /* message_id is the UUID_BYTES of one, else text */
	struct str message_id; /* as it is kept: see item_message_id() */
	struct str timestamp;  /* as sent; n is 0 when the broker gives enqueued_us for it */
	uint32_t extra_count;  /* unknown keys */
	struct str extra;      /* their keys and values in turn, raw */
	struct str payload;    /* raw map */
};

#define ITEM_DIGEST_LEN 16

/*
 * Append the item to `args` as one argument. `due_by_us` is 0 without a ttl. Returns its size.
 *
 * `digest` (may be NULL) gets what makes two sends the same one: message id, sender, message type and
 * payload bytes (the recipient is the queue itself). 16 bytes of SHA-256.
 */
size_t item_put(struct args *args, const struct agent_id *sender, const struct message *message,
		uint64_t enqueued_us, uint64_t due_by_us, uint8_t digest[ITEM_DIGEST_LEN]);

/* Take an item apart; the views borrow `raw`. False when it is none (foreign data). */
bool item_read(struct item *item, struct str raw);

/* The message id as it was sent; `room` may hold it. */
struct str item_message_id(const struct item *item, char room[UUID_TEXT_LEN]);

#endif
