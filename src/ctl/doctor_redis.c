/*
 * doctor: does Redis keep what it is given? Where a configuration file says where it is, it is asked itself, with a connection that
 * is made for a few questions and may block; else the broker tells what it knows.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ctl/doctor.h"

enum { WAIT_S = 2, REPLY_MAX = 256 * 1024, CLOCK_TOLERANCE_S = 1 };

struct facts {
	char version[32], policy[32], fsync[16], write_status[16], save_status[16];
	bool has_aof, is_direct;
	double used, maxmemory; /* bytes, 0: not known, no limit */
	double clock_off;       /* seconds that its clock is ahead of ours, NAN: not known */
};

double
doctor_now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Asking it -------------------------------------------------------------------------------------- */

static FILE *
dial(const struct address *a, char *why, size_t size)
{
	struct timeval limit = { .tv_sec = WAIT_S };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)a->port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6,
				    .sin6_port = htons((uint16_t)a->port) };
	const struct sockaddr *to = (const struct sockaddr *)&un;
	socklen_t len = sizeof(un);
	FILE *f = NULL;
	int fd;

	if (a->is_unix) {
		snprintf(un.sun_path, sizeof(un.sun_path), "%s", a->host);
	} else if (inet_pton(AF_INET, a->host, &in.sin_addr) == 1) {
		to = (const struct sockaddr *)&in;
		len = sizeof(in);
	} else if (inet_pton(AF_INET6, a->host, &in6.sin6_addr) == 1) {
		to = (const struct sockaddr *)&in6;
		len = sizeof(in6);
	} else {
		snprintf(why, size, "%s is no address", a->host);
		return NULL;
	}
	fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit,
			   sizeof(limit)); /* connect(), too */
	}
	if (fd < 0 || connect(fd, to, len) || !(f = fdopen(fd, "r"))) {
		snprintf(why, size, "%s",
			 errno == EINPROGRESS ? "no connection in time" : strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	return f;
}

/* Append one reply's texts to `out`, each with its line end; false: no reply, or an error, which is in `out`. */
static bool
reply_read(FILE *f, struct buf *out)
{
	char line[512];
	long n;

	if (!fgets(line, sizeof(line), f))
		return false;
	n = strtol(line + 1, NULL, 10);
	switch (*line) {
	case '*':
		for (; n > 0; n--)
			if (!reply_read(f, out))
				return false;
		return true;
	case '$':
		if (n < 0)
			return true;
		if (n > REPLY_MAX || fread(buf_reserve(out, (size_t)n + 2), 1, (size_t)n + 2,
					   f) != (size_t)n + 2)
			return false;
		out->len += (size_t)n + 2;
		return true;
	default:
		buf_puts(out, line + 1);
		return *line == '+' || *line == ':';
	}
}

/* The answer to a command of `n` words, terminated; NULL: there is none, or an error, which is then in `out`. */
static const char *
ask(FILE *f, struct buf *out, const char *const *words, unsigned n)
{
	bool is_good;

	buf_clear(out);
	buf_printf(out, "*%u\r\n", n);
	for (unsigned i = 0; i < n; i++)
		buf_printf(out, "$%zu\r\n%s\r\n", strlen(words[i]), words[i]);
	is_good = send(fileno(f), out->data, out->len, MSG_NOSIGNAL) == (ssize_t)out->len;
	buf_clear(out); /* there may be a password in it */
	is_good = is_good && reply_read(f, out);
	buf_putc(out, '\0');
	return is_good ? out->data : NULL;
}
#define ASK(f, out, ...)                                  \
	ask(f, out, (const char *const[]){ __VA_ARGS__ }, \
	    sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *))

/* What stands behind `name:` in INFO's text. */
static void
info_line(const char *info, const char *name, char *out, size_t size)
{
	size_t n = strlen(name);

	*out = '\0';
	for (const char *p = info; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
		if (strncmp(p, name, n) || p[n] != ':')
			continue;
		p += n + 1;
		snprintf(out, size, "%.*s", (int)strcspn(p, "\r\n"), p);
		return;
	}
}

