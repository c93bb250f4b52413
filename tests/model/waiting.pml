/*
 * waiting: no wake-up is lost. Two brokers, a receiver at each that asks again whenever it got something, one to three messages.
 *
 * Each `atomic` is one script in Redis, or one callback in a broker; all else interleaves: between a call, its script and its
 * answer anything can happen, and broker 1 may be killed. So that a lost wake-up shows, nobody looks again by himself each
 * second here; with LOSSY he does, and bells get lost and notes run out.
 *
 *	holds: served	MESSAGES=3
 *	holds: served	LOSSY MESSAGES=1
 *	fails: served	NOTE_APART	a receiver is noted in a call after the one that found nothing
 *	fails: served	BELL_PARKED	a bell is heard only where a receiver is parked, not where it is on its way there
 *	fails: served	BELL_BELIEVED	who is rung believes that his note is still there
 *	fails: served	LEFT_BELIEVED MESSAGES=3	who left something believes that his note is still heeded
 *	fails: served	RING_ONE	the sweep rings one broker of those that are noted
 *	fails: served	SWEEP_SILENT	the sweep rings nobody
 *	fails: served	YIELD_TO_ALL	two brokers whose receivers have waited for long go behind each other
 *	fails: served	LOSSY NO_SECOND MESSAGES=1	bells get lost and nobody looks again by himself
 */
#ifndef MESSAGES
#define MESSAGES 2
#endif

mtype = { ABSENT, NEW, ASKED, PARKED }; /* a receiver; NEW waits for the next call */
mtype = { IDLE, CALLED, ANSWERED, NOTING }; /* the call of a broker; there is one at a time (TICK_IN_FLIGHT) */

/* Redis */
byte ready;      /* BASE:5 */
bool noted[2];   /* BASE:w has this broker ... */
bool older[2];   /* ... with a time: its receiver came before that of the other broker */
bool flagged;    /* the state's flag 2: a broker waits */
bool rung[2];    /* PUBLISHed, not yet heard */
byte reserved_for_dead;

/* Brokers: struct queue, struct receive, struct tick */
bool killed;     /* broker 1 */
bool look[2], believes[2] /* noted_until_us is to come */, yielding[2];
mtype receiver[2] = ABSENT;
byte latest;     /* at which broker a receiver came last */
byte unsent[2];  /* messages that travel in the next call */
mtype tick[2] = IDLE;
byte sends[2];
bool asks[2], notes[2], got[2], yields[2], left[2];

#define is_killed(b) (b == 1 && killed)

#ifdef YIELD_TO_ALL
#define goes_first(other, b) (noted[other])
#else
#define goes_first(other, b) (noted[other] && older[other])
#endif

/* The note of who waits: the end of tick.lua. */
inline note(b) {
	noted[b] = true;
	older[b] = latest != b;
	flagged = true
}

