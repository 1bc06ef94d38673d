/* Stores whose deletions run later by themselves (4-safety.md): OpenSearch tasks. What is sent may come late; the server
   refuses it once its fence is gone, and what it took on before is asked for and cancelled.
   README.md beside this file says what each variant is. */

bit fence, permitted, ended, prepared, over, placed, promised;
bit sent, running, cancelling;

active proctype Clock() {
end:	atomic { permitted -> over = 1 }       /* the permit's deadline */
}

/* It may be stopped between any two steps, and come back. */
active proctype Worker() {
#ifndef FENCE_MADE_WHEN_SENT
	fence = 1;
#endif
	if
	:: atomic { !placed -> permitted = 1 }
	:: atomic { placed -> goto end }       /* its query leaves out what the hold covers */
	fi;
	if
#ifdef PREPARED_AFTER_THE_DEADLINE
	:: atomic { !ended -> prepared = 1 }
	:: ended -> goto end
#else
	:: atomic { !ended && !over -> prepared = 1 }
	:: ended || over -> goto end
#endif
	:: goto end                            /* it dies */
	fi;
#ifdef FENCE_MADE_WHEN_SENT
	fence = 1;
#endif
	sent = 1;
	if
	:: atomic { !sent && !ended -> ended = 1 }     /* answered: what was taken on is written down */
	:: true                                        /* no answer, or it dies: the permit stays open */
	fi;
end:	skip
}

active proctype Server() {
end:	do
	:: atomic { sent -> sent = 0;
		if
		:: fence -> running = 1
		:: else
		fi }
	:: atomic { running -> assert(!promised) }     /* under_hold: the query is older than the hold */
	:: atomic { running -> running = 0 }           /* it is done */
	:: atomic { cancelling -> cancelling = 0; running = 0 }
	od
}

active proctype Takeover() {
end:	if
	:: atomic { permitted && !ended && !prepared -> ended = 1 }
	:: permitted && !ended && prepared ->
#ifndef TAKEOVER_LEAVES_THE_FENCE
		fence = 0;
#endif
		ended = 1
	fi
}

inline ask_the_store() {
	if
	:: running -> cancelling = 1;
#ifndef CANCEL_NOT_CONFIRMED
		!running
#endif
	:: !running
	fi
}

active proctype Hold() {
	placed = 1;
#ifdef STORE_ASKED_FIRST
	ask_the_store();
#endif
	if
	:: atomic { !permitted || ended }
	:: atomic { permitted && !ended && prepared -> fence = 0 }
#ifdef UNPREPARED_IS_PASSED_AT_ONCE
	:: atomic { permitted && !ended && !prepared }
#else
	:: atomic { permitted && !ended && !prepared && over }
#endif
	fi;
#ifndef STORE_ASKED_FIRST
	ask_the_store();
#endif
	promised = 1
}
