#include "queue/item.h"

/* As EVP it costs a quarter more, for such short texts. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "queue/pack.h"

enum {
	FORMAT = 16, /* first byte: the format, and how the id is kept */
	HAS_UUID = 1,
	HAS_TTL = 16,
	HAS_FAILED = 32,
	HAS_TIMESTAMP = 64,
	HAS_EXTRA = 128,
	NO_ERROR = 65535
};

static uint8_t
priority_bits(uint8_t priority)
{
	return priority == 9 ? 2 : priority == 5 ? 1 : 0;
}

/* The next raw key and value of a message that is not AgentMessage's own; false behind the last. */
static bool
next_extra(struct mp *m, uint32_t *pairs, struct str *raw)
{
	while (*pairs) {
		const uint8_t *from = m->p;
		struct str key = { NULL, 0 };

		--*pairs;
		mp_read_str(m, &key);
		mp_skip(m);
		*raw = (struct str){ (const char *)from, (size_t)(m->p - from) };
		if (!message_knows_key(key))
			return true;
	}
	return false;
}

static size_t
extra_size(const struct message *message)
{
	struct mp m = mp_of(message->map);
	uint32_t pairs = 0;
	struct str raw;
	size_t n = 0;

	mp_read_map(&m, &pairs);
	while (next_extra(&m, &pairs, &raw))
		n += raw.n;
	return n;
}

static char *
put_extra(char *to, const struct message *message)
{
	struct mp m = mp_of(message->map);
	uint32_t pairs = 0;
	struct str raw;

	mp_read_map(&m, &pairs);
	while (next_extra(&m, &pairs, &raw)) {
		memcpy(to, raw.p, raw.n);
		to += raw.n;
	}
	return to;
}

static char *
put_bytes(char *to, struct str s)
{
	memcpy(to, s.p, s.n);
	return to + s.n;
}

static char *
put_short(char *to, struct str s)
{
	*to++ = (char)s.n;
	return put_bytes(to, s);
}

static bool
is_default(struct str instance)
{
	return str_eq(instance, STR("default"));
}

/*
 * Who sent which message: the part of an item that says so. The lengths of the sender's type and
 * instance are a half byte each, LONG_NAME for those that have a byte of their own behind it; the
 * default instance has length 0. An id that is a UUID has no length.
 */
enum { LONG_NAME = 15, ORIGIN_MAX = 3 + 2 * 128 + 1 + 128 };

static char *
put_origin(char *to, const struct agent_id *sender, struct str id, bool *is_uuid)
{
	struct str type = sender->type, instance = sender->instance;
	unsigned long_type = type.n >= LONG_NAME, long_instance;
	uint8_t uuid[UUID_BYTES];

	if (is_default(instance))
		instance.n = 0;
	long_instance = instance.n >= LONG_NAME;
	*to++ = (char)((long_type ? LONG_NAME : type.n) << 4 |
		       (long_instance ? LONG_NAME : instance.n));
	if (long_type)
		*to++ = (char)type.n;
	if (long_instance)
		*to++ = (char)instance.n;
	to = put_bytes(put_bytes(to, type), instance);
	*is_uuid = uuid_read(uuid, id);
	return *is_uuid ? put_bytes(to, (struct str){ (char *)uuid, sizeof(uuid) })
			: put_short(to, id);
}

/*
 * What makes two sends the same one: who sent which message, its type and its payload. `is_uuid` is part of
 * it, or the id of one message could be made to look like another's.
 */
static void
digest_of(uint8_t out[ITEM_DIGEST_LEN], const struct message *message, bool is_uuid,
	  struct str origin)
{
	uint8_t head = (uint8_t)((unsigned)message->type << 1 | is_uuid);
	uint8_t whole[SHA256_DIGEST_LENGTH];
	SHA256_CTX ctx;

	SHA256_Init(&ctx);
	SHA256_Update(&ctx, &head, 1);
	SHA256_Update(&ctx, origin.p, origin.n);
	SHA256_Update(&ctx, message->payload.p, message->payload.n);
	SHA256_Final(whole, &ctx);
	memcpy(out, whole, ITEM_DIGEST_LEN);
}

