/*
 * load: drive a message broker, and check that it lost and doubled nothing.
 *
 *	main()		options; connect; the idle, then the working connections
 *	run()		the loop: sockets, then what time it is  <-.
 *	phase_step()	FILL > WARM > RUN > DRAIN > COUNT > DONE --'
 *	report()	one line of JSON; status 1 unless every message came back exactly once
 *
 * Clients do send, take, ack in a circle. Producers and consumers share that work; each keeps
 * `window` requests of `batch` messages in flight. With both at 1 that is a closed loop, where
 * a consumer waits for the answer to its ack before it takes again. Otherwise ack and next take
 * leave in one write. Producers are at most `ahead` messages in front of the acks, so that
 * every peer works at the same depth and a queue's capacity is never met. With `consume` the consumers ask once, and ack what one
 * read brought.
 *
 * One process and one thread; the peer's name chooses one of the peer_*.c.
 */
#include "load.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/hist.h"

#define SECOND        1000000000ULL
#define STALL_SECONDS 10 /* without any progress: something is lost */
#define PIDS_MAX      4
#define CONNS_MAX     8192

enum phase { SETUP, FILL, WARM, RUN, DRAIN, COUNT, DONE };

static struct {
	const char *address, *redis; /* port, or path of a Unix socket */
	unsigned clients, producers, consumers, idle, queues, window, batch, consume;
	uint64_t count, backlog, ahead;
	double warm, seconds;
	int pids[PIDS_MAX];
	unsigned n_pids;
} opt = { .queues = 1, .window = 1, .batch = 1, .ahead = 8000, .warm = 0.3, .seconds = 2 };

/* A set of sequence numbers. */
struct bitmap {
	uint64_t *words;
	size_t n_words;
	uint64_t count;
};

/* What was read at one moment, to be subtracted from a later one. */
struct sample {
	uint64_t at_ns, acked;
	uint64_t cpu_ns[PIDS_MAX], driver_ns;
};

static struct hist latency;

static const struct peer *peer;
static struct conn *conns[CONNS_MAX];
static unsigned n_conns, n_setup; /* n_setup: how many have not answered their setup */
static int epoll_fd;

static enum phase phase;
static uint64_t phase_ends_ns, progress_ns;
static struct bitmap sent, received;
static uint64_t issued, answered, refused, acked, doubled, unsettled, left, counts;
static struct sample first, last;
static uint64_t fill_begun_ns, fill_ended_ns, drain_begun_ns, drain_ended_ns;
static uint64_t memory_empty, memory_full, rss_empty, rss_full, rss_alone, rss_idle;

static void producer_pump(struct conn *c);
static void consumer_pump(struct conn *c);
static void client_next(struct conn *c);

