/* doctor: sockets and who may use them, and what the host gives to coordd and to Redis. */
#include <arpa/inet.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/unit.h"
#include "ctl/doctor.h"

enum { SPARE_FDS = 64 }; /* beside one for each connection, as src/server.c has it */

/* The first line of a file, or of what a command prints; "" where there is none. */
static void
first_line(FILE *f, char *out, size_t size)
{
	*out = '\0';
	if (f && fgets(out, (int)size, f))
		out[strcspn(out, "\n")] = '\0';
	else
		*out = '\0';
}

static void
read_file(const char *path, char *out, size_t size)
{
	FILE *f = fopen(path, "re");

	first_line(f, out, size);
	if (f)
		fclose(f);
}

static void
read_command(const char *command, char *out, size_t size)
{
	FILE *f = popen(command, "re"); /* NOLINT(cert-env33-c): the commands are our own */

	first_line(f, out, size);
	if (f)
		pclose(f);
}

/* Sockets ---------------------------------------------------------------------------------------- */

static bool
is_listened_at(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool is = false;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	if (fd >= 0) {
		is = !connect(fd, (struct sockaddr *)&un, sizeof(un)) || errno != ECONNREFUSED;
		close(fd);
	}
	return is;
}

static void
look_at_unix_socket(struct doctor *d, const char *path)
{
	char *copy = xstrdup(path), *folder = dirname(copy);
	unsigned mode;
	struct stat st;

	if (stat(path, &st)) {
		doctor_find(d, "sockets",
			    "start coordd; is its folder there, and may coordd write to it?",
			    "%s: %s", path, strerror(errno));
	} else if (!S_ISSOCK(st.st_mode)) {
		doctor_find(d, "sockets", "move it away, or change server.listen",
			    "%s is there and no socket", path);
	} else {
		mode = (unsigned)st.st_mode & 0777;
		if (!is_listened_at(path))
			doctor_find(d, "sockets", "start coordd, which replaces it",
				    "%s is there, and nobody listens", path);
		else if (mode & S_IWOTH)
			doctor_find(
				d, "sockets",
				"server.unix_mode: \"0660\", and operators in the group coordd",
				"%s has the mode %04o: every user of this host is an operator",
				path, mode);
		else
			doctor_ok(d, "sockets", "%s, mode %04o", path, mode);
	}
	if (!stat(folder, &st) && st.st_mode & S_IWOTH && !(st.st_mode & S_ISVTX))
		doctor_find(d, "sockets", "chmod o-w the folder",
			    "everybody can replace %s, as %s has the mode %04o", path, folder,
			    (unsigned)st.st_mode & 07777);
	free(copy);
}

void
doctor_look_at_sockets(struct doctor *d)
{
	const char *server = d->ctl->server;
	bool has_one = false;

	for (unsigned i = 0; d->has_file && i < d->cfg.server.listen.n; i++) {
		const char *url = d->cfg.server.listen.items[i];

		if (!strncmp(url, "unix://", 7))
			look_at_unix_socket(d, url + 7);
		has_one = has_one || !strcmp(url, server);
	}
	if (!has_one && !strncmp(server, "unix://", 7) && d->status)
		look_at_unix_socket(d, server + 7);
}

/* Descriptors ------------------------------------------------------------------------------------ */

/* The broker's own limit: it has raised it as far as it may. */
static void
look_at_descriptors(struct doctor *d)
{
	char path[64], line[256] = "", *end;
	unsigned pid = (unsigned)json_number_at(d->status, "pid"),
		 wanted = d->cfg.server.max_connections + SPARE_FDS;
	unsigned long limit;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	read_file(path, line, sizeof(line));
	if (!pid || strcmp(line, "coordd"))
		return; /* it is on another host, or hidden from us */
	snprintf(path, sizeof(path), "/proc/%u/limits", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f) && strncmp(line, "Max open files", 14))
		;
	if (f)
		fclose(f);
	limit = strtoul(line + 14, &end, 10);
	if (strncmp(line, "Max open files", 14) || end == line + 14)
		return; /* unlimited, or not to be seen */
	if (limit < wanted)
		doctor_find(
			d, "descriptors",
			"LimitNOFILE= in the unit (systemctl edit coordd), or a smaller "
			"server.max_connections",
			"coordd may open %lu files, and server.max_connections (%u) needs %u",
			limit, d->cfg.server.max_connections, wanted);
	else
		doctor_ok(d, "descriptors", "%lu, enough for %u connections", limit,
			  d->cfg.server.max_connections);
}