static bool
sign_in(FILE *f, struct buf *out, const struct doctor *d)
{
	const char *user = *d->cfg.redis.username ? d->cfg.redis.username : d->redis.user,
		   *password =
			   *d->cfg.redis.password ? d->cfg.redis.password : d->redis.password;

	if (d->cfg.redis.embedded.enabled || !password || !*password)
		return true;
	return user && *user ? ASK(f, out, "AUTH", user, password) != NULL
			     : ASK(f, out, "AUTH", password) != NULL;
}

static bool
ask_redis(const struct doctor *d, struct facts *facts, char *why, size_t size)
{
	FILE *f = dial(&d->redis, why, size);
	struct buf out = { 0 };
	char text[64] = "";
	const char *answer;
	bool is_good;

	if (!f)
		return false;
	answer = sign_in(f, &out, d) ? ASK(f, &out, "INFO") : NULL;
	is_good = answer != NULL;
	if (answer) {
		info_line(answer, "redis_version", facts->version, sizeof(facts->version));
		info_line(answer, "maxmemory_policy", facts->policy, sizeof(facts->policy));
		info_line(answer, "aof_last_write_status", facts->write_status,
			  sizeof(facts->write_status));
		info_line(answer, "rdb_last_bgsave_status", facts->save_status,
			  sizeof(facts->save_status));
		info_line(answer, "used_memory", text, sizeof(text));
		facts->used = strtod(text, NULL);
		info_line(answer, "maxmemory", text, sizeof(text));
		facts->maxmemory = strtod(text, NULL);
		info_line(answer, "aof_enabled", text, sizeof(text));
		facts->has_aof = !strcmp(text, "1");
		facts->is_direct = true;
	} else {
		snprintf(why, size, "%s",
			 out.len > 1       ? out.data
			 : errno == EAGAIN ? "no answer in time"
					   : "it hung up");
		why[strcspn(why, "\r\n")] = '\0';
	}
	answer = is_good ? ASK(f, &out, "CONFIG", "GET", "appendfsync") : NULL;
	if (answer && (answer = strchr(answer, '\n')))
		snprintf(facts->fsync, sizeof(facts->fsync), "%.*s",
			 (int)strcspn(answer + 1, "\r\n"), answer + 1);
	if (is_good) {
		double before = doctor_now_s(), s, us = 0;

		answer = ASK(f, &out, "TIME");
		s = answer ? strtod(answer, NULL) : NAN;
		if (answer && (answer = strchr(answer, '\n')))
			us = strtod(answer + 1, NULL);
		facts->clock_off = s + us / 1e6 - (before + doctor_now_s()) / 2;
	}
	buf_done(&out);
	fclose(f);
	return is_good;
}

/* What the broker knows of it. */
static bool
ask_broker(const struct doctor *d, struct facts *facts)
{
	const json_t *redis = json_at(d->status, "redis");
	struct str version = json_str_at(redis, "version"),
		   policy = json_str_at(redis, "policy"),
		   fsync = json_str_at(redis, "appendfsync");

	if (!version.n || !json_bool_at(redis, "up"))
		return false;
	snprintf(facts->version, sizeof(facts->version), "%.*s", (int)version.n, version.p);
	if (policy.n)
		snprintf(facts->policy, sizeof(facts->policy), "%.*s", (int)policy.n, policy.p);
	if (fsync.n)
		snprintf(facts->fsync, sizeof(facts->fsync), "%.*s", (int)fsync.n, fsync.p);
	facts->has_aof = json_bool_at(redis, "aof");
	return true;
}

/* Judging it ------------------------------------------------------------------------------------- */

