"""The manifest: which services there are, and how their workers are run (TOML). What each key means: docs/services.md.

The models are in `_models`, `_policies` and `_probes`, each key with its meaning, bounds and default; `parse_manifest`
reads a text, and `ManifestInvalid` names every mistake in it; `differences` plans a reload. May import `schemas`.
"""

from schemas.manifest._differences import Change, Difference, Differences, differences
from schemas.manifest._editor_schema import editor_schema
from schemas.manifest._models import MAX_SERVICES, Manifest, Service
from schemas.manifest._parse import MAX_BYTES, MAX_PROBLEMS, ManifestInvalid, parse_manifest
from schemas.manifest._policies import Backoff, Condition, Intensity, Limit, Output, Restart, Rlimit, SignalName
from schemas.manifest._probes import (
    DelayProbe,
    ExecProbe,
    HealthTopicProbe,
    HttpProbe,
    Liveness,
    LogLineProbe,
    NoProbe,
    NotifyProbe,
    Readiness,
    TcpProbe,
)
from schemas.manifest._texts import MAX_ENTRIES

__all__ = [
    "MAX_BYTES",
    "MAX_ENTRIES",
    "MAX_PROBLEMS",
    "MAX_SERVICES",
    "Backoff",
    "Change",
    "Condition",
    "DelayProbe",
    "Difference",
    "Differences",
    "ExecProbe",
    "HealthTopicProbe",
    "HttpProbe",
    "Intensity",
    "Limit",
    "Liveness",
    "LogLineProbe",
    "Manifest",
    "ManifestInvalid",
    "NoProbe",
    "NotifyProbe",
    "Output",
    "Readiness",
    "Restart",
    "Rlimit",
    "Service",
    "SignalName",
    "TcpProbe",
    "differences",
    "editor_schema",
    "parse_manifest",
]
