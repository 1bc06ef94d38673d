"""What the API answers, as models: OpenAPI is generated from them, and what does not fit them is not sent.

They are frozen values, which templates may take as well. Fields are those of the commands' `--json`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0)]
State = Literal["pending", "active", "releasing", "released"]


class Answer(BaseModel):
    """What is answered; a field that nobody knows is a defect."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Fault(Answer):
    """One fault of a request: `field` is its place in the body (`scope.0`), a parameter or a header."""

    field: str
    message: str


class Problem(Answer):
    """A problem document (RFC 9457); `kind` names the error as logs and metrics do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    kind: str | None = None
    remedy: str | None = None
    errors: tuple[Fault, ...] | None = None


class Error(Answer):
    """Why a target can't be judged."""

    kind: str
    message: str
    remedy: str | None


class CheckState(Answer):
    """A check of `/readyz`; what is wrong and how to mend it, where something is."""

    ok: bool
    message: str = ""
    remedy: str = ""


class PolicyState(Answer):
    """The digest that is configured here and the one in force."""

    digest: str
    in_force: str | None


class Status(Answer):
    """How retentiond is, as a whole. `checks` has those that fail; `waiting` counts questions for an operator."""

    version: str
    mode: Literal["plan", "enforce"]
    mode_in_force: Literal["plan", "enforce"]
    paused: bool
    paused_by: str | None
    paused_at: Instant | None
    paused_reason: str | None
    policy: PolicyState
    targets: Count
    holds: dict[State, Count]
    holds_review_overdue: Count
    waiting: Count
    ledger_entries: Count
    workers: dict[str, Count]
    ready: bool
    checks: dict[str, CheckState]


class Figures(Answer):
    """Counts of a tier or a target: what is due, and what would be and stays."""

    records: Count
    bytes: int
    oldest: Instant | None
    newest: Instant | None
    overdue_seconds: float
    held: Count
    minimum: Count
    unresolved: Count
    blocked: Count


class Total(Answer):
    """How many records a target has."""

    records: Count
    estimate: bool


class Ahead(Figures):
    """All that is due at the horizon if nothing is swept until then."""

    estimate: Literal[True]
    by_tier: dict[str, Figures]


class Coming(Answer):
    """What comes due between now and the horizon, of one tier."""

    records: Count
    bytes: int


class ComingAll(Coming):
    """The same of all tiers."""

    estimate: Literal[True]
    by_tier: dict[str, Coming]


class PlannedTarget(Figures):
    """What a sweep of the target would act on `now`."""

    class_name: str = Field(alias="class")
    action: str
    error: None
    now: Instant
    as_of: Instant | None
    total: Total
    by_tier: dict[str, Figures]
    by_horizon: Ahead | None
    coming: ComingAll | None


class BrokenTarget(Answer):
    """A target that can't be judged."""

    class_name: str = Field(alias="class")
    action: str
    error: Error


class Plan(Answer):
    """What is due now, and by the horizon; each target's figures are of its own `now`."""

    mode: Literal["plan", "enforce"]
    digest: str
    horizon: str | None
    targets: dict[str, PlannedTarget | BrokenTarget]


class Promise(Answer):
    """A class and a tier: its term, and whether it is kept (null: not known)."""

    class_name: str = Field(alias="class")
    tier: str
    targets: tuple[str, ...]
    term: str | None
    after: str
    legal_minimum: bool
    oldest: Instant | None
    oldest_age_days: float | None
    oldest_known: bool
    overdue: Count
    overdue_seconds: float
    blocked: Count
    held: Count
    minimum: Count
    unresolved: Count
    kept: bool | None


class Promises(Answer):
    """Do we keep what we promised? `errors` has the targets that can't be judged."""

    mode: Literal["plan", "enforce"]
    digest: str
    promises: tuple[Promise, ...]
    errors: dict[str, Error]


