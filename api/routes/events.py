"""What happens, as server-sent events (WHATWG HTML, section 9.2)."""

from typing import Final

from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Scope

from actors import Published
from api.documents import Answer, Content, Operation, Parameter
from api.headers import field
from api.routes._route import waiting_read
from api.routes._streams import reader_of
from api.server_sent_events import HEARTBEAT, MEDIA_TYPE, beginning, event
from api.state import ApiState
from api.streams import Form, Stream
from api.tokens import Identity
from schemas.states import Role

RETRY_MS: Final = 2000
"""Milliseconds after which a reader comes back whose connection broke."""

_ID = "019a9f3c7e004af3a1b2c3d4-17"
_EXAMPLE = beginning(RETRY_MS, "019a9f3c7e004af3a1b2c3d4-16") + event(
    "config",
    (
        b'{"service":"stt-worker","version":4,"config_epoch":"0b9d4c1e-9f0a-4c39-8a55-6d1f3f1f8e20","revision":12,'
        b'"keys":["vad_threshold"],"changed_by":"owner","reason":"too many false starts"}'
    ),
    _ID,
)

GET_EVENTS = Operation(
    id="getEvents",
    summary="What happens, as it happens",
    description=(
        "Server-sent events, as `EventSource` of a browser reads them; `data` is one line of JSON. `state`: a service or its "
        "worker is in another state (the data of `system/state/<service>`). `config`: a new version is on disk. `rollout`: a "
        "change's probation began or came to an end. `health`: the supervisor's own.\n\n"
        "With `Last-Event-ID` it goes on behind that event, as readers do by themselves after a break. Where these events are "
        "not known any more, a `reset` comes instead: read everything again; nothing after its id is missed. A reader that is "
        "slow gets of several states of one service only the last. A comment every 15 seconds is a sign of life. It ends with "
        "the server or the token."
    ),
    tag="Events",
    role=Role.READ,
    parameters=(Parameter("Last-Event-ID", "header", "The last event that you have seen.", {"type": "string"}, _ID),),
    answers={200: Answer("The events.", Content(None, _EXAMPLE.decode(), (MEDIA_TYPE.decode(),)))},
    problems=("too-many-streams",),
)


def routes(state: ApiState) -> list[HTTPRouteHandler]:
    async def events(scope: Scope, identity: Identity) -> ASGIApp:
        last = field(scope, b"last-event-id")
        # An empty one is that of a reader that has seen none.
        after = last.decode("utf-8", "replace") if last else None
        subscription = state.events.subscribe(after)
        form: Form[Published] = Form(
            MEDIA_TYPE,
            lambda found: event(found.name, found.data, found.id),
            HEARTBEAT,
            beginning(RETRY_MS, state.events.last_id if after is None else None),
        )
        return Stream(state.streams, subscription, form, reader_of(scope, identity, Role.READ, state))

    return [waiting_read("/api/events", GET_EVENTS, events, state.tokens)]
