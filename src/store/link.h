#ifndef COORDD_STORE_LINK_H
#define COORDD_STORE_LINK_H

#include "store/store.h"

/*
 * The command connection (hiredis's asynchronous API on an own adapter; the only file that
 * includes hiredis, with reply.c). States: down -> connecting -> checking -> ready -> down.
 */
struct link_config {
	const char *
		url; /* redis://[user:password@]host:port[/db], unix:///path[?db=n]; a name is looked up at each attempt */
	const char *username, *password; /* override the URL's; "" none */
	const char *key_prefix;          /* for the layout version key `PREFIX:version` */
	uint64_t connect_timeout_us, command_timeout_us;
	uint64_t reconnect_min_us, reconnect_max_us;
	unsigned pending_limit; /* calls held at once; more answer ERR_UNSENT */
	bool require_noeviction;
};

struct link_ops {
	void (*on_ready)(void *arg); /* after each (re)connect; calls made inside go first */
	void (*on_down)(void *arg, const char *why);
	/* Redis is reachable but unusable: too old, a cluster, evicts keys, newer layout. The link goes on
	 * trying; at start-up the server may give up instead. */
	void (*on_refused)(void *arg, const char *why);
};

/* Check a URL; false and `why` when it is none. */
bool link_check_url(const char *url, struct errmsg *why);

/* Starts connecting on the next turn; the strings are copied. */
struct store *link_new(struct loop *loop, const struct link_config *cfg,
		       const struct link_ops *ops, void *arg);
/*
 * What applies from now on, to calls that are under way too; its url and key prefix are not looked at. A name and
 * password that have changed are tried at once on the connection that is there, which goes on whatever Redis says to
 * them (that is logged), and then serve for the next one. `require_noeviction` is looked into anew, where it is asked for only now.
 */
void link_set_config(struct store *store, const struct link_config *cfg);
/* Calls in flight are answered ERR_UNKNOWN, unsent ones ERR_UNSENT, before this returns. */
void link_free(struct store *store);
/* Where it is connected, was last, or tries to be: the number of a host, or a path; borrowed until its next attempt. */
const char *link_address(const struct store *store);
/* Whether Redis is on this machine. */
bool link_is_local(const struct store *store);
/* Whether a timer will look after what it waits for, be Redis there or away; for a watchdog. */
bool link_is_alive(const struct store *store);

#endif
