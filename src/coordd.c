/*
 * coordd: the command line, the configuration, and the exit status; server.c does the rest.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "config/config.h"
#include "net/listener.h"
#include "net/passed.h"
#include "server.h"
#include "settings.h"
#include "store/link.h"
#include "version.h"

#define DEFAULT_FILE "/etc/coordd/coordd.yaml"

static const char help[] =
	"usage: coordd [OPTION...]\n"
	"\n"
	"The broker serves in the foreground until SIGTERM; a service manager keeps it "
	"running.\n"
	"\n"
	"  -c, --config FILE           read it (repeatable, later ones override; - is standard "
	"input);\n"
	"                              default " DEFAULT_FILE " where that exists\n"
	"  -t, --test                  check the configuration and exit\n"
	"  -T, --print-config          print the configuration, where each value comes from, "
	"and exit\n"
	"      --set KEY=VALUE         override one key, as in --set log.level=debug "
	"(repeatable)\n"
	"      --embedded-redis [DIR]  run a private redis-server, its data in DIR\n"
	"      --require-redis         exit with 69 when Redis is not there at the start\n"
	"  -l, --log-level LEVEL       debug, info, notice, warning or error\n"
	"  -q                          as --log-level warning; with --test, say nothing when "
	"all is well\n"
	"  -f, --foreground            the default\n"
	"      --print-defaults        print every key with its default and exit\n"
	"      --version [-v]          print the version (-v: and what it is made of) and "
	"exit\n"
	"  -h, --help                  print this and exit\n"
	"\n"
	"A flag wins over the environment (COORDD_LOG__LEVEL is log.level), that over a file,\n"
	"a file over the default.\n";

enum { OPT_SET = 256, OPT_EMBEDDED, OPT_REQUIRE, OPT_DEFAULTS, OPT_VERSION };

static const struct option longs[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "test", no_argument, NULL, 't' },
	{ "print-config", no_argument, NULL, 'T' },
	{ "set", required_argument, NULL, OPT_SET },
	{ "embedded-redis", optional_argument, NULL, OPT_EMBEDDED },
	{ "require-redis", no_argument, NULL, OPT_REQUIRE },
	{ "log-level", required_argument, NULL, 'l' },
	{ "foreground", no_argument, NULL, 'f' },
	{ "print-defaults", no_argument, NULL, OPT_DEFAULTS },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

/* What the command line says. Files and sets are views into argv, never more than it has words.
 */
struct arguments {
	const char **files;
	struct config_set *sets;
	unsigned n_files, n_sets;
	unsigned quiet_at; /* so many sets stand before the last -q */
	bool is_test, is_quiet, is_verbose, wants_help, wants_version, wants_config,
		wants_defaults;
};

static void
add_set(struct arguments *a, const char *path, const char *value)
{
	a->sets[a->n_sets++] = (struct config_set){ path, value };
}

/* "KEY=VALUE"; the word is cut in two. */
static int
read_set(struct arguments *a, char *word)
{
	char *sign = strchr(word, '=');

	if (!sign) {
		fprintf(stderr, "coordd: --set needs KEY=VALUE\n");
		return EX_USAGE;
	}
	*sign = '\0';
	add_set(a, word, sign + 1);
	return EX_OK;
}

static int
read_option(struct arguments *a, int c, char **argv)
{
	switch (c) {
	case 'c':
		a->files[a->n_files++] = optarg;
		return EX_OK;
	case 't':
		a->is_test = true;
		return EX_OK;
	case 'T':
		a->wants_config = true;
		return EX_OK;
	case 'l':
		add_set(a, "log.level", optarg);
		return EX_OK;
	case 'q':
		a->is_quiet = true;
		a->quiet_at = a->n_sets;
		return EX_OK;
	case 'v':
		a->is_verbose = true;
		return EX_OK;
	case 'f':
		return EX_OK;
	case 'd':
		fprintf(stderr, "coordd: there is no daemon mode: it stays in the foreground, "
				"and systemd or "
				"another service manager runs it in the background\n");
		return EX_USAGE;
	case 'h':
		a->wants_help = true;
		return EX_OK;
	case OPT_SET:
		return read_set(a, optarg);
	case OPT_EMBEDDED:
		add_set(a, "redis.embedded.enabled", "true");
		/* getopt knows no optional argument that is a word of its own */
		if (!optarg && argv[optind] && argv[optind][0] != '-')
			optarg = argv[optind++];
		if (optarg)
			add_set(a, "redis.embedded.directory", optarg);
		return EX_OK;
	case OPT_REQUIRE:
		add_set(a, "redis.require_at_start", "true");
		return EX_OK;
	case OPT_DEFAULTS:
		a->wants_defaults = true;
		return EX_OK;
	case OPT_VERSION:
		a->wants_version = true;
		return EX_OK;
	default: /* getopt said why */
		fprintf(stderr, "Try \"coordd --help\".\n");
		return EX_USAGE;
	}
}

