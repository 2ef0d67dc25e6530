import base64
import os
from pathlib import Path

import pytest

from schemas.broker_address import BrokerAddress, Listener
from supervisor.settings import Settings, SettingsRefused, load_settings

KEY = base64.b64encode(bytes(range(32))).decode()


def load(cwd: Path, env: str | None = None, **environ: str) -> Settings:
    if env is not None:
        file = cwd / ".env"
        file.write_text(env)
        file.chmod(0o600)
    return load_settings(environ, cwd)


def refused(cwd: Path, env: str | None = None, **environ: str) -> list[str]:
    with pytest.raises(SettingsRefused) as error:
        load(cwd, env, **environ)
    return list(error.value.lines)


def test_defaults(tmp_path):
    settings = load(tmp_path)
    assert settings.db_path == tmp_path / "data/config.db"
    assert settings.lkg_path == tmp_path / "data/config.lkg.json"
    assert settings.epoch_path == tmp_path / "data/health+epoch.json"
    assert settings.services_file == tmp_path / "services.toml"
    assert settings.env_file == tmp_path / ".env"
    assert (settings.api_host, settings.api_port) == ("127.0.0.1", 8081)
    assert settings.mqtt.embedded
    assert (settings.mqtt.address.host, settings.mqtt.address.port) == ("127.0.0.1", 1883)
    assert (settings.log_level, settings.allow_auto_rebuild, settings.enable_access_log) == ("info", False, True)
    assert settings.api_tokens == ()
    assert list(tmp_path.iterdir()) == []


def test_other_files_follow_the_store(tmp_path):
    settings = load(tmp_path, CONFIG_DB_PATH="/var/lib/x/my.db", SERVICES_FILE="demo/services.toml")
    assert settings.lkg_path == Path("/var/lib/x/config.lkg.json")
    assert settings.epoch_path == Path("/var/lib/x/health+epoch.json")
    assert settings.services_file == tmp_path / "demo/services.toml"


def test_environment_goes_before_the_file(tmp_path):
    settings = load(tmp_path, "CONFIG_API_PORT=1\nLOG_LEVEL=debug\nVAD_THRESHOLD=0.5\n", CONFIG_API_PORT="2")
    assert settings.api_port == 2
    assert settings.log_level == "debug"
    assert settings.environment["CONFIG_API_PORT"] == "2"
    assert settings.environment["VAD_THRESHOLD"] == "0.5"
    assert settings.sources == {
        "CONFIG_API_PORT": "environment",
        "LOG_LEVEL": f"{tmp_path}/.env:2",
        "VAD_THRESHOLD": f"{tmp_path}/.env:3",
    }


def test_an_empty_variable_is_not_set(tmp_path):
    # Docker Compose hands over `${VARIABLE:-}` like this.
    assert load(tmp_path, "CONFIG_API_PORT=99\n", CONFIG_API_PORT="").api_port == 99
    assert load(tmp_path, "LOG_LEVEL=\n").log_level == "info"


def test_env_file_elsewhere(tmp_path):
    (tmp_path / "other.env").write_text("CONFIG_API_PORT=77\n")
    assert load(tmp_path, "CONFIG_API_PORT=1\n", ENV_FILE="other.env").api_port == 77


