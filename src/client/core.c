/*
 * The core of the client: bytes in and out of one socket, requests matched with their answers.
 *
 *	coord_send()		a request joins `pending` and the output
 *	coord_on_writable()	the output leaves
 *	coord_on_readable()	bytes come; every complete frame goes to frame_in()
 *	frame_in()		finds the request that an answer belongs to and keeps it there,
 *				or hands it to the function that waits for it
 *	coord_take()		the exit of what coord_send() began: its answer, its error, or
 *				the connection's
 *	tell()			the same for coord_async()
 *
 * Bytes are proven to be one complete frame within the limits (proto/frame.h) before msgpack-c
 * sees them: its decoder reserves memory for whatever an array's header announces.
 */
#include "client/own.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/frame.h"
#include "proto/mp.h"
#include "proto/rpc.h"

#define READ_SIZE      65536
#define OUT_SIZE       4096
#define READS_PER_TURN 16
#define NOTICE_MAX     63 /* bytes of a notification's method; the broker's are shorter */

struct request {
	TAILQ_ENTRY(request) link;
	uint32_t id;
	uint64_t end;              /* of its bytes, counted from the connection's first */
	struct coord_reply *reply; /* NULL until it came */
	coord_answer_fn *fn;       /* NULL: it waits for coord_take() */
	void *arg;
};

struct coord_reply {
	msgpack_unpacked tree; /* [1, id, error, result]; its strings point into `frame` */
	char frame[];
};

struct coord {
	int fd;
	uint32_t last_id;
	/* Answers mostly come in the order of the requests, so a search ends at the first. */
	TAILQ_HEAD(, request) pending;

	char *out;
	size_t out_len, out_cap;
	size_t out_done;      /* bytes of `out` that left */
	uint64_t out_total;   /* bytes ever queued */
	bool is_write_broken; /* the peer takes no more; what it said may still be read */

	char *in;
	size_t in_len, in_cap;
	uint64_t in_total;      /* bytes that ever came */
	struct frame_scan scan; /* of the frame that `in` begins with */
	bool is_reading;        /* functions of the caller may be on the stack */
	msgpack_zone *zone;     /* of the tree that one of them sees; NULL before the first */
	struct str told;        /* the frame that it was read from */

	coord_notice_fn *notice;
	void *notice_arg;

	struct coord_error parting; /* what the broker said before it closes, if it did */
	struct coord_error end;     /* why nothing goes any more; status OK while it does */
};

struct coord_params {
	msgpack_sbuffer pairs;
	msgpack_packer pk;
	uint32_t n;
	bool has_failed;
};

const char *
coord_version(void)
{
	return COORD_VERSION;
}

/* --- parameters -------------------------------------------------------------- */

static int
params_write(void *arg, const char *p, size_t n)
{
	struct coord_params *params = arg;

	if (params->has_failed || msgpack_sbuffer_write(&params->pairs, p, n) < 0)
		params->has_failed = true;
	return params->has_failed ? -1 : 0;
}

struct coord_params *
coord_params_new(void)
{
	struct coord_params *p = calloc(1, sizeof(*p));

	if (p)
		msgpack_packer_init(&p->pk, p, params_write);
	return p;
}

void
coord_params_free(struct coord_params *p)
{
	if (p)
		msgpack_sbuffer_destroy(&p->pairs);
	free(p);
}

void
coord_params_clear(struct coord_params *p)
{
	msgpack_sbuffer_clear(&p->pairs);
	p->n = 0;
	p->has_failed = false;
}

void
coord_pack_str(msgpack_packer *pk, const char *value)
{
	size_t n = strlen(value);

	msgpack_pack_str(pk, n);
	msgpack_pack_str_body(pk, value, n);
}

void
coord_pack_agent(msgpack_packer *pk, const char *type, const char *instance)
{
	bool has_instance = instance && *instance;

	msgpack_pack_map(pk, has_instance ? 2 : 1);
	coord_pack_str(pk, "type");
	coord_pack_str(pk, type);
	if (has_instance) {
		coord_pack_str(pk, "instance");
		coord_pack_str(pk, instance);
	}
}

