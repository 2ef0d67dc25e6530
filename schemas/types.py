"""Identities and units as types.

The type checker keeps them apart, and a Pydantic model that has one as a field validates it.
"""

import re
from typing import Annotated, Final, NewType

from pydantic import Field, JsonValue, StringConstraints

SERVICE_NAME_PATTERN: Final = r"^[a-z][a-z0-9-]{0,62}$"

# A named unit that has a configuration.
ServiceName = NewType("ServiceName", Annotated[str, StringConstraints(pattern=SERVICE_NAME_PATTERN)])

# Counts one service's changes from 1; never reused with other content.
Version = NewType("Version", Annotated[int, Field(ge=1, strict=True)])

# Counts all committed changes of the store, whatever the service; 0 before the first.
Revision = NewType("Revision", Annotated[int, Field(ge=0, strict=True)])

# The UUID of one life of the store, in its usual lower-case form with hyphens.
Epoch = NewType(
    "Epoch",
    Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")],
)

# Random name of one start of a worker.
Instance = NewType("Instance", Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")])

# Lower-case hexadecimal SHA-256.
Checksum = NewType("Checksum", Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")])

# Durations; not negative, finite.
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# What JSON can carry.
JSON = JsonValue

_SERVICE_NAME = re.compile(SERVICE_NAME_PATTERN)


def service_name(text: str) -> ServiceName:
    """`text` as a service's name.

    Raises:
        ValueError: it is not one; the message says what is allowed.
    """
    if _SERVICE_NAME.fullmatch(text) is None:
        raise ValueError(
            f"{text[:80]!r} is not a service name: a lower-case letter, then at most 62 lower-case letters, "
            "digits and hyphens"
        )
    return ServiceName(text)
