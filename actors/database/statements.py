"""All SQL but the migrations.

Statements are constants, so that each is prepared once and then found in the connection's cache. Parameters are
positional, in the order of the columns named. Nothing newer than SQLite 3.31 is used (UPSERT; no RETURNING).
"""

from typing import Any, Final

# Opening.

PRAGMAS: Final = (
    # An acknowledged write is on disk: one fsync of the log at each commit.
    "PRAGMA synchronous = FULL",
    # No function with side effects may be run from a schema that somebody else may have written.
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
)
JOURNAL_MODE: Final = "PRAGMA journal_mode = WAL"
AUTOCHECKPOINT: Final = "PRAGMA wal_autocheckpoint = {pages:d}"
PAGE_SIZE: Final = "PRAGMA page_size"
QUICK_CHECK: Final = "PRAGMA quick_check(1)"
HAS_TABLE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
HAS_ANY_TABLE: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' LIMIT 1"
SCHEMA_VERSION: Final = "SELECT max(version) FROM schema_version"
INSERT_SCHEMA_VERSION: Final = "INSERT INTO schema_version (version, name, applied_at) VALUES (?, ?, ?)"
INSERT_META: Final = """
    INSERT INTO store_meta (id, config_epoch, revision, created_at) VALUES (1, ?, 0, ?)
    ON CONFLICT (id) DO NOTHING
"""

# The log is grown once, by writing and dropping a table as large as the log shall be.

GROW: Final = (
    "CREATE TABLE filler (content BLOB NOT NULL)",
    "INSERT INTO filler (content) VALUES (zeroblob(?))",
    "DROP TABLE filler",
)
CHECKPOINT_RESTART: Final = "PRAGMA wal_checkpoint(RESTART)"
CHECKPOINT_TRUNCATE: Final = "PRAGMA wal_checkpoint(TRUNCATE)"

# Transactions.

BEGIN: Final = "BEGIN IMMEDIATE"
BEGIN_READ: Final = "BEGIN DEFERRED"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
SAVEPOINT: Final = "SAVEPOINT request"
RELEASE: Final = "RELEASE request"
ROLLBACK_TO: Final = "ROLLBACK TO request"

# Reading.

SELECT_META: Final = "SELECT config_epoch, revision, created_at FROM store_meta WHERE id = 1"
SELECT_SERVICES: Final = """
    SELECT c.service, c.config_json, c.version, c.config_epoch, c.checksum, c.updated_at, c.updated_by,
           p.version, c.request_id
    FROM service_configs AS c
    LEFT JOIN publications AS p ON p.service = c.service AND p.config_epoch = c.config_epoch
    ORDER BY c.service
"""
SELECT_SECRETS: Final = "SELECT service, key, ciphertext, nonce, key_id FROM encrypted_secrets ORDER BY service, key"
SELECT_VERSION: Final = "SELECT version, config_epoch, request_id FROM service_configs WHERE service = ?"
SELECT_SECRET: Final = "SELECT 1 FROM encrypted_secrets WHERE service = ? AND key = ?"  # noqa: S105  # a statement

# Writing.

INSERT_SERVICE: Final = """
    INSERT INTO service_configs
        (service, config_json, version, config_epoch, updated_at, updated_by, checksum, request_id)
    VALUES (?, '{}', 1, ?, ?, ?, ?, '')
    ON CONFLICT (service) DO NOTHING
"""
NEXT_REVISION: Final = "UPDATE store_meta SET revision = revision + 1 WHERE id = 1"

# The version check is the only lock: no row is changed if somebody else was first.
UPDATE_SERVICE: Final = """
    UPDATE service_configs
    SET config_json = ?, version = version + 1, updated_at = ?, updated_by = ?, checksum = ?, request_id = ?
    WHERE service = ? AND version = ? AND config_epoch = coalesce(?, config_epoch)
"""
INSERT_HISTORY: Final = """
    INSERT INTO config_history
        (service, key, old_value_json, new_value_json, is_secret, version, revision, changed_at, changed_by,
         change_reason)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# Only where the description of the key has changed too does the row's every index have to be written.
UPDATE_ITEM: Final = """
    UPDATE config_items SET value_json = ?, updated_at = ?, updated_by = ?
    WHERE service = ? AND key = ? AND type = ? AND complexity = ? AND description = ? AND help_text IS ?
        AND examples IS ? AND is_secret = ?
"""
UPSERT_ITEM: Final = """
    INSERT INTO config_items
        (value_json, updated_at, updated_by, service, key, type, complexity, description, help_text, examples,
         is_secret)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (service, key) DO UPDATE SET
        value_json = excluded.value_json, updated_at = excluded.updated_at, updated_by = excluded.updated_by,
        type = excluded.type, complexity = excluded.complexity, description = excluded.description,
        help_text = excluded.help_text, examples = excluded.examples, is_secret = excluded.is_secret
"""
DELETE_ITEM: Final = "DELETE FROM config_items WHERE service = ? AND key = ?"
UPSERT_SECRET: Final = """
    INSERT INTO encrypted_secrets (service, key, ciphertext, nonce, key_id, created_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (service, key) DO UPDATE SET
        ciphertext = excluded.ciphertext, nonce = excluded.nonce, key_id = excluded.key_id,
        updated_at = excluded.updated_at
"""  # noqa: S105  # a statement
DELETE_SECRET: Final = "DELETE FROM encrypted_secrets WHERE service = ? AND key = ?"  # noqa: S105  # a statement
INSERT_ACCESS: Final = """
    INSERT INTO access_log
        (timestamp, user_id, action, origin, service, key, success, reason, request_id, address, revision, detail)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# Acknowledgements may come in any order; within an epoch the highest counts.
UPSERT_PUBLICATION: Final = """
    INSERT INTO publications (service, config_epoch, version, acknowledged_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (service) DO UPDATE SET
        config_epoch = excluded.config_epoch, version = excluded.version,
        acknowledged_at = excluded.acknowledged_at
    WHERE excluded.config_epoch <> publications.config_epoch OR excluded.version > publications.version
"""


def history(
    *, service: str | None, key: str | None, start: str | None, end: str | None, before: int | None, limit: int
) -> tuple[str, list[Any]]:
    """Give the newest entries that meet every condition given, and the statement's parameters."""
    conditions = {
        "service = ?": service,
        "key = ?": key,
        "changed_at >= ?": start,
        "changed_at <= ?": end,
        "id < ?": before,
    }
    given = {text: value for text, value in conditions.items() if value is not None}
    where = f"WHERE {' AND '.join(given)}" if given else ""
    sql = f"""
        SELECT id, service, key, old_value_json, new_value_json, version, revision, changed_at, changed_by,
               change_reason, is_secret
        FROM config_history {where} ORDER BY id DESC LIMIT ?
    """  # noqa: S608  # every part of the text is a constant above
    return sql, [*given.values(), limit]
