#ifndef COORDD_ADMIN_ADMIN_H
#define COORDD_ADMIN_ADMIN_H

#include "admin/http.h"
#include "admin/metrics.h"
#include "api/api.h"
#include "config/config.h"
#include "events/events.h"
#include "store/store.h"

/*
 * The admin port (docs/HTTP.md): health, metrics, and the methods of the protocol by HTTP, for people, monitors and load
 * balancers. What it knows by itself it answers at once, whatever Redis does; what needs Redis it answers within its deadlines.
 */
struct admin;

struct admin_config {
	struct http_config http;
	enum config_write write;
	const char *const *
		operators; /* names of users, or their numbers; read once, when it is put in force */
	unsigned n_operators;
	bool show_payloads;
};

/* What it asks; all of them outlive it. */
struct admin_parts {
	struct loop *loop;
	struct store *store;
	struct events *events;
	struct api *api;
	struct metrics *metrics;
};

/* As http_new(): NULL and `why` when an address cannot be had. `config` is copied, what it points to is borrowed as long as it
 * is in force. */
struct admin *
admin_new(const struct admin_parts *parts, const struct admin_config *config,
	  const char *const *urls, unsigned n, unsigned unix_mode, struct errmsg *why);
void admin_free(struct admin *admin);
void admin_set_config(struct admin *admin, const struct admin_config *config);
/* The addresses in force, separated by blanks. */
const char *admin_text(const struct admin *admin);
unsigned admin_streams(const struct admin *admin);

#endif
