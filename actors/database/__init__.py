"""The store: the only place with SQL, on one SQLite connection that belongs to one actor.

May import `actors.runtime`, `schemas`. Statements are in `statements.py`, tables in `migrations/`.
"""
