/*
 * breaker: one circuit breaker, three callers at two brokers. Callers ask, report once or more often, late, or never.
 *
 * Each `d_step` is one call of breaker.lua (or breaker_sweep.lua), which first does what load() of breaker_state.lua does. A broker keeps
 * nothing of a breaker. An answer that is not heard is a caller that dies with its permit.
 *
 *	holds: *
 *	fails: bounded		OUT_PER_BROKER	each broker counts the permits that it gave
 *	fails: bounded		OUT_BY_REPORTS	any report makes room, also that of a permit from an earlier state
 *	fails: resolved		LOST_KEPT	a permit that is not reported stays out
 *	fails: in_use		LOST_KEPT	and nobody is permitted any more
 *	fails: old_is_void	REPORT_ANY	a report counts whenever its permit was given
 *	fails: once		REPORT_KEPT	a permit that was reported stays known
 *	fails: in_a_row		SUCCESS_IGNORED	a success does not clear the failures
 *	fails: opens		READ_THEN_WRITE	a report reads in one call and writes in the next
 *	fails: closed_to_all	TIMEOUT_ASKED	the time since it opened is asked for in a call before the one that permits
 */
#define CALLERS 3
#define THRESHOLD 2 /* failure_threshold */
#define TIMEOUT 2   /* timeout_seconds, in units of Redis's clock */
#define RECOVERY 2  /* recovery_timeout_seconds */
#define CALLS 2     /* half_open_max_calls */
#define NEEDED 2    /* success_threshold */

mtype = { CLOSED, OPEN, HALF_OPEN };
mtype = { NONE, PRESENT, EARLIER }; /* a permit: not known; given in the present state (its score is at least `since`), or before */

/* Redis: PREFIX:k:NS:NAME */
mtype state = CLOSED;
byte failures, successes;
byte opens;               /* time until an open one may be tried */
mtype permit[CALLERS] = NONE;
byte lost[CALLERS];       /* time until it is lost, where it is out while half-open */

/* What the world saw. */
byte row;                 /* failures in a row, by permits of the present state */
byte shut;                /* time for which it has to stay open */
mtype given[CALLERS] = NONE; /* as `permit`, until it is reported */
bool granted;             /* since the clock went on */
bool early, stale, twice, hasty;

#define is_out(c) (state == HALF_OPEN && permit[c] == PRESENT)
#define really_out(c) (state == HALF_OPEN && given[c] == PRESENT)
#if defined(OUT_PER_BROKER)
#define out(c) (c == 1 -> is_out(1) : is_out(0) + is_out(2))
#elif defined(OUT_BY_REPORTS)
byte out_count;
#define out(c) out_count
#else
#define out(c) (is_out(0) + is_out(1) + is_out(2))
#endif

inline move(to) {
	state = to;
	successes = 0;
	opens = (to == OPEN -> TIMEOUT : 0);
	shut = (to == OPEN -> TIMEOUT : shut);
	row = 0;
	permit[0] = (permit[0] == NONE -> NONE : EARLIER);
	permit[1] = (permit[1] == NONE -> NONE : EARLIER);
	permit[2] = (permit[2] == NONE -> NONE : EARLIER);
	given[0] = (given[0] == NONE -> NONE : EARLIER);
	given[1] = (given[1] == NONE -> NONE : EARLIER);
	given[2] = (given[2] == NONE -> NONE : EARLIER);
	lost[0] = 0; lost[1] = 0; lost[2] = 0;
#ifdef OUT_BY_REPORTS
	out_count = 0
#endif
}

/* A permit that was not reported in time opens it again. */
inline load() {
#ifdef LOST_KEPT
	skip
#else
	if
	:: is_out(0) && !lost[0] || is_out(1) && !lost[1] || is_out(2) && !lost[2] -> move(OPEN)
	:: else
	fi
#endif
}

inline acquire(c, may_try) {
	load();
	if
	:: state == OPEN && may_try -> move(HALF_OPEN)
	:: else
	fi;
	if
	:: state == CLOSED || state == HALF_OPEN && out(c) < CALLS ->
		early = early || shut;
		permit[c] = PRESENT;
		given[c] = PRESENT;
		lost[c] = (state == HALF_OPEN -> RECOVERY : 0);
		has = 1;
#ifdef OUT_BY_REPORTS
		out_count = out_count + (state == HALF_OPEN);
#endif
		granted = true
	:: else
	fi
}

