import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tars_config.keys import MAX_KEYS, KeysUnusable, TrustedKeys, load_public_keys


def pem(key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


ONE, TWO = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.pem"


def test_every_key_is_read_in_order_and_comments_do_not_matter(path):
    path.write_bytes(b"# present\n" + pem(ONE) + b"\nprevious:\n" + pem(TWO))
    assert load_public_keys(path) == (ONE.public_key(), TWO.public_key())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no 'BEGIN PUBLIC KEY'"),
        (ONE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "no 'BEGIN PUBLIC KEY'"),
        (pem(ONE) + pem(ONE).replace(b"MC", b"MD"), "key 2"),
        (pem(ONE) + pem(X25519PrivateKey.generate()), "key 2 is not an Ed25519"),
        (pem(ONE) * (MAX_KEYS + 1), "at most 64"),
        (pem(ONE) + b"#" * 70_000, "more than 65536 bytes"),
    ],
)
def test_what_cannot_be_used_is_said(path, content, says):
    path.write_bytes(content)
    with pytest.raises(KeysUnusable, match=says) as error:
        load_public_keys(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_said(path):
    with pytest.raises(KeysUnusable, match=r"keys\.pem"):
        load_public_keys(path)


def test_keys_that_come_and_go_count_at_once(path):
    trusted = TrustedKeys(path)
    assert trusted.current() == ()
    for keys in ((ONE,), (ONE, TWO), (TWO,)):
        replacement = path.with_suffix(".new")
        replacement.write_bytes(b"".join(map(pem, keys)))
        replacement.replace(path)
        assert trusted.current() == tuple(key.public_key() for key in keys)


def test_a_file_that_breaks_leaves_the_known_keys_in_force(path, caplog):
    path.write_bytes(pem(ONE))
    trusted = TrustedKeys(path)
    trusted.current()
    path.write_bytes(b"half a ke")
    assert trusted.current() == (ONE.public_key(),)
    path.unlink()
    assert trusted.reread() == (ONE.public_key(),)
    assert "stay in force" in caplog.text
