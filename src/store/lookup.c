/*
 * lookup: host names to addresses, outside of the loop.
 *
 *	lookup_ask()	a job and its thread, unless there is one
 *	run()		in the thread: the resolver is asked
 *	on_done()	in the loop again: whoever asked is told
 *
 * Nothing is shared with the thread but the job, which has two owners; the last one frees it.
 */
#include "store/lookup.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"

struct job {
	char *host;
	int done_fd;
	atomic_bool is_done; /* what follows may be read */
	const char *why;     /* static; NULL: there are some */
	struct lookup_found found;
	atomic_int owners;
};

struct lookup {
	struct loop *loop;
	char *host;
	lookup_cb *fn;
	void *arg;
	bool is_asked;
	struct job *job; /* NULL: none is under way */
	struct event done;
};

static void
let_go(struct job *job)
{
	if (atomic_fetch_sub(&job->owners, 1) > 1)
		return;
	close(job->done_fd);
	free(job->host);
	free(job);
}

static void
done(struct job *job)
{
	atomic_store(&job->is_done, true);
	eventfd_write(job->done_fd, 1);
	let_go(job);
}

/* Version 4 first: "localhost" is often both, and Redis often listens to that one only. */
static void
keep(struct lookup_found *out, const struct addrinfo *list, int family)
{
	for (; list && out->n < LOOKUP_MAX; list = list->ai_next)
		if (list->ai_family == family &&
		    !getnameinfo(list->ai_addr, list->ai_addrlen, out->address[out->n],
				 LOOKUP_ADDRESS_MAX, NULL, 0, NI_NUMERICHOST))
			out->n++;
}

static void *
run(void *arg)
{
	struct job *job = arg;
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
	int rc = getaddrinfo(job->host, NULL, &hints, &list);

	if (rc) {
		job->why = gai_strerror(rc);
	} else {
		keep(&job->found, list, AF_INET);
		keep(&job->found, list, AF_INET6);
		job->why = job->found.n ? NULL : gai_strerror(EAI_NONAME);
		freeaddrinfo(list);
	}
	done(job);
	return NULL;
}

static void
on_done(evutil_socket_t fd, short what, void *arg)
{
	struct lookup *l = arg;
	struct job *job = l->job;

	(void)fd;
	(void)what;
	if (!atomic_load(&job->is_done))
		return;
	event_del(&l->done);
	l->job = NULL;
	if (l->is_asked) {
		l->is_asked = false;
		l->fn(l->arg, job->why ? NULL : &job->found, job->why);
	}
	let_go(job);
}

/* Signals are the loop's. */
static bool
start_thread(struct job *job)
{
	pthread_attr_t detached;
	pthread_t thread;
	sigset_t all, before;
	int rc;

	if (pthread_attr_init(&detached))
		return false;
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&thread, &detached, run, job);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&detached);
	return !rc;
}

void
lookup_ask(struct lookup *l)
{
	struct job *job;

	l->is_asked = true;
	if (l->job)
		return;
	l->job = job = xcalloc(1, sizeof(*job));
	job->host = xstrdup(l->host);
	atomic_init(&job->owners, 2);
	job->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	event_assign(&l->done, loop_base(l->loop), job->done_fd, EV_READ | EV_PERSIST, on_done,
		     l);
	if (job->done_fd < 0) {
		job->why = "no file descriptor for it";
		done(job);
		event_active(&l->done, EV_READ, 1);
		return;
	}
	event_add(&l->done, NULL);
	if (!start_thread(job)) {
		job->why = "no thread for it";
		done(job);
	}
}

void
lookup_forget(struct lookup *l)
{
	if (l)
		l->is_asked = false;
}

struct lookup *
lookup_new(struct loop *loop, const char *host, lookup_cb *fn, void *arg)
{
	struct lookup *l = xcalloc(1, sizeof(*l));

	*l = (struct lookup){ .loop = loop, .host = xstrdup(host), .fn = fn, .arg = arg };
	return l;
}

void
lookup_free(struct lookup *l)
{
	if (!l)
		return;
	if (l->job) {
		event_del(&l->done);
		let_go(l->job);
	}
	free(l->host);
	free(l);
}
