"""The store: the only place with SQL, on one SQLite connection that belongs to one actor.

May import `actors.runtime` and `schemas`. All SQL is in `statements.py` and, for the tables, `migrations/`.
Records and errors are in `schemas.records`; the errors are exported here too, for whoever asks the actor.
"""

from actors.database._actor import DatabaseActor
from schemas.records import StoreError, StoreUnavailable, UnknownService, VersionMismatch

__all__ = ["DatabaseActor", "StoreError", "StoreUnavailable", "UnknownService", "VersionMismatch"]
