/* openapi.json, as it is in the source. */
#include "admin/own.h"

__asm__(".section .rodata\n"
	"openapi_begin: .incbin \"src/admin/openapi.json\"\n"
	"openapi_end:\n"
	".previous\n");
extern const char openapi_begin[], openapi_end[];

void
admin_openapi(struct admin *a, struct http_request *req, struct asked *asked)
{
	struct buf b = { 0 };

	(void)a;
	(void)asked;
	buf_put(&b, openapi_begin, (size_t)((uintptr_t)openapi_end - (uintptr_t)openapi_begin));
	http_reply(req, 200, "application/json", NULL, &b);
}
