"""What makes the ledger's word checkable by anybody: canonical bytes, a Merkle tree, signed checkpoints.

An entry is one JSON object in its canonical form (RFC 8785), a leaf of an RFC 6962 Merkle tree. The tree's head is kept
as a compact range: the roots of the full subtrees of which the tree consists, largest first, one for each set bit
of its size. Appending needs no more than that, so the control database stores at most 64 hashes beside the leaves.
A checkpoint names origin, size and root (C2SP tlog-checkpoint) and is signed as a C2SP signed note with Ed25519.
Proofs are made from all leaf hashes at once: they are asked for rarely, and a stored tree would be one more thing
that can disagree with its leaves.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from retentiond.errors import LedgerError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
_ED25519 = b"\x01"
_DASH = "\N{EM DASH}"
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_MAX_NOTE = 1_000_000


def canonical(document: object) -> bytes:
    """The RFC 8785 form of a JSON value; raises LedgerError for what JSON can't say (a NaN, an int beyond 2^53)."""
    try:
        return rfc8785.dumps(document)  # type: ignore[arg-type]  # it checks the type itself, and says what is wrong
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise LedgerError(f"an entry of the ledger is not JSON: {error}") from error


def keyed_digest(key: bytes, text: str) -> str:
    """HMAC-SHA-256 in hex: shows later that a text was this one, and tells nothing to who lacks the key."""
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


# --- The tree (RFC 6962, section 2.1) ---


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class TreeHead:
    """A tree of `size` leaves as a compact range: `frontier` has the roots of its full subtrees, largest first."""

    size: int = 0
    frontier: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a head that no tree can have; raises LedgerError."""
        if self.size < 0 or len(self.frontier) != self.size.bit_count():
            raise LedgerError(f"a tree of {self.size} leaves can't have {len(self.frontier)} full subtrees")
        if any(len(node) != HASH_BYTES for node in self.frontier):
            raise LedgerError("a hash in the tree's head is not 32 bytes long")

    def append(self, leaf: bytes) -> TreeHead:
        """The head after one more leaf, given by its leaf hash."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> TreeHead:
        """The head after more leaves, given by their leaf hashes."""
        size, nodes = self.size, list(self.frontier)
        for leaf in leaves:
            node, full = leaf, size
            while full & 1:
                node = node_hash(nodes.pop(), node)
                full >>= 1
            nodes.append(node)
            size += 1
        return TreeHead(size, tuple(nodes))

    def root(self) -> bytes:
        """The Merkle tree hash."""
        if not self.frontier:
            return EMPTY_ROOT
        *larger, node = self.frontier
        for left in reversed(larger):
            node = node_hash(left, node)
        return node


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The Merkle tree hash over leaf hashes."""
    return TreeHead().extend(leaves).root()


def _split(size: int) -> int:
    """The largest power of two smaller than `size` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The audit path of the leaf at `index` (from 0) in the tree of all given leaf hashes (RFC 6962, 2.1.1)."""
    if not 0 <= index < len(leaves):
        raise LedgerError(f"there is no leaf {index} in a tree of {len(leaves)}")
    path: list[bytes] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(root_of(leaves[middle:high]))
            high = middle
        else:
            path.append(root_of(leaves[low:middle]))
            low = middle
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows the leaf hash at `index` of the tree of that size and root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, computed = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            computed = node_hash(step, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, step)
        node, last = node >> 1, last >> 1
    return last == 0 and computed == root


def consistency_proof(leaves: Sequence[bytes], first: int) -> tuple[bytes, ...]:
    """Shows that the tree of the first leaves is a beginning of the tree of all of them (RFC 6962, 2.1.2)."""
    if not 0 <= first <= len(leaves):
        raise LedgerError(f"a tree of {len(leaves)} leaves has no beginning of {first}")
    if first in (0, len(leaves)):
        return ()
    path: list[bytes] = []
    low, high, whole = 0, len(leaves), True
    while first != high:
        middle = low + _split(high - low)
        if first <= middle:
            path.append(root_of(leaves[middle:high]))
            high = middle
        else:
            path.append(root_of(leaves[low:middle]))
            low, whole = middle, False
    if not whole:
        path.append(root_of(leaves[low:high]))
    return tuple(reversed(path))


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows the first tree to be a beginning of the second (RFC 9162, 2.1.4.2).

    The empty tree is a beginning of every tree; that needs no proof, and an equal tree needs none either.
    """
    if not 0 <= first <= second:
        return False
    if first == second:
        return not proof and first_root == second_root
    if first == 0:
        return not proof and first_root == EMPTY_ROOT
    steps = list(proof) if first & (first - 1) else [first_root, *proof]
    return bool(steps) and _walk_consistency(first - 1, second - 1, steps) == (first_root, second_root)


