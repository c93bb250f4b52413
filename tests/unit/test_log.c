#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/log_format.h"
#include "base/stats.h"

/* Each write to the log arrives here as one packet. */
static int packets;

static void
catch_log(enum log_format format, enum log_level level, unsigned rate_limit)
{
	struct log_config config = { "", format, level, rate_limit };
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(dup2(pair[1], STDERR_FILENO), STDERR_FILENO);
	close(pair[1]);
	packets = pair[0];
	ck_assert(log_start(&config));
}

/* The next line, or "" when nothing was written. */
static const char *
line(void)
{
	static char text[8192];
	ssize_t n = recv(packets, text, sizeof(text) - 1, MSG_DONTWAIT);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static void
matches(const char *text, const char *pattern)
{
	regex_t regex;

	ck_assert_int_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	ck_assert_msg(regexec(&regex, text, 0, NULL, 0) == 0, "\"%s\" is not %s", text,
		      pattern);
	regfree(&regex);
}

static const char *
quote(struct str s)
{
	static char out[64];

	return log_quote(out, sizeof(out), s);
}

/* Lines ------------------------------------------------------------------------------------------ */

START_TEST(a_line_is_one_write_with_time_level_event_and_pairs)
{
	catch_log(LOG_FORMAT_AUTO, LOG_LEVEL_DEBUG, 0);
	log_event(LOG_CONN_CLOSED, log_uint("conn", 7), log_text("reason", "client"));
	matches(line(), "^ts=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "
			"level=debug event=conn\\.closed conn=7 reason=client\n$");
	log_event(LOG_SERVER_STOPPED);
	matches(line(), "^ts=[^ ]+ level=info event=server\\.stopped\n$");
	ck_assert_str_eq(line(), "");
}
END_TEST

START_TEST(each_type_has_its_form)
{
	catch_log(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, 0);
	for (int json = 0; json < 2; json++) {
		log_event(LOG_SERVER_READY, log_uint("u", UINT64_MAX), log_int("i", INT64_MIN),
			  log_ms("a_ms", 184000), log_ms("b_ms", 312045), log_flag("y", true),
			  log_flag("n", false), log_text("t", "12"), log_text("e", ""));
		matches(line(),
			json ? "\"event\":\"server\\.ready\",\"u\":18446744073709551615,"
			       "\"i\":-9223372036854775808,\"a_ms\":184,\"b_ms\":312\\.045,"
			       "\"y\":true,\"n\":false,\"t\":\"12\",\"e\":\"\"}\n$"
			     : " u=18446744073709551615 i=-9223372036854775808 a_ms=184 "
			       "b_ms=312\\.045 y=yes n=no t=12 e=\"\"\n$");
		catch_log(LOG_FORMAT_JSON, LOG_LEVEL_INFO, 0);
	}
}
END_TEST

START_TEST(text_is_for_people_and_has_no_colour_where_there_is_no_terminal)
{
	catch_log(LOG_FORMAT_TEXT, LOG_LEVEL_DEBUG, 0);
	log_event(LOG_REDIS_UNREACHABLE, log_text("error", "Connection refused"));
	matches(line(), "^[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3} WARN  redis unreachable  "
			"error=\"Connection refused\"\n$");
	log_event(LOG_REDIS_EMBEDDED_STARTED);
	matches(line(), "^[^ ]+ INFO  redis embedded started\n$");
}
END_TEST

static int
open_terminal(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;

	ck_assert_int_ge(master, 0);
	ck_assert_int_eq(grantpt(master) | unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_int_eq(dup2(slave, STDERR_FILENO), STDERR_FILENO);
	close(slave);
	return master;
}

static const struct {
	const char *no_color, *term, *begins;
} terminals[] = {
	{ NULL, "xterm", "^[0-9:.]+ \033\\[31mERROR\033\\[0m redis down  " },
	{ "", "xterm", "^[0-9:.]+ \033\\[31mERROR\033\\[0m redis down  " },
	{ "1", "xterm", "^[0-9:.]+ ERROR redis down  " },
	{ NULL, "dumb", "^[0-9:.]+ ERROR redis down  " },
	{ NULL, NULL, "^[0-9:.]+ \033\\[31mERROR" },
};

START_TEST(on_a_terminal_auto_is_text_with_colour_unless_that_is_not_wanted)
{
	const struct log_config config = { "", LOG_FORMAT_AUTO, LOG_LEVEL_INFO, 0 };
	int master = open_terminal();
	char text[512] = "";

	unsetenv("NO_COLOR");
	unsetenv("TERM");
	if (terminals[_i].no_color)
		setenv("NO_COLOR", terminals[_i].no_color, 1);
	if (terminals[_i].term)
		setenv("TERM", terminals[_i].term, 1);
	ck_assert(log_start(&config));
	log_event(LOG_REDIS_DOWN, log_ms("retry_in_ms", 184000));
	ck_assert_int_gt(read(master, text, sizeof(text) - 1), 0);
	matches(text, terminals[_i].begins);
	matches(text, "retry_in_ms=184\r?\n$");
	close(master);
}
END_TEST

START_TEST(lines_below_the_level_are_not_written)
{
	static const enum log_kind some[LOG_LEVELS] = { LOG_CONN_CLOSED, LOG_SERVER_READY,
							LOG_CONN_REFUSED_FRAME,
							LOG_REDIS_UNREACHABLE, LOG_REDIS_DOWN };

	catch_log(LOG_FORMAT_LOGFMT, LOG_LEVEL_WARNING, 0);
	for (unsigned level = LOG_LEVEL_DEBUG; level < LOG_LEVELS; level++) {
		ck_assert_uint_eq(log_rows[some[level]].level, level);
		log_event(some[level]);
		ck_assert_int_eq(log_enabled((enum log_level)level),
				 level >= LOG_LEVEL_WARNING);
		ck_assert_int_eq(*line() != 0, level >= LOG_LEVEL_WARNING);
	}
	log_set_level(LOG_LEVEL_DEBUG);
	ck_assert_int_eq(log_get_level(), LOG_LEVEL_DEBUG);
	log_event(LOG_CONN_CLOSED);
	matches(line(), "level=debug");
}
END_TEST

START_TEST(the_table_is_as_its_head_says)
{
	for (unsigned i = 0; i < LOG_KINDS; i++) {
		matches(log_rows[i].name, "^[a-z]+\\.[a-z_]+$");
		matches(log_rows[i].id, "^([0-9a-f]{32})?$");
		for (unsigned k = 0; k < i; k++) {
			ck_assert_str_ne(log_rows[i].name, log_rows[k].name);
			ck_assert(!*log_rows[i].id || strcmp(log_rows[i].id, log_rows[k].id));
		}
	}
}
END_TEST

/* What a client can send ------------------------------------------------------------------------- */

/* In a message of the journal, text and logfmt `quoted`, in JSON `json`. */
static const struct {
	struct str value;
	const char *quoted, *json;
} values[] = {
	{ { "planner:w1", 10 }, "planner:w1", "\"planner:w1\"" },
	{ { "", 0 }, "\"\"", "\"\"" },
	{ { "two words", 9 }, "\"two words\"", "\"two words\"" },
	{ { "x\nts=1 level=error", 18 },
	  "\"x\\x0ats=1 level=error\"",
	  "\"x\\u000ats=1 level=error\"" },
	{ { "\r\t\0\177", 4 }, "\"\\x0d\\x09\\x00\\x7f\"", "\"\\u000d\\u0009\\u0000\\u007f\"" },
	{ { "\033[2J", 4 }, "\"\\x1b[2J\"", "\"\\u001b[2J\"" },
	{ { "\302\233"
	    "31m",
	    5 },
	  "\"\\xc2\\x9b31m\"",
	  "\"\\u009b31m\"" },                                   /* C1: CSI */
	{ { "\302\205", 2 }, "\"\\xc2\\x85\"", "\"\\u0085\"" }, /* C1: next line */
	{ { "\"}{\\", 4 }, "\"\\\"}{\\\\\"", "\"\\\"}{\\\\\"" },
	{ { "a=b", 3 }, "\"a=b\"", "\"a=b\"" },
	{ { "<script>", 8 }, "<script>", "\"<script>\"" },
	{ { "caf\303\251 \360\237\230\200", 10 },
	  "\"caf\303\251 \360\237\230\200\"",
	  "\"caf\303\251 \360\237\230\200\"" },
	{ { "\377\300\200", 3 },
	  "\"\\xff\\xc0\\x80\"",
	  "\"\357\277\275\357\277\275\357\277\275\"" },
	{ { "\355\240\200", 3 },
	  "\"\\xed\\xa0\\x80\"",
	  "\"\357\277\275\357\277\275\357\277\275\"" }, /* a surrogate */
	{ { "cut \342\202", 6 }, "\"cut \\xe2\\x82\"", "\"cut \357\277\275\357\277\275\"" },
	{ { "\342\200\250", 3 }, "\"\\xe2\\x80\\xa8\"", "\"\\u2028\"" }, /* line separator */
	{ { "\342\200\256evil", 7 },
	  "\"\\xe2\\x80\\xaeevil\"",
	  "\"\\u202eevil\"" }, /* right to left */
	{ { "\342\201\247", 3 }, "\"\\xe2\\x81\\xa7\"", "\"\\u2067\"" },
	{ { "\330\234", 2 }, "\"\\xd8\\x9c\"", "\"\\u061c\"" },
	{ { "\342\202\254", 3 },
	  "\"\342\202\254\"",
	  "\"\342\202\254\"" }, /* and the euro stays */
};
#define VALUES ((int)(sizeof(values) / sizeof(values[0])))

/* What stands behind `key` in a line, up to `end`. */
static const char *
behind(const char *text, const char *key, const char *end)
{
	static char out[LOG_LINE_MAX];
	const char *begin = strstr(text, key), *stop;

	ck_assert_ptr_nonnull(begin);
	begin += strlen(key);
	ck_assert_ptr_nonnull(stop = strstr(begin, end));
	ck_assert_str_eq(stop, end); /* it is the end of the line */
	memcpy(out, begin, (size_t)(stop - begin));
	out[stop - begin] = 0;
	return out;
}

START_TEST(a_value_is_escaped_in_each_format)
{
	const struct log_field fields[] = { log_str("v", values[_i].value), LOG_END };
	const struct log_entry entry = { &log_rows[LOG_QUEUE_TICK_FAILED],
					 { 1700000000, 0 },
					 fields };
	char out[LOG_LINE_MAX + 1];

	out[log_put_logfmt(out, &entry)] = 0;
	ck_assert_str_eq(behind(out, " v=", "\n"), values[_i].quoted);
	out[log_put_text(out, &entry, true)] = 0;
	ck_assert_str_eq(behind(out, " v=", "\n"), values[_i].quoted);
	out[log_put_prefixed(out, &entry)] = 0;
	ck_assert_str_eq(behind(out, " v=", "\n"), values[_i].quoted);
	ck_assert_mem_eq(out, "<3>", 3);
	out[log_put_json(out, &entry)] = 0;
	ck_assert_str_eq(behind(out, "\"v\":", "}\n"), values[_i].json);
}
END_TEST

/* A datagram, read as the journal does: the value of one field, and how many fields there are. */
static struct str
field_of(const char *datagram, size_t n, const char *name, unsigned *count)
{
	const char *p = datagram, *end = datagram + n;
	struct str found = { NULL, 0 };

	for (*count = 0; p < end; (*count)++) {
		const char *newline = memchr(p, '\n', (size_t)(end - p)), *sign;
		struct str key, value;

		ck_assert_ptr_nonnull(newline);
		sign = memchr(p, '=', (size_t)(newline - p));
		if (sign) {
			key = (struct str){ p, (size_t)(sign - p) };
			value = (struct str){ sign + 1, (size_t)(newline - sign - 1) };
		} else {
			key = (struct str){ p, (size_t)(newline - p) };
			ck_assert_int_gt(end - newline, 9);
			value = (struct str){ newline + 9, 0 };
			for (unsigned i = 0; i < 8; i++)
				value.n |= (size_t)(uint8_t)newline[1 + i] << 8 * i;
			ck_assert_uint_lt(value.n, (size_t)(end - value.p));
			ck_assert_int_eq(value.p[value.n], '\n');
			newline = value.p + value.n;
		}
		ck_assert_uint_gt(key.n, 0);
		for (size_t i = 0; i < key.n; i++)
			ck_assert(key.p[i] == '_' || (key.p[i] >= 'A' && key.p[i] <= 'Z') ||
				  (key.p[i] >= '0' && key.p[i] <= '9'));
		if (str_eq(key, str_of(name))) {
			ck_assert_ptr_null(found.p);
			found = value;
		}
		p = newline + 1;
	}
	ck_assert_ptr_nonnull(found.p);
	return found;
}

static void
says(const char *datagram, size_t n, const char *name, struct str value)
{
	unsigned count;
	struct str found = field_of(datagram, n, name, &count);

	ck_assert_msg(str_eq(found, value), "%s is \"%.*s\"", name, (int)found.n, found.p);
}

START_TEST(the_journal_gets_the_value_itself_and_a_message_for_people)
{
	const struct log_field fields[] = { log_str("v", values[_i].value), log_uint("n_1", 7),
					    LOG_END };
	const struct log_entry entry = { &log_rows[LOG_REDIS_DOWN], { 1700000000, 0 }, fields };
	char out[LOG_JOURNAL_MAX], message[300];
	size_t n = log_put_journal(out, &entry);
	unsigned count;

	snprintf(message, sizeof(message), "redis down  v=%s n_1=7", values[_i].quoted);
	says(out, n, "MESSAGE", str_of(message));
	says(out, n, "COORDD_V", values[_i].value);
	says(out, n, "COORDD_N_1", STR("7"));
	says(out, n, "COORDD_EVENT", STR("redis.down"));
	says(out, n, "PRIORITY", STR("3"));
	says(out, n, "SYSLOG_IDENTIFIER", STR("coordd"));
	says(out, n, "MESSAGE_ID", str_of(log_rows[LOG_REDIS_DOWN].id));
	field_of(out, n, "MESSAGE", &count);
	ck_assert_uint_eq(count, 7);
}
END_TEST

/* Whatever two bytes do, alone, at a value's end and where it is cut: one line, valid, closed. */
START_TEST(no_bytes_make_two_lines_of_one)
{
	static char value[5000], out[LOG_LINE_MAX + 1];
	const struct log_field fields[] = { log_str("v", (struct str){ value, 2 }),
					    log_flag("w", true), LOG_END };
	const struct log_entry entry = { &log_rows[LOG_REDIS_DOWN], { 1700000000, 0 }, fields };
	size_t (*const puts_line[])(char *, const struct log_entry *) = { log_put_logfmt,
									  log_put_json,
									  log_put_prefixed };

	for (unsigned bytes = 0; bytes < 65536; bytes++) {
		value[0] = (char)(bytes >> 8);
		value[1] = (char)bytes;
		for (unsigned f = 0; f < 3; f++) {
			size_t n = puts_line[f](out, &entry);

			ck_assert_int_eq(out[n - 1], '\n');
			ck_assert(str_is_utf8((struct str){ out, n }));
			ck_assert(!str_has_control((struct str){ out, n - 1 }));
			out[n] = 0;
			ck_assert_ptr_nonnull(
				strstr(out, f == 1 ? ",\"w\":true}\n" : " w=yes\n"));
		}
	}
}
END_TEST

START_TEST(however_long_the_values_a_line_is_whole)
{
	static const char *const units[] = { "x", "\n", "\"", "\303\251", "\377" };
	static char value[3000], out[LOG_JOURNAL_MAX + 1];

	for (unsigned u = 0; u < 5; u++) {
		size_t unit = strlen(units[u]);

		for (size_t n = 0; n + unit <= sizeof(value); n += unit)
			memcpy(value + n, units[u], unit);
		for (size_t len = 0; len <= sizeof(value); len += 149) {
			const struct str v = { value, len - len % unit };
			const struct log_field fields[] = { log_str("a", v), log_str("b", v),
							    log_str("c", v), log_str("d", v),
							    log_str("e", v), log_str("f", v),
							    LOG_END };
			const struct log_entry entry = { &log_rows[LOG_REDIS_DOWN],
							 { 1700000000, 0 },
							 fields };
			unsigned count;
			size_t n = log_put_json(out, &entry);

			ck_assert_uint_le(n, LOG_LINE_MAX);
			ck_assert_mem_eq(out + n - 3, "\"}\n", 3);
			ck_assert(str_is_utf8((struct str){ out, n }));
			n = log_put_logfmt(out, &entry);
			ck_assert_uint_le(n, LOG_LINE_MAX);
			ck_assert_ptr_eq(memchr(out, '\n', n), out + n - 1);
			ck_assert_int_eq(len > 2 && out[n - 2] != '"' && u > 0, 0);
			n = log_put_text(out, &entry, true);
			ck_assert_uint_le(n, LOG_LINE_MAX);
			ck_assert_ptr_eq(memchr(out, '\n', n), out + n - 1);
			n = log_put_journal(out, &entry);
			ck_assert_uint_le(n, LOG_JOURNAL_MAX);
			field_of(out, n, "COORDD_F", &count);
			ck_assert_uint_eq(count, 11);
		}
	}
}
END_TEST

/* The rate -------------------------------------------------------------------------------------- */

START_TEST(a_flood_of_one_event_is_cut_and_counted_and_others_pass)
{
	enum { ASKED = 400, LIMIT = 50 };
	unsigned written = 0, suppressed = 0, in_second = 0;
	time_t give_up = time(NULL) + 10;
	char second[24] = "";
	const char *text;

	catch_log(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, LIMIT);
	for (int i = 0; i < ASKED; i++) {
		log_event(LOG_QUEUE_TICK_FAILED, log_int("i", i));
		/* Read as it comes, so that the socket never is full. */
		while (*(text = line())) {
			const char *n = strstr(text, " like=queue.tick_failed lines=");

			if (n) {
				suppressed += (unsigned)atoi(strstr(n, "lines=") + 6);
				continue;
			}
			in_second = strncmp(second, text, 22) == 0 ? in_second + 1
								   : 1; /* to the second */
			memcpy(second, text, 22);
			ck_assert_uint_le(in_second, LIMIT);
			written++;
		}
	}
	log_event(LOG_QUEUE_CORRUPT);
	matches(line(), "event=queue\\.corrupt");
	/* The first look in another second tells of the rest. */
	while (written + suppressed < ASKED && time(NULL) < give_up) {
		log_on_second();
		while (*(text = line())) {
			matches(text, "level=warning event=log\\.suppressed "
				      "like=queue\\.tick_failed lines=[0-9]+\n$");
			suppressed += (unsigned)atoi(strstr(text, "lines=") + 6);
		}
	}
	ck_assert_uint_eq(written + suppressed, ASKED);
	ck_assert_uint_gt(suppressed, 0);
	ck_assert_uint_eq(process_stats.log_suppressed[0], suppressed);
	ck_assert_uint_eq(process_stats.log_messages[LOG_LEVEL_ERROR], written + 1);
}
END_TEST

START_TEST(what_is_rare_by_its_nature_is_not_limited_and_0_limits_nothing)
{
	catch_log(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, 1);
	for (int i = 0; i < 30; i++) {
		log_event(LOG_CONFIG_WARNING, log_int("i", i));
		matches(line(), "event=config\\.warning");
	}
	catch_log(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, 0);
	for (int i = 0; i < 30; i++) {
		log_event(LOG_REDIS_DOWN, log_int("i", i));
		matches(line(), "event=redis\\.down");
	}
}
END_TEST

/* Where it goes ---------------------------------------------------------------------------------- */

static void
read_file(const char *path, const char *const *patterns)
{
	FILE *in = fopen(path, "re");
	char text[512];

	ck_assert_ptr_nonnull(in);
	for (; *patterns; patterns++) {
		ck_assert_ptr_nonnull(fgets(text, sizeof(text), in));
		matches(text, *patterns);
	}
	ck_assert_ptr_null(fgets(text, sizeof(text), in));
	fclose(in);
}

START_TEST(a_file_is_appended_to_and_opened_anew)
{
	char dir[] = "/tmp/test_log.XXXXXX", path[64], moved[64];
	struct log_config config = { path, LOG_FORMAT_AUTO, LOG_LEVEL_INFO, 0 };
	struct log_config nowhere = { "/no/such/directory/log", LOG_FORMAT_JSON,
				      LOG_LEVEL_ERROR, 1 };
	struct stat st;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/log", dir);
	snprintf(moved, sizeof(moved), "%s/log.1", dir);
	ck_assert(log_start(&config));
	ck_assert_str_eq(log_file(), path);
	ck_assert(!log_start(&nowhere));
	ck_assert_int_eq(errno, ENOENT);
	log_event(LOG_SERVER_READY); /* still there, in its format */
	ck_assert_int_eq(rename(path, moved), 0);
	log_event(LOG_SERVER_DRAIN);
	ck_assert(log_reopen());
	log_event(LOG_SERVER_STOPPED);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 0137, 0);
	read_file(moved, (const char *[]){ "event=server\\.ready\n$", "event=server\\.drain\n$",
					   NULL });
	read_file(path, (const char *[]){ "event=server\\.stopped\n$", NULL });

	/* Where it cannot be opened, what is open is written to. */
	ck_assert_int_eq(rename(path, moved), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert(!log_reopen());
	ck_assert_int_eq(errno, EISDIR);
	log_event(LOG_SERVER_READY);
	read_file(moved, (const char *[]){ "event=server\\.stopped\n$",
					   "event=server\\.ready\n$", NULL });
	rmdir(path);
	unlink(moved);
	rmdir(dir);
}
END_TEST

/* The lines that log.dropped tells of in what was written. */
static uint64_t
told(const char *text)
{
	uint64_t lines = 0;

	while ((text = strstr(text, "log dropped  lines="))) {
		text = strchr(text, '=') + 1;
		lines += (uint64_t)atoll(text);
		matches(text, "^[0-9]+ error=\"its reader is too slow\"");
	}
	return lines;
}

/* Write until `reader` has to be read: that takes no time, and what was lost is told. */
static void
flood(int reader)
{
	static char text[1 << 20];
	struct pollfd pollfd = { .fd = reader, .events = POLLIN };
	time_t give_up = time(NULL) + 10;
	size_t at = 0;

	alarm(30);
	for (int i = 0; i < 3000; i++)
		log_event(
			LOG_CONFIG_WARNING, log_int("i", i),
			log_text("text", "so that it does not take for ever until it is full"));
	ck_assert_uint_gt(process_stats.log_dropped[0], 0);
	ck_assert_uint_gt(process_stats.log_messages[LOG_LEVEL_WARNING], 0);
	while (told(text) < process_stats.log_dropped[0] && time(NULL) < give_up) {
		if (poll(&pollfd, 1, 10) == 1)
			at += (size_t)read(reader, text + at, sizeof(text) - 1 - at);
		else
			log_on_second();
	}
	ck_assert_uint_eq(told(text), process_stats.log_dropped[0]);
}

START_TEST(a_pipe_that_nobody_reads_does_not_block)
{
	const struct log_config config = { "", LOG_FORMAT_TEXT, LOG_LEVEL_INFO, 0 };
	int fds[2];

	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	ck_assert_int_eq(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
	close(fds[1]);
	ck_assert(log_start(&config));
	flood(fds[0]);
	/* Who shares the descriptor is left as it was. */
	ck_assert_int_eq(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
	close(fds[0]);
	signal(SIGPIPE, SIG_IGN);
	log_event(LOG_SERVER_STOPPED);
}
END_TEST

START_TEST(a_terminal_that_was_stopped_does_not_block)
{
	const struct log_config config = { "", LOG_FORMAT_TEXT, LOG_LEVEL_INFO, 0 };
	int master = open_terminal();

	ck_assert(log_start(&config));
	flood(master);
	close(master);
}
END_TEST

START_TEST(a_socket_that_nobody_reads_does_not_block)
{
	catch_log(LOG_FORMAT_TEXT, LOG_LEVEL_INFO, 0);
	flood(packets);
}
END_TEST

START_TEST(a_full_disk_loses_lines_and_nothing_else)
{
	const struct log_config config = { "/dev/full", LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, 0 };

	ck_assert(log_start(&config));
	log_event(LOG_SERVER_READY);
	log_event(LOG_SERVER_DRAIN);
	ck_assert_uint_eq(process_stats.log_dropped[0], 2);
	catch_log(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, 0);
	log_event(LOG_SERVER_STOPPED);
	matches(line(), "level=warning event=log\\.dropped lines=2 error=\"No space left on "
			"device\"\n$");
	matches(line(), "event=server\\.stopped\n$");
}
END_TEST

/* The journal's socket; a datagram. */
static int
journal_at(char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

START_TEST(what_leads_to_the_journal_is_one_datagram_for_each_event)
{
	char dir[] = "/tmp/test_log.XXXXXX", path[64], stream[64], datagram[LOG_JOURNAL_MAX];
	struct log_config config = { "", LOG_FORMAT_AUTO, LOG_LEVEL_INFO, 0 };
	int journal;
	struct stat st;
	ssize_t n;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/socket", dir);
	log_set_journal(path);
	journal = journal_at(path);
	catch_log(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, 0);
	ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);

	/* Another's stream is not ours. */
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev,
		 (uintmax_t)st.st_ino + 1);
	setenv("JOURNAL_STREAM", stream, 1);
	ck_assert(log_start(&config));
	log_event(LOG_SERVER_READY);
	matches(line(), "^ts=");

	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	ck_assert(log_start(&config));
	log_event(LOG_CONFIG_WARNING, log_text("text", "two\nlines"));
	n = recv(journal, datagram, sizeof(datagram), MSG_DONTWAIT);
	ck_assert_int_gt(n, 0);
	says(datagram, (size_t)n, "COORDD_TEXT", STR("two\nlines"));
	says(datagram, (size_t)n, "MESSAGE", STR("config warning  text=\"two\\x0alines\""));
	ck_assert_int_lt(recv(journal, datagram, sizeof(datagram), MSG_DONTWAIT), 0);
	ck_assert_str_eq(line(), "");

	/* Nobody listens: what goes to standard error arrives there too, with its level. */
	close(journal);
	unlink(path);
	log_event(LOG_REDIS_DOWN, log_text("error", "x\ny"));
	ck_assert_str_eq(line(), "<3>level=error event=redis.down error=\"x\\x0ay\"\n");
	journal = journal_at(path);
	log_event(LOG_REDIS_READY);
	ck_assert_str_eq(line(), "");
	ck_assert_int_gt(recv(journal, datagram, sizeof(datagram), MSG_DONTWAIT), 0);

	/* It does not read: lines are dropped. */
	alarm(20);
	for (int i = 0; i < 3000; i++)
		log_event(LOG_REDIS_READY);
	ck_assert_str_eq(line(), "");
	close(journal);
	unlink(path);
	rmdir(dir);
}
END_TEST

/* log_quote -------------------------------------------------------------------------------------- */

START_TEST(simple_values_stand_bare_and_others_in_quotes)
{
	ck_assert_str_eq(quote(STR("planner:w1")), "planner:w1");
	ck_assert_str_eq(quote(STR("unix:///a/b.sock?db=1")), "\"unix:///a/b.sock?db=1\"");
	ck_assert_str_eq(quote(STR("")), "\"\"");
	ck_assert_str_eq(quote(STR("two words")), "\"two words\"");
	ck_assert_str_eq(quote(STR("a=b")), "\"a=b\"");
	ck_assert_str_eq(quote(STR("say \"hi\" \\o/")), "\"say \\\"hi\\\" \\\\o/\"");
	ck_assert_str_eq(quote(STR("caf\xc3\xa9 \xf0\x9f\x98\x80")),
			 "\"caf\xc3\xa9 \xf0\x9f\x98\x80\"");
}
END_TEST

START_TEST(no_client_can_forge_a_line_or_steer_a_terminal)
{
	ck_assert_str_eq(quote(STR("x\nts=1 level=error")), "\"x\\x0ats=1 level=error\"");
	ck_assert_str_eq(quote(STR("\033[2J\r\t\177")), "\"\\x1b[2J\\x0d\\x09\\x7f\"");
	ck_assert_str_eq(quote(STR("a\0b")), "\"a\\x00b\"");
	ck_assert_str_eq(quote(STR("\xc2\x9b"
				   "31m")),
			 "\"\\xc2\\x9b31m\""); /* U+009B starts a sequence too */
	ck_assert_str_eq(quote(STR("\xff\xc0\x80\xed\xa0\x80")),
			 "\"\\xff\\xc0\\x80\\xed\\xa0\\x80\"");
	ck_assert_str_eq(quote(STR("cut \xe2\x82")), "\"cut \\xe2\\x82\"");
	for (unsigned a = 0; a < 256; a++) {
		for (unsigned b = 0; b < 256; b++) {
			char bytes[2] = { (char)a, (char)b };
			struct str out = str_of(quote((struct str){ bytes, 2 }));

			ck_assert_msg(str_is_utf8(out) && !str_has_control(out), "%02x %02x", a,
				      b);
		}
	}
}
END_TEST

START_TEST(a_value_of_any_length_fits_and_shows_that_it_was_cut)
{
	static const char *const units[] = { "x",   " ",        "\"",
					     "\n",  "\xc3\xa9", "\xf0\x9f\x98\x80",
					     "\xff" };
	char value[256], out[80];

	for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
		size_t unit = strlen(units[u]);

		for (size_t n = 0; n + unit <= 100; n += unit) {
			memcpy(value + n, units[u], unit);
			for (size_t size = 8; size <= sizeof(out); size++) {
				size_t len;

				memset(out, 1, sizeof(out));
				log_quote(out, size, (struct str){ value, n + unit });
				len = strlen(out);
				ck_assert_uint_lt(len, size);
				ck_assert(str_is_utf8((struct str){ out, len }));
				ck_assert(size == sizeof(out) || out[size] == 1);
				if (n + unit > size)
					ck_assert_str_eq(out + len - 4, "...\"");
			}
		}
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("log");
	TCase *tc = tcase_create("log");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_line_is_one_write_with_time_level_event_and_pairs);
	tcase_add_test(tc, each_type_has_its_form);
	tcase_add_test(tc, text_is_for_people_and_has_no_colour_where_there_is_no_terminal);
	tcase_add_loop_test(tc,
			    on_a_terminal_auto_is_text_with_colour_unless_that_is_not_wanted, 0,
			    (int)(sizeof(terminals) / sizeof(terminals[0])));
	tcase_add_test(tc, lines_below_the_level_are_not_written);
	tcase_add_test(tc, the_table_is_as_its_head_says);
	tcase_add_loop_test(tc, a_value_is_escaped_in_each_format, 0, VALUES);
	tcase_add_loop_test(tc, the_journal_gets_the_value_itself_and_a_message_for_people, 0,
			    VALUES);
	tcase_add_test(tc, no_bytes_make_two_lines_of_one);
	tcase_add_test(tc, however_long_the_values_a_line_is_whole);
	tcase_add_test(tc, a_flood_of_one_event_is_cut_and_counted_and_others_pass);
	tcase_add_test(tc, what_is_rare_by_its_nature_is_not_limited_and_0_limits_nothing);
	tcase_add_test(tc, a_file_is_appended_to_and_opened_anew);
	tcase_add_test(tc, a_pipe_that_nobody_reads_does_not_block);
	tcase_add_test(tc, a_terminal_that_was_stopped_does_not_block);
	tcase_add_test(tc, a_socket_that_nobody_reads_does_not_block);
	tcase_add_test(tc, a_full_disk_loses_lines_and_nothing_else);
	tcase_add_test(tc, what_leads_to_the_journal_is_one_datagram_for_each_event);
	tcase_add_test(tc, simple_values_stand_bare_and_others_in_quotes);
	tcase_add_test(tc, no_client_can_forge_a_line_or_steer_a_terminal);
	tcase_add_test(tc, a_value_of_any_length_fits_and_shows_that_it_was_cut);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
