"""Settings of the process (contract, section 7): their types, and the call that loads them.

Nothing here reads the environment by itself: `load_settings` gets it, and the working folder, from its caller.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretBytes, SecretStr

from schemas.base import Model
from schemas.broker_address import Listener
from supervisor import _reader, _targets
from supervisor._env_file import read_env_file
from supervisor._reader import BadValueError, Reader
from supervisor._targets import ROLES, ApiToken, Broker, LegacyTopic, Role
from supervisor._variables import LITESTREAM_PREFIX, VARIABLES, Variable, holds_secret

__all__ = [
    "ROLES",
    "VARIABLES",
    "ApiToken",
    "Broker",
    "LegacyTopic",
    "Role",
    "Settings",
    "SettingsRefused",
    "Variable",
    "load_settings",
]


LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


class SettingsRefused(Exception):
    """The variables cannot be used. `lines`: one sentence for each mistake, with where it is and how to mend it."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)


class Settings(Model):
    """Every setting of the supervisor. Paths are absolute; secrets do not show in its `repr`."""

    db_path: Path
    lkg_path: Path
    epoch_path: Path
    services_file: Path
    env_file: Path
    """The `.env` that is read and, on the first run, written; it may not exist."""
    runtime_directory: Path | None = None
    """Where RUNTIME_DIRECTORY asks for it; see `supervisor.folders` for the rest of the rule."""
    xdg_runtime_dir: Path | None = None

    master_key: SecretBytes | None = None
    master_key_id: str = "default"
    master_key_previous: SecretBytes | None = None
    master_key_previous_id: str | None = None
    lkg_hmac_key: SecretBytes | None = None
    lkg_hmac_key_id: str = "default"
    signature_private_key: SecretStr | None = None
    """PEM text, not yet parsed; see `supervisor.keys`."""
    signature_public_key: str | None = None
    signing_key_path: Path | None = None
    encryption_key_path: Path | None = None
    credentials_directory: Path | None = None

    mqtt: Broker = Field(exclude=True)
    """Left out of a dump, since it may hold a password."""
    mqtt_legacy_topics: tuple[LegacyTopic, ...] = ()
    mqtt_anonymous_read: bool = False
    mqtt_listeners: tuple[Listener, ...] = ()
    """Further ways into the embedded broker, beside the one of MQTT_URL."""
    mqtt_tls_certificate: Path | None = None
    mqtt_tls_key: Path | None = None

    api_host: str = "127.0.0.1"
    api_port: int = 8081
    """0: a free one."""
    api_tokens: tuple[ApiToken, ...] = ()

    allow_auto_rebuild: bool = False
    rebuild_token: SecretStr | None = None
    log_level: str = "info"
    enable_access_log: bool = True
    litestream: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Every LITESTREAM_ variable, for the backup."""

    environment: Mapping[str, str] = Field(repr=False)
    """The process environment over `.env`: a service's settings are overridden from here."""
    sources: Mapping[str, str] = Field(repr=False)
    """For each variable that is set where it stands: `environment` or `file:line`."""
    warnings: tuple[str, ...] = ()

    def secret_values(self) -> list[str]:
        """Every value of the environment that no log may show."""
        values = [value for name, value in self.environment.items() if holds_secret(name, value)]
        if self.mqtt.address.password is not None:
            values.append(self.mqtt.address.password)
        values += [token.token.get_secret_value() for token in self.api_tokens]
        return values


