#ifndef COORDD_CTL_ADOPT_H
#define COORDD_CTL_ADOPT_H

#include "ctl/ctl.h"
#include "ctl/redis.h"
#include "proto/fields.h"

/*
 * coordctl adopt: copy what the Python package tta_agent_coordination left in its Redis into queues. What its parts share.
 * docs/MIGRATION.md describes the keys, the journal, and how a run that was interrupted is continued.
 */

/* --- adopt_json.c ---------------------------------------------------------------- */

/*
 * Append a JSON document as MessagePack, always the same bytes: members in their order, whole numbers as such (64 bits, with a sign or
 * without), all other numbers as doubles, the shortest heads. False, and what is wrong with it in `why`: no JSON, a number that
 * neither form holds, text that is no UTF-8 (half a surrogate pair is none), nested deeper than 64.
 */
bool adopt_json(struct buf *to, struct str text, char *why, size_t size);

/* --- adopt_set.c ----------------------------------------------------------------- */

/* What makes a message the same one: a digest of its queue, id, sender, type and payload. */
struct mark {
	uint8_t bytes[16];
};

/* Marks in a table at most three quarters full. All zero is an empty one. */
struct mark_set {
	struct mark *slots;
	size_t n, size;
};
bool mark_set_add(struct mark_set *set, const struct mark *mark); /* false: it was there */
bool mark_set_has(const struct mark_set *set, const struct mark *mark);
void mark_set_done(struct mark_set *set);

/* --- what there is --------------------------------------------------------------- */

/* The parts of an old queue, in the order in which they are copied: what was handed out once goes first. */
enum part { PART_RESERVED, PART_HIGH, PART_NORMAL, PART_LOW, PART_DEAD, PART_AUDIT, PARTS };

/* An old queue, named by what stands in its keys behind "PREFIX:sched:". */
struct old_queue {
	char *rest; /* "TYPE:INSTANCE", nothing encoded */
	struct str name;
	bool has[PARTS], has_deadlines;
	uint64_t ready, delayed, reserved, dead; /* what was found */
	uint64_t copied, before, left; /* what became of it; `before`: by an earlier run */
	uint64_t twice, damaged, uncertain, orphans, removed;
	bool is_stopped; /* the new queue is full */
	struct mark_set seen;
};

/* A member of one of its keys. */
struct old_entry {
	struct str member; /* JSON */
	struct str token;  /* PART_RESERVED: under which it is reserved */
	int64_t at_us;     /* due at, reserved until; 0 no such thing */
	uint64_t index;    /* in a list */
};

/* What it says, as it will be sent; all of it stands in `bytes`. */
struct old_message {
	struct buf bytes;
	struct agent_id sender, recipient;
	struct str id, message; /* message: AgentMessage as MessagePack */
	struct mark mark;
	char note[160]; /* what is odd about it, but no hindrance; "" nothing */
};

/* What is told of single members and keys, the worst first. */
enum problem {
	PROBLEM_UNCERTAIN,
	PROBLEM_DAMAGED,
	PROBLEM_KEY,
	PROBLEM_NOTE,
	PROBLEM_ORPHAN,
	PROBLEMS
};

struct adopt {
	struct ctl *ctl;
	struct redis *redis;
	struct str prefix;
	char namespace[1024]; /* where the copies go; its length is for the broker to judge */
	bool is_dry, is_telling; /* is_telling: what is odd is noted, once */
	int status;              /* an exit code other than EX_OK ends the run; said already */
	int outcome;             /* EX_OK, or EXIT_REFUSED: not all was copied */

	struct old_queue **queues; /* by name */
	size_t n_queues;
	json_t *agents;   /* "TYPE:INSTANCE" to AgentId, as their keys say */
	json_t *subs;     /* [{agent_id, message_types}] */
	json_t *breakers; /* [{name, state, since, ...}] */
	uint64_t n_capabilities, n_others;
	json_t *problems[PROBLEMS]; /* at most --limit of each kind */
	uint64_t n_problems[PROBLEMS];

	uint64_t window_us, max_frame; /* of the broker */
	struct buf lock;               /* its key */
	char me[64];                   /* what it holds */
	double locked_s;               /* when it was renewed last, by our clock */
	json_t *looked;                /* new queues in which copies were looked for */
	struct mark_set found;         /* and found */
	double began_s, shown_s;
	uint64_t read;
};

/* --- adopt_message.c ------------------------------------------------------------- */

/*
 * Read a member. The queue is the one that its key names, which the recipient in it decides where a name has more than one colon.
 * False: it is damaged, `why` says how. `m` may be used again, and is freed with buf_done(&m->bytes).
 */