void
coord_pack_raw(msgpack_packer *pk, const void *bytes, size_t n)
{
	pk->callback(pk->data, bytes, n);
}

msgpack_packer *
coord_param(struct coord_params *p, const char *key)
{
	p->n++;
	coord_pack_str(&p->pk, key);
	return &p->pk;
}

void
coord_param_str(struct coord_params *p, const char *key, const char *value)
{
	coord_pack_str(coord_param(p, key), value);
}

void
coord_param_int(struct coord_params *p, const char *key, int64_t value)
{
	msgpack_pack_int64(coord_param(p, key), value);
}

void
coord_param_double(struct coord_params *p, const char *key, double value)
{
	msgpack_pack_double(coord_param(p, key), value);
}

void
coord_param_agent(struct coord_params *p, const char *key, const char *type,
		  const char *instance)
{
	coord_pack_agent(coord_param(p, key), type, instance);
}

enum coord_status
params_raw(const struct coord_params *p, const char **pairs, size_t *n, uint32_t *count)
{
	*pairs = p ? p->pairs.data : NULL;
	*n = p ? p->pairs.size : 0;
	*count = p ? p->n : 0;
	return p && p->has_failed ? COORD_MEMORY : COORD_OK;
}

void
params_append(struct coord_params *to, const struct coord_params *from)
{
	if (!from)
		return;
	to->n += from->n;
	to->has_failed |= from->has_failed;
	if (from->pairs.size)
		params_write(to, from->pairs.data, from->pairs.size);
}

/* --- answers ----------------------------------------------------------------- */

/* Member `i` of the answer's envelope. */
static const msgpack_object *
reply_part(const struct coord_reply *reply, unsigned i)
{
	return &reply->tree.data.via.array.ptr[i];
}

const msgpack_object *
coord_reply_result(const struct coord_reply *reply)
{
	return reply_part(reply, 3);
}

void
coord_reply_free(struct coord_reply *reply)
{
	if (reply)
		msgpack_unpacked_destroy(&reply->tree);
	free(reply);
}

const msgpack_object *
coord_get(const msgpack_object *map, const char *key)
{
	size_t n = strlen(key);

	if (!map || map->type != MSGPACK_OBJECT_MAP)
		return NULL;
	for (uint32_t i = 0; i < map->via.map.size; i++) {
		const msgpack_object_kv *kv = &map->via.map.ptr[i];

		if (kv->key.type == MSGPACK_OBJECT_STR && kv->key.via.str.size == n &&
		    !memcmp(kv->key.via.str.ptr, key, n))
			return kv->val.type == MSGPACK_OBJECT_NIL ? NULL : &kv->val;
	}
	return NULL;
}

static void
text_from(char *to, size_t cap, const msgpack_object *o)
{
	if (o && o->type == MSGPACK_OBJECT_STR)
		snprintf(to, cap, "%.*s", (int)o->via.str.size, o->via.str.ptr);
}

/* Read the broker's error map; what is missing in it stays empty. */
static void
error_read(struct coord_error *err, const msgpack_object *map)
{
	const msgpack_object *retryable = coord_get(map, "retryable");

	*err = (struct coord_error){ .status = COORD_REFUSED };
	text_from(err->code, sizeof(err->code), coord_get(map, "code"));
	text_from(err->message, sizeof(err->message), coord_get(map, "message"));
	text_from(err->applied, sizeof(err->applied), coord_get(map, "applied"));
	err->retryable = retryable && retryable->type == MSGPACK_OBJECT_BOOLEAN &&
			 retryable->via.boolean;
	if (!err->code[0]) {
		err->status = COORD_PROTOCOL;
		snprintf(err->message, sizeof(err->message),
			 "the peer sent an error without a code");
	}
}

/* --- the connection ---------------------------------------------------------- */

struct coord *
coord_attach(int fd)
{
	struct coord *c = calloc(1, sizeof(*c));
	int flags = fcntl(fd, F_GETFL);

	if (!c)
		return NULL;
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	c->fd = fd;
	TAILQ_INIT(&c->pending);
	return c;
}

static void
request_free(struct coord *c, struct request *r)
{
	TAILQ_REMOVE(&c->pending, r, link);
	coord_reply_free(r->reply);
	free(r);
}

