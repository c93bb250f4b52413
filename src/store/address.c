#include "store/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/mem.h"

static bool
read_number(const char *text, int min, int max, int *out)
{
	char *end;
	long v = strtol(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || v < min || v > max)
		return false;
	*out = (int)v;
	return true;
}

static bool
read_unix(struct address *a, const char *path)
{
	size_t n = strcspn(path, "?");

	a->is_unix = a->is_numeric = true;
	if (path[0] != '/' || n >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return false;
	a->host = xmemdup(path, n);
	path += n;
	return !*path || (!strncmp(path, "?db=", 4) && read_number(path + 4, 0, 65535, &a->db));
}

static int
hex(char c)
{
	return c >= '0' && c <= '9'                 ? c - '0'
	       : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
						    : -1;
}

/* A part of a URL: %XX is a byte. A percent sign that begins no such thing is one. */
static char *
decoded(const char *text, size_t n)
{
	char *out = xcalloc(1, n + 1);
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		if (text[i] == '%' && n - i > 2 && hex(text[i + 1]) >= 0 &&
		    hex(text[i + 2]) >= 0) {
			out[len++] = (char)(hex(text[i + 1]) << 4 | hex(text[i + 2]));
			i += 2;
		} else {
			out[len++] = text[i];
		}
	}
	return out;
}

static bool
is_number(const char *host)
{
	unsigned char number[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, number) == 1 || inet_pton(AF_INET6, host, number) == 1;
}

static bool
read_tcp(struct address *a, const char *text)
{
	const char *at = strrchr(text, '@'), *end;
	char port[8];
	size_t n;

	if (at) {
		const char *colon = memchr(text, ':', (size_t)(at - text));

		if (!colon)
			return false;
		free(a->user);
		free(a->password);
		a->user = decoded(text, (size_t)(colon - text));
		a->password = decoded(colon + 1, (size_t)(at - colon - 1));
		text = at + 1;
	}
	if (*text == '[') {
		end = strchr(++text, ']');
		if (!end)
			return false;
	} else {
		end = text + strcspn(text, ":/");
	}
	if (end == text)
		return false;
	a->host = xmemdup(text, (size_t)(end - text));
	a->is_numeric = is_number(a->host);
	text = *end == ']' ? end + 1 : end;
	a->port = 6379;
	if (*text == ':') {
		n = strcspn(++text, "/");
		if (n >= sizeof(port))
			return false;
		snprintf(port, sizeof(port), "%.*s", (int)n, text);
		if (!read_number(port, 1, 65535, &a->port))
			return false;
		text += n;
	}
	if (*text == '/' && *++text)
		return read_number(text, 0, 65535, &a->db);
	return !*text;
}

bool
address_read(struct address *a, const char *url, struct errmsg *why)
{
	struct address read = { .user = xstrdup(""), .password = xstrdup("") };

	if (!strncmp(url, "unix://", 7)
		    ? read_unix(&read, url + 7)
		    : !strncmp(url, "redis://", 8) && read_tcp(&read, url + 8)) {
		*a = read;
		return true;
	}
	address_done(&read);
	errmsg_set(why, ERR_BAD_REQUEST,
		   "is neither redis://[user:password@]host[:port][/db] nor "
		   "unix:///path[?db=n]");
	return false;
}

static void
forget(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

void
address_done(struct address *a)
{
	free(a->host);
	free(a->user);
	forget(a->password);
	*a = (struct address){ 0 };
}

bool
address_is_local(const struct address *a)
{
	return a->is_unix || !strncmp(a->host, "127.", 4) || !strcmp(a->host, "::1") ||
	       !strcmp(a->host, "localhost");
}

bool
address_log_in(struct address *a, const char *url, const char *user, const char *password)
{
	struct address other;
	bool is_new;

	if (!address_read(&other, url, NULL))
		abort(); /* the caller was to check it */
	user = *user ? user : other.user;
	password = *password ? password : other.password;
	is_new = strcmp(a->user, user) != 0 || strcmp(a->password, password) != 0;
	if (is_new) {
		free(a->user);
		forget(a->password);
		a->user = xstrdup(user);
		a->password = xstrdup(password);
	}
	address_done(&other);
	return is_new;
}
