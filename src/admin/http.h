#ifndef COORDD_ADMIN_HTTP_H
#define COORDD_ADMIN_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"

/*
 * HTTP/1.1: evhttp, and the fences that it lacks. A request that reaches the callback below came in time, is no larger
 * than it may be, and names this host and nobody else's. Knows no routes.
 */
struct http;
struct http_request; /* from the callback until it is answered */
struct http_stream;  /* an answer that goes on */

struct http_config {
	uint64_t
		header_timeout_us; /* from the first byte of a request to its last, and for the first byte to come */
	uint64_t idle_timeout_us; /* between two requests, and for an answer to be taken */
	unsigned max_connections; /* over TCP, and as many over Unix sockets */
	unsigned max_streams;
	size_t max_header, max_body;
	const char *const *
		allow_hosts; /* whom a Host header on TCP may name; borrowed, as long as the config is in force */
	unsigned n_allow_hosts;
};

/* A request; `req` must be answered with one http_reply() or http_stream_begin(), now or later. */
typedef void http_cb(void *arg, struct http_request *req);

/* One was answered with this status; `tag` is what http_set_tag() said last, or HTTP_UNTAGGED. */
typedef void http_count_cb(void *arg, unsigned tag, int status);
#define HTTP_UNTAGGED (~0u)

/*
 * Serve on all of `urls` (as listeners_new()), or on none: then NULL, and `why` names the address.
 */
struct http *http_new(struct loop *loop, const struct http_config *config,
		      const char *const *urls, unsigned n, unsigned unix_mode, http_cb *cb,
		      http_count_cb *count, void *arg, struct errmsg *why);
/* Every request that was not answered, and every stream, is gone afterwards; no callback runs. */
void http_free(struct http *http);
/* For what comes from now on, and at once for the deadlines. */
void http_set_config(struct http *http, const struct http_config *config);
/* The addresses in force, as listeners_text(). */
const char *http_text(const struct http *http);
unsigned http_streams(const struct http *http);

/* The request. All of it is borrowed, and lives until it is answered. */
const char *
http_method(const struct http_request
		    *req); /* "GET"; "HEAD" is left to http_reply(); "" is none we know */
struct str http_path(const struct http_request *req); /* as sent, before any '?' */
struct str
http_query(const struct http_request *req); /* as sent, behind the '?'; n 0 for none */
struct str http_body(struct http_request *req);
const char *http_header(const struct http_request *req, const char *name); /* NULL for none */
/* Who is at the other end of a Unix socket; false on TCP. */
bool http_peer_uid(const struct http_request *req, uid_t *uid);
const char *http_peer(
	const struct http_request *req); /* for logs: "127.0.0.1:50122", "unix:pid=812,uid=0" */

void http_set_tag(struct http_request *req, unsigned tag);

/* Answer with what `body` holds, which is empty afterwards. `type` is a media type; `allow` is for 405, else NULL. */
void http_reply(struct http_request *req, int status, const char *type, const char *allow,
		struct buf *body);

/*
 * Answer with a stream of text/event-stream. NULL, and the request is still to be answered, when there are as many as there may
 * be. `on_end` runs once, when the client is gone, did not read, or is one too many; the stream is gone then.
 */
struct http_stream *
http_stream_begin(struct http_request *req, void (*on_end)(void *arg), void *arg);
/* What is to be sent next; `bytes` is empty afterwards. May end the stream, from the loop. */
void http_stream_put(struct http_stream *stream, struct buf *bytes);
/* Whether so much is unsent that nothing should be added now. */
bool http_stream_is_behind(const struct http_stream *stream);

#endif
