"""The wake word."""

from schemas.settings import AbsolutePath, ServiceModel, setting


class WakeActivation(ServiceModel):
    """Listens for the wake word, all day long."""

    wake_model_path: AbsolutePath = setting(
        "/models/openwakeword/hey_tars.tflite",
        title="Wake model",
        description="File of the openWakeWord model that knows the wake word.",
        help_text="Absolute path of a .tflite or .onnx file that the worker may read. Each model knows one phrase; another "
        "phrase needs another file, which openWakeWord's training notebook makes.",
        complexity="advanced",
        apply="restart",
        examples=["/models/openwakeword/hey_tars.tflite", "/models/openwakeword/hey_jarvis.onnx"],
        min_length=1,
        max_length=500,
    )
    wake_detection_threshold: float = setting(
        0.35,
        title="Detection threshold",
        description="How sure the model must be to have heard the wake word.",
        help_text="Higher wakes less often by mistake, and misses people at the other end of the room; lower hears them, "
        "and wakes from the television. Change it in steps of 0.05; 0.3 to 0.6 is usual.",
        complexity="simple",
        apply="live",
        examples=[0.3, 0.35, 0.5],
        ge=0.0,
        le=1.0,
    )
    wake_min_retrigger_sec: float = setting(
        0.8,
        title="Minimum retrigger",
        description="How long after a detection the wake word is not looked for again.",
        help_text="Higher keeps one spoken wake word from counting twice; lower lets an impatient second call through. "
        "Below 0.5 double acknowledgements are likely.",
        complexity="advanced",
        apply="live",
        examples=[0.5, 0.8, 2.0],
        unit="s",
        ge=0.1,
        le=5.0,
    )
    wake_speex_noise_suppression: bool = setting(
        True,
        title="Speex noise suppression",
        description="Filter steady noise, such as a fan, out of the microphone before looking for the wake word.",
        help_text="On costs little and helps in most rooms. Turn it off where the microphone filters by itself, since two "
        "filters in a row make voices hollow, or where the Speex library is not installed.",
        complexity="advanced",
        apply="restart",
        examples=[True, False],
    )
    wake_vad_threshold: float = setting(
        0.3,
        title="VAD threshold",
        description="How sure the voice detector must be that somebody speaks, for a detection to count.",
        help_text="Higher ignores clatter and music that resemble the wake word, and soft voices too; 0 turns this check "
        "off. 0.2 to 0.5 is usual.",
        complexity="advanced",
        apply="live",
        examples=[0.0, 0.3, 0.5],
        ge=0.0,
        le=1.0,
    )
    wake_energy_boost_factor: float = setting(
        1.2,
        title="Energy boost factor",
        description="By what factor the microphone's signal is amplified before looking for the wake word.",
        help_text="Higher helps with a quiet microphone or a large room, and distorts voices close by; below 1 calms one "
        "that is too loud. 1 changes nothing; 1 to 1.5 is usual.",
        complexity="advanced",
        apply="live",
        examples=[1.0, 1.2, 2.0],
        ge=0.5,
        le=3.0,
    )
