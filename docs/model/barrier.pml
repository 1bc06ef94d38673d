/* Permits, the hold barrier, leases, crash, pause and resume, cut and late commit, on Postgres.

   Two workers erase and a hold comes and goes, for ever; every number of steps, in every order, is explored. What is
   promised: no record is erased under a hold that is active (or in its release grace); the outcome that is written of a
   batch is what happened; and (with LIVE) a hold that is placed becomes active.

   How to read it, what is left out, and which rule each variant leaves out: README.md beside this file. A variant is one
   #ifdef; none of them is set in the model proper.

   A process may be stopped between any two steps and come back much later: that is what interleaving means. So no step
   says `stop`, but those from which a worker never comes back (`crashed`, and in LIVE `stopped`). */

#ifndef UNITS
#define UNITS 1            /* 1: both workers want the same unit, and take it from each other. 2: each has its own. */
#endif
#define WORKERS 2
#define SLOTS 2            /* batches that are not over at the same time; a slot is used again when nothing is left of it */
#ifndef HOLDS
#define HOLDS 1
#endif

/* A transaction in the target database (`tx`, and `first`, the one that a quick batch begins with). It has the advisory
   lock of its permit's number while it is OPEN or its COMMIT is under way (SENT), whatever the client believes. */
#define NONE 0
#define OPEN 1
#define SENT 2
#define DONE 3             /* committed */
#define GONE 4             /* rolled back, by whoever */

/* The permit's transaction in the control database. From BARRED on it has the barrier's shared lock; once it has WRITTEN
   the permit it has the lock of the unit's row too, and may commit at any time, late as well. */
#define BARRED 1
#define WRITTEN 2

/* A hold. Released is ABSENT again: the next one in that place is another hold, which nobody knows yet. */
#define ABSENT 0
#define PENDING 1
#define ACTIVE 2
#define RELEASING 3
#define RELEASED 4
#define HOLDING(h) (hold[h] == PENDING || hold[h] == ACTIVE || hold[h] == RELEASING)

byte tx[SLOTS], first[SLOTS], ctl[SLOTS];
bit busy[SLOTS];           /* a worker has this batch in hand */
byte looking[SLOTS];       /* the workers, by bit, that are settling it for whoever left it */
bit open[SLOTS];           /* the permit is issued and has no outcome */
bit prepared[SLOTS];       /* the outcome-to-be is in the control database */
byte unit[SLOTS];
byte view[SLOTS];          /* the holds, by bit, in the predicate of the batch */

/* Of epochs only comparisons matter, so these are kept in their place, and the model has no last epoch. */
bit moved[SLOTS];          /* the epoch is later than that of `view` */
byte older[SLOTS];         /* the holds, by bit, that were placed under a later epoch than that of `view` */

byte hold[HOLDS];
bit promised[HOLDS];       /* it has an `effective_at`, and is not released */
byte passed[HOLDS];        /* the permits, by slot, whose fence was shown to hold to whoever activates this hold */

byte owner[UNITS];         /* worker + 1; a takeover gives the next fencing number, so only the last owner has it */
byte waiting;              /* those who want the barrier alone; in LIVE they go before new permits, as in Postgres' queue */
bit wanted;

#define BIT(n) (1 << (n))
#define HAS(mask, n) (((mask) >> (n)) & 1)
#define LIVES(t) ((t) == OPEN || (t) == SENT)
#define FENCED(s) (LIVES(tx[s]) || LIVES(first[s]))    /* somebody else can't get the advisory lock */
#define MINE (owner[u] == w + 1)
#define UNUSED(s) (!busy[s] && !looking[s] && !open[s] && !FENCED(s) && ctl[s] == NONE)

#ifdef JOINED              /* the target is in the control database: the batch's transaction writes the outcome itself */
#define ROW_LOCKED(s) (ctl[s] >= WRITTEN || (prepared[s] && LIVES(tx[s])))
#else
#define ROW_LOCKED(s) (ctl[s] >= WRITTEN)
#endif
#define ROW_FREE(u) (!(unit[0] == u && ROW_LOCKED(0)) && !(unit[1] == u && ROW_LOCKED(1)))

#ifdef HOLDS_PLACED_WITHOUT_BARRIER
#define ALONE true
#else
#define ALONE (ctl[0] < BARRED && ctl[1] < BARRED)
#endif

