#include "queue/item.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "queue/pack.h"

enum {
	FORMAT = 1,
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
		struct str key;

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
put_short(char *to, struct str s)
{
	*to++ = (char)s.n;
	memcpy(to, s.p, s.n);
	return to + s.n;
}

size_t
item_put(struct args *args, const struct agent_id *sender, const struct message *message,
	 uint64_t enqueued_us, uint64_t due_by_us)
{
	size_t extra = message->extra ? extra_size(message) : 0;
	size_t n = 9 + (due_by_us ? 7 : 0) + 1 + sender->type.n + 1 + sender->instance.n + 1 +
		   message->id.n + (message->timestamp.n ? 1 + message->timestamp.n : 0) +
		   (message->extra ? 8 + extra : 0) + message->payload.n;
	char *to = args_reserve(args, n);

	*to++ = FORMAT;
	*to++ = (char)(priority_bits(message->priority) | (unsigned)message->type << 2 |
		       (due_by_us ? HAS_TTL : 0) | (message->timestamp.n ? HAS_TIMESTAMP : 0) |
		       (message->extra ? HAS_EXTRA : 0));
	to = pack_uint(to, 7, enqueued_us);
	if (due_by_us)
		to = pack_uint(to, 7, due_by_us);
	to = put_short(to, sender->type);
	to = put_short(to, sender->instance);
	to = put_short(to, message->id);
	if (message->timestamp.n)
		to = put_short(to, message->timestamp);
	if (message->extra) {
		to = pack_uint(to, 4, message->extra);
		to = pack_uint(to, 4, extra);
		to = put_extra(to, message);
	}
	memcpy(to, message->payload.p, message->payload.n);
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

bool
item_read(struct item *item, struct str raw)
{
	static const uint8_t priorities[4] = { 1, 5, 9, 9 };
	uint64_t format, flags, skipped, n;

	*item = (struct item){ 0 };
	if (!take_uint(&raw, 1, &format) || format != FORMAT || !take_uint(&raw, 1, &flags) ||
	    !take_uint(&raw, 7, &item->enqueued_us))
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
	if (!take_short(&raw, &item->sender.type) ||
	    !take_short(&raw, &item->sender.instance) || !take_short(&raw, &item->message_id))
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

static void
digest_part(EVP_MD_CTX *ctx, struct str s)
{
	char length[4];

	pack_uint(length, 4, s.n);
	EVP_DigestUpdate(ctx, length, sizeof(length));
	EVP_DigestUpdate(ctx, s.p, s.n);
}

void
item_digest(uint8_t digest[ITEM_DIGEST_LEN], const struct agent_id *sender,
	    const struct message *message)
{
	/* One context for the life of the process: setting one up costs more than the hash. */
	static EVP_MD_CTX *ctx;
	static EVP_MD *sha256;
	uint8_t whole[EVP_MAX_MD_SIZE];
	char type = (char)message->type;

	if (!ctx) {
		ctx = EVP_MD_CTX_new();
		sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
		if (!ctx || !sha256)
			abort();
	}
	EVP_DigestInit_ex2(ctx, sha256, NULL);
	digest_part(ctx, message->id);
	digest_part(ctx, sender->type);
	digest_part(ctx, sender->instance);
	digest_part(ctx, (struct str){ &type, 1 });
	digest_part(ctx, message->payload);
	EVP_DigestFinal_ex(ctx, whole, NULL);
	memcpy(digest, whole, ITEM_DIGEST_LEN);
}
