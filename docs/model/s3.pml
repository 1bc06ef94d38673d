/* A store whose server enforces an absolute expiry, by its own clock: S3 (4-safety.md, "the server's clock is the fence").

   A request carries the instant at which its permit was issued, and a life, both signed. What the server accepts before
   the expiry it carries out within GRACE, which is an assumption about the server. Two attempts: the client may give the
   first one up, which the network or the server then still has. README.md beside this file says what each variant is. */

#define LIFE 4             /* of a permit, by the control database's clock */
#define MARGIN 1           /* of the request's expiry before the permit's: what is left of the clocks' difference */
#define GRACE 2            /* holds.late_effect_grace */
#define MAX 14             /* the clock stops here; by then all is over */
#define ATTEMPTS 2

#ifdef OFFSET_NOT_MEASURED
#define BEHIND 3           /* of the server's clock, at most */
#else
#define BEHIND 1
#endif

mtype = { UNSENT, TRAVELLING, ACCEPTED, ANSWERED, LOST };
mtype attempt[ATTEMPTS] = UNSENT;
byte accepted_at[ATTEMPTS];
byte expiry[ATTEMPTS];
byte now;                  /* since the permit was issued, by the control database's clock */
byte behind;               /* the server's clock against it */
bit permitted, prepared, ended, placed, promised;

#define LATE(a) (attempt[a] == ACCEPTED && now >= accepted_at[a] + GRACE)
#define PAST (now > LIFE + GRACE)

#ifdef WAITS_FOR_EVERY_ANSWER
#define ATTEMPT_OVER(a) (attempt[a] == UNSENT || attempt[a] == ANSWERED)
#else
#ifdef A_GATEWAYS_ANSWER_COUNTS
bit gateway[ATTEMPTS];     /* it has answered that it waits no longer for the server behind it */
#define ATTEMPT_OVER(a) (attempt[a] == UNSENT || attempt[a] == ANSWERED || gateway[a] || PAST)
#else
#define ATTEMPT_OVER(a) (attempt[a] == UNSENT || attempt[a] == ANSWERED || PAST)
#endif
#endif

/* The clock does not pass the instant by which a server has to have carried out what it accepted. */
active proctype Clock() {
end:	do
	:: atomic { permitted && now < MAX && !LATE(0) && !LATE(1) -> now++ }
	od
}

/* One attempt on its way: it may come late, or never, or be refused; and its answer may never come. */
proctype Request(byte a) {
#ifdef A_GATEWAYS_ANSWER_COUNTS
	if
	:: gateway[a] = 1
	:: skip
	fi;
#endif
	if
	:: atomic { now <= expiry[a] + behind -> attempt[a] = ACCEPTED; accepted_at[a] = now }
	:: atomic { now > expiry[a] + behind -> attempt[a] = ANSWERED; goto end }
	:: atomic { true -> attempt[a] = LOST; goto end }
	fi;
	atomic {
		assert(!promised);                 /* under_hold: the permit was issued before the hold */
		if
		:: attempt[a] = ANSWERED
		:: attempt[a] = LOST               /* the answer is */
		fi
	};
end:	skip
}

inline send(a) {
#ifdef EXPIRY_RECKONED_LATER
	atomic { now <= LIFE - MARGIN -> left = LIFE - MARGIN - now };
	atomic { expiry[a] = now + left; attempt[a] = TRAVELLING; left = 0; run Request(a) }
#else
	atomic { expiry[a] = LIFE - MARGIN; attempt[a] = TRAVELLING; run Request(a) }
#endif
}

active proctype Worker() {
#ifdef EXPIRY_RECKONED_LATER
	byte left;
#endif
	if
	:: behind = 0
	:: behind = BEHIND
	fi;
	if
	:: atomic { !placed -> permitted = 1 }
	:: atomic { placed -> goto end }       /* its list of what is to go has the hold */
	fi;
	if
#ifdef SENT_BEFORE_IT_IS_PREPARED
	:: skip
#else
#ifdef PREPARED_WITHOUT_A_LEASE
	:: prepared = 1
#else
	:: atomic { !ended -> prepared = 1 }   /* under the lease's fence, and as long as the permit is open */
	:: atomic { ended -> goto end }
#endif
#endif
	:: goto crash
	fi;
	if
	:: send(0)
	:: goto crash
	fi;
	if
	:: attempt[0] == ANSWERED
	:: send(1)                             /* the first one is given up */
	:: goto crash
	fi;
	if
#ifdef GIVEN_UP_IS_FORGOTTEN
	:: atomic { attempt[1] == ANSWERED -> ended = 1 }
#endif
	:: atomic { ATTEMPT_OVER(0) && ATTEMPT_OVER(1) -> ended = 1 }
	:: goto crash
	fi;
	goto end;
crash:	skip;                                  /* what it has sent goes on */
end:	skip
}

/* Whoever has the unit by now, whatever the first worker is at: stopped, cut off, dead. */
active proctype Takeover() {
end:	if
	:: atomic { permitted && !prepared && !ended -> ended = 1 }        /* nothing is sent before it is prepared */
#ifndef WAITS_FOR_EVERY_ANSWER
	:: atomic { permitted && prepared && PAST && !ended -> ended = 1 } /* and is looked at */
#endif
	fi
}

/* The permit ends for a hold when its outcome is written, or, after a crash or a pause, by the clock. */
active proctype Hold() {
	placed = 1;
#ifdef NO_GRACE
	atomic { !permitted || ended || now > LIFE -> promised = 1 }
#else
#ifdef WAITS_FOR_EVERY_ANSWER
	atomic { !permitted || ended -> promised = 1 }
#else
	atomic { !permitted || ended || PAST -> promised = 1 }
#endif
#endif
}

#ifdef LIVE
ltl becomes_active { [] (placed -> <> promised) }
#endif
