/* version: what this program is made of, to be told with a report of a defect. */
#include "version.h"

#include <event2/event.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

#include "build_gen.h" /* BUILD_MODE, BUILD_FLAGS, BUILD_WITH */

#ifndef COORDD_VERSION
#define COORDD_VERSION "0.0.0" /* the Makefile knows better */
#endif

static int
print_library(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *name = strrchr(info->dlpi_name, '/');

	(void)size;
	(void)arg;
	if (name)
		printf("library    %s\n", name + 1);
	return 0;
}

void
version_print(bool is_verbose)
{
	printf("coordd " COORDD_VERSION "\n");
	if (!is_verbose)
		return;
	printf("built with " BUILD_WITH "\n");
#ifdef __clang__
	printf("compiler   " __VERSION__ "\n");
#else
	printf("compiler   gcc " __VERSION__ "\n");
#endif
	printf("mode       " BUILD_MODE "\n");
	printf("flags      %s\n", BUILD_FLAGS);
	printf("libevent   %s, running\n", event_get_version());
	dl_iterate_phdr(print_library, NULL);
}
