/*
 * log_sink: standard error, a file, the journal's socket.
 *
 * A pipe whose reader sleeps, or a terminal that was stopped with ^S, would stop the event loop, so
 * writing must not block. O_NONBLOCK belongs to the open file and not to the descriptor: set on
 * standard error, it would be set for the shell and for whoever else shares it. So a pipe or a
 * terminal is opened anew through /proc, sockets are told with each message, and where neither
 * works poll() is asked first (a pipe that is writable has room for PIPE_BUF bytes, and no line
 * is longer).
 */
#include "base/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

enum how { HOW_WRITE, HOW_SEND, HOW_POLL };

static int out_fd = STDERR_FILENO;
static enum how out_how = HOW_POLL;
static bool is_cut; /* the last line was taken in part */
static struct sockaddr_un journal = { .sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET };
static int journal_fd = -1;

static void
use(int fd, enum how how)
{
	if (out_fd != STDERR_FILENO)
		close(out_fd);
	out_fd = fd;
	out_how = how;
	is_cut = false;
}

static void
use_standard_error(void)
{
	struct stat st;
	int fd;

	if (fstat(STDERR_FILENO, &st) < 0) {
		use(STDERR_FILENO, HOW_POLL);
	} else if (S_ISSOCK(st.st_mode)) {
		use(STDERR_FILENO, HOW_SEND);
	} else if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
		fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd < 0)
			use(STDERR_FILENO, HOW_POLL);
		else
			use(fd, HOW_WRITE);
	} else {
		use(STDERR_FILENO, HOW_WRITE);
	}
}

bool
sink_open(const char *path)
{
	int fd;

	if (!*path) {
		use_standard_error();
		return true;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY,
		  0640);
	if (fd < 0)
		return false;
	use(fd, HOW_WRITE);
	return true;
}

bool
sink_is_terminal(void)
{
	return isatty(out_fd);
}

static ssize_t
write_now(const char *p, size_t n)
{
	struct pollfd pollfd = { .fd = out_fd, .events = POLLOUT };

	if (out_how == HOW_SEND)
		return send(out_fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (out_how == HOW_POLL && poll(&pollfd, 1, 0) != 1) {
		errno = EAGAIN;
		return -1;
	}
	return write(out_fd, p, n);
}

bool
sink_write(const char *line, size_t n)
{
	ssize_t done;

	/* End what was begun, so that it is one line that is spoiled and not two. */
	if (is_cut && write_now("\n", 1) != 1)
		return false;
	is_cut = false;
	done = write_now(line, n);
	if (done == (ssize_t)n)
		return true;
	if (done >= 0) {
		is_cut = done > 0;
		errno = ENOSPC; /* of a file; what else takes a part of a line is full too */
	}
	return false;
}

bool
sink_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

void
sink_set_journal(const char *path)
{
	snprintf(journal.sun_path, sizeof(journal.sun_path), "%s", path);
}

bool
sink_send_journal(const char *datagram, size_t n)
{
	if (journal_fd < 0)
		journal_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return journal_fd >= 0 &&
	       sendto(journal_fd, datagram, n, MSG_DONTWAIT | MSG_NOSIGNAL,
		      (const struct sockaddr *)&journal, sizeof(journal)) == (ssize_t)n;
}
