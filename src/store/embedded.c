/*
 * embedded: a private redis-server.
 *
 *	embedded_new()		directory, lock, start	<-.
 *	on_child()		it ended: again, later  --'
 *	embedded_free()		SIGTERM, and wait: its last write is synced then
 *
 * It dies with us, however we die, and does not get a terminal's ctrl-C, so that it still serves while we drain. A lock of
 * ours keeps a second coordd away from the same data. Another one, which the child inherits, keeps the next child away until
 * it is gone: it may still be writing when a coordd that was killed is already back.
 */
#include "store/embedded.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/backoff.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"

enum { STOP_MS = 10000, STEADY_US = 10000000, LOCKED_US = 20000 };

struct embedded {
	struct loop *loop;
	char *binary, *directory, *url;
	char *log, *redis_lock; /* files in the directory */
	struct buf conf;        /* its configuration, given on stdin */
	int lock_fd;
	pid_t pid; /* 0 while none runs */
	uint64_t started_us;
	struct event *on_sigchld;
	struct timer restart;
	struct backoff backoff;
};

/* A value of Redis's configuration file, in quotes. */
static void
put_quoted(struct buf *b, const char *key, const char *value)
{
	buf_printf(b, "%s \"", key);
	for (const char *p = value; *p; p++) {
		if ((unsigned char)*p < 0x20)
			buf_printf(b, "\\x%02x", *p);
		else if (*p == '"' || *p == '\\')
			buf_printf(b, "\\%c", *p);
		else
			buf_putc(b, *p);
	}
	buf_puts(b, "\"\n");
}

static void
make_conf(struct embedded *e, const struct embedded_config *cfg, const char *socket)
{
	struct buf *b = &e->conf;

	put_quoted(b, "unixsocket", socket);
	put_quoted(b, "dir", e->directory);
	put_quoted(b, "logfile", e->log);
	put_quoted(b, "appendfsync", cfg->appendfsync);
	buf_puts(b, "port 0\nunixsocketperm 700\ndaemonize no\nsave \"\"\nappendonly yes\n"
		    "maxmemory-policy noeviction\nloglevel warning\n");
	buf_printf(b, "maxmemory %llu\n", (unsigned long long)cfg->maxmemory);
}

/* In the child; never returns. Of what is open it gets its configuration, standard error and the lock. */
static void
become_redis(const struct embedded *e, int conf_fd, int lock_fd, pid_t parent)
{
	char from_stdin[] = "-";
	char *argv[] = { e->binary, from_stdin, NULL };
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1); /* it died before we asked to be told */
	setpgid(0, 0);
	dup2(conf_fd, STDIN_FILENO);
	dup2(null, STDOUT_FILENO); /* a fatal error is on standard error, the rest in its log */
	if (lock_fd == 3)
		fcntl(lock_fd, F_SETFD, 0);
	else
		dup2(lock_fd, 3);
	close_range(4, ~0U, 0);
	execv(e->binary, argv);
	_exit(127);
}

