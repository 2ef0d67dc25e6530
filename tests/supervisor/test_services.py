"""What the manifest and its models say of the environment, as `check` tells it."""

import json
from pathlib import Path

import pytest

from supervisor._services import Services, load_services
from supervisor.boot import examine
from supervisor.report import report

MANIFEST = """
[services.stt-worker]
command = ["cat"]
environment = { WHISPER_MODEL = "tiny" }
pass_environment = ["WISPER_MODEL_X"]

[services.llm-worker]
command = ["cat"]

[services.lamp]
kind = "config-only"
model = "lamp.json"
"""
LAMP = {"properties": {"lamp_warmth": {"type": "integer", "default": 3}}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "services.toml").write_text(MANIFEST)
    (tmp_path / "lamp.json").write_text(json.dumps(LAMP))
    return tmp_path


def told(home: Path, env_file: str, **environ: str) -> list[str]:
    """The lines of `check` for a person, and its warnings."""
    (home / ".env").write_text(env_file)
    (home / ".env").chmod(0o600)
    findings = examine({"RUNTIME_DIRECTORY": str(home / "run"), **environ}, home, search=())
    return [*report(findings), *findings.warnings]


def hints(lines: list[str]) -> list[str]:
    return [line for line in lines if "did you mean" in line]


def test_a_misspelled_setting_in_env_is_told_with_its_line_and_service(home):
    lines = told(home, "WISPER_MODEL=tiny\nLAMP_WARMT=3\nOPENAI_API_KY=hunter2hunter2\n")
    assert hints(lines) == [
        f"{home}/.env:1: WISPER_MODEL is no setting of any service; did you mean WHISPER_MODEL (stt-worker)?",
        f"{home}/.env:2: LAMP_WARMT is no setting of any service; did you mean LAMP_WARMTH (lamp)?",
        f"{home}/.env:3: OPENAI_API_KY is no setting of any service; did you mean OPENAI_API_KEY (llm-worker)?",
    ]
    assert "hunter2" not in "\n".join(lines)


def test_what_is_right_or_meant_for_others_is_not_told(home):
    right = "WHISPER_MODEL=base\nWISPER_MODEL_X=1\nLITESTREAM_MODEL=1\nEDITOR=vi\nLOG_LEVEL=debug\n"
    assert hints(told(home, right)) == []


def test_of_the_process_environment_nothing_is_told(home):
    assert hints(told(home, "WISPER_MODEL=tiny\n", WISPER_MODEL="tiny", LAMP_WARMT="3")) == []


def test_what_is_nearer_to_a_variable_of_the_supervisor_is_told_once(home):
    (line,) = hints(told(home, "CONFIG_API_PRT=1\n"))
    assert line.endswith("CONFIG_API_PRT is not a variable of the supervisor; did you mean CONFIG_API_PORT?")


def test_a_start_is_warned_where_it_says_what_stands_in_env(home):
    services = load_services(home / "services.toml", {}, {"LAMP_WARMT": ".env:1", "LAMP_WARM": "environment"})
    assert services.warnings == (".env:1: LAMP_WARMT is no setting of any service; did you mean LAMP_WARMTH (lamp)?",)


def test_overrides_are_told_by_variable_and_service_without_their_values(home):
    lines = told(home, "LAMP_WARMTH=71\nOPENAI_API_KEY=hunter2hunter2\nVAD_THRESHOLD=\n", WHISPER_MODEL="base")
    start = lines.index("set by a variable, which wins over the store:")
    assert lines[start + 1 : start + 4] == [
        "  stt-worker  WHISPER_MODEL (the manifest)",
        f"  llm-worker  OPENAI_API_KEY ({home}/.env:2)",
        f"  lamp        LAMP_WARMTH ({home}/.env:1)",
    ]
    assert lines[start + 4].startswith("No mistakes")
    assert not {"hunter2hunter2", "71", "base", "tiny"} & set(" ".join(lines).split())


def test_without_overrides_nothing_is_said_of_them(home):
    (home / "services.toml").write_text('[services.lamp]\nkind = "config-only"\nmodel = "lamp.json"\n')
    assert not any("set by a variable" in line for line in told(home, ""))


@pytest.mark.parametrize("command", ["./folder", "./missing", "./text"])
def test_a_command_that_cannot_be_run_is_warned_of(home, command):
    (home / "folder").mkdir()
    (home / "text").touch(mode=0o644)
    (home / "services.toml").write_text(f'[services.router]\ncommand = ["{command}"]\n')
    services: Services = load_services(home / "services.toml", {})
    (warning,) = services.warnings
    assert "is no program that can be run; mend command, or install it" in warning
