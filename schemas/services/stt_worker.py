"""Speech to text."""

from typing import Literal

from schemas.settings import ServiceModel, rule, setting


class SttWorker(ServiceModel):
    """Turns what the microphone hears into text."""

    whisper_model: Literal[
        "tiny",
        "tiny.en",
        "base",
        "base.en",
        "small",
        "small.en",
        "medium",
        "medium.en",
        "large",
        "large-v2",
        "large-v3",
    ] = setting(
        "base.en",
        title="Whisper model",
        description="The Whisper model that transcribes speech on this machine.",
        help_text="Larger models make fewer mistakes, and need more memory and time: tiny takes about 0.5 GB, base 0.7 GB, "
        "small 1.5 GB, medium 3 GB, large 5 GB or more. Names that end in .en know English only and are better at"
        " it. On an Orange Pi, base.en answers within a second or two; medium and large are for machines with a "
        "graphics card.",
        complexity="simple",
        apply="restart",
    )
    stt_backend: Literal["whisper", "ws", "openai"] = setting(
        "whisper",
        title="Backend",
        description="Where speech is turned into text.",
        help_text="whisper does it here, and nothing leaves the house. ws sends the audio to a server of yours over a "
        "WebSocket, whose address is set beside this. openai sends it to OpenAI, which needs the internet and "
        "costs money.",
        complexity="simple",
        apply="restart",
    )
    ws_url: str | None = setting(
        None,
        title="WebSocket URL",
        description="Address of the recognition server that the ws backend sends audio to.",
        help_text="Begins with ws:// or, encrypted, wss://. Needed only while speech recognition is ws. Use wss:// where "
        "the server is not on this machine, since the audio is what people say in the room.",
        complexity="advanced",
        apply="restart",
        examples=["ws://127.0.0.1:9090/asr", "wss://asr.example.org/stream"],
        pattern=r"^wss?://[^\s]+$",
    )
    streaming_partials: bool = setting(
        False,
        title="Streaming partials",
        description="Publish what has been understood so far while a person is still speaking.",
        help_text="On, other services can show words as they come, at the price of transcribing the same seconds several "
        "times; expect a busy processor. Off, each utterance is transcribed once, when it has ended.",
        complexity="advanced",
        apply="live",
        examples=[False, True],
    )
    vad_threshold: float = setting(
        0.5,
        title="VAD threshold",
        description="How sure the voice detector must be that it hears speech.",
        help_text="Higher ignores more noise, and cuts off soft voices; lower catches whispers, and takes a fan or a "
        "television for speech. 0.4 to 0.6 suits a quiet room, 0.6 to 0.8 a noisy one.",
        complexity="advanced",
        apply="live",
        examples=[0.4, 0.5, 0.7],
        ge=0.0,
        le=1.0,
    )
    vad_speech_pad_ms: int = setting(
        300,
        title="Speech pad",
        description="How much audio before and after detected speech is transcribed with it.",
        help_text="Higher saves first and last syllables that the detector missed, and makes every answer come a little "
        "later; lower is quicker and may swallow a short “no”. 200 to 400 is usual.",
        complexity="advanced",
        apply="live",
        examples=[200, 300, 400],
        unit="ms",
        ge=0,
        le=1000,
    )
    vad_silence_duration_ms: int = setting(
        500,
        title="Silence duration",
        description="How long a pause must be for what was said to count as finished.",
        help_text="Higher lets people think in mid-sentence, and every answer waits that much longer; lower answers faster "
        "and interrupts slow speakers. 400 to 700 is usual; try 1000 where children or elderly people are cut "
        "off.",
        complexity="advanced",
        apply="live",
        examples=[400, 500, 1000],
        unit="ms",
        ge=0,
        le=2000,
    )
    sample_rate: int = setting(
        16000,
        title="Sample rate",
        description="Samples per second that the microphone delivers.",
        help_text="Whisper and the voice detector work at 16000. Choose another rate only where the microphone cannot do "
        "16000 (its manual, or arecord --dump-hw-params, says so); converting costs some processor time.",
        complexity="advanced",
        apply="restart",
        examples=[16000, 44100, 48000],
        unit="Hz",
        gt=0,
    )
    channels: int = setting(
        1,
        title="Channels",
        description="Channels to open the microphone with: 1 is mono, 2 is stereo.",
        help_text="Speech needs one. Set 2 only for a device that refuses to open in mono.",
        complexity="advanced",
        apply="restart",
        examples=[1, 2],
        ge=1,
        le=2,
    )

    @rule("ws_url", "stt_backend")
    def _ws_needs_an_address(self) -> str | None:
        if self.stt_backend == "ws" and self.ws_url is None:
            return (
                "WebSocket URL (ws_url) is not set. Backend (stt_backend) is ws, which needs one, "
                'for example "ws://127.0.0.1:9090/asr".'
            )
        return None
