#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* Each write(2) to the log arrives here as one packet. */
static int packets;

static void
catch_log(void)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(dup2(pair[1], STDERR_FILENO), STDERR_FILENO);
	close(pair[1]);
	packets = pair[0];
}

/* The next line, or "" when nothing was written. */
static const char *
line(void)
{
	static char text[4096];
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

START_TEST(a_line_is_one_write_with_time_level_event_and_pairs)
{
	catch_log();
	log_init(LOG_FORMAT_AUTO, LOG_LEVEL_INFO, 0);
	log_event(LOG_LEVEL_NOTICE, "conn.closed", "conn=%d reason=%s", 7, "client");
	matches(line(), "^ts=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "
			"level=notice event=conn\\.closed conn=7 reason=client\n$");
	log_event(LOG_LEVEL_ERROR, "server.stopped", NULL);
	matches(line(), "^ts=[^ ]+ level=error event=server\\.stopped\n$");
	ck_assert_str_eq(line(), "");
}
END_TEST

START_TEST(text_is_for_people_and_has_colour_on_terminals_only)
{
	catch_log();
	log_init(LOG_FORMAT_TEXT, LOG_LEVEL_DEBUG, 0);
	log_event(LOG_LEVEL_WARNING, "agent.lost", "agent=%s", "planner:w7");
	matches(line(),
		"^[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3} WARN  agent lost  agent=planner:w7\n$");
	log_event(LOG_LEVEL_DEBUG, "a.b", NULL);
	matches(line(), "^[^ ]+ DEBUG a b\n$");
}
END_TEST

START_TEST(on_a_terminal_auto_is_text_with_colour)
{
	char text[512] = "";
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave;

	ck_assert_int_ge(master, 0);
	ck_assert_int_eq(grantpt(master) | unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	ck_assert_int_eq(dup2(slave, STDERR_FILENO), STDERR_FILENO);
	log_init(LOG_FORMAT_AUTO, LOG_LEVEL_INFO, 0);
	log_event(LOG_LEVEL_ERROR, "redis.down", "retry_in=184ms");
	ck_assert_int_gt(read(master, text, sizeof(text) - 1), 0);
	matches(text, "^[0-9:.]+ \033\\[31mERROR\033\\[0m redis down  retry_in=184ms\r?\n$");
	close(slave);
	close(master);
}
END_TEST

START_TEST(lines_below_the_level_are_not_written)
{
	catch_log();
	log_init(LOG_FORMAT_LOGFMT, LOG_LEVEL_WARNING, 0);
	for (int level = LOG_LEVEL_DEBUG; level < LOG_LEVELS; level++) {
		log_event((enum log_level)level, "x.y", "level_was=%d", level);
		ck_assert_int_eq(log_enabled((enum log_level)level),
				 level >= LOG_LEVEL_WARNING);
		ck_assert_int_eq(*line() != 0, level >= LOG_LEVEL_WARNING);
	}
	log_set_level(LOG_LEVEL_DEBUG);
	log_event(LOG_LEVEL_DEBUG, "x.y", NULL);
	matches(line(), "level=debug");
}
END_TEST

START_TEST(an_endless_line_is_cut)
{
	catch_log();
	log_init(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, 0);
	log_event(LOG_LEVEL_INFO, "x.y", "long=%05000d", 7);
	ck_assert_uint_gt(strlen(line()), 1000);
	log_event(LOG_LEVEL_INFO, "x.y", "long=%05000d", 7);
	matches(line(), "^ts=[^\n]+0\n$");
}
END_TEST

START_TEST(a_flood_of_one_event_is_cut_and_counted_and_others_pass)
{
	enum { ASKED = 400, LIMIT = 50 };
	unsigned written = 0, suppressed = 0, in_second = 0;
	char second[24] = "";
	time_t give_up = time(NULL) + 10;
	const char *text;

	catch_log();
	log_init(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, LIMIT);
	for (int i = 0; i < ASKED; i++) {
		log_event(LOG_LEVEL_INFO, "flood.event", "i=%d", i);
		/* Read as it comes, so that the socket never is full. */
		while (*(text = line())) {
			if (strstr(text, "event=log.suppressed")) {
				const char *n = strstr(text, "like=flood.event lines=");

				ck_assert_ptr_nonnull(n);
				suppressed +=
					(unsigned)atoi(strchr(n, ' ') + strlen(" lines="));
				continue;
			}
			in_second = strncmp(second, text, 22) == 0 ? in_second + 1
								   : 1; /* to the second */
			memcpy(second, text, 22);
			ck_assert_uint_le(in_second, LIMIT);
			written++;
		}
	}
	log_event(LOG_LEVEL_INFO, "other.event", NULL);
	matches(line(), "event=other");
	/* The next line of any kind in another second tells of the rest. */
	while (written + suppressed < ASKED && time(NULL) < give_up) {
		log_event(LOG_LEVEL_INFO, "another.event", NULL);
		while (*(text = line())) {
			const char *n =
				strstr(text, "event=log.suppressed like=flood.event lines=");

			if (n)
				suppressed +=
					(unsigned)atoi(strstr(n, "lines=") + strlen("lines="));
		}
	}
	ck_assert_uint_eq(written + suppressed, ASKED);
	ck_assert_uint_gt(suppressed, 0);
}
END_TEST

START_TEST(a_file_is_appended_to_and_opened_anew)
{
	char dir[] = "/tmp/test_log.XXXXXX", path[64], moved[64], text[512];
	struct stat st;
	FILE *file;

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/log", dir);
	snprintf(moved, sizeof(moved), "%s/log.1", dir);
	ck_assert(!log_open("/no/such/directory/log"));
	ck_assert_int_eq(errno, ENOENT);
	ck_assert(log_open(path));
	log_init(LOG_FORMAT_AUTO, LOG_LEVEL_INFO, 0);
	log_event(LOG_LEVEL_INFO, "first.line", NULL);
	ck_assert_int_eq(rename(path, moved), 0);
	log_event(LOG_LEVEL_INFO, "second.line", NULL);
	ck_assert(log_open(path));
	log_event(LOG_LEVEL_INFO, "third.line", NULL);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 0007, 0);
	ck_assert_ptr_nonnull(file = fopen(moved, "re"));
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
	matches(text, "event=first\\.line\n$");
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
	matches(text, "event=second\\.line\n$");
	ck_assert_ptr_null(fgets(text, sizeof(text), file));
	fclose(file);
	ck_assert_ptr_nonnull(file = fopen(path, "re"));
	ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
	matches(text, "event=third\\.line\n$");
	fclose(file);
	unlink(path);
	unlink(moved);
	rmdir(dir);
}
END_TEST

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
	tcase_add_test(tc, text_is_for_people_and_has_colour_on_terminals_only);
	tcase_add_test(tc, on_a_terminal_auto_is_text_with_colour);
	tcase_add_test(tc, lines_below_the_level_are_not_written);
	tcase_add_test(tc, an_endless_line_is_cut);
	tcase_add_test(tc, a_flood_of_one_event_is_cut_and_counted_and_others_pass);
	tcase_add_test(tc, a_file_is_appended_to_and_opened_anew);
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
