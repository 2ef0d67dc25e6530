import base64
import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from supervisor.keys import FoundKeys, KeysRefused, find_keys, private_pem, public_pem, put_together
from supervisor.settings import load_settings

MASTER, HMAC = bytes(range(32)), bytes(range(32, 64))
PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(96, 128)))
PEM, PUBLIC_PEM = private_pem(PRIVATE), public_pem(PRIVATE.public_key())
ELLIPTIC_PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)
LOCKED_PEM = PRIVATE.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.BestAvailableEncryption(b"hunter2"),
).decode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def find(cwd: Path, *search: Path, **environ: str) -> FoundKeys:
    return find_keys(load_settings(environ, cwd), search)


def refused(cwd: Path, *search: Path, **environ: str) -> list[str]:
    with pytest.raises(KeysRefused) as error:
        find(cwd, *search, **environ)
    return list(error.value.lines)


def key_file(folder: Path, name: str, content: str | bytes, mode: int = 0o600) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def test_nothing_found(tmp_path):
    assert find(tmp_path).missing == (
        "CONFIG_MASTER_KEY_BASE64",
        "LKG_HMAC_KEY_BASE64",
        "CONFIG_SIGNATURE_PRIVATE_KEY",
    )


@pytest.mark.parametrize("form", [PEM, PEM.replace("\n", "\\n"), PEM.replace("\n", "\r\n"), f"\n{PEM.strip()}"])
def test_from_variables(tmp_path, form):
    settings = load_settings(
        {
            "CONFIG_MASTER_KEY_BASE64": b64(MASTER),
            "CONFIG_MASTER_KEY_ID": "m2",
            "CONFIG_MASTER_KEY_PREVIOUS_BASE64": b64(HMAC),
            "CONFIG_MASTER_KEY_PREVIOUS_ID": "m1",
            "LKG_HMAC_KEY_BASE64": b64(HMAC),
            "CONFIG_SIGNATURE_PRIVATE_KEY": form,
        },
        tmp_path,
    )
    keys = put_together(settings, find_keys(settings, ()))
    assert (keys.master, keys.master_id, keys.hmac, keys.hmac_id) == (MASTER, "m2", HMAC, "default")
    assert (keys.master_previous, keys.master_previous_id) == (HMAC, "m1")
    assert keys.signing_private.private_bytes_raw() == PRIVATE.private_bytes_raw()
    assert keys.signing_public == PRIVATE.public_key()
    for secret in keys.secret_values():
        assert secret not in repr(keys)
    assert "x00" not in repr(keys)
    assert b64(MASTER) in keys.secret_values()


def test_b64_form_and_matching_public_key(tmp_path):
    found = find(
        tmp_path,
        CONFIG_SIGNATURE_PRIVATE_KEY_B64=b64(PEM.encode()),
        CONFIG_SIGNATURE_PUBLIC_KEY_B64=b64(PUBLIC_PEM.encode()),
    )
    assert found.signing_public == PRIVATE.public_key()
    assert found.signing_private is not None


