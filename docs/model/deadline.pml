/* Why a deadline alone is no fence for a Postgres batch (docs/adr/0001, "What was rejected").

   A permit lives from its issue for LIFE; the server ends what is still open then; whoever activates a hold waits for
   the deadline by the control database's clock, and asks nobody. With one clock, one timer that counts from the permit,
   and a COMMIT that takes effect at once or never, that does hold. Each variant takes one of the three away, which no
   real server gives: README.md beside this file. */

#define LIFE 3
#define MAX 9              /* the clock stops here; by then all is over */
#define STATEMENT 2        /* statement_timeout: less than LIFE, as every timer is */
#define IDLE 2             /* idle_in_transaction_session_timeout */

#ifdef CLOCKS_DIFFER
#define BEHIND 1           /* the server's clock, against that of the control database */
#else
#define BEHIND 0
#endif

mtype = { NONE, STATED, IDLING, SENT, OVER };
mtype transaction = NONE;
byte now;                  /* since the permit was issued */
byte timer;
bit permitted, placed, promised;

#ifdef TIMERS_ADD_UP
#define DUE ((transaction == STATED && now >= timer + STATEMENT) || (transaction == IDLING && now >= timer + IDLE))
#else
#define DUE ((transaction == STATED || transaction == IDLING) && now >= LIFE + BEHIND)
#endif
#ifdef COMMIT_TAKES_EFFECT_LATE
#define UNDER_WAY false
#else
#define UNDER_WAY (transaction == SENT)
#endif

/* The clock does not pass an instant at which the server has something to do, before it has done it. */
active proctype Clock() {
end:	do
	:: atomic { permitted && now < MAX && !DUE && !UNDER_WAY -> now++ }
	od
}

active proctype Server() {
end:	do
	:: atomic { DUE -> transaction = OVER }
	:: atomic { transaction == STATED -> transaction = IDLING; timer = now }    /* the statement is done */
	:: atomic { transaction == SENT ->
		assert(!promised);         /* under_hold: the permit was issued before the hold */
		transaction = OVER }
	od
}

active proctype Worker() {
	if
	:: atomic { !placed -> permitted = 1; transaction = STATED }
	:: atomic { placed -> goto end }       /* its predicate has the hold */
	fi;
	if
	:: atomic { transaction == IDLING -> transaction = SENT }
	:: transaction == OVER
	fi;
end:	skip
}

active proctype Hold() {
	placed = 1;
	atomic { !permitted || transaction == OVER || now > LIFE -> promised = 1 }
}
