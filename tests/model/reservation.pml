/*
 * reservation: a message is stored once, handed to one at a time, settled once, and never lost. Two receivers, two brokers that both
 * sweep, and whoever has a token. One message will do: others are in other places, and nothing here depends on their order.
 *
 * Each `atomic` or `d_step` is one script in Redis, and all else interleaves. A broker keeps nothing, so what its death does is: a caller does not
 * hear the answer (he sends again, or never learns his token), and what would be two calls stops after the first. Who may sweep, and
 * what an outage changes, is in outage.pml; here everybody sweeps at any time.
 *
 *	holds: *
 *	fails: exclusive	TWO_STEPS	the head is read in one call and reserved in the next
 *	fails: exclusive	EXTEND_UNSEEN	the sweep does not look for extensions
 *	fails: settled_once	ACK_ANY		an ack looks for a reservation of the message, not for the token's
 *	fails: settled_once	ACK_KEEPS	an ack leaves the reservation to the sweep
 *	fails: counted		ACK_COUNTS	an ack counts, whether or not the reservation was there
 *	fails: conserved	NACK_TWO_CALLS	a nack takes the reservation away in one call and puts the message back in the next
 *	fails: conserved	SWEEP_TWO_CALLS	the sweep lists what is due in one call and puts it back in the next
 *	fails: conserved	DEDUP_LATER	a send stores in one call and remembers its digest in the next
 *	fails: conserved	DEDUP_FIRST	a send remembers its digest in one call and stores in the next
 *	fails: bounded		SWEEP_UNCOUNTED	a deadline that passes is no failed delivery
 *	fails: drained		EXTEND_DROPPED	the sweep forgets the bucket of what was extended
 */
#define RETRIES 1
#define RELEASES 1
#define EXTENDS 1
#define TOKENS 3  /* that many deliveries there can be: RETRIES + 1, and one more when it was released */
#define TIMEOUT 1 /* units of Redis's clock */
#define LONGER 2  /* the timeout that `extend` asks for */

/* Redis */
byte ready;            /* how often the message is in BASE:5 */
bool known;            /* its digest is in BASE:mN */
byte attempts;
byte dead;             /* how often it is in BASE:x */
byte reserved;         /* as the state counts */
byte tokens;           /* so many there were; they differ by their random bytes */
bool live[TOKENS];     /* the field is in BASE:rBUCKET */
bool named[TOKENS];    /* the bucket is in BASE:b */
byte ends[TOKENS];     /* time until the bucket ends */
byte later[TOKENS];    /* and until the deadline in BASE:eBUCKET */

/* What the world saw, and may expect. */
byte kills = 2;        /* brokers die with a call under way that often: its answer is not heard, a second call is not made */
byte releases = RELEASES, extends = EXTENDS; /* with more of them the message could be held for ever */
bool told;             /* the send was answered */
byte acked;
byte failures;
byte promised[TOKENS]; /* time until the deadline that the holder was told */
bool over[TOKENS];     /* settled, or taken back */
bool handed_twice, settled_again, handed_too_often;

#define held   (live[0] + live[1] + live[2])
#define places (ready + held + dead + acked)

/* queue_send(), and a client that sends again until it is told */
proctype sender() {
	do
	:: told -> break
	:: !told ->
#if defined(DEDUP_FIRST)
		if
		:: known
		:: atomic { !known -> known = true };
			if
			:: ready++
			:: atomic { kills -> kills--; goto lost }
			fi
		fi;
#elif defined(DEDUP_LATER)
		if
		:: known
		:: atomic { !known -> ready++ };
			if
			:: known = true
			:: atomic { kills -> kills--; goto lost }
			fi
		fi;
#else
		d_step {
			if
			:: !known -> known = true; ready++
			:: else /* duplicate */
			fi
		}
#endif
		if
		:: told = true
		:: atomic { kills -> kills--; goto lost }
		fi;
lost:		skip
	od
}

/* The hand-out of tick.lua. */
inline reserve() {
	handed_twice = handed_twice || promised[0] || promised[1] || promised[2];
	handed_too_often = handed_too_often || failures > RETRIES;
	live[tokens] = true;
	named[tokens] = true;
	ends[tokens] = TIMEOUT;
	promised[tokens] = TIMEOUT;
	tokens++;
	reserved++
}

/* receive. Whether its answer is heard makes no difference: below, no token has to be settled. */
proctype receiver() {
	do
#ifdef TWO_STEPS
	:: ready; d_step { ready = ready - (ready > 0); reserve() }
#else
	:: d_step { ready -> ready--; reserve() }
#endif
	od
}