void
load_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("load: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

static void *
must(void *memory)
{
	if (!memory)
		load_die("out of memory");
	return memory;
}

/* Messages */

void
body_write(char *body, uint64_t seq)
{
	static char filler[BODY_BYTES];

	/* Text that no compressor of a store makes small. */
	if (!filler[0]) {
		uint64_t x = 88172645463325252ULL;

		for (int i = 0; i < BODY_BYTES; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			filler[i] = (char)('0' + x % 64);
		}
	}
	memcpy(body, filler, BODY_BYTES);
	for (int i = 7; i >= 0; i--, seq >>= 8)
		body[i] = (char)seq;
}

uint64_t
body_read(const char *body, size_t len)
{
	uint64_t seq = 0;

	if (len != BODY_BYTES)
		load_die("a body of %zu bytes came back", len);
	for (int i = 0; i < 8; i++)
		seq = seq << 8 | (uint8_t)body[i];
	return seq;
}

/* True when it was not there before. */
static bool
bitmap_add(struct bitmap *map, uint64_t seq)
{
	size_t word = seq / 64;
	uint64_t bit = 1ULL << seq % 64;

	if (word >= map->n_words) {
		size_t n = word * 2 + 1024;

		map->words = must(reallocarray(map->words, n, sizeof(*map->words)));
		memset(map->words + map->n_words, 0, (n - map->n_words) * sizeof(*map->words));
		map->n_words = n;
	}
	if (map->words[word] & bit)
		return false;
	map->words[word] |= bit;
	map->count++;
	return true;
}

/* How many are in `a` and not in `b`. */
static uint64_t
bitmap_missing(const struct bitmap *a, const struct bitmap *b)
{
	uint64_t n = 0;

	for (size_t i = 0; i < a->n_words; i++)
		n += (uint64_t)__builtin_popcountll(a->words[i] &
						    ~(i < b->n_words ? b->words[i] : 0));
	return n;
}

/* Latencies */

static void
latency_add(uint64_t ns)
{
	if (phase == RUN)
		hist_add(&latency, ns);
}

static double
latency_us(double quantile)
{
	return (double)hist_quantile(&latency, quantile) / 1e3;
}

/* What the kernel and Redis know */

static uint64_t
cpu_ns(int pid)
{
	char path[64], task[512];
	unsigned long long ns, sum = 0;
	struct dirent *entry;
	DIR *dir;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		load_die("process %d is gone", pid);
	while ((entry = readdir(dir))) {
		snprintf(task, sizeof(task), "%s/%s/schedstat", path, entry->d_name);
		file = entry->d_name[0] == '.' ? NULL : fopen(task, "r");
		if (!file)
			continue;
		if (fscanf(file, "%llu", &ns) == 1)
			sum += ns;
		fclose(file);
	}
	closedir(dir);
	return sum;
}

static uint64_t
rss_bytes(int pid)
{
	char path[64], text[256];
	unsigned long long kib = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	file = fopen(path, "r");
	if (!file)
		load_die("process %d is gone", pid);
	while (fgets(text, sizeof(text), file))
		if (sscanf(text, "Rss: %llu kB", &kib) == 1)
			break;
	fclose(file);
	return kib * 1024;
}

static int
dial(const char *address)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr_in in = { .sin_family = AF_INET };
	bool is_unix = strchr(address, '/');
	int on = 1, fd, failed;

	fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		load_die("socket: %s", strerror(errno));
	if (is_unix) {
		snprintf(un.sun_path, sizeof(un.sun_path), "%s", address);
		failed = connect(fd, (struct sockaddr *)&un, sizeof(un));
	} else {
		in.sin_port = htons((uint16_t)atoi(address));
		in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		failed = connect(fd, (struct sockaddr *)&in, sizeof(in));
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
	if (failed)
		load_die("connect to %s: %s", address, strerror(errno));
	return fd;
}

/* used_memory of the Redis behind the broker. */
static uint64_t
redis_memory(void)
{
	static const char ask[] = "INFO memory\r\n", name[] = "\nused_memory:";
	char text[16384];
	size_t len = 0;
	ssize_t n;
	char *at;
	int fd;

	fd = dial(opt.redis);
	if (write(fd, ask, sizeof(ask) - 1) < 0)
		load_die("redis: %s", strerror(errno));
	do {
		n = read(fd, text + len, sizeof(text) - 1 - len);
		if (n <= 0)
			load_die("redis gave no INFO");
		len += (size_t)n;
		text[len] = '\0';
		at = strstr(text, name);
	} while (!at || !strchr(at + 1, '\n'));
	close(fd);
	return strtoull(at + sizeof(name) - 1, NULL, 10);
}

static void
sample_take(struct sample *s)
{
	s->at_ns = now_ns();
	s->acked = acked;
	for (unsigned i = 0; i < opt.n_pids; i++)
		s->cpu_ns[i] = cpu_ns(opt.pids[i]);
	s->driver_ns = cpu_ns(getpid());
}

static void
memory_take(uint64_t *memory, uint64_t *rss)
{
	*memory = opt.redis ? redis_memory() : 0;
	*rss = opt.n_pids ? rss_bytes(opt.pids[0]) : 0;
}

/* Connections */

char *
out_space(struct conn *c, size_t len)
{
	struct bytes *b = &c->out;

	if (b->size - b->end < len) {
		b->size = (b->end + len) * 2 + 1024;
		b->data = must(realloc(b->data, b->size));
	}
	b->end += len;
	return b->data + b->end - len;
}

void
out_add(struct conn *c, const void *data, size_t len)
{
	memcpy(out_space(c, len), data, len);
}

void
out_format(struct conn *c, const char *format, ...)
{
	char text[256];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	out_add(c, text, (size_t)len);
}

unsigned
op_begin(struct conn *c, enum op_kind kind, unsigned replies, unsigned n)
{
	unsigned slot = c->next;

	for (unsigned tried = 0; c->ops[slot].kind != OP_NONE; tried++) {
		if (tried == c->n_ops)
			load_die("%s leaves too much unanswered", peer->name);
		slot = (slot + 1) % c->n_ops;
	}
	c->next = (slot + 1) % c->n_ops;
	c->ops[slot] =
		(struct op){ .kind = kind, .replies = replies, .n = n, .begun_ns = now_ns() };
	return slot;
}

struct op *
op_first(struct conn *c)
{
	if (c->ops[c->first].kind == OP_NONE)
		load_die("%s answered what nobody asked", peer->name);
	return &c->ops[c->first];
}

static struct conn *
conn_new(enum role role, unsigned number)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct conn *c = must(calloc(1, sizeof(*c)));

	c->role = role;
	c->number = number;
	c->queue = number % opt.queues;
	c->max_tokens = opt.consume ? opt.consume : opt.window * opt.batch;
	/* Beside each take, acks of earlier ones may still be on their way. */
	c->n_ops = role == IDLE      ? 4
		   : role == CONTROL ? opt.queues + 4
				     : opt.window * 16 + 16 + opt.consume;
	c->ops = must(calloc(c->n_ops, sizeof(*c->ops)));
	if (role != IDLE && role != CONTROL)
		c->tokens = must(calloc(c->max_tokens, sizeof(*c->tokens)));
	c->fd = dial(opt.address);
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	event.data.ptr = c;
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
	if (n_conns == CONNS_MAX)
		load_die("more than %d connections", CONNS_MAX);
	conns[n_conns++] = c;
	return c;
}

