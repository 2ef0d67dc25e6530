"""Settings are found as they are now: in the store, by the environment, after a restart; secrets never by their value."""

from collections.abc import Callable
from typing import Any

from tests.system.program import SIX, Program

Make = Callable[..., Program]

SECRET = "sk-quite-a-secret-1234"
CONFIG_ONLY = "\n".join(f'[services.{name}]\nkind = "config-only"' for name in SIX)


def search(program: Program, query: str, **filters: Any) -> dict[str, Any]:
    with program.client() as client:
        answer = client.post("/api/config/search", json={"query": query, "max_results": 200, **filters})
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text.removeprefix(f'{{"query":"{SECRET}"')
    found: dict[str, Any] = answer.json()
    return found


def keys(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["service"], each["key"]) for each in found["results"]]


def test_settings_are_found_as_they_are(program: Make) -> None:
    supervised = program(CONFIG_ONLY, WHISPER_MODEL="small.en").start()
    everything = search(supervised, "")
    assert everything["total_count"] == len(everything["results"]) == 59
    assert list(dict.fromkeys(each["service"] for each in everything["results"])) == list(SIX)
    assert keys(search(supervised, "volum percnt"))[0] == ("tts-worker", "volume_percent")
    assert keys(search(supervised, "", changed_only=True)) == [("stt-worker", "whisper_model")]
    (by_environment,) = search(supervised, "small.en", type_filter="enum")["results"]
    assert (by_environment["key"], by_environment["value"]) == ("whisper_model", "small.en")

    assert keys(search(supervised, SECRET)) == []
    assert supervised.put("tts-worker", volume_percent=55, eleven_api_key=SECRET).status_code == 200
    for _ in range(2):
        assert keys(search(supervised, SECRET)) == []
        changed = search(supervised, "", changed_only=True, service_filter="tts-worker")["results"]
        assert {each["key"]: each["value"] for each in changed} == {"volume_percent": 55, "eleven_api_key": "********"}
        assert keys(search(supervised, "55", service_filter="tts-worker"))[0] == ("tts-worker", "volume_percent")
        assert supervised.stop() == 0
        supervised.start()
