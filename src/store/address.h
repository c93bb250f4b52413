#ifndef COORDD_STORE_ADDRESS_H
#define COORDD_STORE_ADDRESS_H

#include <stdbool.h>

#include "base/err.h"

/* Where Redis is and who we are there. All zero is none; owns its texts. */
struct address {
	bool is_unix;
	char *host; /* or the path of a Unix socket */
	int port, db;
	char *user, *password; /* "" none */
	bool is_numeric; /* `host` is a number or a path; else store/lookup has to find its addresses */
};

/* Read a URL as link.h describes it; false and `why` when it is none. */
bool address_read(struct address *a, const char *url, struct errmsg *why);
void address_done(struct address *a);
/* Whether it is on this machine, as far as it can be seen: a name other than localhost is not. */
bool address_is_local(const struct address *a);
/* Be who `url` says, or `user` and `password` where those are not "". Whether that is another. */
bool address_log_in(struct address *a, const char *url, const char *user, const char *password);

#endif
