"""What requests write: all of a group in one statement, or one request after the other inside a transaction."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from actors.database import statements as sql
from actors.database._schema import timestamp
from actors.database._transaction import Mark, Transaction
from schemas.records import (
    ABSENT,
    SECRET_MARK,
    AccessEntry,
    Change,
    CommitRequest,
    Committed,
    ItemRow,
    NewService,
    SecretChange,
    UnknownService,
    VersionMismatch,
)
from schemas.types import Revision, ServiceName, Version

# Who made a row that nobody asked for.
SYSTEM = "system"


def commit_together(
    connection: sqlite3.Connection, requests: Sequence[CommitRequest], mark: Mark
) -> list[Committed] | None:
    """Commit the whole group in one statement, which is its own transaction; None where nothing was written.

    That is where one of them has secrets, several changes or no sense, somebody else has written since `mark`, or a version is
    another: `commit` then says of each what becomes of it.

    Raises sqlite3.Error: nothing was written because of something that is no request's fault.
    """
    if not all(len(each.changes) == 1 and not each.changes[0].secrets for each in requests):
        return None
    now = datetime.now(UTC)
    stamp = timestamp(now)
    rows: list[tuple[Any, ...]] = []
    committed = []
    try:
        for revision, each in enumerate(requests, mark.revision + 1):
            made = Committed(Revision(revision), now, _versions(each), mark.epoch)
            rows.append(_row(each, each.changes[0], made, stamp))
            committed.append(made)
    except (TypeError, ValueError):
        return None
    try:
        connection.execute(*sql.insert_commits(rows))
    except sqlite3.IntegrityError:
        return None
    return committed


def commit(transaction: Transaction, request: CommitRequest) -> Committed:
    """Write every change of the request: the next version, items, history, secrets; one access row; one revision.

    Raises:
        VersionMismatch: somebody else was first; UnknownService: there is no such row.
        ValueError: the request contradicts itself; TypeError: a value is not JSON.
    """
    if not request.changes:
        raise ValueError("a commit needs at least one change")
    mark = transaction.mark
    made = Committed(Revision(mark.revision + 1), transaction.now, _versions(request), mark.epoch)
    for change in request.changes:
        if any(secret.key in change.config for secret in change.secrets):
            raise ValueError(f"a secret of {change.service} stands in its configuration")
        row = _row(request, change, made, transaction.stamp)
        try:
            transaction.connection.execute(*sql.insert_commits([row]))
        except sqlite3.IntegrityError:
            _explain(transaction, change)
            raise
        _write_secret_history(transaction, change, request, made.revision)
        _write_secrets(transaction, change)
    transaction.mark = Mark(made.config_epoch, made.revision)
    return made


def ensure(transaction: Transaction, services: Iterable[NewService]) -> None:
    """Give each service that has none its row, `{}` at version 1."""
    mark = transaction.mark
    created: dict[ServiceName, Version] = {}
    for new in services:
        row = (new.service, mark.epoch, transaction.stamp, SYSTEM, new.checksum)
        if transaction.connection.execute(sql.INSERT_SERVICE, row).rowcount:
            created[new.service] = Version(1)
    if created:
        transaction.connection.execute(sql.NEXT_REVISION)
        transaction.mark = Mark(mark.epoch, Revision(mark.revision + 1))
        entry = AccessEntry(user_id=None, action="create", success=True)
        log_access(transaction, entry, origin=SYSTEM, revision=transaction.mark.revision, versions=created)


def acknowledge(transaction: Transaction, published: Iterable[tuple[ServiceName, Version]]) -> None:
    """Record what the broker has acknowledged in this epoch."""
    epoch = transaction.mark.epoch
    rows = ((service, epoch, version, transaction.stamp) for service, version in published)
    transaction.connection.executemany(sql.UPSERT_PUBLICATION, rows)


def log_access(
    transaction: Transaction,
    entry: AccessEntry,
    *,
    origin: str | None = None,
    revision: Revision | None = None,
    versions: dict[ServiceName, Version] | None = None,
) -> None:
    """Append one row to the access log; `versions` are those that were made."""
    detail = None if versions is None else _json({"versions": versions})
    transaction.connection.execute(
        sql.INSERT_ACCESS,
        (
            transaction.stamp,
            entry.user_id,
            entry.action,
            origin,
            entry.service,
            entry.key,
            entry.success,
            entry.reason,
            entry.request_id,
            entry.address,
            revision,
            detail,
        ),
    )


def _versions(request: CommitRequest) -> dict[ServiceName, Version]:
    return {change.service: Version(change.expected_version + 1) for change in request.changes}


def _row(request: CommitRequest, change: Change, made: Committed, stamp: str) -> tuple[Any, ...]:
    """Give a change's row for the view `commits`, in the order of its columns."""
    first = change is request.changes[0]
    dropped = [item.key for item in change.items if item.value is ABSENT]
    return (
        change.service,
        change.expected_version,
        change.expected_epoch,
        _json(change.config),
        change.checksum,
        _json([_history_entry(each.key, each.old, each.new) for each in change.history]),
        _json([_item(each) for each in change.items if each.value is not ABSENT]),
        _json(dropped) if dropped else None,
        stamp,
        request.changed_by,
        request.reason,
        request.request_id,
        made.config_epoch,
        made.revision,
        request.origin if first else None,
        change.service if len(request.changes) == 1 else None,
        request.address,
        _json({"versions": made.versions}) if first else None,
    )


