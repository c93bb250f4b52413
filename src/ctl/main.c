/*
 * coordctl: look at and work on a coordd from a shell.
 *
 * options.def and verbs.def say what there is; parsing, dispatch and help all come from them.
 */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/bench.h"
#include "ctl/ctl.h"

#define DEFAULT_SOCKET "/run/coordd/coordd.sock"
#define DEFAULT_TCP    "tcp://127.0.0.1:7420"

enum { WATCH_S = 2 };
enum kind { FLAG, TEXT, TEXTS, COUNT, SECONDS, MAYBE_SECONDS, MAYBE_URL };

static const struct {
	const char *name, *argument, *help;
	enum kind kind;
	char letter; /* 0: none */
} options[OPTION_COUNT] = {
#define OPTION(id, letter, name, argument, kind, help) { name, argument, help, kind, letter },
#include "ctl/options.def"
#undef OPTION
};

static const struct verb {
	const char *group, *name;
	verb_fn *run;
	const char *args;
	int least, most;
	uint64_t options;
	const char *help;
} verbs[] = {
#define VERB(group, name, function, args, least, most, options, help) \
	{ group, name, function, args, least, most, options, help },
#include "ctl/verbs.def"
#undef VERB
};

static const char *const outputs[OUTPUTS] = { "table", "json", "jsonl", "csv", "names" };

/* --- what verbs use ---------------------------------------------------------- */

static void __attribute__((format(printf, 1, 0))) say(const char *fmt, va_list ap)
{
	struct buf out = { 0 };
	char text[1024];

	vsnprintf(text, sizeof(text), fmt, ap);
	text_escape(&out, str_of(text));
	fflush(stdout); /* so that results and errors appear in their order */
	fprintf(stderr, "coordctl: %.*s", (int)out.len, out.data);
	buf_done(&out);
}

int
ctl_fail(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return status;
}

int
ctl_confirm(const struct ctl *ctl, const char *fmt, ...)
{
	char answer[16];
	va_list ap;

	if (GIVEN(ctl, yes))
		return EX_OK;
	va_start(ap, fmt);
	say(fmt, ap);
	va_end(ap);
	if (!isatty(STDIN_FILENO)) {
		fputs("? Not done: --yes is needed where nobody can be asked.\n", stderr);
		return EXIT_UNCONFIRMED;
	}
	fputs("? [y/N] ", stderr);
	if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
		return EX_OK;
	fputs("Not done.\n", stderr);
	return EXIT_UNCONFIRMED;
}

int
ctl_name(struct name *name, const char *text)
{
	const char *why = text_name_read(name, text);

	return why ? ctl_fail(EX_USAGE, "\"%s\" is no name of the form TYPE:INSTANCE: %s", text,
			      why)
		   : EX_OK;
}

/* --- help -------------------------------------------------------------------- */

static void
help_options(uint64_t which)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		char left[48];

		if (!(which & 1ull << i))
			continue;
		snprintf(left, sizeof(left), "%c%c%s --%s %s", options[i].letter ? '-' : ' ',
			 options[i].letter ? options[i].letter : ' ',
			 options[i].letter ? "," : " ", options[i].name,
			 options[i].argument ? options[i].argument : "");
		printf("  %-24s %s\n", left, options[i].help);
	}
}

static void
help_verb(const struct verb *v)
{
	char left[64];

	snprintf(left, sizeof(left), "%s%s%s %s", v->group, *v->group ? " " : "", v->name,
		 v->args);
	printf("  %-32s %s\n", left, v->help);
}

/* All verbs, those of `group`, or the one `name` in it; false when there is none. */
static bool
help(const char *group, const char *name)
{
	const struct verb *only = NULL;
	int found = 0;

	for (size_t i = 0; i < COUNT_OF(verbs); i++) {
		if ((group && strcmp(verbs[i].group, group)) ||
		    (name && strcmp(verbs[i].name, name)))
			continue;
		if (!found++)
			printf("usage: coordctl VERB [ARGUMENT...] [OPTION...]\n\n");
		only = &verbs[i];
		help_verb(only);
	}
	if (found == 1 && only->options) {
		printf("\nOptions of this verb:\n");
		help_options(only->options);
	}
	if (found == 1 && only->run == queue_set)
		puts("\nSettings: queue_size, retry_attempts, backoff_base, backoff_factor,\n"
		     "backoff_max, backoff_jitter. Without any it shows those in force.");
	if (found == 1 && only->run == ctl_check)
		check_help();
	if (found == 1 && only->run == ctl_bench)
		bench_help();
	if (found) {
		printf("\nOptions of all verbs:\n");
		help_options(GLOBAL_OPTIONS);
		puts("\nQUEUE is TYPE:INSTANCE, or TYPE alone for TYPE:default; a : or % "
		     "inside is\n"
		     "written %3A or %25. TIME is 500ms, 10s, 5m, 2h or 1d.");
	}
	return found;
}

