/*
 * What goes wrong, and what becomes of the work: a worker that is killed, a call that fails, a job that cannot be done, a
 * service that is down.
 *
 *	cc fault_tolerance.c $(pkg-config --cflags --libs coord) -o fault_tolerance
 *	./fault_tolerance              the whole story
 *	./fault_tolerance work NAME    one of its workers
 */
#include <coord.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TTL 1.5 /* seconds without a heartbeat after which a worker is dead; 30 by default */

static struct coord_client *client;

static void
fail(const char *what, const struct coord_error *err)
{
	fprintf(stderr, "%s: %s\n", what, err->message);
	exit(1);
}

static bool
is_text(const msgpack_object *value, const char *text)
{
	return value && value->type == MSGPACK_OBJECT_STR &&
	       value->via.str.size == strlen(text) &&
	       !memcmp(value->via.str.ptr, text, strlen(text));
}

/* --- a worker: one job of the queue `jobs` at a time ------------------------------ */

static void
work(void *arg, struct coord_job *job)
{
	const msgpack_object *what = coord_get(coord_job_payload(job), "what");
	const char *name = arg;
	int n = (int)what->via.str.size;

	printf("%s begins %.*s%s\n", name, n, what->via.str.ptr,
	       coord_job_attempts(job) ? " again" : "");
	if (is_text(what, "sleep") && !coord_job_attempts(job))
		return; /* however long it takes: the job is this worker's while it lives */
	if (is_text(what, "flaky") && coord_job_attempts(job) < 2) {
		coord_job_nack(job, "transient", "the network is down", 0.1, NULL, NULL);
		return;
	}
	if (is_text(what, "nonsense")) { /* again would be the same */
		coord_job_nack(job, "permanent", "no such work", -1, NULL, NULL);
		return;
	}
	printf("%s has done %.*s\n", name, n, what->via.str.ptr);
	coord_job_ack(job, NULL, NULL);
}

static void
on_signal(int signal_number)
{
	(void)signal_number;
	coord_client_break(client);
}

static void
on_stopped(void *arg, const struct coord_error *why)
{
	(void)arg;
	(void)why;
	coord_client_break(client);
}

static void
be_worker(char *name)
{
	struct coord_params *registration = coord_params_new();
	struct coord_agent *worker;
	struct coord_error err;

	signal(SIGTERM, on_signal);
	coord_param_double(registration, "ttl", TTL);
	worker = coord_agent_new(client, "worker", name, registration, &err);
	coord_params_free(registration);
	if (!worker || !coord_agent_consume(worker, "jobs", NULL, 1, NULL, work, name, &err))
		fail(name, &err);
	coord_client_run(client, -1);

	coord_agent_stop(worker, 5000, on_stopped, NULL); /* what it holds, it finishes */
	coord_client_run(client, -1);
	coord_agent_free(worker);
}

/* --- who gives them work, and kills them ------------------------------------------ */

struct child {
	pid_t pid;
	FILE *output;
};

