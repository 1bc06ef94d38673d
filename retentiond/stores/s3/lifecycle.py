"""A bucket's lifecycle rules, as the rules by which the store erases a target's records by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from retentiond.domain.native_expiry import NativeRule
from retentiond.stores.s3 import buckets
from retentiond.stores.s3.buckets import LifecycleRule, Versioning
from retentiond.stores.s3.config import S3Target
from retentiond.stores.s3.endpoint import Bucket


async def native_rules(bucket: Bucket, config: S3Target) -> tuple[NativeRule, ...]:
    """The rules that may erase objects of the target; raises Blind without the right to see them, Unreachable."""
    rules = await buckets.lifecycle(bucket)
    if not rules:
        return ()
    return tuple(rules_for(rules, config, await buckets.versioning(bucket)))


def rules_for(rules: Iterable[LifecycleRule], config: S3Target, versioning: Versioning) -> Iterator[NativeRule]:
    """Those of the rules that destroy anything below what the target's keys begin with."""
    head = config.template().head
    for rule in rules:
        if not rule.enabled or not (rule.prefix.startswith(head) or head.startswith(rule.prefix)):
            continue
        name = f"lifecycle rule {rule.id or '(without an id)'}"
        narrowed = bool(rule.tags) or rule.larger is not None or rule.smaller is not None
        # Where all versions are kept, a current one that expires only gets a marker.
        if versioning != "enabled" and (rule.days is not None or rule.date is not None):
            yield NativeRule(name, rule.prefix, rule.days, rule.date, narrowed)
        if versioning != "off" and rule.noncurrent_days is not None:
            yield NativeRule(f"{name} (old versions)", rule.prefix, rule.noncurrent_days, None, narrowed)
        if config.uploads and rule.abort_days is not None:
            yield NativeRule(f"{name} (unfinished uploads)", rule.prefix, rule.abort_days, None, narrowed)
