#ifndef COORD_H
#define COORD_H

/*
 * The client of coordd: one connection to a broker, requests over it, their answers.
 *
 *	struct coord_error err;
 *	struct coord_reply *reply;
 *	struct coord *c = coord_connect("tcp://127.0.0.1:7420", 2000, &err);
 *
 *	if (c && !coord_call(c, "ping", NULL, 2000, &reply, &err))
 *		coord_reply_free(reply);
 *	coord_free(c);
 *
 * The library never exits, logs, installs a signal handler or starts a thread. A connection
 * belongs to one thread at a time. Methods, parameters and results: docs/PROTOCOL.md.
 *
 * It has two layers. The core never blocks: the caller watches coord_fd() and says when it can
 * be read or written. On it stand coord_connect(), coord_recv() and coord_call(), which wait.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <msgpack.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COORD_VERSION_MAJOR 0
#define COORD_VERSION_MINOR 1
#define COORD_VERSION_PATCH 0
#define COORD_VERSION       "0.1.0"

/* The version of the library that runs; COORD_VERSION is that of this header. */
const char *coord_version(void);

#define COORD_PORT "7420"

/* An answer longer than this, or with more values in it, ends the connection. */
#define COORD_MAX_FRAME    (16u << 20)
#define COORD_MAX_ELEMENTS (2u << 20)

enum coord_status {
	COORD_OK = 0,
	COORD_AGAIN,    /* coord_take(): the answer is not there yet */
	COORD_MEMORY,   /* no memory */
	COORD_USAGE,    /* a URL, method, id or call that makes no sense */
	COORD_CONNECT,  /* the broker cannot be reached */
	COORD_TIMEOUT,  /* no answer in time; if one comes later it is dropped */
	COORD_CLOSED,   /* the connection ended before the answer came */
	COORD_PROTOCOL, /* the peer does not speak the protocol */
	COORD_REFUSED   /* the broker answered with an error: see `code` */
};

/* Why something failed; complete in itself, nothing to free. */
struct coord_error {
	enum coord_status status;
	char code[32];   /* COORD_REFUSED: as on the wire ("bad_request"); else "" */
	bool retryable;  /* whether asking again can help */
	char applied[8]; /* whether the request took effect: "no", "unknown", or "" (see `code`)
			  */
	char message[512]; /* one sentence for a person; may quote what a peer chose */
};

struct coord;        /* one connection */
struct coord_params; /* the parameters of a request */
struct coord_reply;  /* one answer */

/* --- parameters -------------------------------------------------------------- */

/*
 * A map that grows by key. Failures to allocate are remembered and reported by whoever sends it
 * (COORD_MEMORY), so they need no check on the way. It can be sent any number of times.
 */
struct coord_params *coord_params_new(void); /* NULL: no memory */
void coord_params_free(struct coord_params *p);

/* Empty it, failures too; memory stays for the next request. */
void coord_params_clear(struct coord_params *p);

/* Add `key`; the caller packs exactly one value into what is returned. */
msgpack_packer *coord_param(struct coord_params *p, const char *key);
void coord_param_str(struct coord_params *p, const char *key, const char *value);
void coord_param_int(struct coord_params *p, const char *key, int64_t value);
void coord_param_double(struct coord_params *p, const char *key, double value);
/* An AgentId; `instance` NULL or "" is the one that all workers of a type share. */
void coord_param_agent(struct coord_params *p, const char *key, const char *type,
		       const char *instance);

/* The same values inside a nested map or array. */
void coord_pack_str(msgpack_packer *pk, const char *value);
void coord_pack_agent(msgpack_packer *pk, const char *type, const char *instance);
/* `n` bytes that are MessagePack already, as many values as belong there. */
void coord_pack_raw(msgpack_packer *pk, const void *bytes, size_t n);

/* --- answers ----------------------------------------------------------------- */

/* The result; lives as long as the reply. Strings in it are not terminated. */
const msgpack_object *coord_reply_result(const struct coord_reply *reply);
void coord_reply_free(struct coord_reply *reply);

/* The value of `key`; NULL when `map` is NULL or no map, or has no such key, or it is nil. */
const msgpack_object *coord_get(const msgpack_object *map, const char *key);

/* --- the core: never blocks -------------------------------------------------- */

