"""Which call answers a request: found in a table made of the same routes that Litestar has, without its router.

Of what a request costs, Litestar and ASGI were the larger part; they are left what the table does not hold.
"""

import re
from collections.abc import Iterable
from typing import cast

from litestar.handlers import HTTPRouteHandler
from litestar.types import HTTPScope

from api.routes._route import Change, Read, call_of

_PARAMETER = re.compile(r"(?P<above>/[^{}]+)/\{(?P<name>[a-z_]+):str\}")


class Table:
    """The calls behind `handlers` that are asked often. A path that is not written as Litestar would write it is not found.

    Not those that wait for something else than a change on disk, nor those whose path goes on behind its parameter.
    """

    def __init__(self, handlers: Iterable[HTTPRouteHandler]) -> None:
        # By method and path; or, where the path ends in a parameter, by what stands before that, with the parameter's name.
        self._whole: dict[tuple[str, str], Read | Change] = {}
        self._above: dict[tuple[str, str], tuple[str, Read | Change]] = {}
        for handler in handlers:
            call = call_of(handler)
            if call is None:
                continue
            for method in (str(each) for each in handler.http_methods):
                for path in handler.paths:
                    if (match := _PARAMETER.fullmatch(path)) is not None:
                        self._above[method, match["above"]] = match["name"], call
                    elif "{" not in path:
                        self._whole[method, path] = call

    def read(self, scope: HTTPScope) -> Read | None:
        """What answers this GET or HEAD; the scope then holds the path's parameter. None where it takes the router."""
        return cast("Read | None", self._find("GET", scope)) if scope["method"] in {"GET", "HEAD"} else None

    def change(self, scope: HTTPScope) -> Change | None:
        """The same for every other method."""
        method = scope["method"]
        return cast("Change | None", self._find(method, scope)) if method != "GET" else None

    def _find(self, method: str, scope: HTTPScope) -> Read | Change | None:
        path = scope["path"]
        call = self._whole.get((method, path))
        if call is None:
            above, _, last = path.rpartition("/")
            found = self._above.get((method, above))
            # A path such as /services/ is the one above.
            if found is None or not last:
                return None
            name, call = found
            scope["path_params"] = {name: last}
        return call
