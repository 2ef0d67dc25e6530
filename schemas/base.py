"""The closed, frozen base of every model."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Refuses unknown keys, NaN and infinities, and does not change after it was made.

    Its validator is built with the first value: a start needs half of them only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
