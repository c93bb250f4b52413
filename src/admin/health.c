/* Health: what is known here and now. Nothing of it asks Redis. */
#include "admin/own.h"

void
admin_livez(struct admin *a, struct http_request *req, struct asked *asked)
{
	struct buf b = { 0 };

	(void)a;
	(void)asked;
	buf_puts(&b, "{\"status\":\"ok\"}\n");
	http_reply(req, 200, "application/json", NULL, &b);
}

/* All checks when it is asked to be verbose, else those that are not ok. One alone decides whether it is ready: that something else
 * is wrong is no reason to send nobody here. */
void
admin_readyz(struct admin *a, struct http_request *req, struct asked *asked)
{
	static const struct json_how how = { .hides_payloads = true };
	struct str worst = STR("ok"), status, verbose = asked->query.values[QUERY_verbose];
	bool is_verbose = asked->query.have & Q(verbose) && !str_eq(verbose, STR("false")) &&
			  !str_eq(verbose, STR("0"));
	bool is_ready = true;
	struct buf checks = { 0 }, rows = { 0 }, b = { 0 };
	uint32_t n = 0;
	struct mp m;

	api_put_checks(a->parts.api, &checks);
	m = mp_of(buf_str(&checks));
	for (mp_read_array(&m, &n); n; n--) {
		struct mp row = m;
		struct str check = mp_skip(&m);

		status = text_of(check, "status");
		if (str_eq(status, STR("fail")) || str_eq(worst, STR("ok")))
			worst = status;
		if (str_eq(text_of(check, "name"), STR("ready")))
			is_ready = str_eq(status, STR("ok"));
		if (!is_verbose && str_eq(status, STR("ok")))
			continue;
		if (rows.len)
			buf_putc(&rows, ',');
		json_put(&rows, &row, &how);
	}
	buf_printf(&b, "{\"status\":\"%.*s\",\"checks\":[%.*s]}\n", (int)worst.n, worst.p,
		   (int)rows.len, rows.len ? rows.data : "");
	buf_done(&rows);
	buf_done(&checks);
	http_reply(req, is_ready ? 200 : 503, "application/json", NULL, &b);
}
