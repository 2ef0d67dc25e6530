"""The bridge: the supervisor's only MQTT client, which keeps the broker's retained state as it is wanted.

May import `actors.mqtt`, `actors.runtime`, `actors.signer`, `schemas` and `tars_config`.
"""

from actors.bridge._actor import FLUSH, BridgeActor
from actors.bridge._desired import Desired, Handler, check_filter, check_topic
from actors.bridge._session import Timing
from actors.bridge._state import BridgeState, Failure, Trouble

__all__ = [
    "FLUSH",
    "BridgeActor",
    "BridgeState",
    "Desired",
    "Failure",
    "Handler",
    "Timing",
    "Trouble",
    "check_filter",
    "check_topic",
]
