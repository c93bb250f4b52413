#include "lib/redis.h"

#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"

enum { ANSWERS_IN_MS = 20000 };

static void
pause_ms(long ms)
{
	const struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&pause, NULL);
}

static int
free_port(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	close(fd);
	return ntohs(a.sin_port);
}

void
redis_init(struct redis *r)
{
	*r = (struct redis){ .port = free_port() };
	snprintf(r->dir, sizeof(r->dir), "/tmp/coordd-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(r->dir));
	snprintf(r->socket, sizeof(r->socket), "%s/redis.sock", r->dir);
	snprintf(r->url, sizeof(r->url), "unix://%s", r->socket);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void
redis_done(struct redis *r)
{
	if (r->pid)
		redis_kill(r);
	ck_assert_int_eq(nftw(r->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

void
redis_launch(struct redis *r, const char *conf)
{
	pid_t parent = getpid();
	int fds[2], null;

	ck_assert_int_eq(r->pid, 0);
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	r->pid = fork();
	ck_assert_int_ge(r->pid, 0);
	if (r->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		null = open("/dev/null", O_WRONLY);
		dup2(fds[0], STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execlp("redis-server", "redis-server", "-", (char *)NULL);
		_exit(127);
	}
	close(fds[0]);
	dprintf(fds[1],
		"dir %s\nunixsocket %s\nport %d\nbind 127.0.0.1\nsave "
		"\"\"\nenable-debug-command yes\n%s\n",
		r->dir, r->socket, r->port, conf);
	close(fds[1]);
}

void
redis_start(struct redis *r, const char *conf)
{
	redis_launch(r, conf);
	for (int waited = 0; *redis_do(r, "PING") == 0; waited += 5) {
		ck_assert_msg(waited < ANSWERS_IN_MS, "redis-server does not answer");
		pause_ms(5);
	}
}

void
redis_kill(struct redis *r)
{
	kill(r->pid, SIGKILL);
	ck_assert_int_eq(waitpid(r->pid, NULL, 0), r->pid);
	r->pid = 0;
}

void
redis_pause(struct redis *r)
{
	int status;

	kill(r->pid, SIGSTOP);
	ck_assert_int_eq(waitpid(r->pid, &status, WUNTRACED), r->pid);
	ck_assert(WIFSTOPPED(status));
}

void
redis_resume(struct redis *r)
{
	kill(r->pid, SIGCONT);
}

static void
put_reply(struct buf *b, const redisReply *reply)
{
	switch (reply->type) {
	case REDIS_REPLY_ARRAY:
		for (size_t i = 0; i < reply->elements; i++) {
			if (i)
				buf_putc(b, ' ');
			put_reply(b, reply->element[i]);
		}
		break;
	case REDIS_REPLY_INTEGER:
		buf_printf(b, "%lld", reply->integer);
		break;
	case REDIS_REPLY_NIL:
		buf_puts(b, "(nil)");
		break;
	default:
		if (reply->type == REDIS_REPLY_ERROR)
			buf_putc(b, '-');
		buf_put(b, reply->str, (size_t)reply->len);
	}
}

const char *
redis_do(struct redis *r, const char *fmt, ...)
{
	static struct buf text;
	const struct timeval limit = { .tv_sec = 20 };
	redisContext *c = redisConnectUnixWithTimeout(r->socket, limit);
	redisReply *reply = NULL;
	va_list ap;

	buf_clear(&text);
	if (c && !c->err) {
		redisSetTimeout(c, limit);
		va_start(ap, fmt);
		reply = redisvCommand(c, fmt, ap);
		va_end(ap);
	}
	if (reply)
		put_reply(&text, reply);
	freeReplyObject(reply);
	if (c)
		redisFree(c);
	buf_putc(&text, 0);
	return text.data;
}
