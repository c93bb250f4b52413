/*
 * lease: a heartbeat lease lives as long as its holder, and no longer. One agent name, under which two workers register one after the
 * other, or both at once; one queue with a message for it.
 *
 * Each `d_step` is one script in Redis, through any broker. Workers die, fall silent and come back, are superseded while they work on,
 * and deregister. The cap (max_lease) is never reached here.
 *
 *	holds: *
 *	fails: kept	BEATS_TRUSTED	the agents' sweep goes by PREFIX:beats, which no heartbeat moves
 *	fails: kept	LEASE_KEPT	who beats again after his lease ended reserves into it
 *	fails: counted	LEASE_KEPT	and a lease that ended ends once more, for another reason
 *	fails: ends	INDEX_LATER	the bucket is noted for its lease in a call after the one that reserved
 *	fails: ends	TOLD_KEPT	the sweep drops an empty bucket, and tick still takes it for noted
 *	fails: ends	HOLDER_ASKED	whether the holder lives is asked in a call before the one that reserves
 *	fails: ends	REGISTER_ONLY	a new incarnation leaves the lease of the one before alone
 *	fails: ends	SWEEP_BY_TIME	the sweep looks at when a bucket ends, and not at whose it is
 */
#define TTL 2     /* units of Redis's clock */
#define WORKERS 2 /* each has one incarnation; 0 is none */
#define LEASES 3  /* numbers of leases; 0 is none. Here one is used again when nothing is left of it */
#define NEVER 255

mtype = { NO, DIED, RELEASED };

/* Redis: the agent, PREFIX:a:NAME ... */
byte inc;                  /* the incarnation in force */
bool live;                 /* registered, and not marked dead */
bool registered;
byte beat;                 /* time since the last heartbeat */
byte lease;                /* what it reserves with; 0 until it does */
byte look = NEVER;         /* PREFIX:beats: time until the agents' sweep must look */
/* ... leases; here each has one bucket ... */
bool indexed[LEASES + 1];        /* PREFIX:l:LEASE has the bucket */
mtype ended[LEASES + 1] = NO;    /* PREFIX:ended */
/* ... and the queue. */
bool named[LEASES + 1];    /* BASE:b has the bucket, */
bool due[LEASES + 1];      /* to be looked at now */
byte told;                 /* the bucket that BASE:b was last told of */
byte held;                 /* whose bucket has the message; 0: it is ready */

/* What the world saw. */
byte holder;               /* the incarnation that holds the message, 0 none */
bool works[WORKERS + 1];   /* the worker's process is there */
mtype over = NO;           /* why what it holds should end */
bool taken_from_living, wrong_reason;

/* end_leases.lua */
inline end_leases(reason) {
	if
	:: lease ->
		if
		:: indexed[lease] -> ended[lease] = reason; due[lease] = named[lease]
		:: else
		fi;
#ifndef LEASE_KEPT
		lease = 0
#endif
	:: else
	fi
}

/* The incarnation in force is at its end, and so is what it holds. */
inline is_over(reason) {
	over = (holder == inc && holder && over == NO -> reason : over)
}

proctype worker(byte i) {
	/* register.lua */
	d_step {
		if
		:: registered ->
			is_over(DIED);
#ifdef REGISTER_ONLY
			lease = 0
#else
			end_leases(DIED)
#endif
		:: else
		fi;
		inc = i;
		registered = true;
		live = true;
		beat = 0;
		look = TTL + 1;
		works[i] = true
	};
	do
	/* beat.lua; who was marked dead lives again */
	:: d_step {
		inc == i && registered && (beat || !live) ->
		beat = 0;
		look = (live -> look : TTL + 1);
		live = true
	   }
	/* deregister.lua */
	:: d_step {
		inc == i && registered ->
		is_over(RELEASED);
		end_leases(RELEASED);
		registered = false;
		live = false;
		look = NEVER;
		works[i] = false
	   };
		break
	/* kill -9 */
	:: works[i] = false; break
	od
}

/* The hand-out in tick.lua, for a holder. */
#define is_alive (live && beat <= TTL)

#define is_free(n) (!named[n] && !indexed[n])
#define may_reserve (is_alive && !held && (lease || is_free(1) || is_free(2) || is_free(3)))

inline reserve() {
	lease = (lease -> lease : (is_free(1) -> 1 : (is_free(2) -> 2 : 3)));
	held = lease;
	holder = inc;
	over = NO;
	if
	:: told != lease ->
		told = lease;
#ifndef INDEX_LATER
		indexed[lease] = indexed[lease] || !named[lease];
#endif
		named[lease] = true
	:: else
	fi
}

proctype receiver() {
	byte number;

	do
#ifdef HOLDER_ASKED
	:: may_reserve; d_step { reserve() }
#else
	:: d_step { may_reserve -> reserve(); number = lease }
#endif
#ifdef INDEX_LATER
		if
		:: indexed[number] = true
		:: true; break /* the broker was killed */
		fi
#endif
	od
}

/* ack, from any connection; then the next message is ready. tick drops the empty bucket in the same call; here the sweep may do so at once, or later. */
proctype acker() {
	do
	:: d_step { held -> held = 0; holder = 0; over = NO }
	:: true -> break
	od
}

/* agents_sweep.lua */
proctype agents() {
	do
	:: d_step {
		!look ->
		if
#ifdef BEATS_TRUSTED
		:: true ->
#else
		:: beat <= TTL -> look = TTL + 1 - beat
		:: else ->
#endif
			if
			:: beat > TTL -> is_over(DIED)
			:: else
			fi;
			end_leases(DIED);
			live = false;
			look = NEVER
		fi
	   }
	od
}

/* drop_bucket.lua; sweep.lua then forgets what was told. */
inline drop_bucket(l) {
	named[l] = false;
	due[l] = false;
	indexed[l] = false;
	ended[l] = NO;
#ifndef TOLD_KEPT
	told = 0
#endif
}

/* sweep.lua, for one bucket */
proctype sweep(byte l) {
	do
	:: d_step {
		named[l] && due[l] ->
		if
#ifndef SWEEP_BY_TIME
		:: ended[l] != NO ->
			if
			:: held == l ->
				taken_from_living = taken_from_living || over == NO;
				wrong_reason = wrong_reason || over != ended[l];
				held = 0;
				holder = 0;
				over = NO
			:: else
			fi;
			drop_bucket(l)
#endif
		:: else -> due[l] = false /* until its end */
		fi
	   }
	/* Empty ones are dropped as they are met. */
	:: d_step { named[l] && held != l -> drop_bucket(l) }
	od
}

proctype clock() {
	do
	:: d_step {
		beat = beat + (beat <= TTL);
		look = (look == 0 || look == NEVER -> look : look - 1)
	   }
	od
}

init {
	atomic {
		run worker(1); run worker(2); run receiver(); run acker(); run agents(); run clock();
		run sweep(1); run sweep(2); run sweep(3)
	}
}

/* A lease does not end while its holder lives, in its incarnation. */
ltl kept { [] !taken_from_living }
/* It ends when the holder died, or was superseded, or deregistered. */
ltl ends { [] ((holder == 1 && (!works[1] || inc != 1)) -> <> (holder != 1)) }
/* A death is a failed delivery, a deregistration is not. */
ltl counted { [] !wrong_reason }
