"""Finding settings among 10 000: over REST, against a bare SQLite read of the same rows.

`sqlite`: sqlite3 on this thread, one SELECT of what a search looks through, all of it fetched.
"""

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from bench import _clients
from bench._clients import TOKEN_HEADER, Request, get
from bench._harness import Bar, Block, Row, Run, Series, interleaved
from bench._processes import Clients
from bench._sides import Ours
from schemas.search import MAX_QUERY, MAX_WORDS

SERVICES, SETTINGS = 20, 500
RAW = "raw"
_TEXT = (
    "threshold volume microphone speaker language model retry interval buffer sample rate channel device path folder cache "
    "limit maximum minimum window silence detection wake phrase voice speed pitch energy noise filter gain level broker topic"
)
WORDS = _TEXT.split()

# Each finds much. Nothing has all the words of the longest one, but each is looked for everywhere.
QUERIES = {"a word": "threshold", "mistyped": "treshhold", "everything": ""}
LONGEST = (
    "service threshld volum micrphone speker languag retry mdel bufer windo silnce detecton vocie spede pitch energ"
)
BOUND_MS, WAIT_MS = 300, 10

CREATE = """
    CREATE TABLE config_items (
        id INTEGER PRIMARY KEY, service TEXT NOT NULL, key TEXT NOT NULL, value_json TEXT NOT NULL, type TEXT NOT NULL,
        complexity TEXT NOT NULL, description TEXT NOT NULL, help_text TEXT, examples TEXT, is_secret INTEGER NOT NULL,
        updated_at TEXT NOT NULL, updated_by TEXT NOT NULL, UNIQUE (service, key)
    )
"""
INSERT = "INSERT INTO config_items VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, NULL, 0, '2026-11-20T00:00:00Z', 'bench')"
SELECT = "SELECT service, key, value_json, type, complexity, description, help_text, is_secret FROM config_items"


def rows(run: Run) -> Iterator[Row]:
    """Each query in turn; the longest one and a first search have to keep to 300 ms, the others to ten reads."""
    models = [_model(number) for number in range(SERVICES)]
    folder = run.folder / "ours"
    folder.mkdir()
    for number, model in enumerate(models):
        (folder / f"{number}.schema.json").write_text(json.dumps(model))
    services = "\n".join(
        f'[services.service-{number}]\nkind = "config-only"\nmodel = "{number}.schema.json"'
        for number in range(SERVICES)
    )
    with ExitStack() as stack:
        clients = stack.enter_context(Clients(run.folder))
        sqlite = stack.enter_context(closing(_store(run.folder / "items.db", models)))
        ours = stack.enter_context(Ours(folder, services))
        count = run.count(50)

        def asked(text: str) -> Request:
            assert len(text) <= MAX_QUERY
            assert len(text.split()) <= MAX_WORDS
            body = json.dumps({"query": text, "max_results": 200}).encode()
            return Request("POST", "/api/config/search", body, {TOKEN_HEADER: ours.token})

        def searches(text: str) -> Block:
            return lambda: clients.do(_clients.one_by_one, ours.port, [asked(text)] * count)

        def reads() -> list[float]:
            taken = []
            for _ in range(count):
                began = time.perf_counter()
                found = sqlite.execute(SELECT).fetchall()
                taken.append(time.perf_counter() - began)
                assert len(found) == SERVICES * SETTINGS
            return taken

        def waits() -> list[float]:
            """GETs, with searches under way all the time."""
            return clients.do(_clients.beside, ours.port, [ours.gets("service-0")] * count, asked(LONGEST))

        first = Series("ms", [each * 1000 for each in clients.do(_clients.one_by_one, ours.port, [asked("threshold")])])
        for text in QUERIES.values():
            assert json.loads(get(ours.port, asked(text)))["total_count"] > 0, text
        sides: dict[str, Block] = {name: searches(text) for name, text in QUERIES.items()}
        sides |= {"sqlite": reads, "longest": searches(LONGEST), "get": waits}
        found = {"first": first, **interleaved(run, {name: ("ms", measure) for name, measure in sides.items()})}
    for name in QUERIES:
        peer = found["sqlite"], "raw sqlite3"
        yield Row("search", f"search of 10 000 settings p50: {name}", found[name], *peer, client=RAW, bar=Bar(10))
    yield Row("search", "  16 words, most of them mistyped", found["longest"], client=RAW, bar=Bar(BOUND_MS))
    yield Row("search", "  the first one after a start", found["first"], client=RAW, bar=Bar(BOUND_MS))
    yield Row("search", "  GET p50 while such searches are under way", found["get"], client=RAW, bar=Bar(WAIT_MS))


def _model(number: int) -> dict[str, Any]:
    """A JSON Schema file: as many settings as a model may have, their texts as long as those of the six services."""
    chance = random.Random(number)
    properties: dict[str, Any] = {}
    for each in range(SETTINGS):
        words = chance.sample(WORDS, 3)
        kind, default = (("integer", each), ("number", each / 8), ("boolean", each % 8 == 3), ("string", words[2]))[
            each % 4
        ]
        properties["_".join((*words[:2], f"{number:02}{each:03}"))] = {
            "type": kind,
            "default": default,
            "title": " ".join(words).capitalize(),
            "description": f"{' '.join(chance.choices(WORDS, k=12)).capitalize()}.",
            "x-help": f"{' '.join(chance.choices(WORDS, k=25)).capitalize()}.",
            "x-complexity": "simple" if each % 3 else "advanced",
        }
    return {"type": "object", "properties": properties}


def _store(path: Path, models: list[dict[str, Any]]) -> sqlite3.Connection:
    """The same settings in a table as `config.db` has it."""
    connection = sqlite3.connect(path)
    connection.execute(CREATE)
    for number, model in enumerate(models):
        connection.executemany(
            INSERT,
            [
                (
                    f"service-{number}",
                    key,
                    json.dumps(each["default"]),
                    each["type"],
                    each["x-complexity"],
                    each["description"],
                    each["x-help"],
                )
                for key, each in model["properties"].items()
            ],
        )
    connection.commit()
    return connection