static void
conn_write(struct conn *c)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
	struct bytes *b = &c->out;
	bool wants;
	ssize_t n;

	if (b->start < b->end) {
		n = write(c->fd, b->data + b->start, b->end - b->start);
		if (n < 0 && errno != EAGAIN)
			load_die("%s: write: %s", peer->name, strerror(errno));
		b->start += n > 0 ? (size_t)n : 0;
	}
	wants = b->start < b->end;
	if (!wants)
		b->start = b->end = 0;
	if (wants != c->wants_write) {
		c->wants_write = wants;
		event.events |= wants ? EPOLLOUT : 0;
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
	}
}

static void
conn_read(struct conn *c)
{
	struct bytes *b = &c->in;
	size_t used;
	ssize_t n;

	if (b->start) {
		memmove(b->data, b->data + b->start, b->end - b->start);
		b->end -= b->start;
		b->start = 0;
	}
	if (b->size - b->end < 1024) {
		b->size = b->size ? b->size * 2 : c->role == IDLE ? 1024 : 65536;
		b->data = must(realloc(b->data, b->size));
	}
	n = read(c->fd, b->data + b->end, b->size - b->end);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		load_die("%s: read: %s", peer->name, n ? strerror(errno) : "connection closed");
	b->end += (size_t)n;
	while (b->start < b->end) {
		used = peer->reply(c, b->data + b->start, b->end - b->start);
		if (!used)
			break;
		b->start += used;
	}
	if (opt.consume && c->role == CONSUMER && c->n_tokens) {
		peer->ack(c);
		c->n_tokens = 0;
	}
}

/* Who does what when */

static bool
is_closed_loop(void)
{
	return opt.window == 1 && opt.batch == 1 && !opt.consume;
}

static bool
may_send(void)
{
	return phase >= FILL && phase <= RUN && issued + opt.batch <= acked + opt.ahead &&
	       (!opt.count || issued < opt.count);
}

static void
producer_pump(struct conn *c)
{
	while (c->in_flight < opt.window && may_send()) {
		peer->send(c, issued, opt.batch);
		issued += opt.batch;
		c->in_flight++;
	}
}

static void
consumer_pump(struct conn *c)
{
	/* Behind a take that waits, a peer that answers in order would hold up the others. */
	unsigned window = peer->in_order ? 1 : opt.window;
	unsigned max = peer->in_order ? opt.window * opt.batch : opt.batch;

	if (opt.consume) {
		if (!c->in_flight++)
			peer->consume(c, opt.consume);
		return;
	}
	while (c->in_flight < window) {
		peer->take(c, max, true);
		c->in_flight++;
	}
}

static void
client_next(struct conn *c)
{
	if (!c->begun_ns && may_send()) {
		c->begun_ns = now_ns();
		peer->send(c, issued++, 1);
	}
}

void
load_sent(uint64_t seq, bool accepted)
{
	answered++;
	if (accepted)
		bitmap_add(&sent, seq);
	else
		refused++;
}

