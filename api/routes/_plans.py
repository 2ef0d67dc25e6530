"""A plan as an answer tells it."""

import dataclasses
from typing import Any

from msgspec.structs import asdict

from schemas.plans import ChangePlan


def plan_document(plan: ChangePlan) -> dict[str, Any]:
    """See `api.models.PlanAnswer`."""
    return {
        "service": plan.service,
        "version": plan.version,
        "config_epoch": plan.config_epoch,
        "valid": not plan.errors,
        "changes": [asdict(each) for each in plan.changes],
        "restarts": [asdict(each) for each in plan.restarts],
        "errors": [dataclasses.asdict(each) for each in plan.errors],
        "message": plan.message,
    }
