"""The environment that a worker is started with (contract, section 5): this, and nothing else."""

from collections.abc import Iterable, Mapping
from typing import Final

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PASSED_ALWAYS: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR", "SSL_CERT_FILE")
"""What any program may expect. No key, token, or setting of the supervisor is among them."""


def worker_environment(
    own: Mapping[str, str],
    *,
    settings: Iterable[str],
    passed: Iterable[str],
    declared: Mapping[str, str],
    given: Mapping[str, str],
) -> dict[str, str]:
    """Put it together. Later ones win.

    `own` is the supervisor's environment; `settings` the variables that override this service's settings, `passed` those
    the manifest passes on, `declared` what the manifest sets, `given` what the contract promises.
    """
    taken = {name: own[name] for name in (*PASSED_ALWAYS, *settings, *passed) if name in own}
    return {"PATH": DEFAULT_PATH, **taken, **declared, **given}
