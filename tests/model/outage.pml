/*
 * outage: who sweeps, and what is left alone after nobody did. Two brokers that lead by turns, one reservation after the other, one
 * agent that beats for as long as it likes.
 *
 * Each `d_step` is one script in Redis. A broker can stand still between any two of its steps while the clock goes on, and broker 1 may
 * be killed: so nobody sweeps for as long as you like, up to two times.
 *
 *	holds: grace_kept in_time swept
 *	holds: agent_spared	AGENT
 *	fails: grace_kept	SWEEP_UNASKED	a sweep does not look whether it comes after an outage that nobody noticed yet
 *	fails: grace_kept	GRACE_LOCAL	the grace is known only to the broker that noticed the outage
 *	fails: in_time		ALL_SPARED	during the grace nothing is taken back, whenever it was reserved
 *	fails: in_time		EPOCH_TRUSTED	a broker reserves in the epoch that it heard of last, however long ago
 *	fails: swept		LEASE_FOREVER	the lease of who leads does not end
 *	fails: swept		GRACE_RENEWED	each sweep during the grace begins it anew
 *	fails: agent_spared	AGENT TTL_IGNORED	agents have the grace only, also those with a longer ttl
 */

/* Quarters of a second of Redis's clock. */
#define OUTAGE 4  /* more than 1 s without a sweep: lead.lua, sweep.lua */
#define LEASE 2   /* LEASE_US */
#define FRESH 2   /* EPOCH_FRESH_US: so long a broker believes what `lead` told it of the epoch */
#define FLIGHT 2  /* and so long its call may take before the script looks itself */
#define GRACE 3
#define TTL 5     /* of the agent */
#define TIMEOUT 1 /* of the reservation */
#define LONG 5    /* as long as any of them */

#define OUTAGES 1
#define NONE 2

/* Redis: PREFIX:sweep. Times are told as what went by since, or is left until. */
byte stamp = 0;       /* since the last sweep, or lead */
byte owner = NONE;
byte lease;           /* until it ends */
byte epoch;
byte grace;           /* until it is over */
byte found = LONG;     /* since an outage was found */

bool reserved;        /* the bucket ... */
byte of_epoch;        /* ... of this epoch, which ends ... */
byte ends;            /* ... then */

bool lives = true;    /* PREFIX:a:NAME: registered, not marked dead */
byte beat;            /* since the last one */

/* Brokers */
bool killed;          /* broker 1 */
bool leads[2];
byte told_epoch[2];
byte told[2];         /* since it was told */
byte own_grace[2];    /* with GRACE_LOCAL */

/* A call that will reserve: the epoch that it was given, and for how long it has been on its way. */
bool call;
byte call_epoch, call_age;

/* What the world saw. An outage is found by the first who leads or sweeps after more than OUTAGE without. */
mtype = { AFTER, BEFORE, EITHER }; /* when was it reserved, seen from the outage that was found last? */
byte idle, outages, since_found = LONG;
mtype reserved_when = AFTER, call_when = AFTER;
bool reserved_in_gap, beat_before;
bool taken_early, left_late, died_early;

#define is_killed(b)      (b == 1 && killed)
#define one_more(x, most) x = x + (x < most)
#define one_less(x)       x = x - (x > 0)

/* Somebody leads or sweeps: did anyone, lately? */
inline notice() {
	if
	:: idle > OUTAGE ->
		outages++;
		since_found = 0;
		beat_before = true;
		reserved_when = (reserved_in_gap -> EITHER : BEFORE);
		call_when = (call -> EITHER : AFTER)
	:: else
	fi;
	idle = 0
}

/* lead.lua */
inline lead(b) {
	if
	:: owner != NONE && owner != b && lease > 0 -> leads[b] = false
	:: else ->
		notice();
		if
		:: stamp > OUTAGE ->
			epoch++;
#ifdef GRACE_LOCAL
			own_grace[b] = GRACE;
#else
			grace = GRACE;
#endif
			found = 0
		:: else
		fi;
		stamp = 0;
		owner = b;
		lease = LEASE;
		leads[b] = true
	fi;
	told_epoch[b] = epoch;
	told[b] = 0
}

