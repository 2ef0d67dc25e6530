"""Several writers with the same expected version: exactly one wins each round, and the others are told."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable

from tests.system.agreement import stored
from tests.system.lean import LeanClient
from tests.system.program import Program, config_only_manifest

Make = Callable[..., Program]

ROUNDS = 1000
WRITERS = 8


async def test_one_of_eight_writers_wins_each_round(program: Make) -> None:
    supervised = program(config_only_manifest(1)).start()
    clients = [LeanClient(supervised.url, supervised.token) for _ in range(WRITERS)]
    for client in clients:
        await client.__aenter__()
    try:
        for number in range(ROUNDS):
            answers = await asyncio.gather(
                *(
                    client.patch("service-000", number + 1, router_wake_ack_text=f"{number} by {writer}")
                    for writer, client in enumerate(clients)
                )
            )
            assert Counter(status for status, _ in answers) == {200: 1, 409: WRITERS - 1}
            winner = next(index for index, (status, _) in enumerate(answers) if status == 200)
            assert answers[winner][1]["version"] == number + 2
            loser = next(answer for status, answer in answers if status == 409)
            assert loser["detail"] == f"Version mismatch: expected {number + 1}, current is {number + 2}"
            assert loser["current"]["version"] == number + 2
        status, body = await clients[0].request("GET", "/api/config/services/service-000")
        assert status == 200
        assert json.loads(body)["config"]["router_wake_ack_text"] == f"{ROUNDS - 1} by {winner}"
    finally:
        for client in clients:
            await client.__aexit__()
    assert stored(supervised.folder)["service-000"].version == ROUNDS + 1
    assert supervised.stop() == 0
