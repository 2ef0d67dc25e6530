"""Text to speech."""

from typing import Literal

from pydantic import SecretStr

from schemas.settings import HttpUrl, PathText, ServiceModel, setting


class TtsWorker(ServiceModel):
    """Speaks the answers."""

    piper_voice: str = setting(
        "en_US-lessac-medium",
        title="Piper voice",
        description="The voice that Piper speaks with.",
        help_text="Language, speaker and quality in one name, as the list of Piper's voices has it; the voice's .onnx file "
        "must be installed. Quality x_low and low start fastest, medium sounds natural on an Orange Pi, high "
        "takes much longer until the first word.",
        complexity="simple",
        apply="restart",
        examples=["en_US-lessac-medium", "en_GB-alan-low", "de_DE-thorsten-medium"],
        min_length=1,
        max_length=200,
    )
    tts_provider: Literal["piper", "elevenlabs"] = setting(
        "piper",
        title="Provider",
        description="Who turns text into speech.",
        help_text="piper speaks on this machine, without the internet and for free. elevenlabs sounds more human, sends "
        "every sentence to ElevenLabs, costs money, and needs their API key and a voice id.",
        complexity="simple",
        apply="restart",
    )
    tts_streaming: bool = setting(
        False,
        title="Streaming",
        description="Play a sentence while the rest of it is still being synthesised.",
        help_text="On, the first word comes sooner, and a machine that cannot keep up stutters. Off, a sentence is finished"
        " before it is played: a little later, never with gaps.",
        complexity="advanced",
        apply="live",
        examples=[False, True],
    )
    tts_pipeline: bool = setting(
        True,
        title="Pipeline",
        description="Synthesise the next sentence while the current one is being played.",
        help_text="On removes the pauses between sentences and is right nearly always. Turn it off where speech crackles "
        "because the processor is too busy for both.",
        complexity="advanced",
        apply="live",
        examples=[True, False],
    )
    tts_simpleaudio: bool = setting(
        False,
        title="Simpleaudio",
        description="Play with the simpleaudio library in place of an external player.",
        help_text="On saves the start of a player process for each sentence; it plays on the system's default sound card "
        "only. Leave it off where you hear nothing with it, or choose the card by the player's settings.",
        complexity="advanced",
        apply="restart",
        examples=[False, True],
    )
    tts_concurrency: int = setting(
        1,
        title="Concurrency",
        description="How many sentences are synthesised at the same time.",
        help_text="Higher shortens long answers where cores are idle, and takes memory for a copy of the voice each; lower "
        "leaves the processor to the other workers. 1 is right for Piper on four cores; 2 or 3 help with "
        "ElevenLabs.",
        complexity="advanced",
        apply="restart",
        examples=[1, 2, 3],
        ge=1,
        le=10,
    )
    tts_aggregate_by_utt: bool = setting(
        True,
        title="Aggregate by utterance",
        description="Keep the pieces of one answer together when collecting text to speak.",
        help_text="On, pieces are joined only if they belong to the same utterance, so two answers never run into each "
        "other. Off, whatever arrives close together is joined; of use only with senders that give no utterance "
        "id.",
        complexity="advanced",
        apply="live",
        examples=[True, False],
    )
    tts_aggregate_timeout_sec: float = setting(
        2.0,
        title="Aggregate timeout",
        description="How long to wait for the rest of an utterance before speaking what is there.",
        help_text="Higher waits for a slow language model and keeps sentences whole; lower starts speaking sooner and may "
        "pause in the middle. 1 to 3 suits most models.",
        complexity="advanced",
        apply="live",
        examples=[1.0, 2.0, 3.0],
        unit="s",
        ge=0.1,
        le=10.0,
    )
    tts_aggregate: bool = setting(
        True,
        title="Aggregate",
        description="Collect small pieces of text into longer ones before speaking them.",
        help_text="On gives natural intonation, since a voice sees whole sentences. Off speaks each piece as it comes: "
        "quicker, and choppy where the language model streams a few words at a time.",
        complexity="advanced",
        apply="live",
        examples=[True, False],
    )
    tts_aggregate_debounce_ms: int = setting(
        150,
        title="Aggregate debounce",
        description="How long no new text must arrive for the collected text to be spoken.",
        help_text="Higher joins more pieces into one, and delays each by as much; lower speaks sooner and in smaller "
        "pieces; 0 does not wait at all. 100 to 300 is usual.",
        complexity="advanced",
        apply="live",
        examples=[0, 150, 300],
        unit="ms",
        ge=0,
        le=5000,
    )
    tts_aggregate_single_wav: bool = setting(
        True,
        title="Aggregate into a single WAV",
        description="Put the pieces of an utterance into one recording before playing it.",
        help_text="On, there are no clicks or pauses between pieces, and playing starts when the last is ready. Off, pieces"
        " are played one by one: sooner, with small gaps.",
        complexity="advanced",
        apply="live",
        examples=[True, False],
    )
    tts_wake_cache_enable: bool = setting(
        True,
        title="Wake cache",
        description="Keep the recordings of short acknowledgements such as “Yes?”.",
        help_text="On, the answer to the wake word comes at once from disk. Off, it is synthesised anew each time, which "
        "takes some tenths of a second longer.",
        complexity="simple",
        apply="live",
        examples=[True, False],
    )
    tts_wake_cache_dir: PathText = setting(
        "data/tts-cache",
        title="Wake cache folder",
        description="Folder that the cached acknowledgements are kept in.",
        help_text="Relative to the worker's folder, or absolute; the worker must be able to write there. The recordings "
        "take about 100 kB each; a folder in memory such as /run spares the SD card.",
        complexity="advanced",
        apply="restart",
        examples=["data/tts-cache", "/var/cache/tars/tts"],
        min_length=1,
        max_length=500,
    )
    tts_wake_cache_max: int = setting(
        16,
        title="Wake cache maximum",
        description="How many recordings the cache holds.",
        help_text="Take at least as many as there are acknowledgement phrases, or they displace each other. Higher costs "
        "about 100 kB each; 0 keeps none.",
        complexity="advanced",
        apply="live",
        examples=[8, 16, 64],
        ge=0,
        le=1000,
    )
    volume_percent: int = setting(
        100,
        title="Volume",
        description="How loud the voice is.",
        help_text="100 plays the voice as it was synthesised, 0 is silent. Beyond 100 the signal is amplified, and loud "
        "syllables distort from about 150 on; turn up the amplifier first.",
        complexity="simple",
        apply="live",
        examples=[60, 100, 120],
        unit="%",
        ge=0,
        le=200,
    )
    eleven_api_base: HttpUrl = setting(
        "https://api.elevenlabs.io/v1",
        title="ElevenLabs API base",
        description="Address of the ElevenLabs API.",
        help_text="Change it only for a proxy of your own or another region. It begins with http:// or https:// and has no "
        "slash at its end; over plain http:// the API key can be read on the way.",
        complexity="advanced",
        apply="restart",
        examples=["https://api.elevenlabs.io/v1", "https://api.us.elevenlabs.io/v1"],
        min_length=1,
        max_length=500,
    )
    eleven_api_key: SecretStr | None = setting(
        None,
        title="ElevenLabs API key",
        description="The key of your ElevenLabs account.",
        help_text="Made in ElevenLabs under Profile, API keys; give it the right to use text to speech and nothing else. "
        "Needed only while the speech provider is elevenlabs.",
        complexity="simple",
        apply="restart",
        min_length=1,
        max_length=500,
    )
    eleven_voice_id: str = setting(
        "",
        title="ElevenLabs voice",
        description="Which ElevenLabs voice speaks.",
        help_text="The 20 characters behind “Copy voice ID” in ElevenLabs, not the voice's name. While it is empty, "
        "elevenlabs has no voice to speak with.",
        complexity="simple",
        apply="live",
        examples=["21m00Tcm4TlvDq8ikWAM", "pNInz6obpgDQGcFmaJgB"],
        max_length=200,
    )
    eleven_model_id: str = setting(
        "eleven_multilingual_v2",
        title="ElevenLabs model",
        description="Which ElevenLabs model synthesises.",
        help_text="eleven_multilingual_v2 sounds best and knows 29 languages; eleven_flash_v2_5 answers in about a quarter "
        "of the time, at half the price, and sounds flatter.",
        complexity="advanced",
        apply="live",
        examples=["eleven_multilingual_v2", "eleven_flash_v2_5"],
        min_length=1,
        max_length=100,
    )
    eleven_optimize_streaming: int = setting(
        0,
        title="ElevenLabs streaming optimisation",
        description="How far ElevenLabs trades quality for an earlier first sound.",
        help_text="0 is the best quality; 1 halves what can be gained, 2 gains three quarters of it, 3 all of it. Higher "
        "levels mispronounce numbers and dates more often.",
        complexity="advanced",
        apply="live",
        examples=[0, 2, 3],
        ge=0,
        le=3,
    )