class Explanation(Answer):
    """The verdict on one record, and every rule and hold considered."""

    verdict: Literal["held", "minimum", "erase", "unresolved", "keep"]
    reason: str
    rule: str
    class_name: str = Field(alias="class")
    tier: str | None
    term: str | None
    anchor: Instant | None
    expires_at: Instant | None
    holds: tuple[str, ...]
    considered: tuple[str, ...]


class TargetState(Answer):
    """A target as it is configured, when it is due and how its last sweep ended; `waiting`: for that many records."""

    class_name: str = Field(alias="class")
    store: str
    action: str
    tier_source: str
    knows_account: bool
    next_due_at: Instant | None
    last_success_at: Instant | None
    outcome: str | None
    waiting: Count | None
    check: CheckState | None


class Targets(Answer):
    """All targets by name."""

    targets: dict[str, TargetState]


class Work(Answer):
    """What a worker is at, and how far; `shard` is empty for a whole target."""

    worker: str
    shard: str
    sweep: str | None
    erased: Count
    anonymised: Count
    archived: Count
    held: Count
    batches: Count
    at: str | None


class TargetSweeps(Answer):
    """The sweep of a target that runs, and how the last one ended, as `sweep --json` shows it."""

    running: tuple[Work, ...]
    last: dict[str, Any] | None
    finished_at: Instant | None
    last_success_at: Instant | None
    next_due_at: Instant | None


class Sweeps(Answer):
    """The sweeps of all targets by name."""

    targets: dict[str, TargetSweeps]


class SweepsRequested(Answer):
    """The targets that are due now."""

    targets: tuple[str, ...]


class Scope(Answer):
    """What a hold covers: only what was given."""

    accounts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    since: Instant | None = None
    until: Instant | None = None
    prefixes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    records: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    everything: bool = False


class Hold(Answer):
    """A legal hold."""

    id: str
    state: State
    effective_at: Instant | None
    matter: str
    reason: str
    scope: Scope
    placed_by: str
    placed_at: Instant
    review_by: Instant | None
    notice: str | None
    released_by: str | None
    released_at: Instant | None
    release_reason: str | None
    erasable_at: Instant | None
    native: bool
    release_requested_by: str | None
    release_requested_at: Instant | None
    release_requested_reason: str | None


class Matched(Answer):
    """How many records of a target a hold covers."""

    records: Count
    estimate: bool


class PlacedHold(Hold):
    """A hold that was just placed, and how many records it covers."""

    records_matched: Count
    records_matched_estimate: bool
    matches: dict[str, Matched]
    targets_not_counted: tuple[str, ...]


class Holds(Answer):
    """Holds as they were placed; `next` is the `after` of the next page, where there is one."""

    holds: tuple[Hold, ...]
    next: str | None


class Ledger(Answer):
    """Entries of the ledger, oldest first; `next` is the `after` of the next page, where there may be one."""

    entries: tuple[dict[str, Any], ...]
    next: int | None


class Checkpoint(Answer):
    """The last signed checkpoint of this process's key, and the public part of the key."""

    checkpoint: str
    key: str


class Policy(PolicyState):
    """The configuration here, its digest, the digest in force, and what it would newly erase."""

    document: dict[str, Any]
    newly_erases: tuple[str, ...]
    holds_evaded: tuple[str, ...]
    approved: bool


class Paused(Answer):
    """Whether erasing is paused, and whether this request changed it."""

    paused: bool
    changed: bool


ApprovalKind = Literal["sweep", "policy", "clock", "directory"]


class Awaited(Answer):
    """A question that waits for an operator."""

    kind: ApprovalKind
    target: str | None
    digest: str | None
    count: Count | None
    detail: dict[str, Any]
    since: Instant


class Approvals(Answer):
    """All that waits for an operator, longest first."""

    waiting: tuple[Awaited, ...]


class Approved(Answer):
    """What was approved, and for how many records, accounts or seconds at most."""

    kind: ApprovalKind
    target: str
    bound: Count | None
    digest: str


class Session(Answer):
    """Who is asking; `csrf` is what the header X-CSRF-Token must carry with each change, for a session by cookie."""

    name: str | None
    role: str | None
    csrf: str | None
