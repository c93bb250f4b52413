/* Apart from link.c, so that tests with a store of their own have it too. */
#include <stdio.h>
#include <string.h>

#include "store/store.h"

const char *
store_durability(const struct store_info *info, char *message, size_t size)
{
	const char *text = "every acknowledged write is on disk";
	const char *status = "ok";

	if (!*info->version) {
		text = "Redis was not reached yet";
		status = "warn";
	} else if (!info->aof) {
		text = "Redis keeps no append-only file: what is acknowledged is lost when it "
		       "stops; "
		       "set appendonly yes";
		status = "warn";
	} else if (!strcmp(info->appendfsync, "everysec")) {
		text = "appendfsync everysec: a crash of Redis can lose the last seconds; "
		       "always loses "
		       "nothing";
	} else if (strcmp(info->appendfsync, "always")) {
		text = "how often Redis syncs its append-only file is unknown, or never: set "
		       "appendfsync "
		       "always";
		status = "warn";
	}
	snprintf(message, size, "%s", text);
	return status;
}
