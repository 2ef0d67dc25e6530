"""The services as they are, with figures of real processes; commands, and what comes of them."""

import asyncio
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from actors import OutcomeUnknown, Rejected
from api import figures
from api.worker_models import CommandAnswer, ServiceDetails, ServiceDetailsList
from schemas.health import ComponentHealth
from schemas.states import Lifecycle
from schemas.status import CommandRefused
from tests.api.conftest import READER, WRITER, Running, running, state_over
from tests.api.fake_services import FakeServices
from tests.api.fake_workers import SINCE, Asked, status
from tests.support import eventually

WORKER = "/api/services/stt-worker"
RESTART = f"{WORKER}/restart"


def runs(api: Running, pid: int, instance: str = "stt-worker-1") -> None:
    """Have the worker be that process."""
    started = datetime.now(UTC) - timedelta(seconds=60)
    changed = status("stt-worker", pid=pid, started_at=started, instance=instance)
    api.services.board.statuses["stt-worker"] = changed


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many processes were looked at, each time."""
    counted: list[int] = []
    look_at = figures._Look.at

    def at(self: Any, keys: Any) -> Any:
        counted.append(len(keys))
        return look_at(self, keys)

    monkeypatch.setattr(figures._Look, "at", at)
    return counted


class TestReads:
    async def test_all_services_in_the_manifests_order(self, api: Running):
        answer = await api.client.get("/api/services")
        found = ServiceDetailsList.model_validate_json(answer.content)
        assert [each.service for each in found.services] == ["stt-worker", "tts-worker", "shared"]
        assert all(each.process is None for each in found.services)
        assert found.internal == []
        assert answer.headers["cache-control"] == "no-store"
        (end,) = found.services[0].ends
        assert (end.reason, end.last_lines) == ("killed", ())

    async def test_one_service_with_its_last_words(self, api: Running):
        found = ServiceDetails.model_validate_json((await api.client.get(WORKER)).content)
        assert found.state is Lifecycle.READY
        assert found.ends[0].last_lines == ("oh no",)

    async def test_a_process_has_figures(self, api: Running):
        runs(api, os.getpid())
        process = (await api.client.get(WORKER)).json()["process"]
        assert process["pid"] == os.getpid()
        assert 60 <= process["uptime_s"] < 100
        assert process["cpu_s"] > 0
        assert process["cpu_percent"] is None
        assert process["memory"] > 1024 * 1024
        assert process["memory_kind"] == "pss"
        assert process["fds"] > 5
        assert process["threads"] >= 1

    async def test_a_second_look_tells_what_it_takes_now(self, api: Running, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(figures, "FRESH", 0)
        runs(api, os.getpid())
        before = (await api.client.get(WORKER)).json()["process"]
        sum(range(3_000_000))
        after = (await api.client.get("/api/services")).json()["services"][0]["process"]
        assert after["cpu_s"] > before["cpu_s"]
        assert 0 < after["cpu_percent"] < 1000

    async def test_many_readers_are_one_look(self, api: Running, looks: list[int]):
        runs(api, os.getpid())
        asked = [api.client.get(path) for path in (WORKER, "/api/services", f"{WORKER}?x") for _ in range(5)]
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        assert looks == [1]

    async def test_figures_of_one_instance_are_not_another_ones(self, api: Running, looks: list[int]):
        runs(api, os.getpid())
        await api.client.get(WORKER)
        runs(api, os.getpid(), "stt-worker-2")
        process = (await api.client.get(WORKER)).json()["process"]
        assert (process["pid"], process["memory"], process["cpu_s"]) == (os.getpid(), None, None)
        assert looks == [1]

    async def test_one_that_has_ended_has_none(self, api: Running):
        child = subprocess.Popen(["/bin/true"])
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        runs(api, child.pid)
        process = (await api.client.get(WORKER)).json()["process"]
        assert (process["pid"], process["memory"]) == (child.pid, None)
        child.wait()
        async with running() as another:
            runs(another, child.pid)
            assert (await another.client.get(WORKER)).json()["process"]["memory"] is None

    async def test_a_number_that_was_given_to_a_stranger_is_not_taken_for_it(
        self, api: Running, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(figures, "FRESH", 0)
        runs(api, os.getpid())
        assert (await api.client.get(WORKER)).json()["process"]["memory"]
        monkeypatch.setattr(psutil.Process, "is_running", lambda _: False)
        assert (await api.client.get(WORKER)).json()["process"]["memory"] is None

    async def test_what_the_kernel_keeps_to_itself_is_left_out(self, api: Running, monkeypatch: pytest.MonkeyPatch):
        def denied(self: psutil.Process) -> None:
            raise psutil.AccessDenied(self.pid)

        monkeypatch.setattr(psutil.Process, "memory_full_info", denied)
        monkeypatch.setattr(psutil.Process, "num_fds", denied)
        runs(api, os.getpid())
        process = (await api.client.get(WORKER)).json()["process"]
        assert process["memory_kind"] == "rss"
        assert process["memory"] > 1024 * 1024
        assert process["fds"] is None

    async def test_a_reader_that_goes_takes_nothing_from_the_others(self):
        reader = figures.FigureReader()
        key = figures.ProcessKey("a", os.getpid())
        first = asyncio.create_task(reader.read({key: None}))
        await asyncio.sleep(0)
        second = asyncio.create_task(reader.read({key: None}))
        await asyncio.sleep(0)
        first.cancel()
        async with asyncio.timeout(30):
            assert (await second)[key].memory

    async def test_the_embedded_broker_is_shown(self):
        pids: list[int | None] = [os.getpid()]
        services = FakeServices()
        told = ComponentHealth(ok=True, detail="listening", since=SINCE)
        services.board.components["broker"] = told
        async with running(state=replace(state_over(services), broker_pid=lambda: pids[0])) as api:
            (shown,) = (await api.client.get("/api/services")).json()["internal"]
            assert (shown["service"], shown["kind"], shown["state"]) == ("embedded-broker", "internal", "ready")
            assert shown["reason"] == "listening"
            assert shown["process"]["memory"] > 0
            services.board.components["broker"] = told.model_copy(update={"ok": False, "detail": "gone"})
            assert (await api.client.get("/api/services")).json()["internal"][0]["state"] == "starting"
            pids[0] = None
            (shown,) = (await api.client.get("/api/services")).json()["internal"]
            assert (shown["state"], shown["reason"], shown["process"]) == ("backing-off", "gone", None)

    async def test_unknown_services(self, api: Running):
        answer = await api.client.get("/api/services/stt-wroker")
        assert answer.status_code == 404
        assert answer.json()["detail"] == 'There is no service "stt-wroker"; did you mean "stt-worker"?'

    async def test_a_head_has_no_content(self, api: Running):
        answer = await api.client.head(WORKER)
        assert (answer.status_code, answer.content) == (200, b"")
        assert int(answer.headers["content-length"]) > 100

    async def test_a_service_may_be_called_like_a_command(self, api: Running):
        api.services.board.statuses["restart"] = status("restart")
        api.services.workers.outputs["restart"] = api.services.workers.outputs["stt-worker"]
        assert (await api.client.get("/api/services/restart")).json()["service"] == "restart"
        assert (await api.client.get("/api/services/restart/logs")).status_code == 200
        answer = await api.client.post("/api/services/restart/restart")
        assert [each["service"] for each in answer.json()["services"]] == ["restart"]


def test_psutil_is_imported_when_somebody_looks():
    code = "import sys, api; sys.exit('psutil' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


class TestCommands:
    async def test_without_content_it_is_as_usual(self, api: Running):
        answer = await api.client.post(RESTART)
        assert answer.status_code == 200
        found = CommandAnswer.model_validate_json(answer.content)
        assert found.done
        assert found.message == "Restarted: stt-worker."
        assert found.services[0].ends[0].last_lines == ()
        usual = Asked("stt-worker", "restart", dependants=False, rolling=False, by="write", reason=None, wait_s=30)
        assert api.services.workers.commands == [usual]

    @pytest.mark.parametrize("verb", ["start", "stop", "restart"])
    async def test_what_is_asked_for_is_passed_on(self, api: Running, verb: str):
        body = {"reason": "it hears nothing", "dependants": True, "wait_s": 2.5}
        answer = await api.client.post(f"{WORKER}/{verb}", json=body)
        assert answer.status_code == 200
        asked = Asked("stt-worker", verb, dependants=True, rolling=False, by="write", reason=body["reason"], wait_s=2.5)
        assert api.services.workers.commands == [asked]

    @pytest.mark.parametrize("rolling", [True, False])
    async def test_all_of_them(self, api: Running, rolling: bool):
        answer = await api.client.post("/api/services/restart", json={"rolling": rolling, "wait_s": 300})
        assert [each["service"] for each in answer.json()["services"]] == ["stt-worker", "tts-worker", "shared"]
        asked = Asked(None, "restart", dependants=False, rolling=rolling, by="write", reason=None, wait_s=300)
        assert api.services.workers.commands == [asked]

    async def test_what_has_not_come_true_is_202_and_says_why(self, api: Running):
        api.services.workers.done = False
        api.services.workers.trouble = {"stt-worker": "it is starting: loading the model"}
        answer = await api.client.post(RESTART, json={"wait_s": 0})
        assert answer.status_code == 202
        assert not answer.json()["done"]
        assert answer.json()["trouble"] == api.services.workers.trouble
        assert answer.json()["message"].endswith("stt-worker: it is starting: loading the model")

    async def test_the_answer_waits_and_nobody_else_does(self, api: Running):
        api.services.workers.gate.clear()
        asked = asyncio.create_task(api.client.post(RESTART))
        await eventually(lambda: api.services.workers.commands)
        assert (await api.client.get(WORKER)).status_code == 200
        assert not asked.done()
        api.services.workers.gate.set()
        assert (await asked).json()["took_s"] >= 0

    async def test_it_goes_on_where_the_client_leaves(self, api: Running):
        api.services.workers.gate.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(f"POST {RESTART} HTTP/1.1\r\nHost: localhost\r\nX-API-Token: {WRITER}\r\n\r\n".encode())
        await eventually(lambda: api.services.workers.commands)
        writer.close()
        await eventually(lambda: not api.server._state.connections)
        (task,) = api.server._state.tasks
        api.services.workers.gate.set()
        async with asyncio.timeout(30):
            await asyncio.wait([task])
        assert not task.cancelled()
        assert task.exception() is None

    @pytest.mark.parametrize(
        ("failure", "code", "said"),
        [
            (CommandRefused("There is nothing to start: shared is config-only."), 409, "There is nothing to start"),
            (Rejected("the actor stt-worker is busy"), 503, "cannot be done now"),
            (OutcomeUnknown("the actor stt-worker has ended"), 504, "See GET /api/services/stt-worker."),
            (RuntimeError("secret"), 500, "A fault of the program."),
        ],
    )
    async def test_what_goes_wrong_is_a_problem(self, api: Running, failure: Exception, code: int, said: str):
        api.services.workers.failure = failure
        answer = await api.client.post(RESTART)
        assert answer.status_code == code
        assert answer.headers["content-type"] == "application/problem+json"
        assert said in answer.json()["detail"]
        assert ("retry-after" in answer.headers) == (code == 503)

    async def test_unknown_services(self, api: Running):
        answer = await api.client.post("/api/services/stt-wroker/stop")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:tars-supervisor:problem:unknown-service")
        assert api.services.workers.commands == []

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"wait_s": 301}, "wait_s"),
            ({"wait_s": -1}, "wait_s"),
            ({"wait_s": "30"}, "wait_s"),
            ({"wait_s": True}, "wait_s"),
            ({"wait_s": None}, "wait_s"),
            ({"dependants": 1}, "dependants"),
            ({"reason": 7}, "reason"),
            ({"reason": "x" * 1001}, "reason"),
            ({"raeson": "x"}, "raeson"),
            ({"rolling": True}, "rolling"),
            ([], ""),
            ("restart", ""),
        ],
    )
    async def test_what_is_wrong_is_named(self, api: Running, body: object, field: str):
        answer = await api.client.post(RESTART, json=body)
        assert answer.status_code == 422
        assert [each["field"] for each in answer.json()["errors"]] == [field]
        assert api.services.workers.commands == []

    async def test_everything_that_is_wrong_is_named(self, api: Running):
        answer = await api.client.post(RESTART, json={"a": 1, "wait_s": 999, "dependants": "yes"})
        assert [each["field"] for each in answer.json()["errors"]] == ["a", "dependants", "wait_s"]

    @pytest.mark.parametrize(
        ("content", "media_type", "code"),
        [
            (b"{", "application/json", 400),
            (b'{"wait_s": NaN}', "application/json", 400),
            (b"{}", "text/plain", 415),
            (b" " * (1024 * 1024 + 1), "application/json", 413),
        ],
    )
    async def test_content_that_cannot_be_read(self, api: Running, content: bytes, media_type: str, code: int):
        answer = await api.client.post(RESTART, content=content, headers={"Content-Type": media_type})
        assert answer.status_code == code
        assert api.services.workers.commands == []

    @pytest.mark.parametrize("path", [f"{WORKER}/start", f"{WORKER}/stop", RESTART, "/api/services/restart"])
    async def test_a_reader_commands_nothing(self, api: Running, path: str):
        assert (await api.client.post(path, headers={"X-API-Token": READER})).status_code == 403
        assert (await api.client.post(path, headers={"X-API-Token": "guessed"})).status_code == 401
        assert api.services.workers.commands == []

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("POST", "/api/services", "GET, HEAD, OPTIONS"),
            ("POST", WORKER, "GET, HEAD, OPTIONS"),
            ("PUT", RESTART, "OPTIONS, POST"),
            ("GET", f"{WORKER}/stop", "OPTIONS, POST"),
            ("DELETE", f"{WORKER}/logs", "GET, HEAD, OPTIONS"),
            ("POST", "/api/events", "GET, HEAD, OPTIONS"),
        ],
    )
    async def test_other_methods(self, api: Running, method: str, path: str, allowed: str):
        answer = await api.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert api.services.workers.commands == []


async def test_the_thread_of_a_look_ends_with_it(api: Running):
    runs(api, os.getpid())
    assert (await api.client.get(WORKER)).status_code == 200
    await eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("figures")])
