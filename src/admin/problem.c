#include "admin/problem.h"

#include <stdarg.h>
#include <stdio.h>

#include "admin/json.h"

static const struct {
	const char *code;
	int status;
} codes[] = {
	{ "protocol_error", 400 }, { "bad_request", 400 },     { "unknown_method", 501 },
	{ "too_large", 413 },      { "unauthenticated", 401 }, { "forbidden", 403 },
	{ "not_found", 404 },      { "unavailable", 503 },     { "overloaded", 503 },
	{ "shutting_down", 503 },  { "internal", 500 },
};

static const struct {
	int status;
	const char *title;
} titles[] = {
	{ 200, "OK" },
	{ 202, "Accepted" },
	{ 204, "No Content" },
	{ 400, "Bad Request" },
	{ 401, "Unauthorized" },
	{ 403, "Forbidden" },
	{ 404, "Not Found" },
	{ 405, "Method Not Allowed" },
	{ 413, "Content Too Large" },
	{ 421, "Misdirected Request" },
	{ 422, "Unprocessable Content" },
	{ 500, "Internal Server Error" },
	{ 501, "Not Implemented" },
	{ 503, "Service Unavailable" },
};

int
problem_status(struct str code)
{
	for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (str_eq(code, str_of(codes[i].code)))
			return codes[i].status;
	return 500;
}

const char *
problem_title(int status)
{
	for (unsigned i = 0; i < sizeof(titles) / sizeof(titles[0]); i++)
		if (titles[i].status == status)
			return titles[i].title;
	return "";
}

void
problem_reply(struct http_request *req, int status, struct str code, struct str detail,
	      const char *allow)
{
	struct buf b = { 0 };

	buf_puts(&b, "{\"type\":\"about:blank\",\"title\":");
	json_put_str(&b, str_of(problem_title(status)));
	buf_printf(&b, ",\"status\":%d,\"code\":", status);
	json_put_str(&b, code);
	buf_puts(&b, ",\"detail\":");
	json_put_str(&b, detail);
	buf_puts(&b, "}\n");
	http_reply(req, status, "application/problem+json", allow, &b);
}

void
problem_say(struct http_request *req, int status, const char *code, const char *fmt, ...)
{
	char detail[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(detail, sizeof(detail), fmt, ap);
	va_end(ap);
	problem_reply(req, status, str_of(code), str_of(detail), NULL);
}
