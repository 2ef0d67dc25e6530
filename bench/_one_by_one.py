"""`tars-supervisor run` with transactions of one request each: what group commit is compared with."""

import sys

from actors.database import DatabaseActor
from actors.runtime._batch import BATCH_ATTRIBUTE
from supervisor.main import main

if __name__ == "__main__":
    setattr(DatabaseActor.commit, BATCH_ATTRIBUTE, 1)
    sys.exit(main(["run"]))
