/* Health: what is known here and now. Nothing of it asks Redis. */
#include "admin/own.h"

#include <stdio.h>

struct check {
	const char *name, *status; /* ok, warn or fail */
	const char *unit;          /* of `value`; NULL when it has none */
	double value;
	const char *message;
};

static bool
is(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

void
admin_livez(struct admin *a, struct http_request *req, struct asked *asked)
{
	struct buf b = { 0 };

	(void)a;
	(void)asked;
	buf_puts(&b, "{\"status\":\"ok\"}\n");
	http_reply(req, 200, "application/json", NULL, &b);
}

static void
put_check(struct buf *b, const struct check *check)
{
	buf_printf(b, "{\"name\":\"%s\",\"status\":\"%s\"", check->name, check->status);
	if (check->unit)
		buf_printf(b, ",\"value\":%.3f,\"unit\":\"%s\"", check->value, check->unit);
	buf_puts(b, ",\"message\":");
	json_put_str(b, str_of(check->message));
	buf_putc(b, '}');
}

/* All checks when it is asked to be verbose, else those that are not ok. */
void
admin_readyz(struct admin *a, struct http_request *req, struct asked *asked)
{
	bool is_verbose = asked->query.have & Q(verbose),
	     is_ready = is(a->state, "ready") || is(a->state, "reloading");
	const char *worst = "ok";
	struct store_info info;
	struct buf b = { 0 }, list = { 0 };
	char durable[200];

	store_info(a->parts.store, &info);
	const struct check checks[] = {
		{ "server", is_ready ? "ok" : "fail", NULL, 0, a->state },
		{ "redis", info.ready ? "ok" : "fail", info.ready ? "ms" : NULL,
		  info.round_trip_ms, info.problem },
		{ "persistence",
		  info.ready ? store_durability(&info, durable, sizeof(durable)) : "ok", NULL,
		  0, info.ready ? durable : "" },
	};
	for (unsigned i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		const char *status = checks[i].status;

		if (is(status, "fail") || is(worst, "ok"))
			worst = status;
		if (!is_verbose && is(status, "ok"))
			continue;
		if (list.len)
			buf_putc(&list, ',');
		put_check(&list, &checks[i]);
	}
	buf_printf(&b, "{\"status\":\"%s\",\"checks\":[", worst);
	buf_put(&b, list.data, list.len);
	buf_puts(&b, "]}\n");
	buf_done(&list);
	http_reply(req, is(worst, "fail") ? 503 : 200, "application/json", NULL, &b);
}
