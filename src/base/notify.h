#ifndef COORDD_BASE_NOTIFY_H
#define COORDD_BASE_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/*
 * How a service manager is told: each message is one datagram of KEY=value lines to the socket
 * that NOTIFY_SOCKET names (sd_notify(3); libsystemd would bring compressors and ciphers along).
 */
struct notify {
	int fd; /* -1: nobody wants to know */
	struct sockaddr_un to;
	socklen_t to_len;
	uint64_t watchdog_us; /* WATCHDOG=1 is awaited so often; 0 it is not */
};

/* Take NOTIFY_SOCKET (a path, or @ and an abstract name), WATCHDOG_USEC and WATCHDOG_PID out of
 * the environment, so that no child of ours speaks in our name. */
void notify_open(struct notify *n);
void notify_close(struct notify *n);
/* Send `text`, or nothing where nobody wants to know; never waits. False when it has to be said
 * again: the receiver is busy, or away. */
bool notify_send(const struct notify *n, const char *text);

#endif
