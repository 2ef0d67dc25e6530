"""The first run: keys and the first admin token are made once, before there is anything that needs them.

Order matters. The keys are on disk in `.env` before the caller makes the store, all of them or none. So a crash
in between leaves a complete `.env` and no store, which starts like a machine that was set up by hand; and a
store never exists without its keys having been written first. The caller holds the data folder's lock, so
nobody else makes keys for the same store at the same time.
"""

import base64
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct
from pydantic import SecretStr

from supervisor._bounded import why
from supervisor._dotenv import render
from supervisor._env_file import append_to_env_file
from supervisor.keys import FoundKeys, KeysRefused, private_pem, public_pem
from supervisor.settings import Settings

# Scanners of leaked secrets know our tokens by this.
TOKEN_PREFIX = "tars_"  # noqa: S105 - the public beginning of each token, no token


class Made(Struct, frozen=True):
    """What the first run made: the variables' names, the file that holds them, the token to show once."""

    variables: tuple[str, ...] = ()
    env_file: Path | None = None
    admin_token: SecretStr | None = None


class ShownOnceError(Exception):
    """Keys were made but could not be kept. `verbatim` holds them: show it to the person, and never log it."""

    def __init__(self, line: str, verbatim: Sequence[str]) -> None:
        super().__init__(line)
        self.line = line
        self.verbatim = tuple(verbatim)


def existing_file(settings: Settings) -> Path | None:
    """The first of store, LKG and epoch file that is there."""
    for path in (settings.db_path, settings.lkg_path, settings.epoch_path):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            # Taking a store that cannot be seen for one that is not there would make keys that do not fit it.
            raise KeysRefused(
                [f"{path}: cannot be looked at ({why(error)}); let the user who runs the supervisor reach it"]
            ) from None
        return path
    return None


def refuse_missing(settings: Settings, found: FoundKeys, exists: Path) -> KeysRefused:
    """The refusal that names each missing key of a store that exists already."""
    return KeysRefused(
        [
            f"{name} is missing, and {exists} exists, which was made with it; put the key back into "
            f"{settings.env_file} from your copy, or into the environment"
            for name in found.missing
        ]
    )


def wants(settings: Settings, found: FoundKeys) -> tuple[str, ...]:
    """What a first run would make: names of variables."""
    return (*found.missing, *(() if settings.api_tokens else ("CONFIG_API_TOKEN",)))


def make(settings: Settings, found: FoundKeys) -> Made:
    """Make what is missing and append it to `.env`; load the settings again afterwards.

    Raises ShownOnceError where the file cannot be written.
    """
    values = _values(settings, found)
    if not values:
        return Made()
    assignments = [render(name, value) for name, value in values.items()]
    today = time.strftime("%Y-%m-%d")
    comment = [
        "",
        f"# Made by tars-supervisor on its first start, {today}. Keep a copy in a safe place:",
        "# without these keys nobody can read the secrets in the store or in its backups.",
    ]
    try:
        append_to_env_file(settings.env_file, [*comment, *assignments])
    except OSError as error:
        raise ShownOnceError(
            (
                f"the keys of this first start cannot be written to {settings.env_file} ({why(error)}); "
                "put the lines below there (mode 0600) or into the environment and start again, or name a file "
                "that can be written with ENV_FILE; they are not kept and not shown again"
            ),
            assignments,
        ) from None
    token = values.get("CONFIG_API_TOKEN")
    return Made(
        variables=tuple(values),
        env_file=settings.env_file,
        admin_token=None if token is None else SecretStr(token),
    )


def _values(settings: Settings, found: FoundKeys) -> dict[str, str]:
    values: dict[str, str] = {}
    if found.master is None:
        values["CONFIG_MASTER_KEY_BASE64"] = _random_key()
        if "CONFIG_MASTER_KEY_ID" not in settings.sources:
            values["CONFIG_MASTER_KEY_ID"] = _key_name()
    if found.hmac is None:
        values["LKG_HMAC_KEY_BASE64"] = _random_key()
        if "LKG_HMAC_KEY_ID" not in settings.sources:
            values["LKG_HMAC_KEY_ID"] = _key_name()
    if found.signing_private is None:
        private = Ed25519PrivateKey.generate()
        values["CONFIG_SIGNATURE_PRIVATE_KEY"] = private_pem(private)
        values["CONFIG_SIGNATURE_PUBLIC_KEY"] = public_pem(private.public_key())
    if not settings.api_tokens:
        values["CONFIG_API_TOKEN"] = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return values


def _random_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def _key_name() -> str:
    """A name that no other key will have: the day for people, four random bytes for the rest."""
    return f"{time.strftime('%Y-%m-%d')}-{secrets.token_hex(4)}"
