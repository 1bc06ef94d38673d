"""The Ed25519 key that signs the ledger's checkpoints.

It comes from the settings or from `ledger.key` in the state folder, which is made at the first start; never from the
control database: who can rewrite the log there must not be able to sign it. Its public half is printed when it is made
and goes with every export; auditors keep it, since a key that comes with the evidence proves nothing about its author.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from retentiond.domain.evidence import Checkpoint, VerifierKey, sign
from retentiond.errors import UsageError

KEY_FILE = "ledger.key"
_SEED_BYTES = 32
_REMEDY = "give 32 random bytes as base64 (`openssl rand -base64 32`), or an Ed25519 private key as PEM"


def origin_of(control_id: object) -> str:
    """The name of the ledger of one control database, and of the key that signs it."""
    return f"retentiond/{control_id}"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key; `made` is the file that was just created for it, or None. Its repr shows no secret."""

    private: Ed25519PrivateKey = field(repr=False)
    made: Path | None = None

    @classmethod
    def load(cls, text: str | None, state_dir: Path | None, *, make: bool = True) -> SigningKey:
        """The key of the settings' text (base64 of 32 bytes, or PEM), else of the state folder's file.

        The file is made where there is none and `make` says so. Raises UsageError with a remedy.
        """
        if text is not None and text.strip():
            return cls(_parse(text, "the ledger's signing key"))
        if state_dir is None:
            raise UsageError("there is no signing key for the ledger and no state folder to keep one", remedy=_REMEDY)
        path = state_dir / KEY_FILE
        if make and not path.exists() and _create(path):
            return cls(_read(path), path)
        return cls(_read(path))

    @classmethod
    def passing(cls) -> SigningKey:
        """A key that is kept nowhere, for who only reads."""
        return cls(Ed25519PrivateKey.generate())

    def verifier(self, origin: str) -> VerifierKey:
        """The public half under the ledger's name: its text is the line to print and to hand to auditors."""
        return VerifierKey.of(self.private, origin)

    def sign(self, checkpoint: Checkpoint) -> str:
        """The checkpoint as a note signed under its own origin."""
        return sign(checkpoint, self.private, checkpoint.origin)


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        text = path.read_text("ascii")
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UsageError(f"there is no signing key {path}", remedy=f"start the daemon once, or {_REMEDY}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the signing key {path} can't be read: {error}", remedy=f"mend the file, or {_REMEDY}"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"the signing key {path} can be read by others than its owner", remedy=f"chmod 600 {path}")
    return _parse(text, f"the signing key {path}")


def _parse(text: str, what: str) -> Ed25519PrivateKey:
    """The key; an error never repeats the text, which is a secret."""
    text = text.strip()
    if text.startswith("-----BEGIN"):
        try:
            key = load_pem_private_key(text.encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UsageError(f"{what} is no PEM private key without a passphrase", remedy=_REMEDY) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{what} is not an Ed25519 key", remedy=_REMEDY)
        return key
    try:
        seed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"{what} is neither base64 nor PEM", remedy=_REMEDY) from None
    if len(seed) != _SEED_BYTES:
        raise UsageError(f"{what} has {len(seed)} bytes and not {_SEED_BYTES}", remedy=_REMEDY)
    return Ed25519PrivateKey.from_private_bytes(seed)


def _create(path: Path) -> bool:
    """Make the file, whole or not at all; False when another process was first, whose key is then the one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    seed = base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw())
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(seed + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails where the name exists; a rename would silently replace another process's key.
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise UsageError(
            f"the signing key {path} can't be made: {error}", remedy=f"make the folder writable, or {_REMEDY}"
        ) from error
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make a name that was just put into the folder outlast a crash of the machine; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