void
coord_free(struct coord *c)
{
	if (!c)
		return;
	while (!TAILQ_EMPTY(&c->pending))
		request_free(c, TAILQ_FIRST(&c->pending));
	free(c->out);
	if (c->zone)
		msgpack_zone_free(c->zone);
	free(c->in);
	close(c->fd);
	free(c);
}

int
coord_fd(const struct coord *c)
{
	return c->fd;
}

const struct coord_error *
coord_ended(const struct coord *c)
{
	return c->end.status ? &c->end : NULL;
}

/* The connection is at its end; the first reason counts, and the broker's own comes before
 * ours. */
static enum coord_status __attribute__((format(printf, 3, 4)))
end(struct coord *c, enum coord_status status, const char *fmt, ...)
{
	va_list ap;

	if (c->end.status)
		return c->end.status;
	if (status == COORD_CLOSED && c->parting.status) {
		c->end = c->parting;
		return c->end.status;
	}
	c->end.status = status;
	c->end.retryable = status == COORD_CLOSED;
	va_start(ap, fmt);
	vsnprintf(c->end.message, sizeof(c->end.message), fmt, ap);
	va_end(ap);
	return status;
}

/* --- out --------------------------------------------------------------------- */

/* Room for `n` more bytes of output; NULL: no memory. */
static char *
out_reserve(struct coord *c, size_t n)
{
	size_t cap = c->out_cap ? c->out_cap : OUT_SIZE;
	char *out;

	while (cap - c->out_len < n)
		cap *= 2;
	if (cap != c->out_cap) {
		out = realloc(c->out, cap);
		if (!out)
			return NULL;
		c->out = out;
		c->out_cap = cap;
	}
	return c->out + c->out_len;
}

size_t
call_room(const char *method, const struct coord_params *params)
{
	return MP_HEAD_MAX + strlen(method) + 1 + MP_HEAD_MAX +
	       (params ? params->pairs.size : 0);
}

char *
call_write(char *to, const char *method, const struct coord_params *params)
{
	to = mp_write_str(to, str_of(method));
	to = mp_write_array(to, params ? 1 : 0);
	if (!params)
		return to;
	to = mp_write_map(to, params->n);
	return mp_write_raw(to, (struct str){ params->pairs.data, params->pairs.size });
}

/* Count a request whose bytes stand behind the output. */
static void
request_begin(struct coord *c, struct request *r, const char *end)
{
	size_t n = (size_t)(end - (c->out + c->out_len));

	c->out_len += n;
	c->last_id = r->id;
	c->out_total += n;
	r->end = c->out_total;
	TAILQ_INSERT_TAIL(&c->pending, r, link);
}

/* Room for a request, and its number; `*to` is it, not yet of the connection's `pending`. */
static enum coord_status
request_new(struct coord *c, size_t n, struct request **to, char **at)
{
	struct request *r;

	if (c->end.status)
		return c->end.status;
	*at = out_reserve(c, 1 + 1 + MP_HEAD_MAX + n);
	r = *at ? calloc(1, sizeof(*r)) : NULL;
	if (!r)
		return COORD_MEMORY;

	/* Not 0, which the broker uses when it cannot tell which request it speaks of. A number
	 * is used again after 4 billion requests: what is as old as that was answered. */
	r->id = c->last_id + 1 ? c->last_id + 1 : 1;
	*at = mp_write_array(*at, 4);
	*at = mp_write_uint(*at, RPC_REQUEST);
	*at = mp_write_uint(*at, r->id);
	*to = r;
	return COORD_OK;
}

/* Queue a request; `*to` is it, of the connection's `pending`. */
static enum coord_status
request_send(struct coord *c, const char *method, const struct coord_params *params,
	     struct request **to)
{
	enum coord_status status;
	char *at;

	if (c->end.status)
		return c->end.status;
	if (!method || !*method)
		return COORD_USAGE;
	if (params && params->has_failed)
		return COORD_MEMORY;
	status = request_new(c, call_room(method, params), to, &at);
	if (!status)
		request_begin(c, *to, call_write(at, method, params));
	return status;
}

