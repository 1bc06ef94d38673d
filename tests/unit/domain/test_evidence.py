"""Canonical bytes, the Merkle tree against published vectors, and signed notes against notes that others signed."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from retentiond.domain import evidence
from retentiond.domain.evidence import Checkpoint, TreeHead, VerifierKey
from retentiond.errors import LedgerError

# The leaves and roots of the test suite of certificate-transparency (merkletree testonly vectors).
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}
CONSISTENCY = {
    (1, 1): (),
    (1, 8): INCLUSION[0, 8],
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
# The example of golang.org/x/mod/sumdb/note, whose format signed-note describes.
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_NOTE = (
    PETER_TEXT + "\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NAME = "retentiond/1f0e"
VERIFIER = VerifierKey.of(KEY, NAME)
ROOT = base64.b64encode(bytes(32)).decode()
SIZES = st.integers(1, 40)


def hashes(count: int) -> list[bytes]:
    return [evidence.leaf_hash(str(n).encode()) for n in range(count)]


def flip(data: bytes, bit: int) -> bytes:
    place = bit % (8 * len(data))
    return bytes(b ^ (1 << place % 8) if n == place // 8 else b for n, b in enumerate(data))


def test_canonical_json_sorts_keys_by_utf16_and_has_no_spaces() -> None:
    assert evidence.canonical({"b": [1, 0.5], "a": "é\n", "\U0001f600": 1, "\ufb33": 2}) == (
        '{"a":"é\\n","b":[1,0.5],"\U0001f600":1,"\ufb33":2}'.encode()
    )


@pytest.mark.parametrize("value", [float("nan"), 2**53, {1: 2}, object(), "\ud800"])
def test_what_json_can_not_say_is_refused(value: object) -> None:
    with pytest.raises(LedgerError, match="not JSON"):
        evidence.canonical({"value": value})


def test_a_keyed_digest_is_hmac_sha256() -> None:
    # RFC 4231, test case 2.
    assert evidence.keyed_digest(b"Jefe", "what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert evidence.root_of(map(evidence.leaf_hash, LEAVES[:size])).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_those_of_certificate_transparency(index: int, size: int) -> None:
    leaves = [evidence.leaf_hash(leaf) for leaf in LEAVES[:size]]
    assert tuple(step.hex() for step in evidence.inclusion_proof(leaves, index)) == INCLUSION[index, size]


@pytest.mark.parametrize(("first", "second"), CONSISTENCY)
def test_consistency_proofs_are_those_of_certificate_transparency(first: int, second: int) -> None:
    leaves = [evidence.leaf_hash(leaf) for leaf in LEAVES[:second]]
    assert tuple(step.hex() for step in evidence.consistency_proof(leaves, first)) == CONSISTENCY[first, second]


@given(SIZES, st.integers(0, 40))
def test_a_head_grown_in_two_steps_is_the_head_grown_in_one(size: int, cut: int) -> None:
    leaves = hashes(size)
    assert TreeHead().extend(leaves[:cut]).extend(leaves[cut:]) == TreeHead().extend(leaves)
    head = TreeHead()
    for leaf in leaves:
        head = head.append(leaf)
    assert head.root() == TreeHead().extend(leaves).root()


@pytest.mark.parametrize(("size", "frontier"), [(1, ()), (0, (b"\0" * 32,)), (-1, ()), (1, (b"short",))])
def test_a_head_that_no_tree_has_is_refused(size: int, frontier: tuple[bytes, ...]) -> None:
    with pytest.raises(LedgerError):
        TreeHead(size, frontier)


@given(st.data(), SIZES, st.integers(0))
def test_an_inclusion_proof_holds_for_its_leaf_and_for_nothing_else(data: st.DataObject, size: int, bit: int) -> None:
    leaves = hashes(size)
    index = data.draw(st.integers(0, size - 1))
    proof, root = evidence.inclusion_proof(leaves, index), evidence.root_of(leaves)
    assert evidence.verify_inclusion(leaves[index], index, size, proof, root)
    assert not evidence.verify_inclusion(flip(leaves[index], bit), index, size, proof, root)
    assert not evidence.verify_inclusion(leaves[index], index, size, proof, flip(root, bit))
    assert not evidence.verify_inclusion(leaves[index], index, size, (*proof, root), root)
    for other in set(range(-1, size + 1)) - {index}:
        assert not evidence.verify_inclusion(leaves[index], other, size, proof, root)
    for at in range(len(proof)):
        assert not evidence.verify_inclusion(leaves[index], index, size, altered(proof, at, bit), root)
        assert not evidence.verify_inclusion(leaves[index], index, size, proof[:at] + proof[at + 1 :], root)


@given(st.data(), SIZES, st.integers(0))
def test_a_consistency_proof_holds_for_its_trees_and_for_no_others(data: st.DataObject, size: int, bit: int) -> None:
    leaves = hashes(size)
    first = data.draw(st.integers(0, size))
    old, new = evidence.root_of(leaves[:first]), evidence.root_of(leaves)
    proof = evidence.consistency_proof(leaves, first)
    assert evidence.verify_consistency(first, size, old, new, proof)
    assert not evidence.verify_consistency(first, size, flip(old, bit), new, proof)
    assert not evidence.verify_consistency(first, size, old, new, (*proof, new))
    if first > 0:
        assert not evidence.verify_consistency(first, size, old, flip(new, bit), proof)
    for at in range(len(proof)):
        assert not evidence.verify_consistency(first, size, old, new, altered(proof, at, bit))
        assert not evidence.verify_consistency(first, size, old, new, proof[:at] + proof[at + 1 :])


def altered(proof: tuple[bytes, ...], at: int, bit: int) -> tuple[bytes, ...]:
    return (*proof[:at], flip(proof[at], bit), *proof[at + 1 :])


def test_a_smaller_tree_does_not_follow_from_a_larger_one() -> None:
    assert not evidence.verify_consistency(2, 1, b"", b"", ())


def test_proofs_of_what_is_not_in_the_tree_are_refused() -> None:
    with pytest.raises(LedgerError):
        evidence.inclusion_proof(hashes(3), 3)
    with pytest.raises(LedgerError):
        evidence.consistency_proof(hashes(3), 4)


def test_the_note_of_the_go_implementation_opens() -> None:
    key = VerifierKey.parse(PETER_KEY)
    assert str(key) == PETER_KEY
    assert evidence.open_note(PETER_NOTE, key) == PETER_TEXT


def test_signing_gives_the_very_note_of_the_go_implementation() -> None:
    key = Ed25519PrivateKey.from_private_bytes(PETER_SEED)
    assert evidence.sign_note(PETER_TEXT, key, "PeterNeumann") == PETER_NOTE


def test_a_changed_note_does_not_open() -> None:
    with pytest.raises(LedgerError, match="does not belong"):
        evidence.open_note(PETER_NOTE.replace("cryptography", "cryptographY"), VerifierKey.parse(PETER_KEY))


def test_the_example_of_tlog_checkpoint_reads_as_a_checkpoint() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    found = Checkpoint.parse(text)
    assert (found.origin, found.size) == ("example.com/behind-the-sofa", 20852163)
    assert str(found) == text


@given(st.integers(0, 2**60), st.binary(min_size=32, max_size=32))
def test_a_signed_checkpoint_comes_back_whole(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(NAME, size, root)
    assert evidence.parse_and_verify(evidence.sign(checkpoint, KEY, NAME), VERIFIER) == checkpoint


@given(st.data())
def test_no_other_text_passes_under_the_signature(data: st.DataObject) -> None:
    checkpoint = Checkpoint(NAME, 7, hashlib.sha256(b"7").digest())
    note = evidence.sign(checkpoint, KEY, NAME)
    at = data.draw(st.integers(0, len(note) - 1))
    other = note[:at] + data.draw(st.characters(codec="utf-8").filter(lambda c: c != note[at])) + note[at + 1 :]
    with pytest.raises(LedgerError):
        evidence.parse_and_verify(other, VERIFIER)


def test_signatures_of_unknown_keys_are_passed_over() -> None:
    witness = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
    checkpoint = Checkpoint(NAME, 0, evidence.EMPTY_ROOT)
    line = evidence.sign(checkpoint, witness, NAME).splitlines(keepends=True)[-1]
    note = evidence.sign(checkpoint, KEY, NAME)
    assert evidence.parse_and_verify(note + line, VERIFIER) == checkpoint
    with pytest.raises(LedgerError, match="not signed by"):
        evidence.parse_and_verify(note.replace(note.splitlines(keepends=True)[-1], line), VERIFIER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"o\n01\n{ROOT}\n",
        f"o\n-1\n{ROOT}\n",
        f"o\n1\n\n{ROOT}\n",
        f"\n1\n{ROOT}\n",
        "o\n1\n",
        "o\n1\nAAAA\n",
        "o\n1\n!\n",
        f"o\n1\n{ROOT[:-2]}B=\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        Checkpoint.parse(text)


def test_extension_lines_of_a_checkpoint_are_passed_over() -> None:
    assert Checkpoint.parse(f"o\n1\n{ROOT}\nmore\n") == Checkpoint("o", 1, bytes(32))


@pytest.mark.parametrize(
    "note", ["", "text\n", "text\n\n", "text\n\n— name\n", "text\n\n- name AAAAAAAA\n", "t\x01\n\n— n A\n"]
)
def test_a_malformed_note_is_refused(note: str) -> None:
    with pytest.raises(LedgerError, match=r"not a signed note|base64"):
        evidence.open_note(note, VERIFIER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000+AQ==",
        "name+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "n+0+BAAA",
        "n+0+!",
    ],
)
def test_a_malformed_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        VerifierKey.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b"])
def test_a_key_name_that_makes_notes_ambiguous_is_refused(name: str) -> None:
    with pytest.raises(LedgerError, match="can't name a key"):
        VerifierKey.of(KEY, name)
    with pytest.raises(LedgerError):
        evidence.sign(Checkpoint("o", 0, evidence.EMPTY_ROOT), KEY, name)


def test_a_text_without_a_final_newline_is_not_signed() -> None:
    with pytest.raises(LedgerError, match="ends in a newline"):
        evidence.sign_note("text", KEY, NAME)
