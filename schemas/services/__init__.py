"""The six services that come with the program: one module and one model each.

May import `schemas.settings`. `schemas.registry` knows them by name.
"""

from schemas.services.llm_worker import LlmWorker
from schemas.services.memory_worker import MemoryWorker
from schemas.services.router import Router
from schemas.services.stt_worker import SttWorker
from schemas.services.tts_worker import TtsWorker
from schemas.services.wake_activation import WakeActivation

__all__ = ["LlmWorker", "MemoryWorker", "Router", "SttWorker", "TtsWorker", "WakeActivation"]