static struct child
start(const char *name)
{
	struct child child;
	int ends[2];

	if (pipe(ends) || (child.pid = fork()) < 0) {
		perror("fault_tolerance");
		exit(1);
	}
	if (!child.pid) {
		dup2(ends[1], STDOUT_FILENO);
		close(ends[0]);
		close(ends[1]);
		execl("/proc/self/exe", "fault_tolerance", "work", name, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	child.output = fdopen(ends[0], "r");
	return child;
}

/* Show what a worker prints, until it is that line. */
static void
says(struct child *child, const char *line)
{
	char text[200];

	do {
		if (!fgets(text, sizeof(text), child->output)) {
			fprintf(stderr, "it never said '%s'\n", line);
			exit(1);
		}
		fputs(text, stdout);
		text[strcspn(text, "\n")] = '\0';
	} while (strcmp(text, line) != 0);
}

static void
end(struct child *child, int signal_number)
{
	kill(child->pid, signal_number);
	waitpid(child->pid, NULL, 0);
	fclose(child->output);
}

/* Ask and wait. The answer is to be freed; an error ends the program. */
static struct coord_reply *
ask(const char *method, struct coord_params *params)
{
	struct coord_reply *reply;
	struct coord_error err;

	if (coord_client_ask(client, method, params, -1, &reply, &err))
		fail(method, &err);
	coord_params_free(params);
	return reply;
}

static void
send_job(const char *what)
{
	static int n;
	char id[64];
	struct coord_params *params = coord_params_new();
	msgpack_packer *pk;

	snprintf(id, sizeof(id), "fault-%ld-%d", (long)getpid(), n++);
	coord_param_agent(params, "sender", "boss", NULL);
	coord_param_agent(params, "recipient", "jobs", NULL);
	pk = coord_param(params, "message");
	msgpack_pack_map(pk, 3);
	coord_pack_str(pk, "message_id");
	coord_pack_str(pk, id);
	coord_pack_str(pk, "message_type");
	coord_pack_str(pk, "request");
	coord_pack_str(pk, "payload");
	msgpack_pack_map(pk, 1);
	coord_pack_str(pk, "what");
	coord_pack_str(pk, what);
	coord_reply_free(ask("send", params));
}

static void
print_text(const char *before, const msgpack_object *text)
{
	printf("%s%.*s", before, (int)text->via.str.size, text->via.str.ptr);
}

/* Print the dead letters of `jobs`, and drop them. */
static void
show_dead_letters(void)
{
	struct coord_params *params = coord_params_new();
	struct coord_reply *reply;
	const msgpack_object *dead;

	coord_param_agent(params, "agent", "jobs", NULL);
	reply = ask("dlq_list", params);
	dead = coord_get(coord_reply_result(reply), "dead");
	for (uint32_t i = 0; i < dead->via.array.size; i++) {
		const msgpack_object *letter = &dead->via.array.ptr[i];
		const msgpack_object *failed = coord_get(letter, "queue_message");

		print_text(
			"dead: ",
			coord_get(coord_get(coord_get(failed, "message"), "payload"), "what"));
		print_text(" (", coord_get(letter, "reason"));
		print_text(": ", coord_get(failed, "last_error"));
		puts(")");
	}
	coord_reply_free(reply);

	params = coord_params_new();
	coord_param_agent(params, "agent", "jobs", NULL);
	coord_reply_free(ask("dlq_purge", params));
}

/* A call that a breaker guards. */
static void
call_model(void)
{
	struct coord_params *params = coord_params_new();
	struct coord_reply *reply;
	msgpack_packer *pk;
	const msgpack_object *permit;

	coord_param_str(params, "name", "model");
	pk = coord_param(params, "config"); /* looked at by the call that makes it */
	msgpack_pack_map(pk, 1);
	coord_pack_str(pk, "failure_threshold");
	msgpack_pack_int(pk, 2);
	reply = ask("breaker_acquire", params);
	permit = coord_get(coord_reply_result(reply), "permit");
	if (permit) {
		puts("the model does not answer"); /* here it would be called */
		params = coord_params_new();
		coord_param_str(params, "name", "model");
		msgpack_pack_object(coord_param(params, "permit"), *permit);
		coord_param_str(params, "outcome", "failure");
		coord_reply_free(ask("breaker_report", params));
	} else {
		puts("not even asked");
	}
	coord_reply_free(reply);
}

static void
tell_story(void)
{
	struct child first, second;
	struct coord_params *params;

	puts("# A worker is killed in the middle of its work; another one gets the job.");
	first = start("anna");
	send_job("sleep");
	says(&first, "anna begins sleep");
	end(&first, SIGKILL);
	second = start("bert");
	says(&second, "bert has done sleep");

	puts("# A job that fails is tried again.");
	send_job("flaky");
	says(&second, "bert has done flaky");

	puts("# One that can never be done goes to the dead letters, and is not lost.");
	send_job("nonsense");
	says(&second, "bert begins nonsense");
	end(&second, SIGTERM);
	show_dead_letters();

	puts("# While a service is down a breaker spares it the calls, of all programs that "
	     "share it.");
	for (int i = 0; i < 4; i++)
		call_model();
	params = coord_params_new();
	coord_param_str(params, "name", "model");
	coord_reply_free(ask("breaker_reset", params));
}

int
main(int argc, char **argv)
{
	const char *url = getenv("COORDCTL_SERVER");
	struct coord_error err;

	setlinebuf(stdout);
	client = coord_client_new(NULL, url ? url : "tcp://127.0.0.1:7420", &err);
	if (!client)
		fail("coordd", &err);
	coord_client_set(client, COORD_NAMESPACE, "faults");
	coord_client_set_int(client, COORD_IDLE_TIMEOUT,
			     700); /* a broker that hangs is noticed within half of the ttl */

	if (argc == 3 && !strcmp(argv[1], "work"))
		be_worker(argv[2]);
	else
		tell_story();
	coord_client_free(client);
	return 0;
}