void
load_message(struct conn *c, const char *token, size_t len, uint64_t seq)
{
	struct token *t = &c->tokens[c->n_tokens];

	if (seq >= issued)
		load_die("message %llu came and was never sent", (unsigned long long)seq);
	if (c->n_tokens == c->max_tokens || len > TOKEN_MAX)
		load_die("more came than was asked for");
	memcpy(t->text, token, len);
	t->len = (unsigned)len;
	c->n_tokens++;
	progress_ns = now_ns();
	if (!bitmap_add(&received, seq))
		doubled++;
}

void
load_acked(struct op *op, unsigned n)
{
	op->done += n;
	acked += n;
}

void
load_counted(uint64_t n)
{
	left += n;
	counts++;
}

static void
on_sent(struct conn *c, const struct op *op)
{
	if (c->role == CLIENT) {
		peer->take(c, 1, false);
		return;
	}
	latency_add(now_ns() - op->begun_ns);
	c->in_flight--;
	producer_pump(c);
}

static void
on_taken(struct conn *c)
{
	bool got = c->n_tokens;

	if (got)
		peer->ack(c);
	c->n_tokens = 0;
	if (c->role == CLIENT) {
		if (!got)
			peer->take(c, 1, false);
		return;
	}
	if (!got || !is_closed_loop()) {
		c->in_flight--;
		consumer_pump(c);
	}
}

static void
on_acked(struct conn *c, const struct op *op)
{
	unsettled += op->n - op->done;
	if (c->role == CLIENT) {
		latency_add(now_ns() - c->begun_ns);
		c->begun_ns = 0;
		client_next(c);
	} else if (is_closed_loop()) {
		c->in_flight--;
		consumer_pump(c);
	}
}

void
op_reply(struct conn *c, struct op *op)
{
	struct op done;

	if (op->kind != OP_TAKE) /* which may have brought nothing */
		progress_ns = now_ns();
	if (--op->replies)
		return;
	done = *op;
	op->kind = OP_NONE;
	if (peer->in_order)
		c->first = (c->first + 1) % c->n_ops;
	switch (done.kind) {
	case OP_SETUP:
		n_setup--;
		break;
	case OP_SEND:
		on_sent(c, &done);
		break;
	case OP_TAKE:
		on_taken(c);
		break;
	case OP_ACK:
		on_acked(c, &done);
		break;
	case OP_COUNT:
	case OP_CONSUME:
	case OP_NONE:
		break;
	}
}

/* Phases */

static void
start_all(enum role role, void (*start)(struct conn *))
{
	for (unsigned i = 0; i < n_conns; i++) {
		if (conns[i]->role == role) {
			start(conns[i]);
			conn_write(conns[i]);
		}
	}
}

static void
phase_enter(enum phase next)
{
	phase = next;
	switch (next) {
	case FILL:
		memory_take(&memory_empty, &rss_empty);
		fill_begun_ns = now_ns();
		start_all(PRODUCER, producer_pump);
		break;
	case WARM:
		phase_ends_ns = now_ns() + (uint64_t)(opt.warm * 1e9);
		start_all(CONSUMER, consumer_pump);
		start_all(PRODUCER, producer_pump);
		start_all(CLIENT, client_next);
		break;
	case RUN:
		sample_take(&first);
		phase_ends_ns =
			opt.count ? UINT64_MAX : now_ns() + (uint64_t)(opt.seconds * 1e9);
		break;
	case DRAIN:
		if (!opt.backlog)
			sample_take(&last);
		drain_begun_ns = now_ns();
		start_all(CONSUMER, consumer_pump);
		break;
	case COUNT:
		drain_ended_ns = now_ns();
		if (opt.backlog || opt.count)
			sample_take(&last);
		for (unsigned i = 0; i < opt.queues; i++)
			peer->count(conns[0], i);
		conn_write(conns[0]);
		break;
	case SETUP:
	case DONE:
		break;
	}
}

static bool
is_all_settled(void)
{
	return answered == issued && received.count >= sent.count &&
	       acked + unsettled >= sent.count;
}

static void
phase_step(void)
{
	uint64_t now = now_ns();

	if (now > progress_ns + STALL_SECONDS * SECOND)
		phase = DONE; /* the report says what is missing */
	switch (phase) {
	case SETUP:
	case DONE:
		break;
	case FILL:
		if (answered < opt.backlog)
			break;
		fill_ended_ns = now;
		memory_take(&memory_full, &rss_full);
		progress_ns = now_ns();
		phase_enter(DRAIN);
		break;
	case WARM:
		/* Where each write is synced, the first sends may fill a second. */
		if (now >= phase_ends_ns && (acked || !opt.warm))
			phase_enter(RUN);
		break;
	case RUN:
		if (now >= phase_ends_ns || (opt.count && issued >= opt.count))
			phase_enter(DRAIN);
		break;
	case DRAIN:
		if (is_all_settled())
			phase_enter(COUNT);
		break;
	case COUNT:
		if (counts == opt.queues)
			phase_enter(DONE);
		break;
	}
}

