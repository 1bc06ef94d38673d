"""The model of permits, barrier and holds (docs/model): what is promised holds, and each rule is needed for it.

A rule that is left out must break the promise, or the model would not have checked it.
"""

import re

import pytest

from services.spin import MODELS, Answer, Question, answer, check

pytestmark = pytest.mark.system

UNDER_HOLD, OUTCOME, TOLD, NEVER_ACTIVE = "promised", "prepared", "told", "acceptance cycle"

KEPT = {
    "two workers that take one unit from each other": Question("barrier.pml"),
    "two workers that have a unit each": Question("barrier.pml", ("UNITS=2",)),
    "two holds": Question("barrier.pml", ("HOLDS=2",)),
    "quick batches, which hand their fence over": Question("barrier.pml", ("QUICK",)),
    "quick batches of a unit each": Question("barrier.pml", ("QUICK", "UNITS=2")),
    "batches in the control database itself": Question("barrier.pml", ("JOINED",)),
    "every hold becomes active": Question("barrier.pml", ("LIVE",)),
    "every hold becomes active while batches are quick": Question("barrier.pml", ("LIVE", "QUICK")),
    "requests with an absolute expiry and a grace": Question("s3.pml"),
    "every hold over requests becomes active": Question("s3.pml", ("LIVE",)),
    "deletions that a server carries out later": Question("requests.pml"),
    "stores without a server": Question("serverless.pml"),
    "a deadline, were there one clock, one timer and no late commit": Question("deadline.pml"),
}

BROKEN = {
    # The sentences in italics of the design.
    "a worker stopped inside the permit's transaction must not block every hold for ever": (
        Question("barrier.pml", ("LIVE", "NO_TIMEOUT_IN_THE_BARRIER")),
        NEVER_ACTIVE,
    ),
    "holds are read after the barrier's lock, in a later statement": (
        Question("barrier.pml", ("SNAPSHOT_BEFORE_LOCK",)),
        UNDER_HOLD,
    ),
    "timers that each start when they are set add up past the permit": (
        Question("deadline.pml", ("TIMERS_ADD_UP",)),
        UNDER_HOLD,
    ),
    "a commit may take effect late": (Question("deadline.pml", ("COMMIT_TAKES_EFFECT_LATE",)), UNDER_HOLD),
    "clocks differ": (Question("deadline.pml", ("CLOCKS_DIFFER",)), UNDER_HOLD),
    "the permit ends only when every attempt has ended, also one that the client gave up on": (
        Question("s3.pml", ("GIVEN_UP_IS_FORGOTTEN",)),
        UNDER_HOLD,
    ),
    "a request that was accepted in time has the grace to take effect": (
        Question("s3.pml", ("NO_GRACE",)),
        UNDER_HOLD,
    ),
    "no reader compares the grace of a release with a clock of its own": (
        Question("barrier.pml", ("GRACE_BY_READERS_CLOCK",)),
        UNDER_HOLD,
    ),
    "a takeover ends a permit only when a hold's activation could pass it too": (
        Question("barrier.pml", ("TAKEOVER_ENDS_AT_ONCE",)),
        UNDER_HOLD,
    ),
    # What the design and the decisions say besides.
    "the first transaction of a quick batch says that it still has the fence": (
        Question("barrier.pml", ("QUICK", "FIRST_NOT_ASKED")),
        UNDER_HOLD,
    ),
    "the fence is taken before the permit is asked for": (
        Question("barrier.pml", ("PERMIT_BEFORE_FENCE",)),
        UNDER_HOLD,
    ),
    "one transaction has one permit, and a retry another": (
        Question("barrier.pml", ("PERMIT_USED_TWICE",)),
        UNDER_HOLD,
    ),
    "an activation waits for the permits from before the hold": (
        Question("barrier.pml", ("ACTIVE_AT_ONCE",)),
        UNDER_HOLD,
    ),
    "holds change only while no permit is being issued": (
        Question("barrier.pml", ("HOLDS_PLACED_WITHOUT_BARRIER",)),
        UNDER_HOLD,
    ),
    "a released hold is placed anew, not reinstated": (
        Question("barrier.pml", ("RELEASED_IS_REINSTATED",)),
        UNDER_HOLD,
    ),
    "the outcome-to-be is left in the control database before the commit": (
        Question("barrier.pml", ("OUTCOME_NOT_PREPARED",)),
        OUTCOME,
    ),
    "new permits queue behind who wants the barrier alone": (
        Question("barrier.pml", ("LIVE", "NO_QUEUE")),
        NEVER_ACTIVE,
    ),
    "a request's expiry is reckoned from the permit's issue, not from what is left": (
        Question("s3.pml", ("EXPIRY_RECKONED_LATER",)),
        UNDER_HOLD,
    ),
    "nothing is sent before it is written down what is about to go": (
        Question("s3.pml", ("SENT_BEFORE_IT_IS_PREPARED",)),
        UNDER_HOLD,
    ),
    "only who has the lease, under a permit that is open, writes down what is about to go": (
        Question("s3.pml", ("PREPARED_WITHOUT_A_LEASE",)),
        UNDER_HOLD,
    ),
    "an answer of a gateway is none of the server's": (
        Question("s3.pml", ("A_GATEWAYS_ANSWER_COUNTS",)),
        UNDER_HOLD,
    ),
    "the server's clock differs by no more than the margin": (
        Question("s3.pml", ("OFFSET_NOT_MEASURED",)),
        UNDER_HOLD,
    ),
    "a permit whose answers never come ends by its expiry and the grace": (
        Question("s3.pml", ("LIVE", "WAITS_FOR_EVERY_ANSWER")),
        NEVER_ACTIVE,
    ),
    "without a server the worker is there before it asks for the permit": (
        Question("serverless.pml", ("PERMIT_BEFORE_THE_LOCK",)),
        UNDER_HOLD,
    ),
    "without a server nothing is begun before it is written down": (
        Question("serverless.pml", ("BEGUN_BEFORE_IT_IS_PREPARED",)),
        TOLD,
    ),
    "without a server a takeover waits until the worker is gone before it looks": (
        Question("serverless.pml", ("TAKEOVER_LOOKS_AT_ONCE",)),
        UNDER_HOLD,
    ),
    "the fence of a deletion is made before its permit is asked for, and by nobody after": (
        Question("requests.pml", ("FENCE_MADE_WHEN_SENT",)),
        UNDER_HOLD,
    ),
    "nothing is prepared for a deletion after the permit's deadline": (
        Question("requests.pml", ("PREPARED_AFTER_THE_DEADLINE",)),
        UNDER_HOLD,
    ),
    "a permit for a deletion that is not prepared is passed no sooner than its deadline": (
        Question("requests.pml", ("UNPREPARED_IS_PASSED_AT_ONCE",)),
        UNDER_HOLD,
    ),
    "permits are asked about before the store is asked what it has taken on": (
        Question("requests.pml", ("STORE_ASKED_FIRST",)),
        UNDER_HOLD,
    ),
    "what a hold had cancelled is seen to be over": (
        Question("requests.pml", ("CANCEL_NOT_CONFIRMED",)),
        UNDER_HOLD,
    ),
    "who takes over takes the fence away before ending the permit": (
        Question("requests.pml", ("TAKEOVER_LEAVES_THE_FENCE",)),
        UNDER_HOLD,
    ),
    "a permit of a store without a server does not time out": (
        Question("serverless.pml", ("PERMIT_TIMES_OUT",)),
        UNDER_HOLD,
    ),
}


