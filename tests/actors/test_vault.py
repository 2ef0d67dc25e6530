"""Secrets at rest: sealed to their place, opened by their key alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.vault import Unsealable, Vault
from schemas.records import SealedSecret

VAULT = Vault(b"m" * 32, "default")


@given(st.text(max_size=200))
def test_what_is_sealed_opens_again(value: str) -> None:
    sealed = VAULT.seal("tts-worker", "api_key", value)
    assert VAULT.open("tts-worker", "api_key", sealed) == value
    if len(value) > 3:
        assert value.encode() not in sealed.ciphertext


def test_no_two_seals_are_alike() -> None:
    assert VAULT.seal("s", "k", "v") != VAULT.seal("s", "k", "v")


@pytest.mark.parametrize(("service", "key"), [("other", "api_key"), ("tts-worker", "other")])
def test_a_ciphertext_moved_elsewhere_does_not_open(service: str, key: str) -> None:
    sealed = VAULT.seal("tts-worker", "api_key", "s3cret")
    with pytest.raises(Unsealable) as refused:
        VAULT.open(service, key, sealed)
    assert "s3cret" not in str(refused.value)


def test_a_changed_row_or_another_key_does_not_open() -> None:
    sealed = VAULT.seal("s", "k", "v")
    flipped = SealedSecret(bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:], sealed.nonce, sealed.key_id)
    with pytest.raises(Unsealable, match="changed row"):
        VAULT.open("s", "k", flipped)
    with pytest.raises(Unsealable, match="wrong key"):
        Vault(b"x" * 32, "default").open("s", "k", sealed)
    with pytest.raises(Unsealable, match=r"'default'.*'new'"):
        Vault(b"x" * 32, "new").open("s", "k", sealed)
    assert "m" * 8 not in repr(VAULT)
