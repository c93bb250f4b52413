#ifndef COORDD_API_ENCODE_H
#define COORDD_API_ENCODE_H

#include "base/buf.h"
#include "breaker/breaker.h"
#include "events/events.h"
#include "queue/queue.h"
#include "registry/registry.h"

/* A key and its value; put_text_or_nil() has nil for an empty one. */
void put_count(struct buf *b, const char *key, uint64_t n);
void put_bool(struct buf *b, const char *key, bool yes);
void put_seconds(struct buf *b, const char *key, uint64_t us);
void put_text(struct buf *b, const char *key, struct str text);
void put_text_or_nil(struct buf *b, const char *key, struct str text);

/* The data types of docs/PROTOCOL.md, section 2, as MessagePack. Times are ISO 8601, UTC, microseconds. */
void encode_time(struct buf *b, uint64_t us);
void encode_agent(struct buf *b, struct agent_id id);
void
encode_result(struct buf *b, struct str message_id, struct agent_id recipient, enum sent sent);
/* How many bytes a QueueMessage or ReceivedMessage takes at most: whoever encodes many makes room for all at once. */
size_t encode_room(const struct item *item, struct agent_id recipient);
void encode_queue_message(struct buf *b, const struct item *item, struct agent_id recipient);
void encode_received(struct buf *b, const struct reservation *res, struct agent_id recipient);
/* `consumers`: those of this broker; the others' are in `stats`. */
void encode_stats(struct buf *b, const struct queue_stats *stats, struct agent_id agent,
		  unsigned consumers);
void encode_agent_info(struct buf *b, const struct agent_info *info);
void encode_policy(struct buf *b, const struct queue_policy *policy);
/* Of an event of section 5: how many pairs, and those pairs. */
uint32_t encode_event_pairs(const struct watch_event *event);
void encode_event(struct buf *b, const struct watch_event *event);
extern const struct str breaker_state_names[];
void encode_breaker(struct buf *b, struct str name, const struct breaker_info *info);

#endif
