"""The peer of GET, memory and cold start: Litestar with one handler that answers the bytes of a file.

No token, no Host check, no header field of its own: `python -m bench._bare PORT FILE`.
"""

import sys
from pathlib import Path
from typing import Annotated

import uvicorn
from litestar import Litestar, Response, get
from litestar.params import PathParameter

BODY = Path(sys.argv[2]).read_bytes()


@get("/api/config/services/{service:str}")
async def bare(service: Annotated[str, PathParameter()]) -> Response[bytes]:
    assert service
    return Response(BODY, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        Litestar([bare], openapi_config=None, logging_config=None),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http="httptools",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