static void
run_once(void)
{
	struct epoll_event events[256];
	int n = epoll_wait(epoll_fd, events, 256, 20);

	for (int i = 0; i < n; i++) {
		struct conn *c = events[i].data.ptr;

		if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			conn_read(c);
		conn_write(c);
	}
	phase_step();
	/* Acks may have made room for producers that were too far ahead. */
	if (may_send())
		start_all(PRODUCER, producer_pump);
}

/* Set up what was opened, and wait until it is. */
static void
setup(struct conn *c, void (*ask)(struct conn *))
{
	n_setup++;
	ask(c);
	conn_write(c);
	while (n_setup) {
		if (phase == DONE)
			load_die("%s does not answer", peer->name);
		run_once();
	}
}

static void
connect_all(enum role role, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		setup(conn_new(role, i), peer->setup);
}

static void
prepare(struct conn *c)
{
	uint64_t capacity = opt.backlog ? opt.backlog : opt.ahead;

	peer->prepare(c, capacity < 10000 ? 10000 : capacity + opt.batch * opt.producers);
}

static void
run(void)
{
	struct conn *control;

	progress_ns = now_ns();
	control = conn_new(CONTROL, 0);
	setup(control, peer->setup);
	if (peer->prepare)
		setup(control, prepare);
	rss_alone = opt.n_pids ? rss_bytes(opt.pids[0]) : 0;
	connect_all(IDLE, opt.idle);
	rss_idle = opt.n_pids ? rss_bytes(opt.pids[0]) : 0;
	connect_all(CLIENT, opt.clients);
	connect_all(PRODUCER, opt.producers);
	connect_all(CONSUMER, opt.consumers);
	if (opt.backlog)
		sample_take(&first);
	phase_enter(opt.backlog ? FILL : WARM);
	while (phase != DONE)
		run_once();
}

static double
per_second(uint64_t n, uint64_t begun_ns, uint64_t ended_ns)
{
	return ended_ns > begun_ns ? (double)n * 1e9 / (double)(ended_ns - begun_ns) : 0;
}

/* CPU seconds for 100,000 lifecycles. */
static double
cpu_cost(uint64_t begun_ns, uint64_t ended_ns)
{
	uint64_t n = last.acked - first.acked;

	return n ? (double)(ended_ns - begun_ns) / 1e9 / (double)n * 1e5 : 0;
}

static double
per_item(uint64_t before, uint64_t after, uint64_t n)
{
	return n ? ((double)after - (double)before) / (double)n : 0;
}

static void
print_count(const char *name, uint64_t n)
{
	printf(", \"%s\": %llu", name, (unsigned long long)n);
}

static int
report(void)
{
	uint64_t lost = bitmap_missing(&sent, &received);
	uint64_t ghosts = bitmap_missing(&received, &sent);
	bool ok = !lost && !ghosts && !doubled && !unsettled && !refused && !left &&
		  answered == issued && acked == sent.count && counts == opt.queues;

	printf("{\"peer\": \"%s\", \"ok\": %s", peer->name, ok ? "true" : "false");
	print_count("sent", sent.count);
	print_count("received", received.count);
	print_count("acked", acked);
	print_count("lost", lost);
	print_count("doubled", doubled + ghosts);
	print_count("refused", refused);
	print_count("unanswered", issued - answered);
	print_count("unsettled", unsettled);
	print_count("left", left);
	printf(", \"rate\": %.1f",
	       per_second(last.acked - first.acked, first.at_ns, last.at_ns));
	printf(", \"p50_us\": %.1f, \"p99_us\": %.1f", latency_us(0.5), latency_us(0.99));
	printf(", \"cpu\": [");
	for (unsigned i = 0; i < opt.n_pids; i++)
		printf("%s%.3f", i ? ", " : "", cpu_cost(first.cpu_ns[i], last.cpu_ns[i]));
	printf("], \"driver_cpu\": %.3f", cpu_cost(first.driver_ns, last.driver_ns));
	if (opt.backlog) {
		printf(", \"in\": %.1f", per_second(answered, fill_begun_ns, fill_ended_ns));
		printf(", \"out\": %.1f", per_second(acked, drain_begun_ns, drain_ended_ns));
		printf(", \"message_bytes\": %.1f",
		       opt.redis ? per_item(memory_empty, memory_full, answered)
				 : per_item(rss_empty, rss_full, answered));
	}
	if (opt.idle)
		printf(", \"idle_bytes\": %.1f", per_item(rss_alone, rss_idle, opt.idle));
	puts("}");
	return ok ? 0 : 1;
}

