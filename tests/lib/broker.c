#include "lib/broker.h"

#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/coord.h"

enum { ANSWERS_IN_MS = 30000 };

void
broker_init(struct broker *b, const struct redis *r, const char *name)
{
	*b = (struct broker){ 0 };
	snprintf(b->socket, sizeof(b->socket), "%s/%s.sock", r->dir, name);
	snprintf(b->url, sizeof(b->url), "unix://%s", b->socket);
	snprintf(b->log, sizeof(b->log), "%s/%s.log", r->dir, name);
	snprintf(b->redis, sizeof(b->redis), "redis.url=%s", r->url);
}

static void
broker_exec(const struct broker *b, const char *setting)
{
	const char *told = getenv("COORDD"), *program = told ? told : "build/release/coordd";
	int null = open("/dev/null", O_RDWR);
	char listen[160], admin[160], log[160];

	snprintf(listen, sizeof(listen), "server.listen=%s", b->url);
	snprintf(admin, sizeof(admin), "admin.listen=%s.admin", b->url);
	snprintf(log, sizeof(log), "log.file=%s", b->log);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	execl(program, program, "--config", "-", "--set", listen, "--set", admin, "--set", log,
	      "--set", b->redis, "--set", setting ? setting : "log.level=info", (char *)NULL);
	_exit(127);
}

static bool
broker_answers(const struct broker *b)
{
	struct coord_reply *reply;
	struct coord *c = coord_connect(b->url, 1000, NULL);
	bool answers =
		c && !coord_call(c, "list_registered", NULL, ANSWERS_IN_MS, &reply, NULL);

	if (answers)
		coord_reply_free(reply);
	coord_free(c);
	return answers;
}

void
broker_start(struct broker *b, const char *setting)
{
	const struct timespec pause = { .tv_nsec = 5000000 };
	pid_t parent = getpid();

	ck_assert_int_eq(b->pid, 0);
	b->pid = fork();
	ck_assert_int_ge(b->pid, 0);
	if (b->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		broker_exec(b, setting);
	}
	for (int waited = 0; !broker_answers(b); waited += 5) {
		ck_assert_msg(waited < ANSWERS_IN_MS && !waitpid(b->pid, NULL, WNOHANG),
			      "coordd does not answer");
		nanosleep(&pause, NULL);
	}
}

static void
broker_end(struct broker *b, int signal)
{
	if (!b->pid)
		return;
	kill(b->pid, signal);
	ck_assert_int_eq(waitpid(b->pid, NULL, 0), b->pid);
	b->pid = 0;
}

void
broker_kill(struct broker *b)
{
	broker_end(b, SIGKILL);
}

void
broker_stop(struct broker *b)
{
	broker_end(b, SIGTERM);
}

void
broker_pause(struct broker *b)
{
	int status;

	kill(b->pid, SIGSTOP);
	ck_assert_int_eq(waitpid(b->pid, &status, WUNTRACED), b->pid);
	ck_assert(WIFSTOPPED(status));
}

void
broker_resume(struct broker *b)
{
	kill(b->pid, SIGCONT);
}
