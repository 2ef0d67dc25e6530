"""A value as it is written in TOML, for examples in messages and documentation."""

import json
from enum import Enum
from typing import Any


def written(value: Any) -> str:
    """`value`, in one line. Only for what the models give as defaults and examples: no control characters, no None."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return written(value.value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {written(each)}' for key, each in value.items())} }}" if value else "{}"
    return str(value)