static void
judge_persistence(struct doctor *d, const struct facts *facts)
{
	const char *fix =
		"redis-cli config set appendonly yes, and in redis.conf: appendonly yes, "
		"appendfsync everysec (or always)";

	if (!facts->has_aof)
		doctor_find(
			d, "persistence", fix,
			"Redis keeps no append-only file: what is acknowledged is lost when it "
			"stops");
	else if (!strcmp(facts->fsync, "no"))
		doctor_find(d, "persistence",
			    "set appendfsync everysec (or always) in redis.conf",
			    "Redis leaves it to the kernel when its file is written "
			    "(appendfsync no)");
	else if (!*facts->fsync)
		doctor_ok(d, "persistence",
			  "appendonly yes; CONFIG is not allowed, so how often "
			  "it syncs is not known");
	else
		doctor_ok(d, "persistence", "appendonly yes, appendfsync %s%s", facts->fsync,
			  strcmp(facts->fsync, "always") ? ": a crash can lose the last second"
							 : "");
	if (*facts->write_status && strcmp(facts->write_status, "ok"))
		doctor_find(d, "persistence",
			    "look at its log, and at the space on its disk (df)",
			    "Redis could not write its append-only file");
	if (*facts->save_status && strcmp(facts->save_status, "ok"))
		doctor_find(d, "persistence",
			    "look at its log; it is often vm.overcommit_memory, or a full disk",
			    "Redis could not write its last snapshot, and may refuse writes");
}

static void
judge_memory(struct doctor *d, const struct facts *facts)
{
	if (*facts->policy && strcmp(facts->policy, "noeviction"))
		doctor_find(
			d, "eviction",
			"redis-cli config set maxmemory-policy noeviction, and in redis.conf",
			"Redis may drop keys when its memory is full (maxmemory-policy %s)",
			facts->policy);
	else if (*facts->policy)
		doctor_ok(d, "eviction", "maxmemory-policy noeviction");
	if (facts->maxmemory > 0 && facts->used > 0.8 * facts->maxmemory)
		doctor_find(
			d, "memory", "raise its maxmemory, or let workers catch up",
			"Redis has used %.0f %% of its maxmemory; at 100 %% sends are refused",
			100 * facts->used / facts->maxmemory);
}

static void
judge_clock(struct doctor *d, double off)
{
	if (isnan(off))
		return;
	if (fabs(off) > CLOCK_TOLERANCE_S)
		doctor_find(
			d, "clock",
			"timedatectl set-ntp true, on both hosts; coordd goes by Redis's clock",
			"the clock of Redis is %.1f s %s the one of this host", fabs(off),
			off > 0 ? "ahead of" : "behind");
	else
		doctor_ok(d, "clock", "Redis and this host differ by %.0f ms", fabs(off) * 1e3);
}

/* Redis's clock as the broker tells it, against ours. */
static double
broker_clock_off(const struct doctor *d)
{
	struct str at = json_str_at(d->status, "time");
	struct tm tm = { 0 };
	char text[32], *rest;

	if (!at.n || at.n >= sizeof(text))
		return NAN;
	memcpy(text, at.p, at.n);
	text[at.n] = '\0';
	rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	return rest ? (double)timegm(&tm) + strtod(rest, NULL) - d->asked_s : NAN;
}

void
doctor_look_at_redis(struct doctor *d)
{
	struct facts facts = { .clock_off = NAN };
	char why[256] = "";
	bool is_known =
		d->has_file && d->has_redis_url && ask_redis(d, &facts, why, sizeof(why));

	if (!is_known) {
		is_known = ask_broker(d, &facts);
		facts.clock_off = is_known ? broker_clock_off(d) : NAN;
	}
	if (!is_known) {
		struct str problem = json_str_at(d->status, "redis.problem");

		if (problem.n)
			snprintf(why, sizeof(why), "%.*s", (int)problem.n, problem.p);
		if (*why)
			doctor_find(
				d, "redis",
				"is redis-server running (systemctl status redis-server), and "
				"is redis.url right?",
				"it cannot be asked: %s", why);
		return;
	}
	doctor_ok(d, "redis", "Redis %s, %s", facts.version,
		  facts.is_direct ? "asked directly" : "as the broker knows it");
	if (strtol(facts.version, NULL, 10) < 7)
		doctor_find(d, "versions", "install Redis 7 or later",
			    "Redis %s is too old: coordd needs what Redis 7 has",
			    facts.version);
	judge_persistence(d, &facts);
	judge_memory(d, &facts);
	judge_clock(d, facts.clock_off);
}
