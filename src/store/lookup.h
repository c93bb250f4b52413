#ifndef COORDD_STORE_LOOKUP_H
#define COORDD_STORE_LOOKUP_H

#include <net/if.h>
#include <netinet/in.h>

#include "base/loop.h"

/*
 * The addresses of one host name, as the system knows them (nsswitch.conf: hosts, DNS, ...). The system's resolver
 * blocks, for as long as its servers are silent; so it is asked in a thread that does nothing else, and never more than
 * one for a lookup: who gave up and asks again gets the answer that is under way.
 */
struct lookup;

enum { LOOKUP_MAX = 8, LOOKUP_ADDRESS_MAX = INET6_ADDRSTRLEN + 1 + IF_NAMESIZE };
struct lookup_found {
	unsigned n;                                   /* the others are left out */
	char address[LOOKUP_MAX][LOOKUP_ADDRESS_MAX]; /* as text; those of version 4 first */
};
/* `found` NULL: there is none, and `why` says why; borrowed. */
typedef void lookup_cb(void *arg, const struct lookup_found *found, const char *why);

struct lookup *lookup_new(struct loop *loop, const char *host, lookup_cb *fn, void *arg);
/* Look it up now. `fn` runs once, in a later turn, unless it is forgotten before. There is no bound in time: the caller has one. */
void lookup_ask(struct lookup *l);
void lookup_forget(struct lookup *l);
/* A thread under way ends by itself. NULL is none. */
void lookup_free(struct lookup *l);

#endif