size_t
item_put(struct args *args, const struct agent_id *sender, const struct message *message,
	 uint64_t enqueued_us, uint64_t due_by_us, uint8_t digest[ITEM_DIGEST_LEN])
{
	char text[ORIGIN_MAX];
	bool is_uuid;
	struct str origin = { text, (size_t)(put_origin(text, sender, message->id, &is_uuid) -
					     text) };
	size_t extra = message->extra ? extra_size(message) : 0;
	size_t n = 9 + (due_by_us ? 7 : 0) + origin.n +
		   (message->timestamp.n ? 1 + message->timestamp.n : 0) +
		   (message->extra ? 8 + extra : 0) + message->payload.n;
	char *to = args_reserve(args, n);

	*to++ = (char)(FORMAT | (is_uuid ? HAS_UUID : 0));
	*to++ = (char)(priority_bits(message->priority) | (unsigned)message->type << 2 |
		       (due_by_us ? HAS_TTL : 0) | (message->timestamp.n ? HAS_TIMESTAMP : 0) |
		       (message->extra ? HAS_EXTRA : 0));
	to = pack_uint(to, 7, enqueued_us);
	if (due_by_us)
		to = pack_uint(to, 7, due_by_us);
	to = put_bytes(to, origin);
	if (message->timestamp.n)
		to = put_short(to, message->timestamp);
	if (message->extra) {
		to = pack_uint(to, 4, message->extra);
		to = pack_uint(to, 4, extra);
		to = put_extra(to, message);
	}
	put_bytes(to, message->payload);
	if (digest)
		digest_of(digest, message, is_uuid, origin);
	return n;
}

static bool
take(struct str *from, size_t n, struct str *out)
{
	if (from->n < n)
		return false;
	*out = (struct str){ from->p, n };
	from->p += n;
	from->n -= n;
	return true;
}

static bool
take_uint(struct str *from, unsigned bytes, uint64_t *out)
{
	struct str s;

	if (!take(from, bytes, &s))
		return false;
	*out = unpack_uint(s.p, bytes);
	return true;
}

static bool
take_short(struct str *from, struct str *out)
{
	uint64_t n;

	return take_uint(from, 1, &n) && take(from, n, out);
}

static bool
take_origin(struct str *from, bool is_uuid, struct item *item)
{
	uint64_t lengths, type, instance;

	if (!take_uint(from, 1, &lengths))
		return false;
	type = lengths >> 4;
	instance = lengths & 15;
	if ((type == LONG_NAME && !take_uint(from, 1, &type)) ||
	    (instance == LONG_NAME && !take_uint(from, 1, &instance)) ||
	    !take(from, type, &item->sender.type) ||
	    !take(from, instance, &item->sender.instance))
		return false;
	if (!instance)
		item->sender.instance = STR("default");
	item->has_uuid = is_uuid;
	return is_uuid ? take(from, UUID_BYTES, &item->message_id)
		       : take_short(from, &item->message_id);
}

bool
item_read(struct item *item, struct str raw)
{
	static const uint8_t priorities[4] = { 1, 5, 9, 9 };
	uint64_t format, flags, skipped, n;

	*item = (struct item){ 0 };
	if (!take_uint(&raw, 1, &format) || (format & ~(uint64_t)HAS_UUID) != FORMAT ||
	    !take_uint(&raw, 1, &flags) || !take_uint(&raw, 7, &item->enqueued_us))
		return false;
	item->priority = priorities[flags & 3];
	item->type = (flags >> 2 & 3) % MESSAGE_TYPES;
	if (flags & HAS_TTL && !take_uint(&raw, 7, &skipped))
		return false;
	if (flags & HAS_FAILED) {
		uint64_t attempts;

		if (!take_uint(&raw, 2, &attempts) || !take_uint(&raw, 2, &n))
			return false;
		item->has_error = n != NO_ERROR;
		if (item->has_error && !take(&raw, n, &item->last_error))
			return false;
		item->attempts = (unsigned)attempts;
	}
	if (!take_origin(&raw, format & HAS_UUID, item))
		return false;
	if (flags & HAS_TIMESTAMP && !take_short(&raw, &item->timestamp))
		return false;
	if (flags & HAS_EXTRA) {
		uint64_t count;

		if (!take_uint(&raw, 4, &count) || !take_uint(&raw, 4, &n) ||
		    !take(&raw, n, &item->extra))
			return false;
		item->extra_count = (uint32_t)count;
	}
	item->payload = raw;
	return raw.n > 0;
}

struct str
item_message_id(const struct item *item, char room[UUID_TEXT_LEN])
{
	if (!item->has_uuid)
		return item->message_id;
	uuid_write(room, item->message_id.p);
	return (struct str){ room, UUID_TEXT_LEN };
}
