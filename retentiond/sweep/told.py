"""What the ledger is told of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

from retentiond.domain.duration import instant, rfc3339
from retentiond.domain.permit import Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import UsageError
from retentiond.ledger import kinds
from retentiond.stores.base import Tally
from retentiond.sweep.events import BatchDone
from retentiond.sweep.spec import Target

_DID = {"delete": "erased", "anonymise": "anonymised", "archive": "archived"}
_DONE = tuple(_DID.values())


def outcome_entry(
    plan: TargetPlan, target: Target, sweep: str, permit: Permit, found: Tally, milliseconds: int
) -> kinds.Entry:
    """The outcome of a batch that found and did so much, in so many milliseconds."""
    work = kinds.Work(
        sweep=sweep,
        batch=permit.batch,
        permit=permit.number,
        target=plan.target,
        store=target.store,
        class_name=plan.data_class.name,
        action=plan.action,
        policy_digest=plan.digest,
        rule=plan.data_class.after,
        cutoff=plan.horizon(),
        hold_epoch=permit.epoch,
        shard=permit.lease.unit.shard,
    )
    counts = kinds.Counts(
        selected=found.selected,
        held=found.held,
        minimum=found.minimum,
        failed=found.failed,
        already_gone=found.gone,
        in_doubt=found.in_doubt,
        **_did(plan.action, found.changed),
    )
    result = kinds.Result(
        counts=counts,
        verified="counted under lock" if found.whole else found.verified,
        milliseconds=milliseconds,
        tiers={tier: kinds.Counts(**_did(plan.action, count)) for tier, count in found.by_tier.items()},
        bytes=found.bytes,
        oldest=_moment(found.oldest),
        newest=_moment(found.newest),
        ids_digest=found.ids_digest,
        partitions=found.whole,
        archive=asdict(found.archived) if found.archived is not None else None,
        retention=found.ceilings,
    )
    return kinds.outcome(work, result)


def as_found(body: Mapping[str, kinds.Json], found: Tally) -> dict[str, kinds.Json]:
    """The outcome that a batch had prepared, as it was found out afterwards by looking what is there still."""
    told = cast("Any", body)
    selected = told["counts"]["selected"]
    counts = kinds.Counts(
        selected=selected, failed=found.failed, already_gone=found.gone, **_did(told["action"], found.changed)
    )
    return {
        **body,
        "counts": counts.document(),
        "tiers": {tier: dict(_did(told["action"], count)) for tier, count in found.by_tier.items()},
        "bytes": found.bytes,
        "oldest": _text(found.oldest),
        "newest": _text(found.newest),
        "ids_digest": found.ids_digest,
        **({"retention": dict(found.ceilings)} if found.ceilings else {}),
        "verified": "looked at afterwards",
    }


def found_in(body: Mapping[str, kinds.Json]) -> Tally:
    """What an outcome's body says of what its batch destroyed; what it kept is met again by whoever goes on."""
    told = cast("Any", body)
    counts = told["counts"]
    return Tally(
        changed=sum(counts.get(did, 0) for did in _DONE),
        gone=counts.get("already_gone", 0),
        bytes=told["bytes"] or 0,
        oldest=told["oldest"],
        newest=told["newest"],
        by_tier={tier: sum(each.get(did, 0) for did in _DONE) for tier, each in told["tiers"].items()},
    )


def late_batch(target: Target, body: Mapping[str, kinds.Json]) -> BatchDone:
    """A batch whose own worker did not live to tell of it: it is counted by who found it."""
    told, found = cast("Any", body), found_in(body)
    return BatchDone(
        target,
        told["sweep"],
        told["batch"],
        found.changed,
        found.by_tier,
        found.bytes,
        told["milliseconds"] / 1000,
    )


def _did(action: str, count: int) -> dict[str, int]:
    return {_DID[action]: count}


def _text(anchor: str | None) -> str | None:
    moment = _moment(anchor)
    return rfc3339(moment) if moment is not None else None


def _moment(text: str | None) -> datetime | None:
    """An anchor's text as an instant; None also for one before year 1, which Python can't say."""
    if text is None:
        return None
    try:
        return instant(text)
    except UsageError:
        return None