/* What tick.lua and sweep.lua do with a reservation that ends. */
inline take_away(t) {
	live[t] = false;
	reserved--;
	over[t] = true
}

/* A token was good for something: so it had to be, and nobody counts on it any more. */
inline settles(t) {
	settled_again = settled_again || over[t];
	over[t] = true;
	promised[t] = 0
}

inline put_back_failed() {
	attempts++;
	if
	:: attempts > RETRIES -> dead++
	:: else -> ready++
	fi
}

/* From any connection, through any broker, with any token that ever was: holders in time, late ones, those who repeat themselves. */
proctype holder() {
	byte t;

	do
	:: select (t : 0 .. TOKENS - 1);
		if
		/* ack: tick.lua, A */
#if defined(ACK_ANY)
		:: d_step { held && t < tokens ->
			settles(t);
			t = (live[0] -> 0 : (live[1] -> 1 : 2));
			take_away(t);
			acked++
		   }
#elif defined(ACK_KEEPS)
		:: d_step { live[t] -> settles(t) }
#else
		:: d_step { live[t] -> settles(t); take_away(t); acked++ }
#endif
#ifdef ACK_COUNTS
		:: d_step { !live[t] && reserved -> reserved-- }
#endif
		/* nack: N. It becomes due only after a while, which nothing here depends on. */
		:: d_step { live[t] ->
			settles(t);
			take_away(t);
			failures++;
#ifdef NACK_TWO_CALLS
		   }
			if
			:: d_step { put_back_failed() }
			:: atomic { kills -> kills-- }
			fi
#else
			put_back_failed()
		   }
#endif
		/* release: R */
		:: d_step { live[t] && releases -> releases--; settles(t); take_away(t); ready++ }
		/* extend: X */
		:: d_step { live[t] && extends -> extends--; later[t] = LONGER; promised[t] = LONGER }
		/* a token that is good for nothing */
		:: true
		fi
	od
}

/* sweep_bucket() of sweep.lua, for one bucket */
inline sweep(t) {
	if
	:: !named[t] || ends[t]
	:: named[t] && !ends[t] && !live[t] -> named[t] = false
#ifdef EXTEND_UNSEEN
	:: named[t] && !ends[t] && live[t] ->
#else
	:: named[t] && !ends[t] && live[t] && later[t] ->
#ifdef EXTEND_DROPPED
		named[t] = false
#else
		skip
#endif
	:: named[t] && !ends[t] && live[t] && !later[t] ->
#endif
		named[t] = false;
		take_away(t);
		failures++;
#ifdef SWEEP_UNCOUNTED
		ready++
#else
		put_back_failed()
#endif
	fi
}

proctype sweeper() {
	byte t;

	do
#ifdef SWEEP_TWO_CALLS
	:: select (t : 0 .. TOKENS - 1);
		if
		:: named[t] && !ends[t] && live[t] && !later[t];
			d_step {
				named[t] = false;
				reserved = reserved - live[t];
				live[t] = false;
				over[t] = true;
				failures++;
				put_back_failed()
			}
		:: else
		fi
#else
	:: d_step {
		for (t : 0 .. TOKENS - 1) {
			sweep(t)
		}
		t = 0
	   }
#endif
	od
}

/* Redis's clock, told as what is left until something. */
proctype clock() {
	byte t;

	do
	:: d_step {
		for (t : 0 .. TOKENS - 1) {
			ends[t] = ends[t] - (ends[t] > 0);
			later[t] = later[t] - (later[t] > 0);
			promised[t] = promised[t] - (promised[t] > 0)
		}
		t = 0
	   }
	od
}

init {
	atomic {
		run sender(); run receiver(); run receiver(); run holder(); run sweeper(); run sweeper(); run clock()
	}
}

/* P1, P2, P8, P9, P14: the message is in one place, and in none only before its send was answered. */
ltl conserved { [] (places <= 1 && (told -> places == 1)) }
/* P4: nobody gets what is another's until a time that this one was told. */
ltl exclusive { [] !handed_twice }
/* P5, P6: a token settles once, and not after it was taken back. */
ltl settled_once { [] !settled_again }
/* P7 */
ltl bounded { [] !handed_too_often }
/* P9, by the statistics */
ltl counted { [] (reserved == held) }
/* P8, P13: whoever dies, at last the message was acked or is a dead letter. */
ltl drained { <> (acked + dead > 0) }
