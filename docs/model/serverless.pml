/* Stores with no server to enforce anything: files, journald (4-safety.md). Their permit does not time out: a hold waits
   for the outcome, or until the worker is shown to be gone, by its lock file, which the system frees when it dies.
   README.md beside this file says what the variant is. */

#define LIFE 2
#define MAX 5              /* the clock stops here; by then all is over */

byte now;                  /* since the permit was issued */
byte files = 3;
bit permitted, ended, placed, promised;
bit locked = 1;            /* the worker's lock file */

active proctype Clock() {
end:	do
	:: atomic { permitted && now < MAX -> now++ }
	od
}

/* It may be stopped between any two steps, and come back; it unlinks one file after another. */
active proctype Worker() {
	if
	:: atomic { !placed -> permitted = 1 }
	:: atomic { placed -> goto end }       /* its list of what is to go has the hold */
	fi;
	do
	:: atomic { files > 0 -> files--; assert(!promised) }      /* under_hold: the permit is older than the hold */
	:: atomic { true -> ended = 1; break }
	:: atomic { true -> locked = 0; break }     /* it dies */
	od;
end:	skip
}

active proctype Hold() {
	placed = 1;
#ifdef PERMIT_TIMES_OUT
	atomic { !permitted || ended || !locked || now > LIFE -> promised = 1 }
#else
	atomic { !permitted || ended || !locked -> promised = 1 }
#endif
}
