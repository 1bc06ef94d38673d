"""What the stores of AWS have in common: a session that parses data files once, and who we are there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from aiobotocore.session import AioSession, get_session
from botocore.credentials import ReadOnlyCredentials
from botocore.loaders import create_loader

from retentiond.errors import Unreachable


def aws_session() -> AioSession:
    """A session of botocore's that shares with all others what of its data files has been parsed."""
    session = get_session()
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@lru_cache(maxsize=2)
def _loader(data_path: str | None) -> Any:
    return create_loader(data_path)


@dataclass(frozen=True, slots=True)
class _Given:
    """Credentials of the configuration, which don't change, as the chain's are asked for."""

    credentials: ReadOnlyCredentials

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Themselves."""
        return self.credentials


async def credentials_of(
    session: AioSession, service: str, key: str | None, secret: str | None, token: str | None
) -> Any:
    """The credentials given, else those of the ordinary AWS chain; raises Unreachable where there are none.

    `get_frozen_credentials` of them tells what they are now: those of a role are renewed before they expire.
    """
    if key and secret:
        return _Given(ReadOnlyCredentials(key, secret, token))
    found = await session.get_credentials()
    if found is None:
        raise Unreachable(
            f"{service}: there are no credentials",
            remedy="set the target's access_key_id and secret_access_key, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the machine a role",
        )
    return found