enum coord_status
core_call(struct coord *c, struct str call, coord_answer_fn *fn, void *arg, uint32_t *id)
{
	struct request *r;
	char *at;
	enum coord_status status = request_new(c, call.n, &r, &at);

	if (status)
		return status;
	r->fn = fn;
	r->arg = arg;
	*id = r->id;
	request_begin(c, r, mp_write_raw(at, call));
	return COORD_OK;
}

enum coord_status
core_notify(struct coord *c, const char *method, const struct coord_params *params)
{
	char *at, *end;

	if (c->end.status)
		return c->end.status;
	at = out_reserve(c, 2 + call_room(method, params));
	if (!at)
		return COORD_MEMORY;
	end = mp_write_uint(mp_write_array(at, 3), RPC_NOTIFICATION);
	end = call_write(end, method, params);
	c->out_len += (size_t)(end - at);
	c->out_total += (size_t)(end - at);
	return COORD_OK;
}

enum coord_status
coord_send(struct coord *c, const char *method, const struct coord_params *params, uint32_t *id)
{
	struct request *r;
	enum coord_status status = request_send(c, method, params, &r);

	if (!status)
		*id = r->id;
	return status;
}

enum coord_status
coord_async(struct coord *c, const char *method, const struct coord_params *params,
	    coord_answer_fn *fn, void *arg)
{
	struct request *r;
	enum coord_status status = request_send(c, method, params, &r);

	if (!status) {
		r->fn = fn;
		r->arg = arg;
	}
	return status;
}

bool
coord_wants_write(const struct coord *c)
{
	return !c->end.status && !c->is_write_broken && c->out_done < c->out_len;
}

size_t
core_queued(const struct coord *c)
{
	return c->out_len - c->out_done;
}

uint64_t
core_heard(const struct coord *c)
{
	return c->in_total;
}

/* Bytes of all requests that left so far. */
static uint64_t
out_left(const struct coord *c)
{
	return c->out_total - core_queued(c);
}

enum coord_status
coord_on_writable(struct coord *c)
{
	while (coord_wants_write(c)) {
		ssize_t n = send(c->fd, c->out + c->out_done, c->out_len - c->out_done,
				 MSG_NOSIGNAL);

		if (n > 0)
			c->out_done += (size_t)n;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			break;
		else if (errno != EINTR)
			c->is_write_broken = true; /* reading will tell why */
	}
	if (c->out_done == c->out_len) {
		c->out_len = c->out_done = 0;
	} else if (c->out_done > c->out_len / 2) {
		memmove(c->out, c->out + c->out_done, c->out_len - c->out_done);
		c->out_len -= c->out_done;
		c->out_done = 0;
	}
	return c->end.status;
}

/* A request that did not leave whole was not done. */
static void
applied_set(struct coord_error *why, const struct request *r, uint64_t left)
{
	snprintf(why->applied, sizeof(why->applied), "%s", r->end > left ? "no" : "unknown");
}

/* --- in ---------------------------------------------------------------------- */

static struct request *
request_find(struct coord *c, uint64_t id)
{
	struct request *r;

	TAILQ_FOREACH (r, &c->pending, link) {
		if (r->id == id)
			return r;
	}
	return NULL;
}

/* A tree over a copy of `frame`, which is proven to be one complete value. NULL: no memory. */
static struct coord_reply *
reply_new(const char *frame, size_t n)
{
	struct coord_reply *reply = malloc(sizeof(*reply) + n);
	size_t off = 0;

	if (!reply)
		return NULL;
	memcpy(reply->frame, frame, n);
	msgpack_unpacked_init(&reply->tree);
	if (msgpack_unpack_next(&reply->tree, reply->frame, n, &off) !=
	    MSGPACK_UNPACK_SUCCESS) {
		coord_reply_free(reply);
		return NULL;
	}
	return reply;
}

/* The tree of the value that `m` stands at, for a function of the caller; the next one ends it.
 */
