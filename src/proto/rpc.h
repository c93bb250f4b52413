#ifndef COORDD_PROTO_RPC_H
#define COORDD_PROTO_RPC_H

#include "base/err.h"
#include "proto/mp.h"

/* The MessagePack-RPC envelope (docs/PROTOCOL.md, section 1). */
enum rpc_type { RPC_REQUEST = 0, RPC_RESPONSE = 1, RPC_NOTIFICATION = 2 };

struct rpc {
	enum rpc_type type;
	uint32_t msgid;    /* of a request */
	struct str method; /* of a request or notification; not checked for UTF-8 */
	struct str params; /* raw: one map, or empty when there was none */
	struct errmsg bad; /* err is OK, or BAD_REQUEST when `params` is neither [] nor [map] */
};

/*
 * Take one complete frame apart. False when it is no MessagePack-RPC: the connection is to be
 * closed with a `protocol_error` whose text is in `why`. A response is read no further than its
 * type. A wrong shape of `params` alone is the request's fault, not the frame's: see `bad`.
 */
bool rpc_read(struct rpc *rpc, const uint8_t *frame, size_t n, struct errmsg *why);

enum rpc_errors { RPC_ERRORS_MAP, RPC_ERRORS_PAIR };

/* Begin `[1, msgid, nil, <result follows>`. */
void rpc_put_result(struct buf *b, uint32_t msgid);
/* A whole error response, in the shape the connection asked for. */
void
rpc_put_error(struct buf *b, uint32_t msgid, enum rpc_errors shape, const struct errmsg *why);
/* Begin `[2, method, [<one value follows>]`. */
void rpc_put_notification(struct buf *b, struct str method);

#endif
