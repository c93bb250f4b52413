/*
 * coordctl doctor: look at all that a coordd depends on, and say how to mend what is wrong. Each part looks at what it can reach: most
 * of it needs no broker.
 *
 *	look_at_config()	the files, as coordd would read them
 *	look_at_broker()	does it answer, and what does it say of itself
 *	doctor_look_at_sockets()	its addresses, and who may use them
 *	doctor_look_at_redis()	does it keep what it is given
 *	doctor_look_at_host()	descriptors, memory, the unit, libraries
 */
#include "ctl/doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define DEFAULT_CONFIG "/etc/coordd/coordd.yaml"

/* Findings --------------------------------------------------------------------------------------- */

static void __attribute__((format(printf, 4, 0)))
add(struct doctor *d, const char *area, const char *fix, const char *fmt, va_list ap)
{
	char text[1024];
	struct buf safe = { 0 };
	json_t *row;

	vsnprintf(text, sizeof(text), fmt, ap);
	text_escape(&safe, str_of(text)); /* paths and names may be anything */
	row = json_pack("{s:s, s:b, s:s%, s:s?}", "area", area, "ok", !fix, "text",
			safe.len ? safe.data : "", safe.len, "fix", fix);
	if (!row || json_array_append_new(d->rows, row))
		abort();
	d->findings += fix != NULL;
	buf_done(&safe);
}

void
doctor_ok(struct doctor *d, const char *area, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(d, area, NULL, fmt, ap);
	va_end(ap);
}

void
doctor_find(struct doctor *d, const char *area, const char *fix, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(d, area, fix, fmt, ap);
	va_end(ap);
}

static void
print(const struct doctor *d)
{
	const struct ctl *ctl = d->ctl;
	struct buf out = { 0 };
	json_t *row;
	size_t i;

	json_array_foreach(d->rows, i, row)
	{
		bool is_ok = json_bool_at(row, "ok");
		const char *color = is_ok ? "\033[32m" : "\033[31m";

		if (is_ok && GIVEN(ctl, quiet))
			continue;
		buf_printf(&out, "%s%-8s%s %-12s %s\n", ctl->has_color ? color : "",
			   is_ok ? "ok" : "PROBLEM", ctl->has_color ? "\033[0m" : "",
			   json_string_value(json_at(row, "area")),
			   json_string_value(json_at(row, "text")));
		if (!is_ok)
			buf_printf(&out, "%-21s fix: %s\n", "",
				   json_string_value(json_at(row, "fix")));
	}
	if (!GIVEN(ctl, quiet) || d->findings)
		buf_printf(&out, "%u finding%s\n", d->findings, PLURAL(d->findings));
	fwrite(out.data, 1, out.len, stdout);
	buf_done(&out);
}

/* Configuration ---------------------------------------------------------------------------------- */

/* Whether a password stands in the configuration itself. */
static bool
has_password(const struct config *cfg)
{
	struct address a = { 0 };
	bool has = address_read(&a, cfg->redis.url, NULL) && a.password && *a.password;

	address_done(&a);
	return has || (*cfg->redis.password && !*cfg->redis.password_file);
}

/* Who else may read or change a file that is part of the configuration. */
static void
look_at_mode(struct doctor *d, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return;
	if (st.st_mode & S_IWOTH)
		doctor_find(d, "config", "chmod o-w it", "everybody can change %s (mode %04o)",
			    path, (unsigned)st.st_mode & 07777);
	else if (st.st_mode & S_IROTH && has_password(&d->cfg))
		doctor_find(
			d, "config",
			"chmod 0640 it and give it to the group coordd, or move the password "
			"to redis.password_file",
			"everybody can read the password of Redis in %s (mode %04o)", path,
			(unsigned)st.st_mode & 07777);
}

static void
look_at_config(struct doctor *d)
{
	char *copy = xstrdup(GIVEN(d->ctl, config) ? TEXT(d->ctl, config) : DEFAULT_CONFIG),
	     *rest = copy, *one;
	const char *files[16];
	struct config_source source = { .files = files, .checks = &ctl_config_checks };
	struct config_errors why = { 0 };

	if (GIVEN(d->ctl, config) || !access(DEFAULT_CONFIG, F_OK))
		while (source.n_files < COUNT_OF(files) && (one = strsep(&rest, ",")))
			files[source.n_files++] = one;
	d->has_file = source.n_files > 0;
	if (config_load(&d->cfg, &source, &why)) {
		d->has_file = false;
		for (unsigned i = 0; i < why.n && i < CONFIG_ERRORS_KEPT; i++)
			doctor_find(d, "config",
				    "correct it; coordd --test says when it is valid", "%s",
				    why.list[i].text);
		/* The rest is looked at as if there were no file. */
		source.n_files = 0;
		config_errors_done(&why);
		why = (struct config_errors){ 0 };
		if (config_load(&d->cfg, &source, &why))
			abort();
	} else if (!d->has_file) {
		doctor_ok(d, "config", "there is no %s: the defaults are in force",
			  DEFAULT_CONFIG);
	} else {
		doctor_ok(d, "config", "%s is valid",
			  GIVEN(d->ctl, config) ? TEXT(d->ctl, config) : DEFAULT_CONFIG);
	}
	for (unsigned i = 0; i < source.n_files; i++)
		look_at_mode(d, files[i]);
	config_errors_done(&why);
	config_source_done(&source);
	free(copy);
}