def load_settings(environ: Mapping[str, str], cwd: Path) -> Settings:
    """The settings that `environ` and the `.env` in `cwd` (or at ENV_FILE) say; the former wins.

    Raises SettingsRefused with every mistake at once. Reads `.env` and nothing else; changes nothing.
    """
    cwd = Path(os.path.abspath(cwd))  # noqa: PTH100 - resolve() would follow links, and a message shows this path
    env_file = cwd / (environ.get("ENV_FILE") or ".env")
    entries, mistakes = read_env_file(env_file)
    reader = Reader(environ, entries, env_file)
    merged = {entry.key: entry.value for entry in entries if entry.value} | dict(environ)

    def path(name: str) -> Path | None:
        return reader.value(name, lambda text: _path(cwd, text), None)

    db_path = path("CONFIG_DB_PATH") or cwd / "data" / "config.db"
    master_key = reader.value("CONFIG_MASTER_KEY_BASE64", _secret_key, None)
    master_key_id = reader.value("CONFIG_MASTER_KEY_ID", _reader.identifier, "default")
    previous_key = reader.value("CONFIG_MASTER_KEY_PREVIOUS_BASE64", _secret_key, None)
    previous_id = reader.value("CONFIG_MASTER_KEY_PREVIOUS_ID", _reader.identifier, None)
    if reader.find("CONFIG_MASTER_KEY_PREVIOUS_BASE64") is not None:
        if previous_id is None and reader.find("CONFIG_MASTER_KEY_PREVIOUS_ID") is None:
            reader.wrong(
                "CONFIG_MASTER_KEY_PREVIOUS_BASE64", "is set without CONFIG_MASTER_KEY_PREVIOUS_ID; set both or none"
            )
        elif previous_id == master_key_id:
            reader.wrong(
                "CONFIG_MASTER_KEY_PREVIOUS_ID",
                "is also the name of the current key; give CONFIG_MASTER_KEY_ID another value",
            )
    api_tokens = _api_tokens(reader)
    private_pem = _pem(reader, "CONFIG_SIGNATURE_PRIVATE_KEY")
    mqtt = reader.value("MQTT_URL", _targets.broker, _targets.broker("embedded:"))
    listeners = _listeners(reader, mqtt)
    no_topics: tuple[LegacyTopic, ...] = ()
    settings = {
        "db_path": db_path,
        "lkg_path": path("CONFIG_LKG_CACHE_PATH") or db_path.parent / "config.lkg.json",
        "epoch_path": path("CONFIG_EPOCH_PATH") or db_path.parent / "health+epoch.json",
        "services_file": path("SERVICES_FILE") or cwd / "services.toml",
        "env_file": env_file,
        # systemd gives a list where a unit has several (systemd.exec(5)); ours has one.
        "runtime_directory": reader.value("RUNTIME_DIRECTORY", lambda text: _path(cwd, text.split(":")[0]), None),
        "xdg_runtime_dir": path("XDG_RUNTIME_DIR"),
        "master_key": master_key,
        "master_key_id": master_key_id,
        "master_key_previous": previous_key,
        "master_key_previous_id": previous_id,
        "lkg_hmac_key": reader.value("LKG_HMAC_KEY_BASE64", _secret_key, None),
        "lkg_hmac_key_id": reader.value("LKG_HMAC_KEY_ID", _reader.identifier, "default"),
        "signature_private_key": None if private_pem is None else SecretStr(private_pem),
        "signature_public_key": _pem(reader, "CONFIG_SIGNATURE_PUBLIC_KEY"),
        "signing_key_path": path("SIGNING_KEY_PATH"),
        "encryption_key_path": path("ENCRYPTION_KEY_PATH"),
        "credentials_directory": path("CREDENTIALS_DIRECTORY"),
        "mqtt": mqtt,
        "mqtt_legacy_topics": reader.value("MQTT_LEGACY_TOPICS", _targets.legacy_topics, no_topics),
        "mqtt_anonymous_read": reader.value("MQTT_ANONYMOUS_READ", _reader.boolean, default=False),
        "mqtt_listeners": listeners,
        "mqtt_tls_certificate": path("MQTT_TLS_CERTIFICATE"),
        "mqtt_tls_key": path("MQTT_TLS_KEY"),
        "api_host": reader.value("CONFIG_API_HOST", _targets.host, "127.0.0.1"),
        "api_port": _port(reader),
        "api_tokens": api_tokens,
        "allow_auto_rebuild": reader.value("ALLOW_AUTO_REBUILD", _reader.boolean, default=False),
        "rebuild_token": reader.value("REBUILD_TOKEN", _token, None),
        "log_level": reader.value("LOG_LEVEL", _reader.choice(*LOG_LEVELS), "info"),
        "enable_access_log": reader.value("ENABLE_ACCESS_LOG", _reader.boolean, default=True),
        "litestream": {key: value for key, value in merged.items() if key.startswith(LITESTREAM_PREFIX)},
        "environment": merged,
        "sources": reader.sources(),
        "warnings": (*reader.warnings(), *_weak_tokens(api_tokens), *_open_listeners(listeners)),
    }
    mistakes += reader.mistakes
    if mistakes:
        raise SettingsRefused(mistakes)
    return Settings.model_validate(settings)


