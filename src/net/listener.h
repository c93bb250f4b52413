#ifndef COORDD_NET_LISTENER_H
#define COORDD_NET_LISTENER_H

#include "base/err.h"
#include "base/loop.h"
#include "net/conn.h"

/*
 * The sockets that accept. Addresses are `tcp://HOST:PORT` with a numeric host (`[::1]` for v6,
 * port 0 lets the kernel choose), `unix:///PATH`, or `fd://NAME`: all sockets of that name that a
 * service manager passed (net/passed.h). A stale Unix socket file (nobody listens) is replaced, a
 * live one is an error. When the process has no descriptor left the listener rests and tries
 * again, and says so once.
 */
struct listeners;

/*
 * Bind and listen on all of `urls` (n of them), or on none: then NULL and `why` names the address; its
 * error is ERR_FORBIDDEN when the file of a Unix socket cannot be made. Where none of them is fd:// and
 * sockets named rpc were passed (or such that have no name of their own), these take the place of the TCP
 * addresses, and of Unix sockets with their path.
 */
struct listeners *
listeners_new(struct loop *loop, struct conns *conns, const char *const *urls, unsigned n,
	      unsigned unix_mode, int backlog, struct errmsg *why);
/* Likewise, with sockets named admin; the accepting on each is somebody else's. */
struct listeners *listeners_bind(struct loop *loop, const char *const *urls, unsigned n,
				 unsigned unix_mode, int backlog, struct errmsg *why);
unsigned listeners_count(const struct listeners *listeners);
int listeners_fd(const struct listeners *listeners, unsigned i);
/* Stop accepting; Unix socket files are removed. */
void listeners_free(struct listeners *listeners);
/* The addresses in force, ports resolved, separated by blanks; lives as long as `listeners`. */
const char *listeners_text(const struct listeners *listeners);
/* Whether all of them are loopback addresses or Unix sockets: of what was passed nobody knew before. */
bool listeners_are_local(const struct listeners *listeners);
/* Whether `url` names a loopback address or a Unix socket, or what will be passed; false also for what does
 * not parse. */
bool listener_is_local(const char *url);
/* Check one address; false and `why` when it is none (also: Unix path over 107 bytes). */
bool listener_check(const char *url, struct errmsg *why);
/* The same, and that it is one we serve: a local one, as long as there is no authentication. */
bool listener_check_served(const char *url, struct errmsg *why);

#endif
