"""What gets into the log lines."""

import logging

import orjson
import pytest
import structlog

from retentiond import logs
from retentiond.errors import Blind


@pytest.fixture
def configured():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield logs.configure
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def fail(value):
    raise RuntimeError(f"account {value}")


def test_a_traceback_is_told_as_places_and_names_without_what_foreign_errors_say(configured, capsys):
    configured("json", "info")
    try:
        try:
            fail("4711")
        except RuntimeError as error:
            raise Blind("the table is gone") from error
    except Blind as error:
        structlog.get_logger().error("unexpected", exc_info=error)
    written = capsys.readouterr().err
    told = orjson.loads(written)["traceback"]
    assert "4711" not in written
    assert "RuntimeError" in told
    assert any("test_logs.py" in line and "in fail" in line for line in told)
    assert told[-1] == "Blind: the table is gone"


def test_lines_of_libraries_are_json_too_and_their_information_is_left_out(configured, capsys):
    configured("json", "info")
    try:
        fail("4711")
    except RuntimeError:
        logging.getLogger("aiohttp.server").exception("Error handling request")
    logging.getLogger("asyncio").info("a result of 4711")
    line = orjson.loads(capsys.readouterr().err)
    assert (line["event"], line["logger"], line["level"]) == ("Error handling request", "aiohttp.server", "error")
    assert line["traceback"][-1] == "RuntimeError"


def test_lines_for_people_are_no_json(configured, capsys):
    configured("console", "info")
    structlog.get_logger().info("ready", http="http://127.0.0.1:1")
    written = capsys.readouterr().err
    assert "ready" in written
    assert not written.startswith("{")