/* Take over `fd`, a connected stream socket: it becomes non-blocking and coord_free() closes
 * it. NULL without memory, and then `fd` stays the caller's. */
struct coord *coord_attach(int fd);

/* Close and forget everything; answers already taken stay valid. NULL is fine. */
void coord_free(struct coord *c);

int coord_fd(const struct coord *c);
/* Whether coord_on_writable() has something to do; coord_on_readable() always may. */
bool coord_wants_write(const struct coord *c);
/*
 * Move the bytes that are there; when more are left, poll(2) says so again. When the connection
 * is at its end, so are all its requests: coord_take() hands out what was answered and says
 * COORD_CLOSED of the rest.
 *
 *	COORD_OK, COORD_CLOSED, COORD_PROTOCOL, COORD_MEMORY, COORD_REFUSED (it closed the
 * connection), COORD_USAGE (called by what it has called)
 */
enum coord_status coord_on_readable(struct coord *c);
enum coord_status coord_on_writable(struct coord *c);

/* Why the connection is at its end; NULL while it is not. Lives as long as the connection. */
const struct coord_error *coord_ended(const struct coord *c);

/*
 * Queue a request and give its number in `id`; any number may be under way. `params` may be
 * NULL. Nothing is written before coord_on_writable(), coord_recv() or coord_call(). Each
 * request must be taken, received or forgotten.
 *
 *	COORD_OK, COORD_MEMORY, COORD_USAGE (no method), or why the connection is at its end
 */
enum coord_status coord_send(struct coord *c, const char *method,
			     const struct coord_params *params, uint32_t *id);

/*
 * Take the answer of request `id`. The caller owns `*reply`, which is set on COORD_OK alone;
 *`err` may be NULL and is set on every other outcome but COORD_AGAIN, after which the request
 * is gone.
 *
 *	COORD_OK, COORD_AGAIN, COORD_REFUSED, COORD_USAGE (no such request), or why the
 * connection is at its end
 */
enum coord_status
coord_take(struct coord *c, uint32_t id, struct coord_reply **reply, struct coord_error *err);

/* Nobody wants this answer any more. The broker may still do what was asked. */
void coord_forget(struct coord *c, uint32_t id);

/*
 * What became of a request, for programs with many under way: `result`, or NULL and why in
 * `err`, both valid as long as the call. It runs exactly once, from coord_on_readable() (which
 * the functions that wait call too), never before coord_async() has returned, and not at all
 * once coord_free() was called. It may send more; it must not read from or free this
 * connection.
 */
typedef void
coord_answer_fn(void *arg, const msgpack_object *result, const struct coord_error *err);

/* As coord_send(), with the answer handed to `fn`: cheaper, since nothing of it is kept. */
enum coord_status
coord_async(struct coord *c, const char *method, const struct coord_params *params,
	    coord_answer_fn *fn, void *arg);

/*
 * What the broker sends unasked: `method` ("message" after `consume`) and its one parameter,
 * NULL when it has none. When and with what rules: as coord_answer_fn. Without a handler (the
 * beginning, or `fn` NULL) notifications are dropped.
 */
typedef void coord_notice_fn(void *arg, const char *method, const msgpack_object *param);
void coord_on_notice(struct coord *c, coord_notice_fn *fn, void *arg);

/* --- what waits -------------------------------------------------------------- */

/*
 * Connect to `url`: tcp://HOST[:PORT] (an IPv6 address in brackets) or unix:///PATH. Times are
 * in milliseconds, a negative one has no limit; the lookup of a host name is outside of it.
 * NULL on error (COORD_USAGE, COORD_CONNECT, COORD_TIMEOUT, COORD_MEMORY).
 */
struct coord *coord_connect(const char *url, int timeout_ms, struct coord_error *err);

/* Write what is queued and wait for the answer of `id`; as coord_take(), with COORD_TIMEOUT in
 * the place of COORD_AGAIN: the request is then forgotten, and its outcome unknown. */
enum coord_status coord_recv(struct coord *c, uint32_t id, int timeout_ms,
			     struct coord_reply **reply, struct coord_error *err);

/* coord_send() and coord_recv() in one. */
enum coord_status
coord_call(struct coord *c, const char *method, const struct coord_params *params,
	   int timeout_ms, struct coord_reply **reply, struct coord_error *err);

#ifdef __cplusplus
}
#endif

#endif
