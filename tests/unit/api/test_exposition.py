"""The text of `/metrics`: made once for all who ask meanwhile, and never for longer than a twentieth of the time."""

import asyncio
import gzip
import threading

from retentiond.api.exposition import Exposition


async def test_however_many_ask_the_text_is_made_once_and_in_a_thread():
    made = []

    def encode(accept):
        made.append(threading.current_thread())
        return accept.encode(), "text/plain"

    exposition = Exposition(encode, kind=lambda accept: accept)
    found = await asyncio.gather(*(exposition.get("a") for _ in range(50)))
    assert {(each.plain, each.content_type, gzip.decompress(each.packed)) for each in found} == {
        (b"a", "text/plain", b"a")
    }
    assert len(made) == 1
    assert made[0] is not threading.main_thread()
    assert (await exposition.get("b")).plain == b"b"


async def test_what_has_changed_is_seen_when_it_is_asked_for_again():
    values = iter(range(100))
    exposition = Exposition(lambda _: (str(next(values)).encode(), "text/plain"), kind=lambda _: "one")
    first = await exposition.get("")
    while (second := await exposition.get("")) == first:
        await asyncio.sleep(0.001)
    assert second.plain == b"1"
