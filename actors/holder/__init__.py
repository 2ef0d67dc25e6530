"""Workers' parent process (`program.py`) and the supervisor's end of it (`Holder`, `Held`, `Spawn`).
It is attached first of all at a start, so it imports the standard library and what needs no more of `actors` alone.
"""

from actors.holder._attach import attach
from actors.holder._client import Held, Holder, HolderFailed, Kept, Piece
from actors.holder._spawn import Ended, Spawn, SpawnFailed, new_instance

__all__ = ["Ended", "Held", "Holder", "HolderFailed", "Kept", "Piece", "Spawn", "SpawnFailed", "attach", "new_instance"]