def test_from_folders_in_order(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    key_file(second, "signature_private_key.pem", private_pem(OTHER))
    key_file(second, "config_master_key_base64", b64(HMAC) + "\n")
    key_file(second, "lkg_hmac_key_base64", HMAC)
    key_file(first, "config_master_key_base64", b64(MASTER))
    found = find(tmp_path, tmp_path / "missing", first, second)
    assert (found.master, found.hmac) == (MASTER, HMAC)
    assert found.signing_public == OTHER.public_key()
    # systemd's folder goes first, and a variable before any folder.
    key_file(tmp_path / "credentials", "signature_private_key.pem", PEM, 0o400)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"), "LKG_HMAC_KEY_BASE64": b64(MASTER)}
    found = find(tmp_path, first, second, **environ)
    assert found.signing_public == PRIVATE.public_key()
    assert found.hmac == MASTER


@pytest.mark.parametrize("content", [MASTER, b64(MASTER), f"{b64(MASTER)}\n"])
def test_from_named_files(tmp_path, content):
    key_file(tmp_path, "m", content)
    key_file(tmp_path, "s", PEM)
    found = find(tmp_path, ENCRYPTION_KEY_PATH="m", SIGNING_KEY_PATH="s")
    assert found.master == MASTER
    assert found.signing_public == PRIVATE.public_key()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hunter2", "is no Ed25519 private key"),
        (PUBLIC_PEM, "is no Ed25519 private key"),
        (ELLIPTIC_PEM, "is no Ed25519 private key"),
        (LOCKED_PEM, "without a passphrase"),
        (PEM.replace("MC4", "MC5"), "is no Ed25519 private key"),
    ],
)
def test_malformed_private_keys(tmp_path, text, words):
    [line] = refused(tmp_path, CONFIG_SIGNATURE_PRIVATE_KEY=text)
    assert line.startswith("environment: CONFIG_SIGNATURE_PRIVATE_KEY ")
    assert words in line
    assert "openssl genpkey -algorithm ed25519" in line
    assert "hunter2" not in line


def test_public_key_has_to_fit(tmp_path):
    [line] = refused(tmp_path, CONFIG_SIGNATURE_PRIVATE_KEY=private_pem(OTHER), CONFIG_SIGNATURE_PUBLIC_KEY=PUBLIC_PEM)
    assert line.startswith(
        "environment: CONFIG_SIGNATURE_PUBLIC_KEY is not the public half of environment: CONFIG_SIGNATURE_PRIVATE_KEY"
    )
    [line] = refused(tmp_path, CONFIG_SIGNATURE_PRIVATE_KEY=PEM, CONFIG_SIGNATURE_PUBLIC_KEY="x")
    assert "is no Ed25519 public key" in line
    [line] = refused(tmp_path, CONFIG_SIGNATURE_PUBLIC_KEY=PUBLIC_PEM)
    assert "is set without a private key" in line
    public = key_file(tmp_path / "secrets", "signature_public_key.pem", PUBLIC_PEM, 0o644)
    [line] = refused(tmp_path, tmp_path / "secrets", CONFIG_SIGNATURE_PRIVATE_KEY=private_pem(OTHER))
    assert line.startswith(f"{public}: the file is not the public half of")


def test_all_mistakes_at_once(tmp_path):
    folder = tmp_path / "secrets"
    key_file(folder, "config_master_key_base64", "hunter2", 0o600)
    key_file(folder, "lkg_hmac_key_base64", HMAC, 0o604)
    lines = refused(tmp_path, folder, SIGNING_KEY_PATH="missing.pem")
    assert len(lines) == 3
    assert "is not base64" in lines[0]
    assert f"can be read by every user of this machine; run: chmod 600 {folder}" in lines[1]
    assert "environment: SIGNING_KEY_PATH: the file" in lines[2]
    assert "no such file" in lines[2]


def test_odd_key_files(tmp_path):
    folder = tmp_path / "secrets"
    folder.mkdir()
    os.mkfifo(folder / "config_master_key_base64")
    key_file(folder, "lkg_hmac_key_base64", b"x" * 70_000)
    key_file(folder, "signature_private_key.pem", PEM, 0o602)
    lines = refused(tmp_path, folder)
    assert ["is not a file" in lines[0], "larger than 64 KiB" in lines[1], "can be changed" in lines[2]] == [True] * 3


def test_what_openssl_makes_is_taken(tmp_path):
    try:
        made = subprocess.run(
            ["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True, timeout=30
        )
        public = subprocess.run(
            ["openssl", "pkey", "-pubout"], input=made.stdout, capture_output=True, check=True, timeout=30
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    environ = {
        "CONFIG_SIGNATURE_PRIVATE_KEY": made.stdout.decode(),
        "CONFIG_SIGNATURE_PUBLIC_KEY": public.stdout.decode(),
    }
    assert find(tmp_path, **environ).signing_private is not None
