"""Names of environment variables that have a meaning already."""

from typing import Final

# What the supervisor itself reads.
SUPERVISOR_VARIABLES: Final = frozenset(
    [
        "CONFIG_DB_PATH",
        "CONFIG_LKG_CACHE_PATH",
        "CONFIG_EPOCH_PATH",
        "CONFIG_MASTER_KEY_BASE64",
        "CONFIG_MASTER_KEY_ID",
        "CONFIG_MASTER_KEY_PREVIOUS_BASE64",
        "CONFIG_MASTER_KEY_PREVIOUS_ID",
        "LKG_HMAC_KEY_BASE64",
        "LKG_HMAC_KEY_ID",
        "CONFIG_SIGNATURE_PRIVATE_KEY",
        "CONFIG_SIGNATURE_PUBLIC_KEY",
        "CONFIG_SIGNATURE_PRIVATE_KEY_B64",
        "CONFIG_SIGNATURE_PUBLIC_KEY_B64",
        "CREDENTIALS_DIRECTORY",
        "SIGNING_KEY_PATH",
        "ENCRYPTION_KEY_PATH",
        "MQTT_URL",
        "MQTT_LEGACY_TOPICS",
        "MQTT_ANONYMOUS_READ",
        "MQTT_LISTENERS",
        "MQTT_TLS_CERTIFICATE",
        "MQTT_TLS_KEY",
        "CONFIG_API_HOST",
        "CONFIG_API_PORT",
        "CONFIG_MANAGER_PORT",
        "CONFIG_API_TOKENS",
        "CONFIG_API_TOKEN",
        "ALLOW_AUTO_REBUILD",
        "REBUILD_TOKEN",
        "LOG_LEVEL",
        "ENABLE_ACCESS_LOG",
        "SERVICES_FILE",
        "RUNTIME_DIRECTORY",
        "ENV_FILE",
    ]
)

# A setting with such a name would turn a variable of the system into an override.
_NOT_A_SETTING: Final = SUPERVISOR_VARIABLES | {"PATH", "HOME", "LANG", "NOTIFY_SOCKET"}
_NOT_A_SETTING_PREFIX: Final = ("LD_", "PYTHON", "TARS_", "LITESTREAM_")

# What the supervisor sets for each worker, and the keys that no worker may have.
_NOT_FOR_A_WORKER: Final = frozenset(
    [
        "MQTT_URL",
        "CREDENTIALS_DIRECTORY",
        "NOTIFY_SOCKET",
        "CONFIG_MASTER_KEY_BASE64",
        "CONFIG_MASTER_KEY_PREVIOUS_BASE64",
        "CONFIG_SIGNATURE_PRIVATE_KEY",
        "CONFIG_SIGNATURE_PRIVATE_KEY_B64",
        "SIGNING_KEY_PATH",
        "ENCRYPTION_KEY_PATH",
        "CONFIG_API_TOKENS",
        "CONFIG_API_TOKEN",
        "REBUILD_TOKEN",
    ]
)


def reserved_for_settings(variable: str) -> bool:
    """Whether no setting may be overridden by `variable`, so that none may have that name."""
    return variable in _NOT_A_SETTING or variable.startswith(_NOT_A_SETTING_PREFIX)


def reserved_for_workers(variable: str) -> bool:
    """Whether a manifest may neither set nor pass `variable`.

    The store's path and the HMAC key are not among them: a manifest may give those to a reader.
    """
    return variable in _NOT_FOR_A_WORKER or variable.startswith("TARS_")
