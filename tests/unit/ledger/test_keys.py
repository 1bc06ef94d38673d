"""Where the signing key comes from, and what is said when it can't be had."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from retentiond.domain.evidence import EMPTY_ROOT, Checkpoint, VerifierKey, parse_and_verify
from retentiond.errors import UsageError
from retentiond.ledger.keys import KEY_FILE, SigningKey, origin_of

SEED = bytes(range(32))
TEXT = base64.b64encode(SEED).decode()
ORIGIN = origin_of("1f0e")


def pem(key: object, password: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined]  # any private key has it
    return bytes(raw).decode()


def test_a_key_is_read_from_base64_and_from_pem_alike() -> None:
    whole = Ed25519PrivateKey.from_private_bytes(SEED)
    for text in (TEXT, f" {TEXT}\n", pem(whole)):
        key = SigningKey.load(text, None)
        assert key.private.private_bytes_raw() == SEED
        assert key.made is None


def test_the_text_of_the_settings_wins_over_the_file(tmp_path: Path) -> None:
    SigningKey.load(None, tmp_path)
    assert SigningKey.load(TEXT, tmp_path).private.private_bytes_raw() == SEED


def test_the_key_file_is_made_once_private_and_read_from_then_on(tmp_path: Path) -> None:
    first = SigningKey.load(None, tmp_path)
    assert first.made == tmp_path / KEY_FILE
    assert first.made.stat().st_mode & 0o777 == 0o600
    again = SigningKey.load(None, tmp_path)
    assert again.made is None
    assert again.verifier(ORIGIN) == first.verifier(ORIGIN)
    assert list(tmp_path.iterdir()) == [tmp_path / KEY_FILE]


def test_a_process_that_comes_second_takes_the_key_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / KEY_FILE).write_text(TEXT)
    (tmp_path / KEY_FILE).chmod(0o600)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    key = SigningKey.load(None, tmp_path)
    assert (key.made, key.private.private_bytes_raw()) == (None, SEED)
    assert list(tmp_path.iterdir()) == [tmp_path / KEY_FILE]


def test_commands_that_create_no_state_make_no_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no signing key") as caught:
        SigningKey.load(None, tmp_path, make=False)
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    SigningKey.load(None, tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(UsageError, match="read by others") as caught:
        SigningKey.load(None, tmp_path)
    assert caught.value.remedy == f"chmod 600 {tmp_path / KEY_FILE}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (base64.b64encode(b"short and secret").decode(), "16 bytes"),
        ("not base64 !", "neither base64 nor PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no PEM private key"),
        (pem(generate_private_key(SECP256R1())), "not an Ed25519 key"),
        (pem(Ed25519PrivateKey.from_private_bytes(SEED), b"password"), "without a passphrase"),
    ],
)
def test_a_text_that_is_no_key_is_refused_without_being_repeated(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        SigningKey.load(text, None)
    assert caught.value.remedy
    assert text.strip() not in str(caught.value)


def test_without_a_text_and_a_state_folder_there_is_no_key() -> None:
    with pytest.raises(UsageError, match="no state folder"):
        SigningKey.load("  ", None)


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be made"):
        SigningKey.load(None, tmp_path / "absent")


def test_a_key_shows_no_secret_and_signs_under_the_name_of_its_ledger() -> None:
    key = SigningKey.load(TEXT, None)
    assert "private" not in repr(key)
    checkpoint = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    line = str(key.verifier(ORIGIN))
    assert line.startswith("retentiond/1f0e+")
    assert parse_and_verify(key.sign(checkpoint), VerifierKey.parse(line)) == checkpoint