#ifdef REPORT_ANY
#define counts(p) (p != NONE)
#else
#define counts(p) (p == PRESENT)
#endif

inline report(c, is_success, seen_failures) {
	load();
	stale = stale || given[c] != PRESENT && counts(permit[c]) && given[c] != NONE;
	twice = twice || given[c] == NONE && counts(permit[c]);
	row = (given[c] == PRESENT && state == CLOSED -> (is_success -> 0 : row + 1) : row);
	given[c] = NONE;
	if
	:: counts(permit[c]) && state == HALF_OPEN ->
		if
		:: !is_success -> take(c); move(OPEN)
		:: is_success && successes + 1 < NEEDED -> take(c); successes++
		:: is_success && successes + 1 >= NEEDED -> take(c); failures = 0; move(CLOSED)
		fi
	:: counts(permit[c]) && state != HALF_OPEN ->
		take(c);
		if
		:: is_success ->
#ifndef SUCCESS_IGNORED
			failures = 0
#endif
		:: !is_success ->
			failures = seen_failures + 1;
			if
			:: failures >= THRESHOLD && state != OPEN ->
				hasty = hasty || row < THRESHOLD;
				failures = THRESHOLD;
				move(OPEN)
			:: else -> failures = (failures < THRESHOLD -> failures : THRESHOLD)
			fi
		fi
	:: else -> take(c)
	fi
}

inline take(c) {
#ifdef OUT_BY_REPORTS
	out_count = out_count - (permit[c] != NONE && out_count);
#endif
#ifdef REPORT_KEPT
	skip
#else
	permit[c] = NONE;
	lost[c] = 0
#endif
}

proctype caller(byte c) {
	byte has; /* 1: a permit, 2: one that it reported and might report again */
	byte seen;

	do
	/* breaker_acquire */
#ifdef TIMEOUT_ASKED
	:: !has && permit[c] == NONE && (state != OPEN || !opens); d_step { acquire(c, true) }
#else
	:: d_step { !has && permit[c] == NONE -> acquire(c, !opens) }
#endif
	/* breaker_report */
	:: d_step { has -> report(c, true, failures); has = (has == 1 -> 2 : 0) }
#ifdef READ_THEN_WRITE
	:: atomic { has -> seen = failures };
	   d_step { report(c, false, seen); has = (has == 1 -> 2 : 0); seen = 0 }
#else
	:: d_step { has -> report(c, false, failures); has = (has == 1 -> 2 : 0) }
#endif
	/* It dies, or needs its permit no more; another one takes its place, when the permit cannot change anything that is modelled. */
	:: has -> has = 0
	:: d_step { !has && permit[c] != NONE && !is_out(c) -> permit[c] = NONE; given[c] = NONE }
	od
}

/* breaker_sweep.lua, or any other call */
proctype sweep() {
	do
	:: d_step { is_out(0) && !lost[0] || is_out(1) && !lost[1] || is_out(2) && !lost[2] -> load() }
	od
}

proctype clock() {
	do
	:: d_step {
		opens = opens - (opens > 0);
		shut = shut - (shut > 0);
		lost[0] = lost[0] - (lost[0] > 0);
		lost[1] = lost[1] - (lost[1] > 0);
		lost[2] = lost[2] - (lost[2] > 0);
		granted = false
	   }
	od
}

init {
	atomic { run caller(0); run caller(1); run caller(2); run sweep(); run clock() }
}

/* P16: while half-open, not more permits are out than may be, over all brokers. */
ltl bounded { [] (really_out(0) + really_out(1) + really_out(2) <= CALLS) }
/* P16: that many failures in a row open it ... */
ltl opens { [] !(state == CLOSED && row >= THRESHOLD) }
/* ... and no fewer; a success in between begins the count anew. */
ltl in_a_row { [] !hasty }
/* P16: while it is open and its time has not passed, nobody is permitted. */
ltl closed_to_all { [] !early }
/* A permit from an earlier state, or one that was reported before, changes nothing. */
ltl old_is_void { [] !stale }
ltl once { [] !twice }
/* P17: callers that die do not hold up recovery ... */
ltl resolved { [] (state == HALF_OPEN -> <> (state != HALF_OPEN)) }
/* ... and again and again somebody is permitted. */
ltl in_use { [] <> granted }