@pytest.mark.parametrize("question", KEPT.values(), ids=KEPT)
def test_the_promise_is_kept_in_every_interleaving_of(question, tmp_path):
    found = check(question, tmp_path)
    assert found.broken is None
    assert found.whole
    assert found.unreached == (), "what no execution comes to was not checked"


@pytest.mark.parametrize(("question", "how"), BROKEN.values(), ids=BROKEN)
def test_the_promise_is_broken_without_the_rule_that(question, how, tmp_path):
    found = check(question, tmp_path)
    assert found.broken is not None, f"{found.states} states, and no counterexample"
    assert how in found.broken


def test_every_variant_of_the_models_is_asked_about():
    for model in MODELS.glob("*.pml"):
        asked = {
            name.partition("=")[0]
            for question in (*KEPT.values(), *(question for question, _ in BROKEN.values()))
            if question.model == model.name
            for name in question.defined
        }
        assert asked == names(model.read_text()), model.name


def test_every_variant_of_the_models_is_told_of_in_their_readme():
    told = (MODELS / "README.md").read_text()
    for model in MODELS.glob("*.pml"):
        assert f"`{model.name}`" in told
        assert [name for name in names(model.read_text()) if f"`{name}" not in told] == []


def names(model: str) -> set[str]:
    """What a model asks the command line for: names that it tests and does not define outright."""
    tested = set(re.findall(r"^#ifn?def (\w+)", model, re.MULTILINE))
    defaults = set(re.findall(r"^#ifndef (\w+)", model, re.MULTILINE))
    return tested - (set(re.findall(r"^#define (\w+)", model, re.MULTILINE)) - defaults)


def test_a_search_that_was_cut_short_or_left_statements_out_does_not_count_as_whole():
    output = 'error: max search depth too small\n errors: 0\n 5 states, stored\n\ta.pml:3, state 4, "x = 1"\n'
    assert answer(output) == Answer(broken=None, whole=False, states=5, unreached=("x = 1",))