def _path(cwd: Path, text: str) -> Path:
    if "\0" in text or len(text) > 4096:
        raise BadValueError("is no path; write the path of a file or folder")
    if text.startswith("~"):
        raise BadValueError("begins with ~, which nobody expands here; write the whole path")
    return cwd / text


def _secret_key(text: str) -> SecretBytes:
    return SecretBytes(_reader.key_bytes(text))


def _pem(reader: Reader, name: str) -> str | None:
    """The PEM text in NAME or NAME_B64; it is parsed where the keys are put together."""
    # systemd and Docker hand the two characters \n over as they are.
    literal = reader.value(name, lambda text: text.replace("\\n", "\n"), None)
    encoded = reader.value(f"{name}_B64", _reader.base64_text, None)
    if literal is None or encoded is None or literal.split() == encoded.split():
        return literal or encoded
    chosen = reader.one_of(name, f"{name}_B64")
    return literal if chosen == name else encoded


def _port(reader: Reader) -> int:
    chosen = reader.one_of("CONFIG_API_PORT", "CONFIG_MANAGER_PORT")
    return 8081 if chosen is None else reader.value(chosen, _reader.port, 8081)


def _listeners(reader: Reader, mqtt: Broker) -> tuple[Listener, ...]:
    """What MQTT_LISTENERS says, where that goes with the broker and its certificate."""
    none: tuple[Listener, ...] = ()
    listeners = reader.value("MQTT_LISTENERS", _targets.listeners, none)
    if listeners and not mqtt.embedded:
        reader.wrong("MQTT_LISTENERS", "is for the embedded broker, but MQTT_URL names another; take one of them away")
    for each in listeners:
        if mqtt.embedded and (each.host, each.port) == (mqtt.address.host, mqtt.address.port):
            reader.wrong(
                "MQTT_LISTENERS", f"names {each.host}:{each.port}, where MQTT_URL listens; choose another port"
            )
    missing = [name for name in ("MQTT_TLS_CERTIFICATE", "MQTT_TLS_KEY") if reader.find(name) is None]
    if missing and any(each.tls for each in listeners):
        reader.wrong(
            "MQTT_LISTENERS",
            f"asks for TLS without {' and '.join(missing)}; name the PEM files with the certificate's chain and its key",
        )
    return listeners


def _open_listeners(listeners: tuple[Listener, ...]) -> list[str]:
    return [
        f"MQTT_LISTENERS lets clients log in at {each.host}:{each.port} without TLS, so that everyone on that network can "
        "read their passwords; use mqtts:// or wss:// there"
        for each in listeners
        if not each.tls and not _targets.is_loopback(each.host)
    ]


def _token(text: str) -> SecretStr:
    try:
        return _targets.token(text)
    except BadValueError as error:
        raise BadValueError(f"cannot be used: {error}") from None


def _api_tokens(reader: Reader) -> tuple[ApiToken, ...]:
    """The tokens of both variables; one token, and one name, may stand there only once."""
    granted: tuple[ApiToken, ...] = ()
    found = reader.find("CONFIG_API_TOKENS")
    if found is not None:
        granted, mistakes = _targets.tokens(found.text)
        for mistake in mistakes:
            reader.wrong("CONFIG_API_TOKENS", mistake)
    single = reader.value("CONFIG_API_TOKEN", _token, None)
    if single is not None:
        granted = (*granted, ApiToken(token=single, name="admin", role="admin"))
    seen: dict[str, ApiToken] = {}
    names: set[str] = set()
    for each in granted:
        twin = seen.setdefault(each.token.get_secret_value(), each)
        if twin is not each:
            reader.wrong(
                "CONFIG_API_TOKEN" if each is granted[-1] and single is not None else "CONFIG_API_TOKENS",
                f"gives {each.name} the same token as {twin.name}; give each a token of its own",
            )
        elif each.name in names:
            reader.wrong("CONFIG_API_TOKENS", f"has the name {each.name} twice; give each token another name")
        names.add(each.name)
    return granted


def _weak_tokens(tokens: tuple[ApiToken, ...]) -> list[str]:
    return [
        f"the API token {each.name} has fewer than {_targets.GOOD_TOKEN} characters and may be guessed; "
        "make a longer one with: openssl rand -hex 32"
        for each in tokens
        if len(each.token.get_secret_value()) < _targets.GOOD_TOKEN
    ]