#ifdef SWEEP_UNASKED
#define must_ask false
#else
#define must_ask (stamp > OUTAGE)
#endif
#ifdef ALL_SPARED
#define is_older true
#else
#define is_older (of_epoch < epoch)
#endif

/* beat > found: the last beat is further away. */
#ifdef TTL_IGNORED
#define is_spared (beat > found && grace)
#else
#define is_spared (beat > found && (grace || found < TTL))
#endif

/* sweep.lua, and agents_sweep.lua, which also asks to lead first */
inline sweep(b) {
	if
	:: must_ask
	:: else ->
		notice();
		stamp = 0;
#ifdef GRACE_RENEWED
		grace = (grace -> GRACE : 0);
#endif
		if
		:: reserved && !ends && is_older && (grace > 0 || own_grace[b] > 0) ->
			left_late = left_late || reserved_when == AFTER
		:: reserved && !ends && !(is_older && (grace > 0 || own_grace[b] > 0)) ->
			taken_early = taken_early || reserved_when == BEFORE && since_found < GRACE;
			reserved = false;
			of_epoch = 0;
			reserved_when = AFTER;
			reserved_in_gap = false
		:: else
		fi;
		if
		:: lives && beat > TTL && !is_spared ->
			died_early = died_early || beat_before && (since_found < TTL || since_found < GRACE);
			lives = false
		:: else
		fi
	fi
}

/* janitor.c: ask to lead, and sweep when that was granted */
proctype janitor(byte b) {
	do
	:: d_step { !is_killed(b) -> lead(b) };
		if
		:: leads[b]; d_step { sweep(b) }
		:: !leads[b]
		fi
	od
}

/* A receive through either broker: tick_run(), then the hand-out in tick.lua */
proctype receiver() {
	do
	:: d_step {
		!call -> call = true;
		call_epoch = told_epoch[0];
		call_age = (told[0] <= FRESH -> 0 : FLIGHT + 1)
	   }
	:: d_step {
		!call && !killed -> call = true;
		call_epoch = told_epoch[1];
		call_age = (told[1] <= FRESH -> 0 : FLIGHT + 1)
	   }
	:: d_step {
		call && !reserved ->
		reserved = true;
		ends = TIMEOUT;
#ifdef EPOCH_TRUSTED
		of_epoch = call_epoch;
#else
		of_epoch = (call_age <= FLIGHT -> call_epoch : epoch + (stamp > OUTAGE));
#endif
		reserved_when = call_when;
		reserved_in_gap = idle > OUTAGE;
		call = false;
		call_epoch = 0;
		call_age = 0;
		call_when = AFTER
	   }
	od
}

/* beat.lua */
proctype agent() {
	do
	:: d_step { lives && beat -> beat = 0; beat_before = false }
	:: true -> break
	od
}

proctype killer() {
	if
	:: killed = true
	:: true
	fi
}

proctype clock() {
	do
	:: d_step {
		stamp < OUTAGE || outages < OUTAGES ->
		one_more(stamp, OUTAGE + 1); one_more(idle, OUTAGE + 1); one_more(since_found, LONG); one_more(found, LONG);
		one_more(told[0], FRESH + 1); one_more(told[1], FRESH + 1); call_age = call_age + (call && call_age <= FLIGHT);
		one_less(grace); one_less(own_grace[0]); one_less(own_grace[1]);
#ifndef LEASE_FOREVER
		one_less(lease);
#endif
#ifdef AGENT
		one_more(beat, TTL + 1);
#endif
		one_less(ends)
	   }
	od
}

init {
	atomic {
#ifdef AGENT
		run agent();
#else
		run receiver();
#endif
		run janitor(0); run janitor(1); run killer(); run clock()
	}
}

/* What was reserved before an outage was found is left alone for the grace, by every broker. */
ltl grace_kept { [] !taken_early }
/* What was reserved afterwards follows the ordinary rule. */
ltl in_time { [] !left_late }
/* P13: what is due is taken back, whoever dies. */
ltl swept { [] (reserved -> <> !reserved) }
/* An agent that beat last before the outage was found has the grace, and its own ttl where that is longer. */
ltl agent_spared { [] !died_early }