/* activation._clear: every open permit of an earlier epoch has its fence shown to hold. */
#define AWAITED(h, s) (open[s] && HAS(older[s], h) && !HAS(passed[h], s))
#ifdef ACTIVE_AT_ONCE
#define CLEAR(h) true
#else
#define CLEAR(h) (!AWAITED(h, 0) && !AWAITED(h, 1))
#endif

/* When nothing is left of the batch, its slot is as new. */
inline tidy(s) {
	tx[s] = (UNUSED(s) -> NONE : tx[s]);
	first[s] = (UNUSED(s) -> NONE : first[s]);
	prepared[s] = (UNUSED(s) -> 0 : prepared[s]);
	unit[s] = (UNUSED(s) -> 0 : unit[s]);
	view[s] = (UNUSED(s) -> 0 : view[s]);
	moved[s] = (UNUSED(s) -> 0 : moved[s]);
	older[s] = (UNUSED(s) -> 0 : older[s]);
	passed[0] = (UNUSED(s) -> passed[0] & ~BIT(s) : passed[0]);
#if HOLDS == 2
	passed[1] = (UNUSED(s) -> passed[1] & ~BIT(s) : passed[1]);
#endif
}

/* The batch takes effect: whatever its predicate does not except is gone. */
inline effect(s) {
	assert(!promised[0] || HAS(view[s], 0));   /* under_hold */
#if HOLDS == 2
	assert(!promised[1] || HAS(view[s], 1));   /* under_hold */
#endif
#ifndef TAKEOVER_ENDS_AT_ONCE  /* breaks this first; the point is that it breaks the promise of holds as well */
	assert(open[s]);                           /* outcome: nobody has written yet that it did nothing */
#endif
	tx[s] = DONE;
#ifdef JOINED
	open[s] = 0
#endif
}

inline bump() {
	moved[0] = 1; moved[1] = 1
}

/* holds.current: epoch and holds in one statement; all that is not released holds. */
inline read_holds(s) {
	view[s] = 0; moved[s] = 0; older[s] = 0;
	if
	:: HOLDING(0) -> view[s] = BIT(0)
#ifdef GRACE_BY_READERS_CLOCK
	:: hold[0] == RELEASING                    /* by this reader's clock the grace is over */
#endif
	:: else
	fi;
#if HOLDS == 2
	if
	:: HOLDING(1) -> view[s] = view[s] | BIT(1)
	:: else
	fi
#endif
}

/* The servers' side of one batch: timeouts and lost connections come at any time, a COMMIT takes effect at any time. */
proctype Servers(byte s) {
end:	do
	:: atomic { tx[s] == OPEN -> tx[s] = GONE; tidy(s) }
	:: atomic { tx[s] == SENT -> effect(s); tidy(s) }
	:: atomic { tx[s] == SENT -> tx[s] = GONE; tidy(s) }
#ifdef QUICK
	:: atomic { first[s] == OPEN -> first[s] = GONE; tidy(s) }
#endif
#ifdef NO_TIMEOUT_IN_THE_BARRIER
	:: atomic { ctl[s] == BARRED && !busy[s] -> ctl[s] = NONE; tidy(s) }
#else
	:: atomic { ctl[s] == BARRED -> ctl[s] = NONE; tidy(s) }
#endif
	:: atomic { ctl[s] == WRITTEN -> ctl[s] = NONE; open[s] = 1 }
	:: atomic { ctl[s] == WRITTEN -> ctl[s] = NONE; tidy(s) }
	od
}

/* permits.end_orphan, or permits.end: says what became of the batch. */
inline end_permit(s) {
#ifndef TAKEOVER_ENDS_AT_ONCE  /* breaks this first; the point is that it breaks the promise of holds as well */
	assert(tx[s] != DONE || prepared[s]);      /* outcome: what is not prepared is said to have done nothing */
#endif
	open[s] = 0
}

#define OTHERWISE_LOST :: atomic { true -> goto crashed }