proctype broker(byte b) {
	do
	/* queues_on_turn_end(), tick_run(), take_parked(), about_waiting() */
	:: atomic {
		!is_killed(b) && tick[b] == IDLE && (unsent[b] || receiver[b] == NEW ||
			look[b] && receiver[b] == PARKED && !yielding[b]) ->
		sends[b] = unsent[b];
		unsent[b] = 0;
		if
		:: yielding[b] ->
			if
			:: receiver[b] == NEW -> receiver[b] = PARKED
			:: else
			fi
		:: else ->
			asks[b] = receiver[b] == NEW || receiver[b] == PARKED && (look[b] || sends[b]);
			look[b] = false
		fi;
		notes[b] = receiver[b] != ABSENT && !believes[b];
		believes[b] = believes[b] || notes[b];
		if
		:: asks[b] -> receiver[b] = ASKED
		:: else
		fi;
		tick[b] = CALLED
	   }
	/* tick.lua; also when its broker is dead by now. */
	:: atomic {
		tick[b] == CALLED ->
		ready = ready + sends[b];
		sends[b] = 0;
		if
		:: asks[b] && goes_first(1 - b, b) -> yields[b] = true /* when it has waited for half a second */
		:: true
		fi;
		if
		:: asks[b] && !yields[b] && ready -> ready--; got[b] = true
		:: else
		fi;
		left[b] = ready > 0;
		if
		:: left[b] && flagged ->
			if
			:: noted[1 - b] -> rung[1 - b] = true; noted[1 - b] = false; older[1 - b] = false
			:: else
			fi;
			flagged = false
		:: else
		fi;
#ifndef NOTE_APART
		if
		:: notes[b] -> note(b)
		:: else
		fi;
#endif
		tick[b] = ANSWERED
	   }
	/* tick_on_reply(), tell_receives() */
	:: atomic {
		tick[b] == ANSWERED ->
		if
		:: is_killed(b) -> reserved_for_dead = reserved_for_dead + got[b]
		:: else ->
			yielding[b] = yielding[b] || yields[b];
			if
			:: asks[b] && got[b] -> receiver[b] = ABSENT
			:: asks[b] && !got[b] -> receiver[b] = PARKED
			:: else
			fi;
#ifndef LEFT_BELIEVED
			believes[b] = believes[b] && !left[b];
#endif
			look[b] = look[b] || left[b] && receiver[b] == PARKED
		fi;
		asks[b] = false; got[b] = false; yields[b] = false; left[b] = false;
#ifdef NOTE_APART
		if
		:: notes[b] && receiver[b] == PARKED -> tick[b] = NOTING
		:: else -> tick[b] = IDLE
		fi;
#else
		tick[b] = IDLE;
#endif
		notes[b] = false
	   }
#ifdef NOTE_APART
	:: atomic { tick[b] == NOTING -> note(b); tick[b] = IDLE }
#endif
	od
}

/* queues_look() */
proctype bell(byte b) {
	do
	:: atomic {
		rung[b] -> rung[b] = false;
		if
		:: !is_killed(b) ->
#ifdef BELL_PARKED
			look[b] = look[b] || receiver[b] == PARKED;
#else
			look[b] = true;
#endif
#ifndef BELL_BELIEVED
			believes[b] = false
#endif
#ifdef LOSSY
		:: true /* the bell's connection is away */
#endif
		:: is_killed(b)
		fi
	   }
	od
}

/* on_yielded(): the others had their 20 ms */
proctype yielded(byte b) {
	do
	:: atomic { yielding[b] -> yielding[b] = false; look[b] = true }
	od
}

/* queues_look_all(), each second. By then a note is to be renewed. */
proctype second(byte b) {
	do
	:: atomic { !look[b] || believes[b] -> look[b] = true; believes[b] = false }
	od
}

/* queue_receive(), and its client, who acks and asks again */
proctype client(byte b) {
	do
	:: atomic { !is_killed(b) && receiver[b] == ABSENT -> receiver[b] = NEW; latest = b; older[1 - b] = noted[1 - b] }
	od
}

/* queue_send() through any broker */
proctype sender() {
	byte n;

	do
	:: atomic {
		n < MESSAGES -> n++;
		if
		:: unsent[0]++
		:: !killed -> unsent[1]++
		fi
	   }
	:: else -> break
	od
}

/* kill -9. What was handed out in an answer that nobody reads is taken back by the sweep. */
proctype killer() {
	if
	:: atomic {
		killed = true;
		receiver[1] = ABSENT;
		unsent[1] = 0;
		look[1] = false; believes[1] = false; yielding[1] = false
	   }
	:: true
	fi
}

/* sweep.lua, and its ring() */
proctype sweep() {
	do
	:: atomic {
		reserved_for_dead -> reserved_for_dead--;
		ready++;
#ifndef SWEEP_SILENT
		if
#ifdef RING_ONE
		:: noted[1] -> rung[1] = true
		:: !noted[1] && noted[0] -> rung[0] = true
		:: else
#else
		:: true -> rung[0] = rung[0] || noted[0]; rung[1] = rung[1] || noted[1]
#endif
		fi;
		noted[0] = false; noted[1] = false; older[0] = false; older[1] = false;
		flagged = false
#endif
	   }
	od
}

init {
	atomic {
		run broker(0); run bell(0); run yielded(0); run client(0);
		run broker(1); run bell(1); run yielded(1); run client(1);
#if defined(LOSSY) && !defined(NO_SECOND)
		run second(0); run second(1);
#endif
		run sender(); run killer(); run sweep()
	}
}

/* What is ready and a receiver that waits are not there together for ever. */
ltl served { [] (ready > 0 -> <> (ready == 0)) }