def _walk_consistency(node: int, last: int, steps: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The two roots that the steps lead to; None where they are too many or too few."""
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, step)
        node, last = node >> 1, last >> 1
    return (old, new) if last == 0 else None


# --- Signed notes and checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint) ---


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A name and the raw Ed25519 public key that signs under it."""

    name: str
    public: bytes

    def __post_init__(self) -> None:
        """Refuse a name that would make the note ambiguous; raises LedgerError."""
        if not self.name or any(c.isspace() or c == "+" or c < " " for c in self.name):
            raise LedgerError(f"{self.name!r} can't name a key: it must not be empty nor have a space or a `+`")
        if len(self.public) != HASH_BYTES:
            raise LedgerError("an Ed25519 public key has 32 bytes")

    @classmethod
    def of(cls, key: Ed25519PrivateKey, name: str) -> VerifierKey:
        """The public half of a signing key."""
        return cls(name, key.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key of a `name+hash+base64` line; raises LedgerError."""
        parts = text.strip().split("+", 2)
        if len(parts) != len(("name", "hash", "key")):
            raise LedgerError("not a verifier key: it reads name+hash+key", remedy="use the line in `key.pub`")
        raw = _base64(parts[2], "the verifier key")
        if raw[:1] != _ED25519:
            raise LedgerError("the verifier key is of a kind other than Ed25519")
        key = cls(parts[0], raw[1:])
        if key.id.hex() != parts[1]:
            raise LedgerError("the hash in the verifier key does not belong to its name and key")
        return key

    @property
    def id(self) -> bytes:
        """The four bytes that stand for the key in a signature line."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: its origin, its size, and the root of its tree at that size."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint in a note's text, whose signature the caller has verified; extension lines are ignored."""
        lines = text.removesuffix("\n").split("\n")
        if len(lines) < len(("origin", "size", "root")) or not all(lines):
            raise LedgerError("not a checkpoint: it reads origin, size, root, a line each")
        if not _SIZE.fullmatch(lines[1]):
            raise LedgerError(f"{lines[1]!r} is not the size of a tree")
        root = _base64(lines[2], "the root hash")
        if len(root) != HASH_BYTES:
            raise LedgerError("the root hash is not 32 bytes long")
        return cls(lines[0], int(lines[1]), root)


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey, name: str) -> str:
    """The checkpoint as a signed note."""
    return sign_note(str(checkpoint), key, name)


def parse_and_verify(text: str, verifier: VerifierKey) -> Checkpoint:
    """The checkpoint in a signed note; raises LedgerError unless this key signed it."""
    return Checkpoint.parse(open_note(text, verifier))


def sign_note(text: str, key: Ed25519PrivateKey, name: str) -> str:
    """The text, which ends in a newline, with one signature line."""
    if not text.endswith("\n") or _has_controls(text):
        raise LedgerError("a note's text ends in a newline and has no control characters")
    signature = base64.b64encode(VerifierKey.of(key, name).id + key.sign(text.encode())).decode()
    return f"{text}\n{_DASH} {name} {signature}\n"


def open_note(note: str, verifier: VerifierKey) -> str:
    """The text of a note that this key signed; signatures of other keys are passed over. Raises LedgerError."""
    if len(note) > _MAX_NOTE or _has_controls(note):
        raise LedgerError("not a signed note: it is too long or has control characters")
    body, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise LedgerError("not a signed note: there is no blank line with signature lines after it")
    text = body + "\n"
    ours = _signatures(signatures.removesuffix("\n").split("\n"), verifier)
    if not ours:
        raise LedgerError(
            f"the note is not signed by {verifier.name}, key {verifier.id.hex()}",
            remedy="give the public key that retentiond printed when it made its signing key",
        )
    public = Ed25519PublicKey.from_public_bytes(verifier.public)
    for signature in ours:
        try:
            public.verify(signature, text.encode())
        except InvalidSignature:
            raise LedgerError(f"the signature of {verifier.name} does not belong to the note's text") from None
    return text


def _signatures(lines: Sequence[str], verifier: VerifierKey) -> list[bytes]:
    """The signatures under the verifier's name and key id; a line of another form spoils the whole note."""
    found = []
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        raw = _base64(encoded, "a signature")
        if dash != _DASH or not name or len(raw) <= len(verifier.id):
            raise LedgerError("not a signed note: a signature line is malformed")
        if name == verifier.name and raw.startswith(verifier.id):
            found.append(raw[len(verifier.id) :])
    return found


def _base64(text: str, what: str) -> bytes:
    """The bytes; one encoding only is taken, or a note could be altered without breaking its signature."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise LedgerError(f"{what} is not base64") from error
    if base64.b64encode(raw).decode() != text:
        raise LedgerError(f"{what} is not in the one base64 form of its bytes")
    return raw


def _has_controls(text: str) -> bool:
    return any(c < " " and c != "\n" for c in text)