proctype Worker(byte w; byte u) {
	byte s;
#ifdef SNAPSHOT_BEFORE_LOCK
	bit had_moved;
#endif

start:	/* units.acquire: the lease of whoever has it may be over at any time. */
	if
	:: MINE
	:: atomic { !MINE && ROW_FREE(u) -> owner[u] = w + 1 }
	fi;

settle:	/* recovery.settle_open_permits: a permit of the unit without an outcome comes first. */
	if
	:: atomic { open[0] && unit[0] == u -> s = 0; looking[s] = looking[s] | BIT(w) }
	:: atomic { open[1] && unit[1] == u -> s = 1; looking[s] = looking[s] | BIT(w) }
	:: atomic { !(open[0] && unit[0] == u) && !(open[1] && unit[1] == u) -> goto take }
	fi;
#ifndef TAKEOVER_ENDS_AT_ONCE
	if
	:: !FENCED(s)
	:: atomic { true -> goto settled }
	fi;
#endif
	if
	:: atomic { ROW_FREE(u) && MINE && open[s] -> end_permit(s); goto settled }
	:: atomic { true -> goto settled }
	fi;
settled:
	atomic { looking[s] = looking[s] & ~BIT(w); tidy(s); s = 0; goto start };

take:	/* A number that nobody else gets (a slot that nothing is left of), and the holds as they are now. */
	if
	:: atomic { MINE && (UNUSED(0) || UNUSED(1)) ->
		s = (UNUSED(0) -> 0 : 1); busy[s] = 1; unit[s] = u; read_holds(s) }
	:: atomic { !MINE -> goto start }
	fi;

	/* batch.begin: the fence, before the permit is asked for. */
#ifndef PERMIT_BEFORE_FENCE
	if
#ifdef QUICK
	:: atomic { true -> first[s] = OPEN }
#else
	:: atomic { true -> tx[s] = OPEN }
#endif
	OTHERWISE_LOST
	fi;
#endif

	/* permits.issue: the barrier, in a statement of its own … */
#ifdef SNAPSHOT_BEFORE_LOCK
	had_moved = moved[s];
#endif
	if
#ifdef NO_QUEUE
	:: atomic { true -> ctl[s] = BARRED }
#else
	:: atomic { waiting == 0 -> ctl[s] = BARRED }
#endif
	OTHERWISE_LOST
	fi;
	/* … then what the permit depends on, in a later one, and the permit. */
	if
#ifdef SNAPSHOT_BEFORE_LOCK
	:: atomic { ctl[s] == BARRED && ROW_FREE(u) && MINE && !had_moved -> ctl[s] = WRITTEN; had_moved = 0 }
#else
	:: atomic { ctl[s] == BARRED && ROW_FREE(u) && MINE && !moved[s] -> ctl[s] = WRITTEN }
	:: atomic { ctl[s] == BARRED && moved[s] -> goto drop }                  /* EpochMoved */
#endif
	:: atomic { ctl[s] == BARRED && !MINE -> goto drop }                     /* Fenced */
	:: atomic { ctl[s] != BARRED -> goto drop }                              /* the server has ended it */
	OTHERWISE_LOST
	fi;
	if
	:: ctl[s] == NONE && open[s]
	:: atomic { ctl[s] == NONE && !open[s] -> goto drop }
	OTHERWISE_LOST                                                            /* no answer: given up */
	fi;

#ifdef PERMIT_BEFORE_FENCE
	tx[s] = OPEN;
#endif
#ifdef QUICK
	/* quick._require_unchanged: the deleting transaction takes the fence too … */
	if
	:: atomic { true -> tx[s] = OPEN }
	OTHERWISE_LOST
	fi;
	/* … quick._hand_over: and the first one says that it has had it until now. */
	if
#ifdef FIRST_NOT_ASKED
	:: atomic { true -> first[s] = GONE }
#else
	:: atomic { first[s] == OPEN -> first[s] = GONE }
	:: atomic { first[s] != OPEN -> goto drop }
#endif
	OTHERWISE_LOST
	fi;
#endif

	/* permits.prepare, between DELETE and COMMIT; JOINED: the outcome, in the batch's own transaction. */
#ifdef OUTCOME_NOT_PREPARED
	skip;
#else
prepare:
	if
	:: atomic { ROW_FREE(u) && MINE && open[s] && tx[s] == OPEN -> prepared[s] = 1 }
	:: atomic { ROW_FREE(u) && !(MINE && open[s]) -> goto drop }
	:: atomic { tx[s] != OPEN -> goto undone }
	OTHERWISE_LOST
	fi;
#endif
	if
	:: atomic { tx[s] == OPEN -> tx[s] = SENT }
	:: atomic { tx[s] != OPEN -> goto undone }
	OTHERWISE_LOST
	fi;

	/* sweeper._settle: the outcome, where COMMIT was answered. */
	if
	:: tx[s] == DONE
	:: atomic { tx[s] == GONE -> goto drop }
	OTHERWISE_LOST                                                            /* no answer: given up */
	fi;
#ifndef JOINED
	if
	:: atomic { ROW_FREE(u) && MINE && open[s] -> end_permit(s); goto drop }
	:: atomic { ROW_FREE(u) && !(MINE && open[s]) -> goto drop }
	OTHERWISE_LOST
	fi;
#endif
	goto drop;

undone:	/* The server has ended the transaction. A retry is another one, with a permit of its own. */
#ifdef PERMIT_USED_TWICE
	atomic { tx[s] = OPEN; goto prepare };
#endif

drop:	/* Whatever is left of it is rolled back by the worker itself. */
	atomic {
		if
		:: tx[s] == OPEN -> tx[s] = GONE
		:: else
		fi;
		if
		:: first[s] == OPEN -> first[s] = GONE
		:: else
		fi;
		if
		:: ctl[s] == BARRED -> ctl[s] = NONE
		:: else
		fi;
		busy[s] = 0; tidy(s); s = 0; goto start
	};

crashed: /* Or cut off: what it has begun is left to the servers; it comes back as a new process, or it doesn't. */
#ifdef LIVE
	if
	:: true -> goto stopped
	:: true
	fi;
#endif
	atomic { busy[s] = 0; tidy(s); s = 0; goto start };

#ifdef LIVE
stopped: /* For ever, with all in hand. */
end:	false
#endif
}

