"""What a decision means for a person who has still to make it."""

from actors.service._decision import Decision, InForce
from schemas.plans import Apply, ChangePlan, PlannedKey
from schemas.problems import FieldError
from schemas.records import ABSENT, SECRET_MARK, StoredService
from schemas.service_schema import ServiceSchema


def make_plan(schema: ServiceSchema, row: StoredService, now: InForce, decision: Decision) -> ChangePlan:
    """Tell, key by key, in the model's order, what the decision changes. Restarts and message: of who knows the worker."""
    apply: dict[str, Apply] = {**dict.fromkeys(decision.live, "live"), **dict.fromkeys(decision.restart, "restart")}
    before = schema.effective(now.stored)
    planned = {
        each.key: PlannedKey(
            key=each.key,
            title=schema.fields[each.key].title if each.key in schema.fields else each.key,
            old=before.get(each.key),
            new=decision.wire.config.get(each.key),
            old_is_default=each.old is ABSENT,
            new_is_default=each.new is ABSENT,
            apply=apply.get(each.key, "none"),
            is_secret=False,
        )
        for each in decision.history
    }
    for key, value in decision.secrets.items():
        planned[key] = PlannedKey(
            key=key,
            title=schema.fields[key].title,
            old=SECRET_MARK if key in now.secrets else None,
            new=SECRET_MARK if value is not None else None,
            old_is_default=key not in now.secrets,
            new_is_default=value is None,
            apply=apply.get(key, "none"),
            is_secret=True,
        )
    order = {key: number for number, key in enumerate(schema.keys)}
    changes = tuple(sorted(planned.values(), key=lambda each: order.get(each.key, len(order))))
    return ChangePlan(row.service, row.version, row.config_epoch, changes, (), (), "")


def refused(row: StoredService, errors: tuple[FieldError, ...]) -> ChangePlan:
    """Say that it would be refused, and why."""
    return ChangePlan(
        row.service, row.version, row.config_epoch, (), (), errors, "This would be refused; nothing would change."
    )