def _history_entry(key: str, old: Any, new: Any) -> dict[str, Any]:
    entry = {"key": key}
    if old is not ABSENT:
        entry["old"] = old
    if new is not ABSENT:
        entry["new"] = new
    return entry


def _item(item: ItemRow) -> dict[str, Any]:
    entry = {
        "key": item.key,
        "value": SECRET_MARK if item.is_secret and item.value is not None else item.value,
        "type": item.type,
        "complexity": item.complexity,
        "description": item.description,
        "help_text": item.help_text,
        "is_secret": item.is_secret,
    }
    if item.examples:
        entry["examples"] = item.examples
    return entry


def _explain(transaction: Transaction, change: Change) -> None:
    """Raise what a refused change was refused for, if it is the service's version or epoch."""
    found = transaction.connection.execute(sql.SELECT_VERSION, (change.service,)).fetchone()
    if found is None:
        raise UnknownService(change.service)
    current, epoch, request_id = found
    if current != change.expected_version or change.expected_epoch not in {None, epoch}:
        raise VersionMismatch(change.service, change.expected_version, current, epoch, request_id)


def _write_secret_history(transaction: Transaction, change: Change, request: CommitRequest, revision: Revision) -> None:
    tail = (change.expected_version + 1, revision, transaction.stamp, request.changed_by, request.reason)
    rows = [(change.service, key, old, new, *tail) for key, old, new in _secret_marks(transaction, change)]
    transaction.connection.executemany(sql.INSERT_SECRET_HISTORY, rows)


def _secret_marks(transaction: Transaction, change: Change) -> Iterator[tuple[str, str | None, str | None]]:
    for secret in change.secrets:
        known = transaction.connection.execute(sql.SELECT_SECRET, (change.service, secret.key)).fetchone()
        old = None if known is None else _MARK
        new = None if secret.sealed is None else _MARK
        if old or new:
            yield secret.key, old, new


def _write_secrets(transaction: Transaction, change: Change) -> None:
    for secret in change.secrets:
        _write_secret(transaction, change.service, secret)


def _write_secret(transaction: Transaction, service: ServiceName, secret: SecretChange) -> None:
    sealed = secret.sealed
    if sealed is None:
        transaction.connection.execute(sql.DELETE_SECRET, (service, secret.key))
        return
    transaction.connection.execute(
        sql.UPSERT_SECRET,
        (
            service,
            secret.key,
            sealed.ciphertext,
            sealed.nonce,
            sealed.key_id,
            transaction.stamp,
            transaction.stamp,
        ),
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


_MARK = _json(SECRET_MARK)
