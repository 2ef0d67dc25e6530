"""All SQL but the migrations.

Statements are constants, so that each is prepared once and then found in the connection's cache. Parameters are
positional, in the order of the columns named. Nothing newer than SQLite 3.38 is used (`->`; no JSONB, no unhex).
"""

import functools
from typing import Any, Final, Literal

# Opening.

PRAGMAS: Final = (
    # An acknowledged write is on disk: one fsync of the log at each commit.
    "PRAGMA synchronous = FULL",
    # No function with side effects may be run from a schema that somebody else may have written.
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
    # KiB: a change touches some ten pages, and the kernel has the others. It would grow to 2 MB in time.
    "PRAGMA cache_size = -512",
)
READING_PRAGMAS: Final = (
    "PRAGMA query_only = ON",
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

# Commits. For each statement Python gives its interpreter lock away several times, and the loop's thread may keep it for long:
# so a group of commits is one statement. It inserts a row for each change into a view that holds nothing, and the view's trigger
# writes the rest. Both are the connection's own (TEMP): they belong to the release, not to the file.

_COMMIT_COLUMNS: Final = (
    "service",
    "expected_version",
    "expected_epoch",  # NULL: any
    "config_json",
    "checksum",
    "history",  # JSON: [{"key", "old", "new"}], without `old` or `new` where the key was not or will not be set
    "items",  # JSON: [{"key", "value", "type", "complexity", "description", "help_text", "examples", "is_secret"}]
    "dropped",  # JSON: the keys of items that go; NULL: none
    "committed_at",
    "changed_by",
    "reason",
    "request_id",
    "store_epoch",
    "revision",  # the one that this commit makes
    # Of a request with several changes the first one alone has these: it takes the revision and writes the access row.
    "origin",
    "access_service",
    "address",
    "detail",
)
COMMITS: Final = (
    f"CREATE TEMP VIEW commits AS SELECT {', '.join(f'NULL AS {each}' for each in _COMMIT_COLUMNS)}",
    # The version check is the only lock: the whole statement is undone if somebody else was first.
    """
    CREATE TEMP TRIGGER commits_are_written INSTEAD OF INSERT ON commits WHEN NEW.service IS NOT NULL
    BEGIN
        UPDATE service_configs
        SET config_json = NEW.config_json, version = version + 1, updated_at = NEW.committed_at,
            updated_by = NEW.changed_by, checksum = NEW.checksum, request_id = NEW.request_id
        WHERE service = NEW.service AND version = NEW.expected_version
            AND config_epoch = coalesce(NEW.expected_epoch, config_epoch);
        SELECT RAISE (ABORT, 'the service is not at the expected version') WHERE changes() = 0;

        UPDATE store_meta SET revision = NEW.revision
        WHERE id = 1 AND config_epoch = NEW.store_epoch AND revision = NEW.revision - (NEW.origin IS NOT NULL);
        SELECT RAISE (ABORT, 'the store is not at the expected revision') WHERE changes() = 0;

        INSERT INTO config_history
            (service, key, old_value_json, new_value_json, is_secret, version, revision, changed_at, changed_by,
             change_reason)
        SELECT NEW.service, value ->> 'key', value -> 'old', value -> 'new', 0, NEW.expected_version + 1,
            NEW.revision, NEW.committed_at, NEW.changed_by, NEW.reason
        FROM json_each(NEW.history);

        INSERT INTO config_items
            (service, key, value_json, type, complexity, description, help_text, examples, is_secret, updated_at,
             updated_by)
        SELECT NEW.service, value ->> 'key', value -> 'value', value ->> 'type', value ->> 'complexity',
            value ->> 'description', value ->> 'help_text', value -> 'examples', value ->> 'is_secret',
            NEW.committed_at, NEW.changed_by
        FROM json_each(NEW.items) WHERE true
        ON CONFLICT (service, key) DO UPDATE SET
            value_json = excluded.value_json, type = excluded.type, complexity = excluded.complexity,
            description = excluded.description, help_text = excluded.help_text, examples = excluded.examples,
            is_secret = excluded.is_secret, updated_at = excluded.updated_at, updated_by = excluded.updated_by;
        DELETE FROM config_items
        WHERE service = NEW.service AND key IN (SELECT value FROM json_each(NEW.dropped));

        INSERT INTO access_log
            (timestamp, user_id, action, origin, service, success, reason, request_id, address, revision, detail)
        SELECT NEW.committed_at, NEW.changed_by, 'write', NEW.origin, NEW.access_service, 1, NEW.reason,
            NEW.request_id, NEW.address, NEW.revision, NEW.detail
        WHERE NEW.origin IS NOT NULL;
    END
    """,
)


def insert_commits(rows: list[tuple[Any, ...]]) -> tuple[str, list[Any]]:
    """Give the statement that commits these rows, all of them or none, and its parameters."""
    # Padded with rows that mean nothing: one prepared statement for each power of two, and not for each number.
    size = 1 << (len(rows) - 1).bit_length()
    parameters = [value for row in rows for value in row]
    parameters += [None] * (size * len(_COMMIT_COLUMNS) - len(parameters))
    return _insert_commits(size), parameters


@functools.cache
def _insert_commits(size: int) -> str:
    row = f"({', '.join('?' for _ in _COMMIT_COLUMNS)})"
    return f"INSERT INTO commits ({', '.join(_COMMIT_COLUMNS)}) VALUES {', '.join([row] * size)}"  # noqa: S608  # constants


# What the trigger does not write.

INSERT_SECRET_HISTORY: Final = """
    INSERT INTO config_history
        (service, key, old_value_json, new_value_json, is_secret, version, revision, changed_at, changed_by,
         change_reason)
    VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?)
"""  # noqa: S105  # a statement
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


# Profiles. What one holds is `{service: {key: value}}`.

_PROFILE_ENTRY: Final = """
    profile_name, description,
    iif(
        json_valid(config_snapshot_json),
        (SELECT json_group_array(key) FROM json_each(config_snapshot_json) WHERE typeof(key) = 'text'),
        '[]'
    ),
    created_at, created_by, updated_at, updated_by
"""
SELECT_PROFILES: Final = f"SELECT {_PROFILE_ENTRY} FROM config_profiles ORDER BY profile_name"  # noqa: S608  # a constant
SELECT_PROFILE: Final = f"SELECT {_PROFILE_ENTRY}, config_snapshot_json FROM config_profiles WHERE profile_name = ?"  # noqa: S608
HAS_PROFILE: Final = "SELECT 1 FROM config_profiles WHERE profile_name = ?"
COUNT_PROFILES: Final = "SELECT count(*) FROM config_profiles"
UPSERT_PROFILE: Final = """
    INSERT INTO config_profiles
        (profile_name, description, config_snapshot_json, created_at, created_by, updated_at, updated_by)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (profile_name) DO UPDATE SET
        description = coalesce(excluded.description, description),
        config_snapshot_json = excluded.config_snapshot_json,
        updated_at = excluded.updated_at, updated_by = excluded.updated_by
"""
UPDATE_PROFILE: Final = """
    UPDATE config_profiles
    SET profile_name = ?, description = coalesce(?, description), updated_at = ?, updated_by = ?
    WHERE profile_name = ?
"""
DELETE_PROFILE: Final = "DELETE FROM config_profiles WHERE profile_name = ?"


# History.


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


# Where a commit came from stands in its row of the access log, which has no index by revision (each commit would have a page
# more to write). Its rows are in the order of the revisions, so their ids are searched by halves.

SELECT_ACCESS_ENDS: Final = "SELECT (SELECT min(id) FROM access_log), (SELECT max(id) FROM access_log)"
SELECT_ACCESS_FROM: Final = """
    SELECT id, revision FROM access_log WHERE id >= ? AND revision IS NOT NULL ORDER BY id LIMIT 1
"""
SELECT_ORIGINS: Final = """
    SELECT revision, origin FROM access_log
    WHERE id >= ? AND revision IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?
"""

# Looking back. Each of these is for one service, or without a condition on it for all. Rows of the history come in the order of
# their ids, whatever the clock did, so that a point in it is the id of the last row before.


def _of(service: str | None, *, where: str) -> tuple[str, list[Any]]:
    return (where, []) if service is None else (f"{where} AND service = ?", [service])


def layers(service: str | None) -> tuple[str, list[Any]]:
    """Give the statement for what is in force now."""
    where, parameters = _of(service, where="true")
    return f"SELECT service, config_json, version FROM service_configs WHERE {where}", parameters  # noqa: S608


def secret_keys(service: str | None) -> tuple[str, list[Any]]:
    """Give the statement for the secrets that are set now."""
    where, parameters = _of(service, where="true")
    return f"SELECT service, key FROM encrypted_secrets WHERE {where}", parameters  # noqa: S608


def last_change(
    service: str | None, column: Literal["version", "revision", "changed_at"], value: Any
) -> tuple[str, list[Any]]:
    """Give the statement for the last row up to that version, revision or time."""
    where, parameters = _of(service, where=f"{column} <= ?")
    return f"SELECT id FROM config_history WHERE {where} ORDER BY id DESC LIMIT 1", [value, *parameters]  # noqa: S608


def undo(service: str | None, after: int) -> tuple[str, list[Any]]:
    """Give the statement for what leads back to a point: of all rows that came after it the oldest one of each key."""
    where, parameters = _of(service, where="id > ?")
    # SQLite gives the other columns of the row that has the minimum: https://sqlite.org/lang_select.html#bareagg
    sql = f"""
        SELECT service, key, old_value_json, is_secret, min(id) FROM config_history
        WHERE {where} GROUP BY service, key, is_secret ORDER BY min(id) DESC
    """  # noqa: S608
    return sql, [after, *parameters]


def secrets_written(service: str | None, after: int, until: int) -> tuple[str, list[Any]]:
    """Give the statement for the keys of secrets that were written between two points."""
    where, parameters = _of(service, where="id > ? AND id <= ? AND is_secret")
    return f"SELECT DISTINCT service, key FROM config_history WHERE {where}", [after, until, *parameters]  # noqa: S608


def oldest_changes(service: str | None) -> tuple[str, list[Any]]:
    """Give the statement for the oldest row of each service."""
    where, parameters = _of(service, where="true")
    sql = f"""
        SELECT service, version, revision, changed_at, min(id) FROM config_history WHERE {where} GROUP BY service
    """  # noqa: S608
    return sql, parameters


# Whoever prunes the history takes the oldest rows of a service and leaves its newest: ids without a gap then tell that nothing
# was pruned.
SELECT_ENTRIES: Final = """
    SELECT id, key, old_value_json, is_secret FROM config_history
    WHERE service = ? AND id IN (SELECT value FROM json_each(?))
"""
SELECT_HISTORY_IS_WHOLE: Final = "SELECT count(*) = coalesce(max(id), 0) FROM config_history"
# Of what made that version, or of what came upon it.
SELECT_HAS_CHANGE: Final = "SELECT 1 FROM config_history WHERE service = ?1 AND version IN (?2, ?2 + 1) LIMIT 1"
# Not every version has a row in the history: the first has none, nor one that only a default has made.
SELECT_MADE_VERSION: Final = """
    SELECT 1 FROM access_log WHERE revision IS NOT NULL AND detail -> 'versions' ->> ? = ? LIMIT 1
"""
