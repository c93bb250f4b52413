/*
 * coordctl completion: a script for bash. What is of the tables of verbs and options is made here, how it completes a line
 * stands in completion.bash.
 */
#include <stdio.h>
#include <string.h>

#include "ctl/ctl.h"

__asm__(".section .rodata\n"
	"completion_begin: .incbin \"src/ctl/completion.bash\"\n"
	"completion_end:\n"
	".previous\n");
extern const char completion_begin[], completion_end[];

static const struct {
	const char *name, *argument;
	char letter;
} options[OPTION_COUNT] = {
#define OPTION(id, letter, name, argument, kind, help) { name, argument, letter },
#include "ctl/options.def"
#undef OPTION
};

static const struct verb {
	const char *group, *name, *args;
	uint64_t options;
} verbs[] = {
#define VERB(group, name, function, args, least, most, options, help) \
	{ group, name, args, options },
#include "ctl/verbs.def"
#undef VERB
};

/* What an argument can be, by what verbs.def calls it: words, or what a command prints. */
static const struct {
	const char *argument, *words, *command;
} arguments[] = {
	{ "QUEUE", NULL, "queue ls" },
	{ "AGENT", NULL, "agent ls" },
	{ "NAME", NULL, "breaker ls" },
	{ "CONN", NULL, "conn ls" },
	{ "[LEVEL]", "debug info notice warning error", NULL },
	{ "[queues] [agents] [breakers]", "queues agents breakers", NULL },
	{ "[CHECK...]",
#define CHECK(name, unit, help) #name " "
#include "base/checks.def"
#undef CHECK
	  , NULL },
};

/* What the value of an option can be. */
static const struct {
	enum option_id id;
	const char *words;
} values[] = {
	{ OPT_output, "table json jsonl csv names" },
	{ OPT_priority, "high normal low" },
	{ OPT_type, "request response event" },
	{ OPT_lease, "timeout connection heartbeat" },
	{ OPT_failure, "transient permanent timeout" },
	{ OPT_progress, "bar lines json none" },
	{ OPT_workload, "W1 W2 W3 W4 W5 all" },
	{ OPT_mode, "send-recv-ack pairs consume backlog send" },
	{ OPT_config, "FILE" },
};

static void
begin(const char *what, const char *function)
{
	printf("# %s\n%s() {\n\tcase $1 in\n", what, function);
}

static void
end(void)
{
	printf("\t*) return 1 ;;\n\tesac\n}\n\n");
}

/* The pattern of a case: "msg send", or "drain". */
static void
begin_verb(const struct verb *v)
{
	printf("\t'%s%s%s') ", v->group, *v->group ? " " : "", v->name);
}

static void
begin_words(void)
{
	printf("printf '%%s\\n'");
}

static void
end_words(void)
{
	puts(" ;;");
}

static void
print_options(uint64_t which)
{
	begin_words();
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (which & 1ull << i)
			printf(" --%s", options[i].name);
	}
	end_words();
}

/* "" stands for what begins a command line: verbs without a group, and groups. */
static void
print_verbs(const char *group)
{
	const char *last = "";

	printf("\t'%s') ", group);
	begin_words();
	for (size_t i = 0; i < COUNT_OF(verbs); i++) {
		if (!strcmp(verbs[i].group, group))
			printf(" %s", verbs[i].name);
		else if (!*group && strcmp(verbs[i].group, last) != 0)
			printf(" %s", verbs[i].group);
		last = verbs[i].group;
	}
	end_words();
}

static void
print_all_verbs(void)
{
	const char *last = "";

	print_verbs("");
	for (size_t i = 0; i < COUNT_OF(verbs); i++) {
		if (*verbs[i].group && strcmp(verbs[i].group, last) != 0)
			print_verbs(verbs[i].group);
		last = verbs[i].group;
	}
}

static void
print_arguments(const struct verb *v)
{
	for (size_t i = 0; i < COUNT_OF(arguments); i++) {
		size_t n = strlen(arguments[i].argument);

		if (strncmp(v->args, arguments[i].argument, n) != 0 ||
		    (v->args[n] && v->args[n] != ' '))
			continue;
		begin_verb(v);
		if (arguments[i].command) {
			printf("_coordctl_ask %s ;;\n", arguments[i].command);
		} else {
			begin_words();
			printf(" %s", arguments[i].words);
			end_words();
		}
	}
}

/* Not of those whose value may be missing: what follows need not be one. */
static void
print_values(int i)
{
	const char *words = "";

	if (!options[i].argument || *options[i].argument == '[')
		return;
	for (size_t k = 0; k < COUNT_OF(values); k++) {
		if ((int)values[k].id == i)
			words = values[k].words;
	}
	putchar('\t');
	if (options[i].letter)
		printf("-%c | ", options[i].letter);
	printf("--%s)", options[i].name);
	if (*words) {
		putchar(' ');
		begin_words();
		printf(" %s", words);
	}
	end_words();
}

int
completion_bash(struct ctl *ctl, char **args, int n)
{
	(void)ctl;
	(void)args;
	(void)n;
	puts("# bash completion of coordctl, as \"coordctl completion bash\" prints it.\n"
	     "# shellcheck shell=bash\n");
	begin("The verbs of a group, and those of none and the groups.", "_coordctl_verbs");
	print_all_verbs();
	end();
	begin("The options of a verb, and of all of them.", "_coordctl_options");
	printf("\t'') ");
	print_options(GLOBAL_OPTIONS);
	for (size_t i = 0; i < COUNT_OF(verbs); i++) {
		if (verbs[i].options) {
			begin_verb(&verbs[i]);
			print_options(verbs[i].options);
		}
	}
	end();
	begin("What the value of an option can be; it fails for one without a value.",
	      "_coordctl_values");
	for (int i = 0; i < OPTION_COUNT; i++)
		print_values(i);
	end();
	begin("What the first argument of a verb can be.", "_coordctl_arguments");
	for (size_t i = 0; i < COUNT_OF(verbs); i++)
		print_arguments(&verbs[i]);
	end();
	fwrite(completion_begin, 1,
	       (size_t)((uintptr_t)completion_end - (uintptr_t)completion_begin), stdout);
	return EX_OK;
}