int
ctl_help(struct ctl *ctl, char **args, int n)
{
	(void)ctl;
	if (n == 0)
		return help(NULL, NULL) ? EX_OK : EX_SOFTWARE;
	if (n == 1 ? help("", args[0]) || help(args[0], NULL) : help(args[0], args[1]))
		return EX_OK;
	return ctl_fail(EX_USAGE, "there is no such verb; \"coordctl help\" lists them");
}

int
ctl_version(struct ctl *ctl, char **args, int n)
{
	json_t *v = json_pack("{s:s}", "version", COORD_VERSION);

	(void)args;
	(void)n;
	out_done(ctl, v, "coordctl %s", COORD_VERSION);
	json_decref(v);
	return EX_OK;
}

/* --- the command line -------------------------------------------------------- */

static int
option_set(struct ctl *ctl, int i, const char *text)
{
	static struct buf joined[OPTION_COUNT]; /* for the life of the process */
	struct given *o = &ctl->opt[i];

	o->text = text ? text : "";
	if (options[i].kind == TEXTS) {
		if (joined[i].len)
			joined[i].data[joined[i].len - 1] = ',';
		buf_put(&joined[i], o->text, strlen(o->text) + 1);
		o->text = joined[i].data;
	}
	if (options[i].kind == COUNT && !text_count(text, &o->count))
		return ctl_fail(EX_USAGE, "--%s: \"%s\" is no number of 1 or more",
				options[i].name, text);
	o->seconds = -1;
	if ((options[i].kind == SECONDS || (options[i].kind == MAYBE_SECONDS && text)) &&
	    !text_duration(text, &o->seconds))
		return ctl_fail(EX_USAGE,
				"--%s: \"%s\" is no time such as 500ms, 10s, 5m or 2h",
				options[i].name, text);
	return EX_OK;
}

static bool
may_follow(int i)
{
	return options[i].kind == MAYBE_SECONDS || options[i].kind == MAYBE_URL;
}

static bool
is_its_value(int i, const char *word)
{
	double seconds;

	return options[i].kind == MAYBE_SECONDS ? text_duration(word, &seconds)
	       : options[i].kind == MAYBE_URL   ? strstr(word, "://") != NULL
						: false;
}

