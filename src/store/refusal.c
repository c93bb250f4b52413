#include "store/refusal.h"

static const struct {
	const char *code;
	enum err err;
	bool is_lost;
} refusals[] = {
	{ "NOSCRIPT", ERR_UNSENT, false },
	{ "BUSY", ERR_UNSENT, false },
	{ "Script killed by user", ERR_UNSENT, false },
	{ "LOADING", ERR_UNSENT, true },
	{ "READONLY", ERR_UNSENT, true },
	{ "MASTERDOWN", ERR_UNSENT, true },
	{ "NOAUTH", ERR_UNSENT, true },
	{ "WRONGPASS", ERR_UNSENT, true },
	{ "NOPERM", ERR_UNSENT, true },
	{ "max number of clients reached", ERR_UNSENT, true },
	{ "OOM", ERR_REFUSED, false },
	{ "MISCONF", ERR_REFUSED, false },
	{ "NOREPLICAS", ERR_REFUSED, false },
};

bool
refusal_has(struct str text, const char *code)
{
	size_t n = strlen(code);

	for (size_t i = 0; i + n <= text.n; i++)
		if ((i == 0 || text.p[i - 1] == ' ' || text.p[i - 1] == '-') &&
		    (i + n == text.n || text.p[i + n] == ' ' || text.p[i + n] == '.') &&
		    !memcmp(text.p + i, code, n))
			return true;
	return false;
}

enum err
refusal_of(struct str text, bool *is_lost)
{
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		if (refusal_has(text, refusals[i].code)) {
			if (refusals[i].is_lost)
				*is_lost = true;
			return refusals[i].err;
		}
	return ERR_INTERNAL;
}
