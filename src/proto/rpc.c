#include "proto/rpc.h"

#include <stdio.h>

static __attribute__((cold)) bool
refuse(struct errmsg *why, const char *text)
{
	errmsg_set(why, ERR_PROTOCOL, "%s", text);
	return false;
}

/*
 * `params` is [], [map] or, from those who have no empty map, [[]]. They are the last of the
 * frame, so the map ends where the frame does.
 */
static void
params_slice(struct rpc *rpc, struct mp *m)
{
	uint32_t n, pairs;
	struct mp map;

	if (mp_read_array(m, &n) && n <= 1) {
		map = *m;
		if (n == 0)
			return;
		if (mp_read_map(&map, &pairs)) {
			if (pairs)
				rpc->params = (struct str){ (const char *)m->p,
							    (size_t)(m->end - m->p) };
			return;
		}
	}
	errmsg_set(&rpc->bad, ERR_BAD_REQUEST,
		   "params must be an array that holds nothing or one map");
}

bool
rpc_read(struct rpc *rpc, const uint8_t *frame, size_t n, struct errmsg *why)
{
	struct mp m = { frame, frame + n };
	uint64_t type, msgid = 0;
	uint32_t elements;

	if (!mp_read_array(&m, &elements) || elements < 3 || elements > 4)
		return refuse(why, "a MessagePack-RPC message is an array of 3 or 4 elements");
	if (!mp_read_uint(&m, &type) || type > RPC_NOTIFICATION)
		return refuse(why, "the type of a MessagePack-RPC message is 0, 1 or 2");
	if (elements != (type == RPC_NOTIFICATION ? 3 : 4))
		return refuse(why, "a request or response has 4 elements, a notification 3");
	rpc->type = (enum rpc_type)type;
	rpc->msgid = 0;
	rpc->method = rpc->params = (struct str){ NULL, 0 };
	rpc->bad.err = OK;
	rpc->bad.text[0] = '\0';
	if (type == RPC_RESPONSE)
		return true;
	if (type == RPC_REQUEST && (!mp_read_uint(&m, &msgid) || msgid > UINT32_MAX))
		return refuse(why, "msgid must be an unsigned 32-bit integer");
	rpc->msgid = (uint32_t)msgid;
	if (!mp_read_str(&m, &rpc->method))
		return refuse(why, "the method must be a string");
	params_slice(rpc, &m);
	return true;
}

void
rpc_put_result(struct buf *b, uint32_t msgid)
{
	char *to = buf_reserve(b, 3 + MP_HEAD_MAX);

	to = mp_write_array(to, 4);
	to = mp_write_uint(to, RPC_RESPONSE);
	to = mp_write_uint(to, msgid);
	to = mp_write_nil(to);
	b->len = (size_t)(to - b->data);
}

/* A text may have been cut inside a character, and many decoders die of half a one. */
static struct str
sound_text(const struct errmsg *why)
{
	struct str s = str_of(why->text);

	while (s.n && !str_is_utf8(s))
		s.n--;
	return s.n ? s : str_of(err_text(why->err));
}

void
rpc_put_error(struct buf *b, uint32_t msgid, enum rpc_errors shape, const struct errmsg *why)
{
	struct str code = str_of(err_code(why->err)), applied = str_of(err_applied(why->err));
	struct str text = sound_text(why);

	mp_put_array(b, 4);
	mp_put_uint(b, RPC_RESPONSE);
	mp_put_uint(b, msgid);
	if (shape == RPC_ERRORS_PAIR) {
		char pair[sizeof(why->text) + 64];
		int n = snprintf(pair, sizeof(pair), "%s: %.*s", code.p, (int)text.n, text.p);

		mp_put_array(b, 2);
		mp_put_uint(b, 0);
		mp_put_str(b, (struct str){ pair, (size_t)n });
	} else {
		mp_put_map(b, applied.n ? 4 : 3);
		mp_put_lit(b, "code");
		mp_put_str(b, code);
		mp_put_lit(b, "message");
		mp_put_str(b, text);
		mp_put_lit(b, "retryable");
		mp_put_bool(b, err_retryable(why->err));
		if (applied.n) {
			mp_put_lit(b, "applied");
			mp_put_str(b, applied);
		}
	}
	mp_put_nil(b);
}

void
rpc_put_notification(struct buf *b, struct str method)
{
	mp_put_array(b, 3);
	mp_put_uint(b, RPC_NOTIFICATION);
	mp_put_str(b, method);
	mp_put_array(b, 1);
}
