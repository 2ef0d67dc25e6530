"""Bytes that are kept for long."""


def exact(data: bytes) -> bytes:
    """Give the same bytes in a piece of memory of their size: what orjson gives holds its whole buffer, 8 KiB for 300 bytes.

    For what is kept for each service or event; anything else is gone soon.
    """
    return bytes(memoryview(data))