/* False and errno when it did not start; EWOULDBLOCK while an earlier one still runs. */
static bool
start(struct embedded *e)
{
	pid_t parent = getpid();
	int lock_fd = open(e->redis_lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int fds[2] = { -1, -1 }, error;

	/* The whole text fits the pipe: nothing blocks. */
	if (lock_fd >= 0 && flock(lock_fd, LOCK_EX | LOCK_NB) == 0 &&
	    pipe2(fds, O_CLOEXEC) == 0 &&
	    write(fds[1], e->conf.data, e->conf.len) == (ssize_t)e->conf.len)
		e->pid = fork();
	else
		e->pid = -1;
	error = errno;
	if (e->pid == 0)
		become_redis(e, fds[0], lock_fd, parent);
	for (unsigned i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (lock_fd >= 0)
		close(lock_fd); /* the child keeps the lock */
	e->started_us = loop_now_us(e->loop);
	if (e->pid < 0) {
		e->pid = 0;
		errno = error;
		return false;
	}
	log_event(LOG_REDIS_EMBEDDED_STARTED, log_int("pid", e->pid));
	return true;
}

static void
on_restart(void *arg)
{
	struct embedded *e = arg;

	if (!start(e))
		timer_set(&e->restart,
			  errno == EWOULDBLOCK ? LOCKED_US : backoff_next(&e->backoff));
}

static void
on_child(evutil_socket_t sig, short what, void *arg)
{
	struct embedded *e = arg;
	uint64_t pause;
	int status;

	(void)sig;
	(void)what;
	if (!e->pid || waitpid(e->pid, &status, WNOHANG) != e->pid)
		return;
	e->pid = 0;
	if (loop_now_us(e->loop) - e->started_us > STEADY_US)
		backoff_reset(&e->backoff);
	pause = backoff_next(&e->backoff);
	log_event(LOG_REDIS_EMBEDDED_ENDED,
		  log_int(WIFSIGNALED(status) ? "signal" : "status",
			  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)),
		  log_ms("restart_in_ms", pause / 1000 * 1000));
	timer_set(&e->restart, pause);
}

static char *
path_in(const struct embedded *e, const char *file)
{
	size_t n = strlen(e->directory) + strlen(file) + 2;
	char *path = xcalloc(1, n);

	snprintf(path, n, "%s/%s", e->directory, file);
	return path;
}

static bool
take_directory(struct embedded *e, struct errmsg *why)
{
	char *absolute, *lock;

	if (mkdir(e->directory, 0700) < 0 && errno != EEXIST) {
		errmsg_set(why, ERR_FORBIDDEN, "redis.embedded.directory: cannot make %s: %s",
			   e->directory, strerror(errno));
		return false;
	}
	absolute = realpath(e->directory, NULL);
	if (absolute) {
		free(e->directory);
		e->directory = absolute;
	}
	e->log = path_in(e, "redis.log");
	e->redis_lock = path_in(e, "redis.lock");
	lock = path_in(e, "coordd.lock");
	e->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (e->lock_fd < 0 || flock(e->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		bool is_taken = errno == EWOULDBLOCK;

		errmsg_set(why, is_taken ? ERR_UNSENT : ERR_FORBIDDEN,
			   "redis.embedded.directory: %s: %s", lock,
			   is_taken ? "another coordd uses this directory" : strerror(errno));
		free(lock);
		return false;
	}
	free(lock);
	return true;
}

struct embedded *
embedded_new(struct loop *loop, const struct embedded_config *cfg, struct errmsg *why)
{
	struct embedded *e = xcalloc(1, sizeof(*e));
	struct buf socket = { 0 };

	e->loop = loop;
	e->lock_fd = -1;
	e->binary = xstrdup(cfg->binary);
	e->directory = xstrdup(cfg->directory);
	e->backoff = (struct backoff){ .min_us = 100000, .max_us = 5000000 };
	timer_init(&e->restart, loop, on_restart, e);
	if (access(cfg->binary, X_OK) < 0) {
		errmsg_set(why, ERR_BAD_REQUEST, "redis.embedded.binary: %s: %s", cfg->binary,
			   strerror(errno));
		goto fail;
	}
	if (!take_directory(e, why))
		goto fail;
	if (*cfg->socket)
		buf_printf(&socket, "%s", cfg->socket);
	else
		buf_printf(&socket, "%s/redis.sock", e->directory);
	buf_putc(&socket, 0);
	if (socket.len > sizeof(((struct sockaddr_un *)0)->sun_path)) {
		errmsg_set(why, ERR_BAD_REQUEST,
			   "redis.embedded.socket: %s is longer than the 107 bytes a Unix "
			   "socket may have",
			   socket.data);
		goto fail;
	}
	e->url = xcalloc(1, socket.len + 8);
	snprintf(e->url, socket.len + 8, "unix://%s", socket.data);
	make_conf(e, cfg, socket.data);
	/* An old one may still be ending behind this name: nobody is to reach it any more. */
	unlink(socket.data);
	e->on_sigchld =
		event_new(loop_base(loop), SIGCHLD, EV_SIGNAL | EV_PERSIST, on_child, e);
	event_add(e->on_sigchld, NULL);
	if (!start(e)) {
		if (errno != EWOULDBLOCK) {
			errmsg_set(why, ERR_INTERNAL, "cannot start %s: %s", cfg->binary,
				   strerror(errno));
			goto fail;
		}
		timer_set(&e->restart, LOCKED_US);
	}
	buf_done(&socket);
	return e;
fail:
	buf_done(&socket);
	embedded_free(e);
	return NULL;
}

const char *
embedded_url(const struct embedded *e)
{
	return e->url;
}

/* Wait until it is gone; false after `ms`. */
static bool
wait_gone(struct embedded *e, unsigned ms)
{
	static const struct timespec pause = { .tv_nsec = 5000000 };

	for (unsigned waited = 0; waited <= ms; waited += 5) {
		if (waitpid(e->pid, NULL, WNOHANG) != 0)
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

void
embedded_free(struct embedded *e)
{
	if (!e)
		return;
	if (e->on_sigchld)
		event_free(e->on_sigchld);
	timer_done(&e->restart);
	if (e->pid) {
		kill(e->pid, SIGTERM);
		if (!wait_gone(e, STOP_MS)) {
			kill(e->pid, SIGKILL);
			wait_gone(e, STOP_MS);
		}
	}
	if (e->lock_fd >= 0)
		close(e->lock_fd);
	buf_done(&e->conf);
	free(e->binary);
	free(e->directory);
	free(e->log);
	free(e->redis_lock);
	free(e->url);
	free(e);
}
