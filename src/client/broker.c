/* URLs of brokers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "client/own.h"

enum { URL_SHOWN = 256 };

/* Split HOST[:PORT], [V6][:PORT]; false when it is neither. */
static bool
split_host(struct broker *a, const char *text)
{
	bool is_v6 = text[0] == '[';
	const char *from = text + is_v6, *to = strpbrk(from, is_v6 ? "]/" : ":/"),
		   *port = COORD_PORT;
	size_t n = to ? (size_t)(to - from) : strlen(from);
	int number;

	if (!n || n >= sizeof(a->host) || (is_v6 && (!to || *to != ']')))
		return false;
	memcpy(a->host, from, n);
	a->host[n] = '\0';
	from += n + is_v6;
	if (*from) {
		port = from + 1;
		if (*from != ':' || !*port || strspn(port, "0123456789") != strlen(port) ||
		    strlen(port) >= sizeof(a->port))
			return false;
	}
	number = atoi(port);
	if (number < 1 || number > 65535)
		return false;
	snprintf(a->port, sizeof(a->port), "%s", port);
	return true;
}

enum coord_status
broker_read(struct broker *a, const char *url, struct coord_error *err)
{
	struct sockaddr_un un;

	*a = (struct broker){ .is_unix = !strncmp(url, "unix://", 7) };
	if (a->is_unix && (url[7] != '/' || strlen(url + 7) >= sizeof(un.sun_path)))
		return client_fail(
			err, COORD_USAGE, "",
			"the path of a unix:// URL is absolute and shorter than %zu bytes",
			sizeof(un.sun_path));
	if (a->is_unix) {
		snprintf(a->host, sizeof(a->host), "%s", url + 7);
		return COORD_OK;
	}
	if (strncmp(url, "tcp://", 6) != 0)
		return client_fail(err, COORD_USAGE, "",
				   "a URL begins with tcp:// or unix://, not %.*s", URL_SHOWN,
				   url);
	if (!split_host(a, url + 6))
		return client_fail(err, COORD_USAGE, "",
				   "%.*s is not of the form tcp://HOST[:PORT]", URL_SHOWN, url);
	return COORD_OK;
}

enum coord_status
brokers_read(const char *urls, unsigned max, struct broker **list, unsigned *n,
	     struct coord_error *err)
{
	static const char blanks[] = ", \t\n";
	enum coord_status status = COORD_OK;

	*n = 0;
	*list = calloc(max, sizeof(**list));
	if (!*list)
		return client_fail(err, COORD_MEMORY, "", "no memory");
	for (const char *at = urls + strspn(urls, blanks); *at && !status;
	     at += strspn(at, blanks)) {
		size_t len = strcspn(at, blanks);
		char *url = strndup(at, len);

		at += len;
		if (!url) {
			status = client_fail(err, COORD_MEMORY, "", "no memory");
		} else if (*n == max) {
			status = client_fail(err, COORD_USAGE, "", "more than %u URLs", max);
		} else {
			status = broker_read(&(*list)[*n], url, err);
			(*list)[(*n)++].url = url;
			url = NULL;
		}
		free(url);
	}
	if (!status && !*n)
		status = client_fail(err, COORD_USAGE, "", "there is no URL");
	if (status) {
		brokers_free(*list, *n);
		*list = NULL;
		*n = 0;
	}
	return status;
}

void
brokers_free(struct broker *list, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free(list[i].url);
	free(list);
}