/* In the order of the command line: a level that stands behind it wins. */
static void
be_quiet(struct arguments *a)
{
	struct config_set *at = a->sets + a->quiet_at;

	memmove(at + 1, at, (a->n_sets++ - a->quiet_at) * sizeof(*at));
	*at = (struct config_set){ "log.level", "warning" };
}

static int
read_arguments(struct arguments *a, int argc, char **argv)
{
	int c, status = EX_OK;

	a->files = xcalloc((size_t)argc, sizeof(*a->files));
	a->sets = xcalloc(2 * (size_t)argc + 1,
			  sizeof(*a->sets)); /* a word makes two at most, and -q one */
	while (!status && (c = getopt_long(argc, argv, "+c:tTl:qvfdh", longs, NULL)) != -1)
		status = read_option(a, c, argv);
	if (!status && argv[optind]) {
		fprintf(stderr, "coordd: \"%s\" is not expected here; try \"coordd --help\"\n",
			argv[optind]);
		status = EX_USAGE;
	}
	if (!a->n_files && access(DEFAULT_FILE, F_OK) == 0)
		a->files[a->n_files++] = DEFAULT_FILE;
	if (!status && a->is_verbose && !a->wants_version) {
		fprintf(stderr, "coordd: -v goes with --version; for more in the log there is "
				"--log-level debug\n");
		status = EX_USAGE;
	}
	if (a->is_quiet && !a->is_test)
		be_quiet(a);
	return status;
}

/* --- configuration ------------------------------------------------------------- */

static const struct config_checks checks = { listener_check_served, link_check_url };

/* The log as configured, and in it what the configuration is warned about. */
static int
open_log(const struct config *cfg, const struct config_errors *why)
{
	const struct log_config log = settings_log(cfg);

	if (!log_start(&log)) {
		fprintf(stderr, "coordd: log.file: cannot open %s: %s\n", cfg->log.file,
			strerror(errno));
		return EX_CANTCREAT;
	}
	for (unsigned i = 0; i < why->n_warnings; i++)
		log_event(LOG_CONFIG_WARNING, log_text("text", why->warnings[i]));
	return EX_OK;
}

static int
run(const struct arguments *a)
{
	struct config_source source = {
		.files = a->files,
		.n_files = a->n_files,
		.environment = (const char *const *)environ,
		.sets = a->sets,
		.n_sets = a->n_sets,
		.checks = &checks,
	};
	struct config_errors why = { 0 };
	struct config cfg = { 0 };
	int status = EX_OK;

	if (config_load(&cfg, &source, &why)) {
		config_errors_print(&why, stderr);
		status = why.is_about_rights && why.n == 1                   ? EX_NOPERM
			 : !why.is_mixed && !strcmp(why.where, CONFIG_FLAGS) ? EX_USAGE
									     : EX_CONFIG;
	} else if (a->wants_config) {
		config_errors_print(&why, stderr);
		config_print(&cfg, stdout);
	} else if (a->is_test) {
		config_errors_print(&why, stderr);
		if (!a->is_quiet)
			puts("the configuration is valid");
	} else {
		status = open_log(&cfg, &why);
		if (!status)
			status = server_run(&cfg, &source);
	}
	config_errors_done(&why);
	config_done(&cfg);
	config_source_done(&source);
	return status;
}

int
main(int argc, char **argv)
{
	struct arguments a = { 0 };
	bool is_passed = passed_init();
	int status = read_arguments(&a, argc, argv);

	if (!status && !is_passed) {
		fprintf(stderr,
			"coordd: the descriptors that LISTEN_FDS tells of are not there, "
			"or more than %d\n",
			PASSED_MAX);
		status = EX_UNAVAILABLE;
	}
	if (!status && a.wants_help)
		fputs(help, stdout);
	else if (!status && a.wants_version)
		version_print(a.is_verbose);
	else if (!status && a.wants_defaults)
		config_print_defaults(stdout);
	else if (!status)
		status = run(&a);
	free(a.files);
	free(a.sets);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "coordd: cannot write the output: %s\n", strerror(errno));
		status = EX_IOERR;
	}
	return status;
}
