"""What one request writes, inside a transaction that belongs to somebody else."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from actors.database import statements as sql
from actors.database._transaction import Transaction
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
from schemas.types import Epoch, Revision, ServiceName, Version

# Who made a row that nobody asked for.
SYSTEM = "system"


def commit(transaction: Transaction, request: CommitRequest) -> Committed:
    """Write every change of the request: the next version, items, history, secrets; one access row; one revision.

    Raises:
        VersionMismatch: somebody else was first; UnknownService: there is no such row.
        ValueError: the request contradicts itself; TypeError: a value is not JSON.
    """
    if not request.changes:
        raise ValueError("a commit needs at least one change")
    # The version check comes first: whoever lost the race has written nothing.
    for change in request.changes:
        _advance(transaction, change, request)
    revision, epoch = _next_revision(transaction)
    versions = {change.service: Version(change.expected_version + 1) for change in request.changes}
    for change in request.changes:
        _write_history(transaction, change, request, revision)
        _write_items(transaction, change, request.changed_by)
        _write_secrets(transaction, change)
    access = AccessEntry(
        user_id=request.changed_by,
        action="write",
        success=True,
        service=request.changes[0].service if len(request.changes) == 1 else None,
        reason=request.reason,
        request_id=request.request_id,
        address=request.address,
    )
    log_access(transaction, access, origin=request.origin, revision=revision, versions=versions)
    return Committed(revision, transaction.now, versions, epoch)


def ensure(transaction: Transaction, services: Iterable[NewService]) -> None:
    """Give each service that has none its row, `{}` at version 1."""
    _, epoch = _meta(transaction)
    created: dict[ServiceName, Version] = {}
    for new in services:
        row = (new.service, epoch, transaction.stamp, SYSTEM, new.checksum)
        if transaction.connection.execute(sql.INSERT_SERVICE, row).rowcount:
            created[new.service] = Version(1)
    if created:
        revision, _ = _next_revision(transaction)
        entry = AccessEntry(user_id=None, action="create", success=True)
        log_access(transaction, entry, origin=SYSTEM, revision=revision, versions=created)


def acknowledge(transaction: Transaction, published: Iterable[tuple[ServiceName, Version]]) -> None:
    """Record what the broker has acknowledged in this epoch."""
    _, epoch = _meta(transaction)
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
    """Append one row to the access log; `versions` are those that the commit made."""
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


def _advance(transaction: Transaction, change: Change, request: CommitRequest) -> None:
    if any(secret.key in change.config for secret in change.secrets):
        raise ValueError(f"a secret of {change.service} stands in its configuration")
    row = (
        _json(change.config),
        transaction.stamp,
        request.changed_by,
        change.checksum,
        request.request_id,
        change.service,
        change.expected_version,
        change.expected_epoch,
    )
    if transaction.connection.execute(sql.UPDATE_SERVICE, row).rowcount:
        return
    found = transaction.connection.execute(sql.SELECT_VERSION, (change.service,)).fetchone()
    if found is None:
        raise UnknownService(change.service)
    current, epoch, request_id = found
    raise VersionMismatch(change.service, change.expected_version, current, epoch, request_id)


def _next_revision(transaction: Transaction) -> tuple[Revision, Epoch]:
    transaction.connection.execute(sql.NEXT_REVISION)
    return _meta(transaction)


def _meta(transaction: Transaction) -> tuple[Revision, Epoch]:
    epoch, revision, _ = transaction.connection.execute(sql.SELECT_META).fetchone()
    return revision, epoch


def _write_history(transaction: Transaction, change: Change, request: CommitRequest, revision: Revision) -> None:
    tail = (
        change.expected_version + 1,
        revision,
        transaction.stamp,
        request.changed_by,
        request.reason,
    )
    rows = [(change.service, each.key, _value(each.old), _value(each.new), 0, *tail) for each in change.history]
    rows += ((change.service, key, old, new, 1, *tail) for key, old, new in _secret_marks(transaction, change))
    if rows:
        transaction.connection.executemany(sql.INSERT_HISTORY, rows)


def _secret_marks(transaction: Transaction, change: Change) -> Iterator[tuple[str, str | None, str | None]]:
    for secret in change.secrets:
        known = transaction.connection.execute(sql.SELECT_SECRET, (change.service, secret.key)).fetchone()
        old = None if known is None else _MARK
        new = None if secret.sealed is None else _MARK
        if old or new:
            yield secret.key, old, new


def _write_items(transaction: Transaction, change: Change, changed_by: str) -> None:
    execute = transaction.connection.execute
    for item in change.items:
        if item.value is ABSENT:
            execute(sql.DELETE_ITEM, (change.service, item.key))
            continue
        row = (
            _item_value(item),
            transaction.stamp,
            changed_by,
            change.service,
            item.key,
            item.type,
            item.complexity,
            item.description,
            item.help_text,
            _json(item.examples) if item.examples else None,
            item.is_secret,
        )
        if not execute(sql.UPDATE_ITEM, row).rowcount:
            execute(sql.UPSERT_ITEM, row)


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


def _value(value: Any) -> str | None:
    return None if value is ABSENT else _json(value)


def _item_value(item: ItemRow) -> str:
    if item.is_secret and item.value is not None:
        return _MARK
    return _json(item.value)
