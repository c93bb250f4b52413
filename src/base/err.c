#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
	const char *name, *code, *applied, *text;
	bool retryable;
} errs[ERR_COUNT] = {
	[OK] = { "OK", "ok", "", "done", false },
#define ERR(name, code, retryable, applied, text) \
	[ERR_##name] = { #name, code, applied, text, retryable },
#include "base/err.def"
#undef ERR
};

const char *
err_name(enum err err)
{
	return errs[err].name;
}

const char *
err_code(enum err err)
{
	return errs[err].code;
}

bool
err_retryable(enum err err)
{
	return errs[err].retryable;
}

const char *
err_applied(enum err err)
{
	return errs[err].applied;
}

const char *
err_text(enum err err)
{
	return errs[err].text;
}

enum err
errmsg_set(struct errmsg *why, enum err err, const char *fmt, ...)
{
	va_list ap;

	if (!why)
		return err;
	why->err = err;
	va_start(ap, fmt);
	vsnprintf(why->text, sizeof(why->text), fmt, ap);
	va_end(ap);
	return err;
}