inline place(h) {
	hold[h] = PENDING; passed[h] = 0; bump();
	older[0] = older[0] | BIT(h); older[1] = older[1] | BIT(h);
	view[0] = view[0] & ~BIT(h); view[1] = view[1] & ~BIT(h)
}

inline activate(h) {
	hold[h] = ACTIVE; promised[h] = 1; passed[h] = 0; bump()
}

/* activation._ask: the target is asked for the lock of a permit that is waited for. */
#define ASKED(h, s) atomic { hold[h] == PENDING && AWAITED(h, s) && !FENCED(s) -> passed[h] = passed[h] | BIT(s) }

#ifdef LIVE
/* Whoever places the hold and, with as many others as you like, activates it. */
proctype Hold(byte h) {
	atomic { wanted = 1; waiting++ };
	atomic { ALONE -> waiting--; place(h) };
	do
	:: ASKED(h, 0)
	:: ASKED(h, 1)
	:: atomic { CLEAR(h) -> waiting++; break }
	od;
	atomic { ALONE && CLEAR(h) -> waiting--; activate(h) }
}

ltl becomes_active { [] (wanted -> <> (hold[0] == ACTIVE)) }
#else
/* All that happens to a hold, by any process, each step in a transaction that has the barrier alone. The second one, if
   there is one, comes and stays: README.md. */
proctype Hold(byte h) {
end:	do
	:: atomic { hold[h] == ABSENT && ALONE -> place(h) }
	:: ASKED(h, 0)
	:: ASKED(h, 1)
	:: atomic { hold[h] == PENDING && CLEAR(h) && ALONE -> activate(h) }
	:: atomic { h == 0 && (hold[h] == PENDING || hold[h] == ACTIVE) && ALONE ->
		hold[h] = RELEASING; passed[h] = 0; bump();
#ifdef GRACE_BY_READERS_CLOCK
		promised[h] = 0                        /* who knows when it is over: what counts is a hold that is active */
#endif
	   }
	:: atomic { hold[h] == RELEASING && ALONE ->
		bump();
#ifdef GRACE_BY_READERS_CLOCK
		hold[h] = ACTIVE; promised[h] = 1
#else
		if
		:: promised[h] -> hold[h] = ACTIVE
		:: else -> hold[h] = PENDING
		fi
#endif
	   }
#ifdef RELEASED_IS_REINSTATED
	:: atomic { hold[h] == RELEASING && ALONE -> hold[h] = RELEASED; promised[h] = 0; bump() }
	:: atomic { hold[h] == RELEASED && ALONE -> activate(h) }
#else
	:: atomic { hold[h] == RELEASING && ALONE -> hold[h] = ABSENT; promised[h] = 0; bump() }
#endif
	od
}
#endif

init {
	atomic {
		run Servers(0); run Servers(1);
		run Worker(0, 0); run Worker(1, UNITS - 1);
		run Hold(0);
#if HOLDS == 2
		run Hold(1)
#endif
	}
}
