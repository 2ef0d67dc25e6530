"""What `check` says about a start that nothing stands against."""

from collections import Counter
from pathlib import Path

from schemas.states import Kind
from supervisor import folders
from supervisor.boot import Findings
from supervisor.settings import Settings


def report(findings: Findings) -> list[str]:
    """Lines for a person; no secret is among them."""
    settings = findings.settings
    wanted = folders.plan(settings)
    rows = [
        ("settings", f"{settings.env_file}{_absent(settings.env_file)} and the environment"),
        ("store", f"{settings.db_path}{_absent(settings.db_path)}"),
        ("runtime", f"{wanted.runtime}{_absent(wanted.runtime)}"),
        ("keys", _keys(findings)),
        ("broker", _broker(settings)),
        ("REST", _rest(settings)),
        ("manifest", str(settings.services_file)),
    ]
    lines = [f"{name:<10}{value}" for name, value in rows]
    services = findings.services
    width = max((len(service.name) for service in services.manifest.services), default=0)
    for service in services.manifest.services:
        schema = services.schemas[service.name]
        secrets = f", {len(schema.secret_keys)} secret" if schema.secret_keys else ""
        lines.append(f"  {service.name:<{width}}  {service.kind:<11}  {len(schema.keys)} settings{secrets}")
    exposed = [
        service.name
        for service in services.manifest.services
        if service.kind is Kind.PROCESS and service.name not in services.accounts
    ]
    if exposed:
        lines.append(
            "without a user of its own, so not kept from the files of the supervisor and of the other workers:"
        )
        lines.append(f"  {', '.join(exposed)}")
    overrides = services.overrides(settings.environment, settings.sources)
    if overrides:
        lines.append("set by a variable, which wins over the store:")
        lines += [f"  {each.service:<{width}}  {each.variable} ({each.source})" for each in overrides]
    hints = [hint for hint in services.misspelled(settings.sources) if hint not in findings.warnings]
    return [*lines, *hints, "No mistakes found; nothing was changed."]


def _absent(path: Path) -> str:
    return "" if path.exists() else " (not there yet)"


def _keys(findings: Findings) -> str:
    if not findings.would_make:
        return "all there"
    return f"the first start makes {', '.join(findings.would_make)} and adds them to {findings.settings.env_file}"


def _broker(settings: Settings) -> str:
    address = settings.mqtt.address
    if settings.mqtt.embedded:
        return f"embedded, on {address.host}:{address.port or 'a free port'}"
    return f"{address}{f' as {address.user}' if address.user else ' without a login'}"


def _rest(settings: Settings) -> str:
    roles = Counter(token.role for token in settings.api_tokens)
    tokens = ", ".join(f"{count} {role}" for role, count in sorted(roles.items())) or "none yet"
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    return f"{host}:{settings.api_port or 'a free port'}; tokens: {tokens}"
