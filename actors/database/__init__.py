"""The store: the only place with SQL. One SQLite connection belongs to one actor and writes; others read the history.

May import `actors.runtime` and `schemas`. All SQL is in `statements.py` and, for the tables, `migrations/`.
Records and errors are in `schemas.records`; the errors are exported here too, for whoever asks the actor.
"""

from actors.database._actor import DatabaseActor
from actors.database._history import HistoryActor
from schemas.records import StoreError, StoreUnavailable, UnknownService, VersionMismatch

__all__ = ["DatabaseActor", "HistoryActor", "StoreError", "StoreUnavailable", "UnknownService", "VersionMismatch"]