@pytest.mark.parametrize(
    ("text", "embedded", "host", "port", "tls", "username", "password"),
    [
        ("embedded:", True, "127.0.0.1", 1883, False, None, None),
        ("embedded://127.0.0.1:0", True, "127.0.0.1", 0, False, None, None),
        ("embedded://127.0.0.1", True, "127.0.0.1", 1883, False, None, None),
        ("mqtt://broker", False, "broker", 1883, False, None, None),
        ("mqtt://broker.local:1884/", False, "broker.local", 1884, False, None, None),
        ("mqtts://u:p%40ss%2F@[::1]", False, "::1", 8883, True, "u", "p@ss/"),
        ("MQTT://u:p@ss@h:1", False, "h", 1, False, "u", "p@ss"),
        ("mqtt://u@h", False, "h", 1883, False, "u", None),
    ],
)
def test_broker_addresses(  # noqa: PLR0917 - one column each
    tmp_path, text, embedded, host, port, tls, username, password
):
    mqtt = load(tmp_path, MQTT_URL=text).mqtt
    assert mqtt.embedded == embedded
    assert mqtt.address == BrokerAddress(host, port, username, password, tls)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CONFIG_API_PORT", "80a1", "'80a1', which is no port; write a whole number from 0 to 65535"),
        ("CONFIG_API_PORT", "65536", "no port"),
        ("CONFIG_API_PORT", "-1", "no port"),
        ("CONFIG_API_PORT", "٣", "no port"),
        ("CONFIG_MANAGER_PORT", "x", "no port"),
        ("CONFIG_API_HOST", "127.0.0.1:8081", "without a port"),
        ("CONFIG_API_HOST", "300.1.1.1", "neither an IP address nor a name"),
        ("CONFIG_API_HOST", "a b", "neither an IP address nor a name"),
        ("MQTT_ANONYMOUS_READ", "maybe", "'maybe', which is neither yes nor no; write 1 or 0"),
        ("ALLOW_AUTO_REBUILD", "2", "write 1 or 0"),
        ("ENABLE_ACCESS_LOG", "nope", "write 1 or 0"),
        ("LOG_LEVEL", "debgu", "did you mean debug?"),
        ("LOG_LEVEL", "loud", "write one of debug, info"),
        ("CONFIG_MASTER_KEY_BASE64", "hunter2!", "is not base64; write 32 random bytes in base64"),
        ("CONFIG_MASTER_KEY_BASE64", "aHVudGVyMg==", "holds 7 bytes where a key has 32"),
        ("LKG_HMAC_KEY_BASE64", "aHVudGVyMg==", "holds 7 bytes where a key has 32"),
        ("CONFIG_MASTER_KEY_PREVIOUS_BASE64", KEY, "without CONFIG_MASTER_KEY_PREVIOUS_ID; set both"),
        ("CONFIG_MASTER_KEY_ID", "a b", "no name of a key"),
        ("LKG_HMAC_KEY_ID", "x" * 65, "no name of a key"),
        ("CONFIG_SIGNATURE_PRIVATE_KEY_B64", "***", "not a text in base64"),
        ("MQTT_URL", "http://u:hunter2@h", "has the scheme 'http'; it is mqtt://"),
        ("MQTT_URL", "hunter2", "has no scheme"),
        ("MQTT_URL", "mqtt://u:hunter2@", "names no host"),
        ("MQTT_URL", "mqtt://u:hunter2/x@h", "cannot be read"),
        ("MQTT_URL", "mqtt://u:hunter2#x@h", "cannot be read"),
        ("MQTT_URL", "mqtt://hunter2/x@h", "%2F"),
        ("MQTT_URL", "mqtt://:hunter2@h", "password without a user name"),
        ("MQTT_URL", "mqtt://h:0", "port 0"),
        ("MQTT_URL", "mqtt://h:99999", "cannot be read"),
        ("MQTT_URL", "mqtt://h_o$t", "neither an IP address nor a name"),
        ("MQTT_URL", "mqtt://h/topic", "goes on after the port"),
        ("MQTT_URL", "embedded://0.0.0.0:1883", "elsewhere than on a port of 127.0.0.1"),
        ("MQTT_URL", "embedded:1884", "elsewhere than on a port of 127.0.0.1"),
        ("MQTT_LEGACY_TOPICS", "config/#", "no topic to publish to"),
        ("MQTT_LEGACY_TOPICS", "config/{name}", "only {service} is replaced"),
        ("MQTT_LEGACY_TOPICS", "system/config/x", "under system/ are taken"),
        ("MQTT_LEGACY_TOPICS", "a,a", "twice"),
        ("MQTT_LISTENERS", "mqtts://0.0.0.0:8883", "without MQTT_TLS_CERTIFICATE and MQTT_TLS_KEY; name the PEM files"),
        ("MQTT_LISTENERS", "ws://127.0.0.1", "no listener; write mqtt, mqtts, ws or wss"),
        ("MQTT_LISTENERS", "http://127.0.0.1:80", "no listener"),
        ("MQTT_LISTENERS", "ws://hunter@127.0.0.1:80", "no listener"),
        ("MQTT_LISTENERS", "ws://127.0.0.1:99999", "no listener"),
        ("MQTT_LISTENERS", "ws://300.1.1.1:80", "neither an IP address nor a name"),
        ("MQTT_LISTENERS", "ws://h:80,wss://h:80,", "names one address twice"),
        ("MQTT_LISTENERS", "mqtt://127.0.0.1:1883", "where MQTT_URL listens; choose another port"),
        ("CONFIG_API_TOKENS", "hunter2hunter2", "entry 1: it is not token:role"),
        ("CONFIG_API_TOKENS", "a:b:c:d", "entry 1: it is not token:role"),
        ("CONFIG_API_TOKENS", "longenough:reader", "no role; write one of config.read, config.write, admin"),
        ("CONFIG_API_TOKENS", "config.read:hunter2hunter2", "no role"),
        ("CONFIG_API_TOKENS", "hunter2:admin", "has 7 characters; use 8 to 256"),
        ("CONFIG_API_TOKENS", f"{'hunter2' * 40}:admin", "has 280 characters"),
        ("CONFIG_API_TOKENS", "longenough:a b:admin", "its name"),
        ("CONFIG_API_TOKENS", "longenöugh:admin", "printable ASCII"),
        ("CONFIG_API_TOKENS", ",", "holds no token"),
        ("CONFIG_API_TOKENS", "hunter2a:admin,hunter2a:b:admin", "the same token as env-1"),
        ("CONFIG_API_TOKENS", "hunter2a:n:admin,hunter2b:n:admin", "has the name n twice"),
        ("CONFIG_API_TOKEN", "hunter2", "has 7 characters"),
        ("REBUILD_TOKEN", "hunter2", "has 7 characters"),
        ("RUNTIME_DIRECTORY", "~/run", "begins with ~"),
    ],
)
def test_mistakes_name_variable_source_and_mending(tmp_path, name, value, words):
    [line] = refused(tmp_path, **{name: value})
    assert line.startswith(f"environment: {name} ")
    assert words in line
    assert "hunter" not in line
    assert "\n" not in line
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    [line] = refused(tmp_path, f"# first\n{name}='{quoted}'\n")
    assert line.startswith(f"{tmp_path}/.env:2: {name} ")


