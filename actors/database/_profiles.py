"""Profiles: rows beside the configurations, which no commit touches. Each change of one has its row in the access log."""

import sqlite3
from datetime import datetime
from typing import Any

import orjson

from actors.database import statements as sql
from actors.database._transaction import Transaction
from actors.database._write import log_access
from schemas.profiles import (
    MOST_PROFILES,
    Author,
    NewProfile,
    Profile,
    ProfileChange,
    ProfileEntry,
    ProfileExists,
    TooManyProfiles,
    UnknownProfile,
)
from schemas.records import AccessEntry, UnknownService


def entries(connection: sqlite3.Connection) -> tuple[ProfileEntry, ...]:
    """Give all profiles by name, without what they hold. Raises ValueError as `profile` does."""
    return tuple(_entry(row) for row in connection.execute(sql.SELECT_PROFILES))


def profile(connection: sqlite3.Connection, name: str) -> Profile:
    """Give a whole profile.

    Raises:
        UnknownProfile: there is none. ValueError: it does not hold what it has to.
    """
    found = connection.execute(sql.SELECT_PROFILE, (name,)).fetchone()
    if found is None:
        raise UnknownProfile(name)
    *row, text = found
    try:
        settings = orjson.loads(text)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error
    if not isinstance(settings, dict) or not all(isinstance(each, dict) for each in settings.values()):
        raise ValueError(f"{name!r}: not an object of objects")
    return Profile(_entry(row), settings)


def save(transaction: Transaction, new: NewProfile) -> ProfileEntry:
    """Write what these services have set now, as of one moment.

    Raises:
        ProfileExists: and it shall not be replaced. TooManyProfiles: there is no room for another one.
        UnknownService: the store has no row of it.
    """
    connection = transaction.connection
    replaced = _exists(transaction, new.name)
    if replaced and not new.replace:
        raise ProfileExists(new.name)
    if not replaced and connection.execute(sql.COUNT_PROFILES).fetchone()[0] >= MOST_PROFILES:
        raise TooManyProfiles
    present = {service: config for service, config, _ in connection.execute(*sql.layers(None))}
    settings = {}
    for service, keys in new.services.items():
        if service not in present:
            raise UnknownService(service)
        layer = orjson.loads(present[service])
        settings[service] = {key: value for key, value in layer.items() if key in keys}
    stamp, by = transaction.stamp, new.author.name
    text = orjson.dumps(settings).decode()
    connection.execute(sql.UPSERT_PROFILE, (new.name, new.description, text, stamp, by, stamp, by))
    _log(transaction, new.author, "profile-save", f"profile {new.name}{' replaced' if replaced else ''}")
    return _found(transaction, new.name)


def change(transaction: Transaction, wanted: ProfileChange) -> ProfileEntry:
    """Give it another name or description.

    Raises:
        UnknownProfile, ProfileExists.
    """
    name = wanted.new_name or wanted.name
    if not _exists(transaction, wanted.name):
        raise UnknownProfile(wanted.name)
    if name != wanted.name and _exists(transaction, name):
        raise ProfileExists(name)
    row = (name, wanted.description, transaction.stamp, wanted.author.name, wanted.name)
    transaction.connection.execute(sql.UPDATE_PROFILE, row)
    renamed = f" renamed to {name}" if name != wanted.name else " described anew"
    _log(transaction, wanted.author, "profile-change", f"profile {wanted.name}{renamed}")
    return _found(transaction, name)


def delete(transaction: Transaction, name: str, author: Author) -> None:
    """Raises UnknownProfile."""
    if not transaction.connection.execute(sql.DELETE_PROFILE, (name,)).rowcount:
        raise UnknownProfile(name)
    _log(transaction, author, "profile-delete", f"profile {name}")


def _exists(transaction: Transaction, name: str) -> bool:
    return transaction.connection.execute(sql.HAS_PROFILE, (name,)).fetchone() is not None


def _found(transaction: Transaction, name: str) -> ProfileEntry:
    *row, _ = transaction.connection.execute(sql.SELECT_PROFILE, (name,)).fetchone()
    return _entry(row)


def _entry(row: Any) -> ProfileEntry:
    name, description, services, created_at, created_by, updated_at, updated_by = row
    return ProfileEntry(
        name=name,
        description=description or "",
        services=tuple(orjson.loads(services)),
        created_at=datetime.fromisoformat(created_at),
        created_by=created_by,
        updated_at=datetime.fromisoformat(updated_at),
        updated_by=updated_by,
    )


def _log(transaction: Transaction, author: Author, action: str, reason: str) -> None:
    entry = AccessEntry(
        user_id=author.name,
        action=action,
        success=True,
        reason=reason,
        request_id=author.request_id,
        address=author.address,
    )
    log_access(transaction, entry)