bool adopt_message(const struct adopt *a, const struct old_queue *q, enum part part,
		   struct str json, struct old_message *m, char *why, size_t size);
void adopt_digest(struct str s, struct mark *mark);
/* The agent that "TYPE:INSTANCE" names, alone or because such an agent is known; false: that cannot be told. */
bool adopt_agent(const struct adopt *a, struct str rest, struct agent_id *agent);

/* --- adopt_source.c: the old Redis ------------------------------------------------ */

/* Connect to --redis. An exit code (said already). */
int adopt_open(struct adopt *a);
/* Find all keys of the prefix, and read those that are no messages. As all below false: the connection is at its end, said already. */
bool adopt_find(struct adopt *a);
/* The key of one part of a queue. */
void adopt_key(const struct adopt *a, struct buf *b, const struct old_queue *q, enum part part);
void adopt_deadlines_key(const struct adopt *a, struct buf *b, const struct old_queue *q);
/* Hand over all members of a part, page by page, each page with its time of Redis; `fn` says how many of the page it has removed, below
 * 0 to end the walk (a->status is set). Nothing else must write meanwhile. */
typedef int64_t page_fn(struct adopt *a, struct old_queue *q, enum part part,
			struct old_entry *entries, size_t n, int64_t now_us);
bool adopt_walk(struct adopt *a, struct old_queue *q, enum part part, page_fn *fn);
/* The connection failed, or an answer was an error: say so and set the status. False. */
bool adopt_lost(struct adopt *a, const redisReply *reply);

/* --- adopt_journal.c: what this and earlier runs have done ------------------------- */

enum journal_state { JOURNAL_NONE, JOURNAL_SENDING, JOURNAL_DONE };
struct journal_entry {
	enum journal_state state;
	int64_t since_us; /* JOURNAL_SENDING: the first attempt, by the old Redis's clock */
};
/* Take the lock; waits for one that nobody renews. An exit code (said already). */
int adopt_lock(struct adopt *a);
void adopt_unlock(struct adopt *a);
/* Renew the lock when it is old. */
bool adopt_keep_lock(struct adopt *a);
/*
 * Begin a script that writes only if the lock is ours: its text begins with ADOPT_IF_OURS. KEYS[2] and KEYS[3] are those given, its
 * arguments are ARGV[3] and on; all texts must live until adopt_script_run(). It returns a number.
 */
#define ADOPT_IF_OURS                                                  \
	"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end " \
	"redis.call('PEXPIRE', KEYS[1], ARGV[2]) "
void adopt_script(struct adopt *a, const char *text, struct str key, struct str other);
bool adopt_script_run(struct adopt *a);

bool journal_read(struct adopt *a, const struct old_queue *q, const struct mark *const *marks,
		  size_t n, struct journal_entry *entries);
/* Before they are sent; what is marked keeps its time. */
bool journal_sending(struct adopt *a, const struct old_queue *q,
		     const struct mark *const *marks, size_t n, int64_t now_us);
/* They are in their queue; or (`is_done` false) certainly not. */
bool journal_settle(struct adopt *a, const struct old_queue *q, const struct mark *const *marks,
		    size_t n, bool is_done);
/* Nothing of the queue is left in the old Redis: forget what was done a week from now. */
bool journal_expire(struct adopt *a, const struct old_queue *q);

/* --- adopt_copy.c, adopt_rest.c, adopt_delete.c, adopt_report.c ---------------------------------- */

/* What the broker must be like. An exit code (said already, unless ctl->is_silent). */
int adopt_ask_broker(struct adopt *a);
/* What a list holds in the place of what was removed, until all of it is gone. */
#define ADOPT_REMOVED "removed by coordctl adopt"
/* Count, compare with the journal, and unless it is a dry run copy. */
bool adopt_copy(struct adopt *a, struct old_queue *q);
/* Subscribe, and trip breakers that are open. */
bool adopt_subscribe(struct adopt *a);
bool adopt_breakers(struct adopt *a);
/* Remove from the old Redis what was copied, messages and subscriptions. */
bool adopt_delete(struct adopt *a, struct old_queue *q);
bool adopt_delete_subs(struct adopt *a);

/* Note something about a member of a key (`member` may be empty). */
void adopt_problem(struct adopt *a, enum problem kind, struct str key, struct str member,
		   const char *fmt, ...) __attribute__((format(printf, 5, 6)));
void adopt_report(const struct adopt *a);
/* Now and then say on standard error how far it is; `is_end`: for the last time. */
void adopt_progress(struct adopt *a, bool is_end);
double adopt_now_s(void); /* a monotonic clock */

#endif