def test_further_listeners_of_the_embedded_broker(tmp_path):
    settings = load(
        tmp_path,
        MQTT_LISTENERS="mqtts://0.0.0.0:8883, ws://[::1]:9001,wss://board.local:9002,mqtt://192.168.0.2:1883",
        MQTT_TLS_CERTIFICATE="broker.pem",
        MQTT_TLS_KEY="/etc/tars/broker.key",
    )
    assert settings.mqtt_listeners == (
        Listener("0.0.0.0", 8883, websocket=False, tls=True),
        Listener("::1", 9001, websocket=True, tls=False),
        Listener("board.local", 9002, websocket=True, tls=True),
        Listener("192.168.0.2", 1883, websocket=False, tls=False),
    )
    assert settings.mqtt_tls_certificate == tmp_path / "broker.pem"
    [warning] = settings.warnings
    assert "at 192.168.0.2:1883 without TLS" in warning


def test_listeners_belong_to_the_embedded_broker(tmp_path):
    [line] = refused(tmp_path, MQTT_URL="mqtt://elsewhere", MQTT_LISTENERS="ws://127.0.0.1:9001")
    assert "MQTT_LISTENERS is for the embedded broker, but MQTT_URL names another" in line


def test_all_mistakes_at_once(tmp_path):
    lines = refused(tmp_path, "oops\nCONFIG_API_PORT=x\n", LOG_LEVEL="x", MQTT_URL="x")
    assert len(lines) == 4
    assert lines[0].startswith(f"{tmp_path}/.env:1: no `=`")


def test_two_names_of_one_thing(tmp_path):
    assert load(tmp_path, CONFIG_MANAGER_PORT="5").api_port == 5
    assert load(tmp_path, CONFIG_API_PORT="5", CONFIG_MANAGER_PORT="5").api_port == 5
    # The environment wins over the file under whatever name.
    assert load(tmp_path, "CONFIG_API_PORT=6\n", CONFIG_MANAGER_PORT="5").api_port == 5
    (tmp_path / ".env").unlink()
    [line] = refused(tmp_path, CONFIG_API_PORT="5", CONFIG_MANAGER_PORT="6")
    assert "CONFIG_MANAGER_PORT and CONFIG_API_PORT mean the same but have different values" in line


def test_pem_forms(tmp_path):
    pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    encoded = base64.b64encode(pem.encode()).decode()
    assert load(tmp_path, CONFIG_SIGNATURE_PUBLIC_KEY=pem).signature_public_key == pem
    assert load(tmp_path, CONFIG_SIGNATURE_PUBLIC_KEY=pem.replace("\n", "\\n")).signature_public_key == pem
    assert load(tmp_path, CONFIG_SIGNATURE_PUBLIC_KEY_B64=encoded).signature_public_key == pem
    assert load(tmp_path, f'CONFIG_SIGNATURE_PUBLIC_KEY="{pem}"\n').signature_public_key == pem
    (tmp_path / ".env").unlink()
    [line] = refused(tmp_path, CONFIG_SIGNATURE_PUBLIC_KEY="other", CONFIG_SIGNATURE_PUBLIC_KEY_B64=encoded)
    assert "mean the same but have different values" in line


