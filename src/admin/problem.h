#ifndef COORDD_ADMIN_PROBLEM_H
#define COORDD_ADMIN_PROBLEM_H

#include "admin/http.h"

/* Errors as application/problem+json (RFC 9457): {type, title, status, code, detail}. `code` is one of the protocol's. */

/* The status of an error of the protocol, by its code ("not_found": 404). */
int problem_status(struct str code);
/* Answer with one; `allow` as in http_reply(). `detail` may be any bytes. */
void problem_reply(struct http_request *req, int status, struct str code, struct str detail,
		   const char *allow);
/* The same, where our own words are the detail. */
void problem_say(struct http_request *req, int status, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* What a status is called: "Not Found". */
const char *problem_title(int status);

#endif