/* Options may stand anywhere; afterwards the other arguments are argv[optind .. argc). */
static int
options_read(struct ctl *ctl, int argc, char **argv)
{
	struct option longs[OPTION_COUNT + 1] = { 0 };
	char letters[3 * OPTION_COUNT + 1], *to = letters;
	int c, status = EX_OK;

	for (int i = 0; i < OPTION_COUNT; i++) {
		longs[i].name = options[i].name;
		longs[i].has_arg = may_follow(i)         ? optional_argument
				   : options[i].argument ? required_argument
							 : no_argument;
		longs[i].val = 256 + i;
		if (options[i].letter) {
			*to++ = options[i].letter;
			if (options[i].argument)
				*to++ = ':';
			if (may_follow(i))
				*to++ = ':';
		}
	}
	*to = '\0';
	while (!status && (c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		int i = c - 256;

		if (c == '?')
			return EX_USAGE; /* getopt said why */
		for (int k = 0; k < OPTION_COUNT && c < 256; k++) {
			if (options[k].letter == c)
				i = k;
		}
		/* getopt knows no optional argument that is a word of its own */
		if (!optarg && optind < argc && is_its_value(i, argv[optind]))
			optarg = argv[optind++];
		status = option_set(ctl, i, optarg);
	}
	return status;
}

/* What the global options and the environment say. */
static int
globals_apply(struct ctl *ctl)
{
	const char *server = getenv("COORDCTL_SERVER"), *no_color = getenv("NO_COLOR");
	int i = 0;

	if (GIVEN(ctl, server))
		ctl->server = TEXT(ctl, server);
	else if (server && *server)
		ctl->server = server;
	else
		ctl->server =
			access(DEFAULT_SOCKET, F_OK) ? DEFAULT_TCP : "unix://" DEFAULT_SOCKET;

	ctl->has_color =
		isatty(STDOUT_FILENO) && !GIVEN(ctl, no_color) && !(no_color && *no_color);

	if (!GIVEN(ctl, output))
		return EX_OK;
	while (i < OUTPUTS && strcmp(outputs[i], TEXT(ctl, output)))
		i++;
	if (i == OUTPUTS)
		return ctl_fail(EX_USAGE, "--output is one of table, json, jsonl, csv, names");
	ctl->output = (enum output)i;
	return EX_OK;
}

/* The row of the verb that `args` begins with, and how many words name it; NULL: none. */
static const struct verb *
verb_find(char **args, int n, int *used)
{
	for (size_t i = 0; i < COUNT_OF(verbs); i++) {
		const struct verb *v = &verbs[i];

		*used = *v->group ? 2 : 1;
		if (n >= *used && (!*v->group || !strcmp(v->group, args[0])) &&
		    !strcmp(v->name, args[*used - 1]))
			return v;
	}
	return NULL;
}

/* Whether the command line fits the verb. EX_OK or EX_USAGE (said already). */
static int
verb_check(const struct ctl *ctl, const struct verb *v, int n)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (ctl->opt[i].text && !((v->options | GLOBAL_OPTIONS) & 1ull << i))
			return ctl_fail(EX_USAGE, "%s%s%s takes no --%s", v->group,
					*v->group ? " " : "", v->name, options[i].name);
	}
	if (n < v->least || (v->most >= 0 && n > v->most))
		return ctl_fail(EX_USAGE, "usage: coordctl %s%s%s %s", v->group,
				*v->group ? " " : "", v->name, v->args);
	return EX_OK;
}

/* The verb, and with --watch again and again: on a terminal in the same place. */
static int
verb_run(struct ctl *ctl, const struct verb *v, char **args, int n)
{
	double asked = ctl->opt[OPT_watch].seconds, s = asked > 0 ? asked : WATCH_S;
	struct timespec pause = { .tv_sec = (time_t)s };
	int status;

	pause.tv_nsec = (long)((s - (double)pause.tv_sec) * 1e9);
	for (;;) {
		if (GIVEN(ctl, watch) && isatty(STDOUT_FILENO))
			fputs("\033[H\033[2J", stdout);
		status = v->run(ctl, args, n);
		if (status || !GIVEN(ctl, watch) || fflush(stdout))
			return status;
		nanosleep(&pause, NULL);
	}
}

static int
run(struct ctl *ctl, int argc, char **argv)
{
	int n, used, status = options_read(ctl, argc, argv);
	const struct verb *v;
	char **args;

	if (!status)
		status = globals_apply(ctl);
	if (status)
		return status;
	args = argv + optind;
	n = argc - optind;

	if (GIVEN(ctl, help))
		return ctl_help(ctl, args, n > 2 ? 2 : n);
	if (GIVEN(ctl, version))
		return ctl_version(ctl, args, n);
	v = verb_find(args, n, &used);
	if (!n)
		return ctl_fail(EX_USAGE, "usage: coordctl VERB [ARGUMENT...] [OPTION...]; "
					  "\"coordctl help\" lists the verbs");
	if (!v && n == 1) {
		if (help(args[0], NULL)) /* a group alone */
			return ctl_fail(EX_USAGE, "%s needs one of the verbs above", args[0]);
		return ctl_fail(EX_USAGE,
				"there is no such verb; \"coordctl help\" lists them");
	}
	if (!v)
		return ctl_fail(EX_USAGE,
				"there is no verb \"%s %s\"; \"coordctl help\" lists them",
				args[0], args[1]);
	status = verb_check(ctl, v, n - used);
	if (!status)
		status = verb_run(ctl, v, args + used, n - used);
	return status;
}

int
main(int argc, char **argv)
{
	struct ctl ctl = { 0 };
	int status;

	/* Only how wide a character is; everything else is the same in every locale. */
	setlocale(LC_CTYPE, "C.UTF-8");
	status = run(&ctl, argc, argv);
	coord_free(ctl.conn);
	if (fflush(stdout) || ferror(stdout))
		status = ctl_fail(EX_IOERR, "cannot write the output: %s", strerror(errno));
	return status;
}