def test_tokens(tmp_path):
    settings = load(
        tmp_path,
        CONFIG_API_TOKENS="readonly-token:config.read, writing-token-of-me:panel:config.write,",
        CONFIG_API_TOKEN="x" * 40,
    )
    found = [(each.token.get_secret_value(), each.name, each.role) for each in settings.api_tokens]
    assert found == [
        ("readonly-token", "env-1", "config.read"),
        ("writing-token-of-me", "panel", "config.write"),
        ("x" * 40, "admin", "admin"),
    ]
    assert [line for line in settings.warnings if "env-1 has fewer than 16 characters" in line]


def test_one_token_in_both_variables_is_a_mistake(tmp_path):
    lines = refused(tmp_path, CONFIG_API_TOKENS="hunter2hunter2:config.read", CONFIG_API_TOKEN="hunter2hunter2")
    assert lines == ["environment: CONFIG_API_TOKEN gives admin the same token as env-1; give each a token of its own"]


def test_nothing_shows_a_secret(tmp_path):
    settings = load(
        tmp_path,
        f"CONFIG_MASTER_KEY_BASE64={KEY}\nOPENAI_API_KEY=hunter2-openai\n",
        MQTT_URL="mqtt://u:hunter2%40x@h",
        CONFIG_API_TOKEN="hunter2hunter2hunter2",
        REBUILD_TOKEN="hunter2-rebuild",
        LITESTREAM_SECRET_ACCESS_KEY="hunter2-litestream",
        CONFIG_SIGNATURE_PRIVATE_KEY="hunter2",
    )
    assert "hunter" not in f"{settings!r} {settings} {settings.model_dump_json(exclude={'environment', 'litestream'})}"
    assert KEY not in repr(settings)
    secrets = settings.secret_values()
    for expected in ("hunter2@x", "hunter2hunter2hunter2", "hunter2-rebuild", "hunter2-litestream", "hunter2-openai"):
        assert expected in secrets


def test_suggests_names_that_are_nearly_ours(tmp_path):
    settings = load(tmp_path, "CONFIG_API_PROT=1\nLOGLEVEL=debug\n", CONFIG_DB_PAHT="x", MQTT_HOST="h", PATH="/bin")
    assert settings.warnings == (
        f"{tmp_path}/.env:1: CONFIG_API_PROT is not a variable of the supervisor; did you mean CONFIG_API_PORT?",
        "environment: CONFIG_DB_PAHT is not a variable of the supervisor; did you mean CONFIG_DB_PATH?",
        f"{tmp_path}/.env:2: LOGLEVEL is not a variable of the supervisor; did you mean LOG_LEVEL?",
    )


@pytest.mark.parametrize(
    ("mode", "content", "words"),
    [
        (0o644, "CONFIG_API_TOKEN=hunter2hunter2\n", "it holds secrets"),
        (0o644, "OPENAI_API_KEY=hunter2\n", "it holds secrets"),
        (0o644, "MQTT_URL=mqtt://u:hunter2@h\n", "it holds secrets"),
        (0o602, "LOG_LEVEL=info\n", "can change it"),
    ],
)
def test_an_env_file_open_to_all_is_refused(tmp_path, mode, content, words):
    file = tmp_path / ".env"
    file.write_text(content)
    file.chmod(mode)
    [line] = refused(tmp_path)
    assert words in line
    assert line.endswith(f"; run: chmod 600 {file}")


def test_an_env_file_without_secrets_may_be_read_by_all(tmp_path):
    (tmp_path / ".env").write_text("MQTT_URL=mqtt://h\nCONFIG_API_TOKEN=\n")
    (tmp_path / ".env").chmod(0o644)
    assert load(tmp_path).mqtt.address.host == "h"


def test_odd_env_files(tmp_path):
    (tmp_path / ".env").mkdir()
    assert "is not a file" in refused(tmp_path)[0]
    os.mkfifo(tmp_path / "fifo")
    assert "is not a file" in refused(tmp_path, ENV_FILE="fifo")[0]
    assert load(tmp_path, ENV_FILE="missing").api_port == 8081
