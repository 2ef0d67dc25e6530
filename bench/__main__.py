"""Print one table of every figure with its bar, and write it as JSON: `python -m bench`; exit status 1 where a bar is missed."""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    # Imported here, since the clients' processes import this module and none of that.
    import pytest  # noqa: PLC0415

    from bench import broker, outage, process, rest, runtime, search, store, storm, supervision, upgrade, workers  # noqa: PLC0415
    from bench._harness import Row, Run, progress, record, table  # noqa: PLC0415
    from bench._sides import Skipped  # noqa: PLC0415

    sections: dict[str, Callable[[Run], Iterable[Row]]] = {
        "put": rest.put,
        "receipt": rest.receipt,
        "writers": rest.writers,
        "slow": rest.slow,
        "get": rest.read,
        "search": search.rows,
        "start": process.start,
        "idle": process.idle,
        "broker": broker.rows,
        "store": store.rows,
        "runtime": runtime.rows,
        "outage": outage.rows,
        "storm": storm.rows,
        "scale": process.scale,
        "respawn": supervision.respawn,
        "starts": supervision.starts,
        "trees": supervision.trees,
        "hundred": workers.idle,
        "flood": workers.flood,
        "upgrade": upgrade.upgrade,
    }
    parser = argparse.ArgumentParser(prog="bench", description="Figures against floors and peers, see bench/README.md.")
    parser.add_argument("--only", action="append", metavar="ROW", choices=sections, help=", ".join(sections))
    parser.add_argument(
        "--quick", action="store_true", help="three small blocks: to see that it works, not to judge by"
    )
    parser.add_argument(
        "--folder", default="/var/tmp", help="where stores lie; on the disk that is meant (%(default)s)"
    )
    given = parser.parse_args(arguments)

    began = time.monotonic()
    rows: list[Row] = []
    for name in given.only or sections:
        progress(f"{name} ...")
        with tempfile.TemporaryDirectory(prefix="bench-", dir=given.folder) as folder:
            try:
                rows += sections[name](Run(Path(folder), given.quick))
            except Skipped as why:
                rows.append(Row(name, name, None, note=f"skipped: {why}"))
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - the other sections' figures are not lost for it
                traceback.print_exc()
                rows.append(Row(name, name, None, note=f"failed: {error}".splitlines()[0], failed=True))
    seconds = time.monotonic() - began
    print(table(rows))
    path = record(RESULTS, rows, seconds=seconds, quick=given.quick)
    missed = [row for row in rows if row.met is False or row.failed]
    print(f"\n{seconds:.0f} s, {len(missed)} missed; {path}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