/* Memory ----------------------------------------------------------------------------------------- */

static void
look_at_overcommit(struct doctor *d)
{
	char value[16];

	if (!d->has_redis_url || !address_is_local(&d->redis))
		return; /* it is another host's matter */
	read_file("/proc/sys/vm/overcommit_memory", value, sizeof(value));
	if (!strcmp(value, "1"))
		doctor_ok(d, "memory", "vm.overcommit_memory is 1");
	else if (*value)
		doctor_find(
			d, "memory",
			"sysctl vm.overcommit_memory=1, and vm.overcommit_memory = 1 in "
			"/etc/sysctl.d/redis.conf",
			"vm.overcommit_memory is %s: Redis can fail to fork, and then cannot "
			"rewrite its file",
			value);
}

/* The unit --------------------------------------------------------------------------------------- */

/* Whether `host` is in `range`, "127.0.0.0/8". */
static bool
is_in_range(const char *host, char *range)
{
	char *slash = strchr(range, '/');
	unsigned char a[16], b[16];
	int family = strchr(host, ':') ? AF_INET6 : AF_INET;
	long bits = slash ? strtol(slash + 1, NULL, 10) : family == AF_INET ? 32 : 128;

	if (slash)
		*slash = '\0';
	if (inet_pton(family, host, a) != 1 || inet_pton(family, range, b) != 1 || bits < 0 ||
	    bits > (family == AF_INET ? 32 : 128))
		return false;
	if (memcmp(a, b, (size_t)bits / 8))
		return false;
	return bits % 8 == 0 || !((a[bits / 8] ^ b[bits / 8]) >> (8 - bits % 8));
}

/* The unit lets coordd talk to this host only, unless it was told otherwise. */
static void
look_at_unit(struct doctor *d)
{
	char deny[1024], allow[4096], *rest = allow, *one;
	bool is_allowed = false;

	if (!d->has_redis_url || address_is_local(&d->redis))
		return;
	read_command("systemctl show -p IPAddressDeny --value coordd.service 2>/dev/null", deny,
		     sizeof(deny));
	if (!*deny)
		return;
	read_command("systemctl show -p IPAddressAllow --value coordd.service 2>/dev/null",
		     allow, sizeof(allow));
	while ((one = strsep(&rest, " ")))
		is_allowed = is_allowed || is_in_range(d->redis.host, one);
	if (is_allowed)
		doctor_ok(d, "unit", "it lets coordd talk to Redis at %s", d->redis.host);
	else
		doctor_find(d, "unit", UNIT_REDIS_FIX, "Redis is at %s, and %s", d->redis.host,
			    UNIT_REDIS_WHY);
}

/* Libraries -------------------------------------------------------------------------------------- */

/* Debian's update of libevent closes holes that the version before it has. */
static void
look_at_libevent(struct doctor *d)
{
	char version[64];

	read_command("dpkg-query -W -f '${Version}\\n' libevent-core-2.1-7 2>/dev/null",
		     version, sizeof(version));
	if (!strncmp(version, "2.1.12-stable-8", 15) && !strchr(version, '+'))
		doctor_find(d, "versions", "apt-get install libevent-core-2.1-7",
			    "libevent %s lacks the security fixes of 2.1.12-stable-8+deb12u1",
			    version);
	else if (*version)
		doctor_ok(d, "versions", "libevent %s", version);
}

void
doctor_look_at_host(struct doctor *d)
{
	look_at_descriptors(d);
	look_at_overcommit(d);
	look_at_unit(d);
	look_at_libevent(d);
}