static enum coord_status
tree_read(struct coord *c, msgpack_object *tree, const struct mp *m)
{
	size_t n = (size_t)(m->end - m->p), off = 0;
	msgpack_unpack_return got = MSGPACK_UNPACK_NOMEM_ERROR;

	if (c->zone)
		msgpack_zone_clear(c->zone);
	else
		c->zone = msgpack_zone_new(MSGPACK_ZONE_CHUNK_SIZE);
	if (c->zone)
		got = msgpack_unpack((const char *)m->p, n, &off, c->zone, tree);
	if (got != MSGPACK_UNPACK_SUCCESS && got != MSGPACK_UNPACK_EXTRA_BYTES)
		return end(c, COORD_MEMORY, "no memory for an answer of %zu bytes", n);
	return COORD_OK;
}

/* Hand an answer, or why there is none, to the function that waits for it. */
static void
tell(struct coord *c, struct request *r, const msgpack_object *result,
     const struct coord_error *why)
{
	coord_answer_fn *fn = r->fn;
	void *arg = r->arg;

	request_free(c, r); /* before, so that whatever `fn` sends finds its memory */
	fn(arg, result, why);
}

/* `m` stands at the error of an answer. */
static enum coord_status
answer_tell(struct coord *c, struct request *r, struct mp *m)
{
	bool is_error = !mp_read_nil(m);
	struct coord_error why;
	msgpack_object tree;

	if (tree_read(c, &tree, m))
		return c->end.status; /* which all that wait are told at the end */
	if (is_error)
		error_read(&why, &tree);
	tell(c, r, is_error ? NULL : &tree, is_error ? &why : NULL);
	return COORD_OK;
}

/* `m` stands at the method of a notification. */
static enum coord_status
notice_in(struct coord *c, struct mp *m)
{
	char method[NOTICE_MAX + 1];
	msgpack_object tree;
	struct str name;
	uint32_t n;

	if (!c->notice || !mp_read_str(m, &name) || name.n > NOTICE_MAX ||
	    !mp_read_array(m, &n))
		return COORD_OK;
	memcpy(method, name.p, name.n);
	method[name.n] = '\0';
	if (n && tree_read(c, &tree, m))
		return c->end.status;
	c->notice(c->notice_arg, method, n ? &tree : NULL);
	return COORD_OK;
}

/* One frame. Answers that nobody waits for are dropped. */
static enum coord_status
frame_in(struct coord *c, const char *frame, size_t n)
{
	struct mp m = mp_of((struct str){ frame, n });
	struct coord_reply *reply;
	struct request *r;
	uint64_t type, id;
	uint32_t parts;

	c->told = (struct str){ frame, n };
	if (!mp_read_array(&m, &parts) || !parts || !mp_read_uint(&m, &type))
		return end(c, COORD_PROTOCOL, "the peer does not speak MessagePack-RPC");
	if (type == RPC_NOTIFICATION && parts == 3)
		return notice_in(c, &m);
	if (type != RPC_RESPONSE || parts != 4 || !mp_read_uint(&m, &id))
		return end(c, COORD_PROTOCOL, "the peer sent something that is no answer");

	r = request_find(c, id);
	if (id != 0 && (!r || r->reply))
		return COORD_OK;
	if (r && r->fn)
		return answer_tell(c, r, &m);
	reply = reply_new(frame, n);
	if (!reply)
		return end(c, COORD_MEMORY, "no memory for an answer of %zu bytes", n);
	if (r) {
		r->reply = reply;
		return COORD_OK;
	}
	/* It speaks of the connection, which the broker is about to close. */
	error_read(&c->parting, reply_part(reply, 2));
	coord_reply_free(reply);
	return COORD_OK;
}

/* Take every complete frame off the input. */
static enum coord_status
frames_in(struct coord *c)
{
	static const struct frame_limits limits = { COORD_MAX_FRAME, COORD_MAX_ELEMENTS };
	size_t done = 0;

	while (!c->end.status && done < c->in_len) {
		enum frame_status status = frame_scan(&c->scan, (const uint8_t *)c->in + done,
						      c->in_len - done, &limits);

		if (status == FRAME_MORE)
			break;
		if (status == FRAME_TOO_LARGE)
			end(c, COORD_PROTOCOL,
			    "the peer sent an answer of more than %u bytes or %u values",
			    COORD_MAX_FRAME, COORD_MAX_ELEMENTS);
		else if (status != FRAME_OK)
			end(c, COORD_PROTOCOL, "the peer sent what is no MessagePack");
		else
			frame_in(c, c->in + done, c->scan.pos);
		done += c->scan.pos;
		c->scan = (struct frame_scan){ 0 };
	}
	if (done && !c->end.status) {
		c->in_len -= done;
		memmove(c->in, c->in + done, c->in_len);
	}
	return c->end.status;
}

