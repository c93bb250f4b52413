/*
 * admin: one HTTP request to one route.
 *
 *	on_request()	which route, may it be asked for, what does its query say
 *	admin_ask()	ask.c: a method of the protocol, by the dispatch of all others
 *	admin_events()	tail.c: a stream
 */
#include "admin/own.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"

static void (*const handlers[ROUTES])(struct admin *, struct http_request *, struct asked *) = {
#define ROUTE(verb, path, handler, method, access, queries, shape, key, help) admin_##handler,
#include "admin/routes.def"
#undef ROUTE
};

/* Who may change things -------------------------------------------------------------------------- */

/* Looking up a name may read files, so it is done here only. */
static void
read_operators(struct admin *a)
{
	const struct admin_config *config = &a->config;
	char *end;

	free(a->operators);
	a->operators = xcalloc(config->n_operators + 1, sizeof(*a->operators));
	a->n_operators = 0;
	for (unsigned i = 0; i < config->n_operators; i++) {
		const char *name = config->operators[i];
		const struct passwd *user = getpwnam(name);
		unsigned long uid = strtoul(name, &end, 10);

		if (user)
			a->operators[a->n_operators++] = user->pw_uid;
		else if (*name && !*end && uid < (uid_t)-1)
			a->operators[a->n_operators++] = (uid_t)uid;
		else
			log_event(LOG_ADMIN_NO_SUCH_OPERATOR, log_text("user", name));
	}
}

static bool
is_operator(const struct admin *a, uid_t uid)
{
	for (unsigned i = 0; i < a->n_operators; i++)
		if (a->operators[i] == uid)
			return true;
	return uid == 0 || uid == geteuid();
}

/* A form on a foreign page cannot send a header of its own choice, and without CORS a script cannot either. */
static bool
may_write(struct admin *a, struct http_request *req)
{
	const char *mark = http_header(req, "X-Coordd-Request");
	uid_t uid;

	if (!mark || strcmp(mark, "1") != 0)
		problem_say(req, 403, "forbidden",
			    "a change needs the header X-Coordd-Request: 1");
	else if (a->config.write == WRITE_NEVER)
		problem_say(req, 403, "forbidden", "admin.write is never");
	else if (a->config.write == WRITE_UNIX && !http_peer_uid(req, &uid))
		problem_say(req, 403, "forbidden",
			    "changes are made through a Unix socket: admin.write is unix");
	else if (a->config.write == WRITE_UNIX && !is_operator(a, uid))
		problem_say(req, 403, "forbidden", "user %u is none of admin.operators",
			    (unsigned)uid);
	else
		return true;
	return false;
}

/* Requests --------------------------------------------------------------------------------------- */

static void
no_such_route(struct http_request *req, const char *allow)
{
	struct buf none = { 0 };

	if (!*allow)
		problem_say(req, 404, "not_found",
			    "there is nothing here; / has what there is");
	else if (strcmp(http_method(req), "OPTIONS") == 0)
		http_reply(req, 204, "text/plain", allow, &none);
	else
		problem_reply(req, 405, STR("unknown_method"),
			      STR("this path has other methods: see Allow"), allow);
}

static void
on_request(void *arg, struct http_request *req)
{
	struct admin *a = arg;
	struct str path = http_path(req), query = http_query(req);
	struct asked asked = { 0 };
	struct buf text = { 0 };
	struct errmsg why = { 0 };
	char allow[64];

	buf_reserve(&text, 2 * (path.n + query.n) + 1);
	asked.route = route_find(http_method(req), path, &asked.match, allow, &text, &why);
	if (asked.route)
		query_read(&asked.query, asked.route, query, &text, &why);
	asked.text = &text;
	if (asked.route)
		http_set_tag(req, (unsigned)(asked.route - routes));
	if (why.err)
		problem_say(req, 400, err_code(why.err), "%s", why.text);
	else if (!asked.route)
		no_such_route(req, allow);
	else if (asked.route->access != ROUTE_WRITE || may_write(a, req))
		handlers[asked.route - routes](a, req, &asked);
	buf_done(&text);
}

static void
on_answer(void *arg, unsigned tag, int status)
{
	(void)arg;
	metrics_count_request(tag, (unsigned)status);
}

void
admin_index(struct admin *a, struct http_request *req, struct asked *asked)
{
	struct buf b = { 0 };

	(void)a;
	(void)asked;
	buf_puts(&b, "{\"server\":\"coordd\",\"version\":\"" COORDD_VERSION "\",\"routes\":[");
	for (unsigned i = 0; i < ROUTES; i++) {
		buf_printf(&b,
			   "%s\n {\"method\":\"%s\",\"path\":\"%s\",\"help\":", i ? "," : "",
			   routes[i].verb, routes[i].path);
		json_put_str(&b, str_of(routes[i].help));
		buf_putc(&b, '}');
	}
	buf_puts(&b, "]}\n");
	http_reply(req, 200, "application/json", NULL, &b);
}

void
admin_metrics(struct admin *a, struct http_request *req, struct asked *asked)
{
	struct buf b = { 0 };

	process_stats.admin_streams[0] = http_streams(a->http);
	metrics_write(a->parts.metrics,
		      asked->query.have & Q(queues) ? asked->query.values[QUERY_queues]
						    : STR(""),
		      &b);
	http_reply(req, 200, METRICS_TYPE, NULL, &b);
}

/* All of it -------------------------------------------------------------------------------------- */

struct admin *
admin_new(const struct admin_parts *parts, const struct admin_config *config,
	  const char *const *urls, unsigned n, unsigned unix_mode, struct errmsg *why)
{
	struct admin *a = xcalloc(1, sizeof(*a));

	a->parts = *parts;
	a->config = *config;
	TAILQ_INIT(&a->asks);
	TAILQ_INIT(&a->tails);
	read_operators(a);
	a->http = http_new(parts->loop, &config->http, urls, n, unix_mode, on_request,
			   on_answer, a, why);
	if (a->http)
		return a;
	admin_free(a);
	return NULL;
}

void
admin_free(struct admin *a)
{
	if (!a)
		return;
	asks_free(a);
	tails_free(a);
	http_free(a->http);
	free(a->operators);
	free(a);
}

void
admin_set_config(struct admin *a, const struct admin_config *config)
{
	a->config = *config;
	read_operators(a);
	http_set_config(a->http, &config->http);
}

const char *
admin_text(const struct admin *a)
{
	return http_text(a->http);
}

unsigned
admin_streams(const struct admin *a)
{
	return http_streams(a->http);
}
