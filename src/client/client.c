/*
 * The core of the client: bytes in and out of one socket, requests matched with their answers.
 *
 *	coord_send()		a request joins `pending` and the output
 *	coord_on_writable()	the output leaves
 *	coord_on_readable()	bytes come; every complete frame goes to frame_in()
 *	frame_in()		finds the request that an answer belongs to and keeps it there
 *	coord_take()		the only exit of a request: its answer, its error, or the
 *				connection's
 *
 * Bytes are proven to be one complete frame within the limits (proto/frame.h) before msgpack-c
 * sees them: its decoder reserves memory for whatever an array's header announces.
 */
#include "client/coord.h"

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
#define READS_PER_TURN 16

struct request {
	TAILQ_ENTRY(request) link;
	uint32_t id;
	uint64_t end;              /* of its bytes, counted from the connection's first */
	struct coord_reply *reply; /* NULL until it came */
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

	msgpack_sbuffer out;
	size_t out_done;      /* bytes of `out` that left */
	uint64_t out_total;   /* bytes ever queued */
	bool is_write_broken; /* the peer takes no more; what it said may still be read */

	char *in;
	size_t in_len, in_cap;
	struct frame_scan scan; /* of the frame that `in` begins with */

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
	msgpack_sbuffer_init(&c->out);
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
	msgpack_sbuffer_destroy(&c->out);
	free(c->in);
	close(c->fd);
	free(c);
}

int
coord_fd(const struct coord *c)
{
	return c->fd;
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

enum coord_status
coord_send(struct coord *c, const char *method, const struct coord_params *params, uint32_t *id)
{
	size_t before = c->out.size;
	struct request *r;
	msgpack_packer pk;
	int bad = 0;

	if (c->end.status)
		return c->end.status;
	if (!method || !*method)
		return COORD_USAGE;
	if (params && params->has_failed)
		return COORD_MEMORY;
	r = calloc(1, sizeof(*r));
	if (!r)
		return COORD_MEMORY;

	/* Not 0, which the broker uses when it cannot tell which request it speaks of. A number
	 * is used again after 4 billion requests: what is as old as that was answered. */
	r->id = c->last_id + 1 ? c->last_id + 1 : 1;

	msgpack_packer_init(&pk, &c->out, msgpack_sbuffer_write);
	bad |= msgpack_pack_array(&pk, 4);
	bad |= msgpack_pack_int(&pk, RPC_REQUEST);
	bad |= msgpack_pack_uint32(&pk, r->id);
	bad |= msgpack_pack_str(&pk, strlen(method));
	bad |= msgpack_pack_str_body(&pk, method, strlen(method));
	bad |= msgpack_pack_array(&pk, params ? 1 : 0);
	if (params) {
		bad |= msgpack_pack_map(&pk, params->n);
		bad |= msgpack_sbuffer_write(&c->out, params->pairs.data, params->pairs.size);
	}
	if (bad) {
		c->out.size = before;
		free(r);
		return COORD_MEMORY;
	}
	c->last_id = r->id;
	c->out_total += c->out.size - before;
	r->end = c->out_total;
	TAILQ_INSERT_TAIL(&c->pending, r, link);
	*id = r->id;
	return COORD_OK;
}

bool
coord_wants_write(const struct coord *c)
{
	return !c->end.status && !c->is_write_broken && c->out_done < c->out.size;
}

/* Bytes of all requests that left so far. */
static uint64_t
out_left(const struct coord *c)
{
	return c->out_total - (c->out.size - c->out_done);
}

enum coord_status
coord_on_writable(struct coord *c)
{
	while (coord_wants_write(c)) {
		ssize_t n = send(c->fd, c->out.data + c->out_done, c->out.size - c->out_done,
				 MSG_NOSIGNAL);

		if (n > 0)
			c->out_done += (size_t)n;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			break;
		else if (errno != EINTR)
			c->is_write_broken = true; /* reading will tell why */
	}
	if (c->out_done == c->out.size) {
		msgpack_sbuffer_clear(&c->out);
		c->out_done = 0;
	} else if (c->out_done > c->out.size / 2) {
		memmove(c->out.data, c->out.data + c->out_done, c->out.size - c->out_done);
		c->out.size -= c->out_done;
		c->out_done = 0;
	}
	return c->end.status;
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

/* One frame. Notifications, and answers that nobody waits for, are dropped. */
static enum coord_status
frame_in(struct coord *c, const char *frame, size_t n)
{
	struct mp m = mp_of((struct str){ frame, n });
	struct coord_reply *reply;
	struct request *r;
	uint64_t type, id;
	uint32_t parts;

	if (!mp_read_array(&m, &parts) || !parts || !mp_read_uint(&m, &type))
		return end(c, COORD_PROTOCOL, "the peer does not speak MessagePack-RPC");
	if (type == RPC_NOTIFICATION && parts == 3)
		return COORD_OK;
	if (type != RPC_RESPONSE || parts != 4 || !mp_read_uint(&m, &id))
		return end(c, COORD_PROTOCOL, "the peer sent something that is no answer");

	r = request_find(c, id);
	if (id != 0 && (!r || r->reply))
		return COORD_OK;
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

enum coord_status
coord_on_readable(struct coord *c)
{
	ssize_t n = READ_SIZE;

	/* A short read emptied the socket; a peer that never stops gets no more than a turn. */
	for (int i = 0; i < READS_PER_TURN && n == READ_SIZE && !c->end.status; i++) {
		if (!in_reserve(c))
			return end(c, COORD_MEMORY, "no memory to read into");
		do
			n = recv(c->fd, c->in + c->in_len, READ_SIZE, 0);
		while (n < 0 && errno == EINTR);
		if (n > 0) {
			c->in_len += (size_t)n;
			frames_in(c);
		} else if (n == 0) {
			end(c, COORD_CLOSED, "the broker closed the connection%s",
			    c->in_len ? " in the middle of an answer" : "");
		} else if (errno != EAGAIN && errno != EWOULDBLOCK) {
			end(c, COORD_CLOSED, "the connection broke: %s", strerror(errno));
		}
	}
	return c->end.status;
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
		/* A request that did not leave whole was not done. */
		snprintf(why.applied, sizeof(why.applied), "%s",
			 r->end > out_left(c) ? "no" : "unknown");
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