__attribute__((noreturn)) static void
usage(int status)
{
	fputs("usage: load coordd|beanstalkd|redis ADDRESS [options]\n"
	      "ADDRESS is a port on the loopback, or the path of a Unix socket.\n"
	      "  --clients N     connections that send, take and ack in turn\n"
	      "  --producers N   connections that send\n"
	      "  --consumers N   connections that take and ack\n"
	      "  --idle N        connections that do nothing\n"
	      "  --queues N      spread them over so many queues (1)\n"
	      "  --window N      requests in flight on each connection (1)\n"
	      "  --batch N       messages in one request (1)\n"
	      "  --consume N     have messages pushed, at most N unacked on each connection\n"
	      "  --ahead N       producers are at most so many messages before the acks "
	      "(8000)\n"
	      "  --warm S        seconds before measuring (0.3)\n"
	      "  --seconds S     seconds of measuring (2)\n"
	      "  --count N       stop after so many messages instead\n"
	      "  --backlog N     first send so many, then take them\n"
	      "  --pid PID       take this process's CPU time; the first one's memory too\n"
	      "  --redis ADDRESS take memory per message from this Redis\n",
	      status ? stderr : stdout);
	exit(status);
}

static void
options(int argc, char **argv)
{
	static const struct option names[] = {
		{ "clients", 1, NULL, 'c' },   { "producers", 1, NULL, 'p' },
		{ "consumers", 1, NULL, 'o' }, { "idle", 1, NULL, 'i' },
		{ "queues", 1, NULL, 'q' },    { "window", 1, NULL, 'w' },
		{ "batch", 1, NULL, 'b' },     { "ahead", 1, NULL, 'a' },
		{ "warm", 1, NULL, 'm' },      { "seconds", 1, NULL, 's' },
		{ "count", 1, NULL, 'n' },     { "backlog", 1, NULL, 'l' },
		{ "pid", 1, NULL, 'P' },       { "redis", 1, NULL, 'r' },
		{ "consume", 1, NULL, 'u' },   { "help", 0, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	unsigned *const numbers[128] = {
		['c'] = &opt.clients, ['p'] = &opt.producers, ['o'] = &opt.consumers,
		['i'] = &opt.idle,    ['q'] = &opt.queues,    ['w'] = &opt.window,
		['b'] = &opt.batch,   ['u'] = &opt.consume,
	};
	static const struct peer *const peers[] = { &peer_coordd, &peer_beanstalkd,
						    &peer_redis };
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 'h')
			usage(0);
		else if (c == 'a')
			opt.ahead = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			opt.count = strtoull(optarg, NULL, 10);
		else if (c == 'l')
			opt.backlog = strtoull(optarg, NULL, 10);
		else if (c == 'm')
			opt.warm = strtod(optarg, NULL);
		else if (c == 's')
			opt.seconds = strtod(optarg, NULL);
		else if (c == 'r')
			opt.redis = optarg;
		else if (c == 'P' && opt.n_pids < PIDS_MAX)
			opt.pids[opt.n_pids++] = atoi(optarg);
		else if (c > 0 && c < 128 && numbers[c])
			*numbers[c] = (unsigned)strtoul(optarg, NULL, 10);
		else
			usage(64);
	}
	if (argc - optind != 2)
		usage(64);
	for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++)
		if (!strcmp(argv[optind], peers[i]->name))
			peer = peers[i];
	if (!peer || !opt.queues || opt.queues > 1000 || !opt.window || !opt.batch ||
	    (!opt.clients && (!opt.producers || !opt.consumers)) || opt.batch > 1000 ||
	    (opt.consume && !peer->consume) || opt.consume > 1000)
		usage(64);
	opt.address = argv[optind + 1];
	if (opt.backlog) {
		opt.count = opt.backlog;
		opt.ahead = UINT64_MAX / 2;
	}
}

int
main(int argc, char **argv)
{
	struct rlimit files;

	options(argc, argv);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		load_die("epoll: %s", strerror(errno));
	run();
	return report();
}
