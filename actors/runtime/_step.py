"""Run a coroutine in a given context, inside the task that awaits it."""

import types
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def step_in(context: Context, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Drive `work` to its end, each of its steps in `context`.

    A task of its own with that context would do the same for three times the cost; here the awaiting task stays the current
    one, so its cancellation reaches the work, and time-outs inside the work count on that task.
    """
    try:
        waited_for = context.run(work.send, None)
        while True:
            try:
                sent = yield waited_for
            except GeneratorExit:
                context.run(work.close)
                raise
            except BaseException as error:  # noqa: BLE001  # cancellation above all: it is the work's to see
                waited_for = context.run(work.throw, error)
            else:
                waited_for = context.run(work.send, sent)
    except StopIteration as end:
        result: T = end.value
        return result