/* Room for READ_SIZE more bytes; the scan refuses a frame before this grows without bound. */
static bool
in_reserve(struct coord *c)
{
	size_t cap = c->in_cap ? c->in_cap : READ_SIZE;
	char *in;

	while (cap - c->in_len < READ_SIZE)
		cap *= 2;
	if (cap == c->in_cap)
		return true;
	in = realloc(c->in, cap);
	if (!in)
		return false;
	c->in = in;
	c->in_cap = cap;
	return true;
}

/* The connection is at its end: so are all that a function waits for. */
static void
tell_all(struct coord *c)
{
	uint64_t left = out_left(c);
	struct request *r;

	do {
		struct coord_error why = c->end;

		TAILQ_FOREACH (r, &c->pending, link) {
			if (r->fn)
				break;
		}
		if (r) {
			applied_set(&why, r, left);
			tell(c, r, NULL, &why); /* it may forget others, and send nothing */
		}
	} while (r);
}

enum coord_status
coord_on_readable(struct coord *c)
{
	ssize_t n = READ_SIZE;

	if (c->is_reading)
		return COORD_USAGE;
	c->is_reading = true;
	/* A short read emptied the socket; a peer that never stops gets no more than a turn. */
	for (int i = 0; i < READS_PER_TURN && n == READ_SIZE && !c->end.status; i++) {
		if (!in_reserve(c)) {
			end(c, COORD_MEMORY, "no memory to read into");
			break;
		}
		do
			n = recv(c->fd, c->in + c->in_len, READ_SIZE, 0);
		while (n < 0 && errno == EINTR);
		if (n > 0) {
			c->in_len += (size_t)n;
			c->in_total += (uint64_t)n;
			frames_in(c);
		} else if (n == 0) {
			end(c, COORD_CLOSED, "the broker closed the connection%s",
			    c->in_len ? " in the middle of an answer" : "");
		} else if (errno != EAGAIN && errno != EWOULDBLOCK) {
			end(c, COORD_CLOSED, "the connection broke: %s", strerror(errno));
		}
	}
	if (c->end.status)
		tell_all(c);
	c->is_reading = false;
	return c->end.status;
}

void
coord_on_notice(struct coord *c, coord_notice_fn *fn, void *arg)
{
	c->notice = fn;
	c->notice_arg = arg;
}

enum coord_status
core_end(struct coord *c, const struct coord_error *why)
{
	if (c->is_reading)
		return COORD_USAGE;
	if (!c->end.status)
		c->end = *why;
	c->is_reading = true;
	tell_all(c);
	c->is_reading = false;
	return COORD_OK;
}

struct coord_reply *
core_told(const struct coord *c)
{
	return reply_new(c->told.p, c->told.n);
}

/* --- taking answers ---------------------------------------------------------- */

enum coord_status
coord_take(struct coord *c, uint32_t id, struct coord_reply **reply, struct coord_error *err)
{
	struct request *r = request_find(c, id);
	struct coord_error why = { .status = COORD_USAGE };

	if (!r) {
		snprintf(why.message, sizeof(why.message), "no request %u is under way", id);
	} else if (!r->reply && !c->end.status) {
		return COORD_AGAIN;
	} else if (!r->reply) {
		why = c->end;
		applied_set(&why, r, out_left(c));
	} else if (reply_part(r->reply, 2)->type != MSGPACK_OBJECT_NIL) {
		error_read(&why, reply_part(r->reply, 2));
	} else {
		*reply = r->reply;
		r->reply = NULL;
		why.status = COORD_OK;
	}
	if (r)
		request_free(c, r);
	if (why.status && err)
		*err = why;
	return why.status;
}

void
coord_forget(struct coord *c, uint32_t id)
{
	struct request *r = request_find(c, id);

	if (r)
		request_free(c, r);
}