/* Broker ----------------------------------------------------------------------------------------- */

static const char *
fix_of(struct str check)
{
	static const struct {
		const char *check, *fix;
	} fixes[] = {
		{ "loop", "look at the load of the host (top, vmstat 1)" },
		{ "dlq", "coordctl dlq ls QUEUE says why; then dlq redrive or dlq purge" },
		{ "consumers", "start workers for it, or coordctl queue purge" },
		{ "capacity", "start more workers, or coordctl queue set QUEUE queue_size=N" },
		{ "agents", "coordctl agent ls; start them again, or coordctl agent rm" },
		{ "breakers",
		  "coordctl breaker ls; once what it guards works, coordctl breaker reset" },
	};

	for (size_t i = 0; i < COUNT_OF(fixes); i++)
		if (str_eq(check, str_of(fixes[i].check)))
			return fixes[i].fix;
	return NULL; /* told elsewhere, by what is the matter with Redis */
}

static void
look_at_checks(struct doctor *d)
{
	json_t *check;
	size_t i;

	json_array_foreach(json_at(d->status, "checks"), i, check)
	{
		struct str worst = json_str_at(check, "worst");
		const char *fix = fix_of(json_str_at(check, "name"));

		if (fix && !str_eq(json_str_at(check, "status"), STR("ok")))
			doctor_find(d, "broker", fix, "%s: %s%s%.*s%s",
				    json_string_value(json_at(check, "name")),
				    json_string_value(json_at(check, "message")),
				    worst.n ? " (" : "", (int)worst.n, worst.n ? worst.p : "",
				    worst.n ? ")" : "");
	}
}

/* The configuration says where the broker is, unless the command line or the environment do. */
static void
find_broker(struct doctor *d)
{
	const struct config_list *listen = &d->cfg.server.listen;
	const char *server = getenv("COORDCTL_SERVER");

	if (!d->has_file || GIVEN(d->ctl, server) || (server && *server))
		return;
	d->ctl->server = listen->items[0];
	for (unsigned i = 0; i < listen->n; i++)
		if (!strncmp(listen->items[i], "unix://", 7))
			d->ctl->server = listen->items[i];
}

static void
look_at_broker(struct doctor *d)
{
	struct ctl *ctl = d->ctl;
	struct str version;

	ctl->is_silent = true;
	ctl_connect(ctl); /* so that the next call takes no longer than it must */
	d->status = ctl->conn ? ctl_call(ctl, "status", ctl_params(NULL), 0) : NULL;
	d->asked_s = doctor_now_s();
	if (!d->status) {
		doctor_find(
			d, "broker",
			strstr(ctl->why.message, "Permission")
				? "be root, or in the group coordd"
				: "systemctl status coordd, journalctl -u coordd; --server or "
				  "COORDCTL_SERVER name another address",
			"%s: %s", ctl->server, ctl->why.message);
		return;
	}
	version = json_str_at(d->status, "version");
	doctor_ok(d, "broker", "%s answers: coordd %.*s, pid %.0f", ctl->server, (int)version.n,
		  version.n ? version.p : "", json_number_at(d->status, "pid"));
	if (!str_eq(version, STR(COORD_VERSION)))
		doctor_find(d, "versions",
			    "restart coordd, or install the same version of both",
			    "coordctl is %s and the broker %.*s", COORD_VERSION, (int)version.n,
			    version.n ? version.p : "");
	if (json_bool_at(d->status, "draining"))
		doctor_find(d, "broker", "coordctl undrain, when the maintenance is over",
			    "it drains: it hands out nothing");
	look_at_checks(d);
}

/* Where Redis is, if a file says so, or the broker is on the defaults. */
static void
find_redis(struct doctor *d)
{
	struct buf url = { 0 };
	struct errmsg why;

	if (d->cfg.redis.embedded.enabled && *d->cfg.redis.embedded.socket)
		buf_printf(&url, "unix://%s", d->cfg.redis.embedded.socket);
	else if (d->cfg.redis.embedded.enabled)
		buf_printf(&url, "unix://%s/redis.sock", d->cfg.redis.embedded.directory);
	else
		buf_puts(&url, d->cfg.redis.url);
	buf_putc(&url, '\0');
	d->has_redis_url = address_read(&d->redis, url.data, &why);
	buf_done(&url);
}

int
ctl_doctor(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "AREA", "area", NULL, false },
		{ "OK", "ok", NULL, false },
		{ "TEXT", "text", NULL, false },
		{ "FIX", "fix", NULL, false },
	};
	struct doctor d = { .ctl = ctl, .rows = json_array() };

	(void)args;
	(void)n;
	look_at_config(&d);
	find_redis(&d);
	find_broker(&d);
	look_at_broker(&d);
	doctor_look_at_sockets(&d);
	doctor_look_at_redis(&d);
	doctor_look_at_host(&d);
	if (ctl->output == OUT_TABLE)
		print(&d);
	else
		out_rows(ctl, d.rows, columns, COUNT_OF(columns));
	json_decref(d.rows);
	json_decref(d.status);
	address_done(&d.redis);
	config_done(&d.cfg);
	return d.findings ? EXIT_REFUSED : EX_OK;
}
