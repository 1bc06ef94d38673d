"""Logs: JSON lines on standard error, or lines for people (RETENTIOND_LOG_FORMAT=console).

What the libraries and asyncio log goes the same way. A traceback is told as places and the names of errors, without
what foreign errors say and without local variables: those can hold values of records.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from retentiond.errors import RetentiondError, quoted

_MOST_FRAMES = 20


def configure(form: Literal["json", "console"], level: str) -> None:
    """Set logging up for this process; once, at its start."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _told_without_values,
    ]
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if form == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    # Libraries' information is of no interest here, and asyncio's quotes what tasks returned.
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def places(error: BaseException) -> list[str]:
    """Where an error came from, outermost first, and each error of its chain: names and line numbers only."""
    told: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        frames = traceback.extract_tb(link.__traceback__)[-_MOST_FRAMES:]
        said = link.message if isinstance(link, RetentiondError) else quoted(link)
        name = type(link).__name__
        lines = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
        told[:0] = [*lines, name if said == name else f"{name}: {said}"]
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return told


def _told_without_values(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    found = event.pop("exc_info", None)
    if isinstance(found, tuple):
        found = found[1]
    elif found is True:
        found = sys.exc_info()[1]
    if isinstance(found, BaseException):
        event["traceback"] = places(found)
    event.pop("stack_info", None)
    return event
