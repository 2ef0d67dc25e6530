"""Every variable that the supervisor reads (contract, section 7), once."""

from typing import NamedTuple


class Variable(NamedTuple):
    """A variable's name, what holds where it is not set, and whether its value is a secret."""

    name: str
    default: str = ""
    secret: bool = False


VARIABLES: tuple[Variable, ...] = (
    Variable("CONFIG_DB_PATH", "data/config.db"),
    Variable("CONFIG_LKG_CACHE_PATH", "config.lkg.json beside the store"),
    Variable("CONFIG_EPOCH_PATH", "health+epoch.json beside the store"),
    Variable("SERVICES_FILE", "services.toml"),
    Variable("RUNTIME_DIRECTORY", "$XDG_RUNTIME_DIR/tars-supervisor, else run in the data folder"),
    Variable("ENV_FILE", ".env"),
    Variable("CONFIG_MASTER_KEY_BASE64", secret=True),
    Variable("CONFIG_MASTER_KEY_ID", "default"),
    Variable("CONFIG_MASTER_KEY_PREVIOUS_BASE64", secret=True),
    Variable("CONFIG_MASTER_KEY_PREVIOUS_ID"),
    Variable("LKG_HMAC_KEY_BASE64", secret=True),
    Variable("LKG_HMAC_KEY_ID", "default"),
    Variable("CONFIG_SIGNATURE_PRIVATE_KEY", secret=True),
    Variable("CONFIG_SIGNATURE_PRIVATE_KEY_B64", secret=True),
    Variable("CONFIG_SIGNATURE_PUBLIC_KEY"),
    Variable("CONFIG_SIGNATURE_PUBLIC_KEY_B64"),
    Variable("SIGNING_KEY_PATH"),
    Variable("ENCRYPTION_KEY_PATH"),
    Variable("CREDENTIALS_DIRECTORY"),
    Variable("MQTT_URL", "embedded:", secret=True),
    Variable("MQTT_LEGACY_TOPICS"),
    Variable("MQTT_ANONYMOUS_READ", "0"),
    Variable("MQTT_LISTENERS"),
    Variable("MQTT_TLS_CERTIFICATE"),
    Variable("MQTT_TLS_KEY"),
    Variable("CONFIG_API_HOST", "127.0.0.1"),
    Variable("CONFIG_API_PORT", "8081"),
    Variable("CONFIG_MANAGER_PORT", "8081"),
    Variable("CONFIG_API_TOKENS", secret=True),
    Variable("CONFIG_API_TOKEN", secret=True),
    Variable("ALLOW_AUTO_REBUILD", "0"),
    Variable("REBUILD_TOKEN", secret=True),
    Variable("LOG_LEVEL", "info"),
    Variable("ENABLE_ACCESS_LOG", "1"),
    # Not ours, but heeded: the base directory specification, no-color.org, systemd.exec(5), sd_notify(3).
    Variable("XDG_RUNTIME_DIR"),
    Variable("NO_COLOR"),
    Variable("TERM"),
    Variable("JOURNAL_STREAM"),
    Variable("NOTIFY_SOCKET"),
)

BY_NAME: dict[str, Variable] = {variable.name: variable for variable in VARIABLES}

LITESTREAM_PREFIX = "LITESTREAM_"
"""Every variable that begins so is handed to the backup as it is."""

# Other programs' names for a secret; such a value is told to nobody either.
_SECRET_ENDINGS = ("_KEY", "_TOKEN", "_PASSWORD", "_SECRET", "_PASS")


def holds_secret(name: str, value: str) -> bool:
    """Whether a variable's value, ours or a service's, has to be kept from other users and from logs."""
    if not value:
        return False
    if name == "MQTT_URL":
        return "@" in value
    known = BY_NAME.get(name)
    if known is not None:
        return known.secret
    return name.upper().endswith(_SECRET_ENDINGS) or (name.startswith(LITESTREAM_PREFIX) and "SECRET" in name)
