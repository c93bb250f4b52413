/*
 * A call is a session of its own on a connection without a socket: it says hello, asks once, and is over.
 *
 *	api_call()	open it, feed it two frames
 *	call_on_output()	what it answers is collected
 *	call_finish()	read the answers, close it, tell
 */
#include "api/call.h"

#include <stdlib.h>

#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"

enum { MSGID_HELLO, MSGID_CALL };

struct api_call {
	struct api *api;
	struct conn *conn;
	struct buf answers;
	struct defer finish;
	api_call_cb *cb;
	void *arg;
};

static void
call_free(struct api_call *call)
{
	conn_close(call->conn, CONN_END_CLIENT);
	defer_cancel(call->api->loop, &call->finish);
	buf_done(&call->answers);
	free(call);
}

/* The next answer: false when there is none; `code` is n 0 for a result. */
static bool
next_answer(struct mp *m, uint64_t *msgid, struct str *code, struct str *message,
	    struct str *result)
{
	uint64_t type;
	uint32_t n;
	struct str key;

	*code = *message = STR("");
	if (!mp_read_array(m, &n) || !mp_read_uint(m, &type) || !mp_read_uint(m, msgid))
		return false;
	if (!mp_read_nil(m) && mp_read_map(m, &n)) {
		while (n--) {
			if (!mp_read_str(m, &key))
				return false;
			if (str_eq(key, STR("code")))
				mp_read_str(m, code);
			else if (str_eq(key, STR("message")))
				mp_read_str(m, message);
			else
				mp_skip(m);
		}
	}
	*result = mp_skip(m);
	return true;
}

static void
call_finish(void *arg)
{
	struct api_call *call = arg;
	struct mp m = mp_of(buf_str(&call->answers));
	struct str code, message, result;
	uint64_t msgid;

	do {
		if (!next_answer(&m, &msgid, &code, &message, &result))
			return; /* the rest comes */
	} while (msgid != MSGID_CALL && !code.n);
	call->cb(call->arg, code, message, result);
	call_free(call);
}

static void
call_on_output(void *arg, struct str bytes)
{
	struct api_call *call = arg;

	buf_put(&call->answers, bytes.p, bytes.n);
	loop_defer(call->api->loop, &call->finish, call_finish, call);
}

static void
feed(struct api_call *call, unsigned msgid, struct str method, struct str params)
{
	struct buf frame = { 0 };

	mp_put_array(&frame, 4);
	mp_put_uint(&frame, RPC_REQUEST);
	mp_put_uint(&frame, msgid);
	mp_put_str(&frame, method);
	mp_put_array(&frame, 1);
	mp_put_raw(&frame, params);
	conn_feed(call->conn, (const uint8_t *)frame.data, frame.len);
	buf_done(&frame);
}

static void
say_hello(struct api_call *call, struct str ns)
{
	struct buf params = { 0 };

	mp_put_map(&params, ns.n ? 2 : 1);
	mp_put_lit(&params, "client");
	mp_put_lit(&params, "http");
	if (ns.n) {
		mp_put_lit(&params, "namespace");
		mp_put_str(&params, ns);
	}
	feed(call, MSGID_HELLO, STR("hello"), buf_str(&params));
	buf_done(&params);
}

struct api_call *
api_call(struct api *api, const struct api_call_how *how, struct str params, api_call_cb *cb,
	 void *arg)
{
	struct api_call *call = xcalloc(1, sizeof(*call));
	struct session *s;

	call->api = api;
	call->cb = cb;
	call->arg = arg;
	call->conn = conns_open_inner(api->conns, how->peer, how->uid, call_on_output, call);
	s = conn_user(call->conn);
	s->role = how->as_operator ? ROLE_OPERATOR : ROLE_VIEWER;
	say_hello(call, how->namespace);
	if (s->said_hello)
		feed(call, MSGID_CALL, how->method, params);
	return call; /* a hello that was refused is the answer */
}

void
api_call_cancel(struct api_call *call)
{
	call_free(call);
}
