/* Stores with no server to enforce anything: files, journald, providers by HTTP (4-safety.md). Their permit does not time
   out: a hold waits for the outcome, or until the worker is shown to be gone, by its lock file, which the system frees when
   it dies, and which stays while it is only stopped. Its lease does run out: another worker may have the unit by then.
   README.md beside this file says what each variant is. */

#define LIFE 2
#define MAX 5              /* the clock stops here; by then all is over */
#define FILES 2

byte now;                  /* since the permit was issued */
byte files = FILES;        /* that are still there */
byte told;                 /* of how many the ledger says that they are gone */
bit permitted, prepared, ended, placed, promised;
bit locked;                /* the worker's lock file */
bit mine = 1;              /* the lease is the first worker's */

active proctype Clock() {
end:	do
	:: atomic { permitted && now < MAX -> now++ }
	od
}

/* It may be stopped between any two steps, and come back; it unlinks one file after another. */
active proctype Worker() {
	byte gone;
#ifdef PERMIT_BEFORE_THE_LOCK
	if
	:: atomic { !placed && mine -> permitted = 1 }
	:: atomic { placed || !mine -> goto end }
	fi;
	locked = 1;
#else
	locked = 1;
	if
	:: atomic { !placed && mine -> permitted = 1 }
	:: atomic { placed || !mine -> goto leave }     /* its list of what is to go has the hold */
	:: goto leave                                   /* it dies */
	fi;
#endif
#ifdef BEGUN_BEFORE_IT_IS_PREPARED
	skip;
#else
	if
	:: atomic { mine && !ended -> prepared = 1 }    /* under the lease, and as long as the permit is open */
	:: atomic { !mine || ended -> goto leave }
	:: goto leave
	fi;
#endif
	do
	:: atomic { files > 0 -> files--; gone++; assert(!promised) }   /* under_hold: the permit is older than the hold */
	:: goto leave
	:: files == 0 -> break
	od;
	if
	:: atomic { mine && !ended -> ended = 1; told = told + gone }
	:: atomic { !mine || ended -> skip }            /* the late outcome is refused */
	:: skip                                         /* it dies */
	fi;
leave:	locked = 0;
end:	skip
}

/* Whoever has the unit by now, whatever the first worker is at: stopped, cut off, dead. */
active proctype Takeover() {
	mine = 0;
#ifdef TAKEOVER_LOOKS_AT_ONCE
endlook: permitted && !ended;
#else
endwait: permitted && !ended && !locked;
#endif
	atomic {
		if
		:: !prepared -> ended = 1                       /* nothing is destroyed before it is prepared */
		:: prepared -> ended = 1; told = told + FILES - files
		fi
	}
}

/* What the ledger is told is what happened, once nothing can happen any more. */
active proctype Auditor() {
end:	atomic { ended && !locked -> assert(told == FILES - files) }
}

active proctype Hold() {
	placed = 1;
#ifdef PERMIT_TIMES_OUT
	atomic { !permitted || ended || !locked || now > LIFE -> promised = 1 }
#else
	atomic { !permitted || ended || !locked -> promised = 1 }
#endif
}
