"""The router between wake word, speech and language model."""

from schemas.settings import RegularExpression, ServiceModel, rule, setting


class Router(ServiceModel):
    """Decides what is heard, where it goes, and in which pieces an answer is spoken."""

    router_llm_tts_stream: bool = setting(
        True,
        title="Stream LLM to TTS",
        description="Begin to speak while the language model is still writing its answer.",
        help_text="On, the first sentence is heard after a second or two. Off, the whole answer is awaited, which can take "
        "half a minute with a local model.",
        complexity="simple",
        apply="live",
        examples=[True, False],
    )
    router_stream_min_chars: int = setting(
        30,
        title="Stream minimum",
        description="How many characters of an answer must have come before a piece of it is spoken.",
        help_text="Higher gives longer pieces with better intonation; lower lets the first word come sooner. 20 to 60 is "
        "usual. Not more than the stream maximum.",
        complexity="advanced",
        apply="live",
        examples=[20, 30, 60],
        unit="characters",
        ge=1,
        le=500,
    )
    router_stream_max_chars: int = setting(
        200,
        title="Stream maximum",
        description="After how many characters a piece is spoken although no sentence has ended.",
        help_text="Higher keeps long sentences whole; lower avoids long silences with models that write without full stops."
        " 150 to 300 is usual. Not less than the stream minimum.",
        complexity="advanced",
        apply="live",
        examples=[150, 200, 300],
        unit="characters",
        ge=1,
        le=1000,
    )
    router_stream_boundary_only: bool = setting(
        True,
        title="Stream boundary only",
        description="Cut a streamed answer only where the boundary expression finds the end of a sentence.",
        help_text="On sounds natural; the longest piece still applies where no end comes. Off cuts as soon as the shortest "
        "piece is reached, also in the middle of a sentence.",
        complexity="advanced",
        apply="live",
        examples=[True, False],
    )
    router_stream_boundary_regex: RegularExpression = setting(
        "[.!?…]+[\\\"')\\]]?\\s",
        title="Stream boundary regex",
        description="Regular expression that finds the end of a sentence in a streamed answer.",
        help_text="In Python's notation; the cut is made behind what it matches. The default wants a full stop, exclamation"
        " or question mark, perhaps a closing quotation mark or bracket, and white space. Add 。！？ without \\s for "
        "Chinese and Japanese, or ;: for shorter pieces.",
        complexity="advanced",
        apply="live",
        examples=["[.!?…]+[\\\"')\\]]?\\s", "[.!?…;:]+\\s", "[。！？]"],
        min_length=1,
        max_length=200,
    )
    router_wake_window_sec: float = setting(
        8.0,
        title="Wake window",
        description="How long after the wake word, or after an answer, speech counts as meant for the assistant.",
        help_text="Higher leaves time to think and to ask on without the wake word, and takes talk in the room for a "
        "question; lower is discreet and makes people say the wake word again. 5 to 12 is usual.",
        complexity="simple",
        apply="live",
        examples=[5.0, 8.0, 12.0],
        unit="s",
        ge=1.0,
        le=60.0,
    )
    router_wake_ack_enabled: bool = setting(
        True,
        title="Wake acknowledgement",
        description="Say something short when the wake word was heard.",
        help_text="On, people know that they may speak. Off is quicker and quieter, best with a light that shows the same.",
        complexity="simple",
        apply="live",
        examples=[True, False],
    )
    router_wake_ack_text: str = setting(
        "Yes?",
        title="Wake acknowledgement text",
        description="What is said to acknowledge the wake word where no choices are given.",
        help_text="Short is good: people wait for its end before they speak. Empty says nothing.",
        complexity="simple",
        apply="live",
        examples=["Yes?", "I'm listening.", ""],
        min_length=0,
        max_length=100,
    )
    router_wake_ack_choices: str = setting(
        "Hmm?|Huh?|Yes?",
        title="Wake acknowledgement choices",
        description="Acknowledgements of which one is picked at random each time, separated by |.",
        help_text="Several make the assistant less of a machine. Empty uses the single acknowledgement. Each of them takes "
        "a place in the speech worker's cache.",
        complexity="advanced",
        apply="live",
        examples=["Hmm?|Huh?|Yes?", "Yes?|At your service.|Go ahead.", ""],
        min_length=0,
        max_length=500,
    )
    router_live_mode_default: bool = setting(
        False,
        title="Live mode by default",
        description="Whether the assistant listens without a wake word from the start.",
        help_text="On, everything said in the room goes to the language model until the exit phrase is heard: for "
        "demonstrations, or for people who cannot say the wake word. Off is right for a living room.",
        complexity="simple",
        apply="live",
        examples=[False, True],
    )
    router_live_mode_enter_phrase: str = setting(
        "enter live mode",
        title="Live mode enter phrase",
        description="What to say, after the wake word, to talk on without it.",
        help_text="Choose words that do not come up by chance, and others than the exit phrase; write them as speech "
        "recognition does.",
        complexity="advanced",
        apply="live",
        examples=["enter live mode", "let's talk"],
        min_length=1,
        max_length=100,
    )
    router_live_mode_exit_phrase: str = setting(
        "exit live mode",
        title="Live mode exit phrase",
        description="What to say to go back to the wake word.",
        help_text="Choose words that speech recognition gets right every time, since there is no other spoken way out of "
        "live mode.",
        complexity="advanced",
        apply="live",
        examples=["exit live mode", "that is all"],
        min_length=1,
        max_length=100,
    )

    @rule("router_stream_min_chars", "router_stream_max_chars")
    def _shortest_is_not_above_longest(self) -> str | None:
        if self.router_stream_min_chars > self.router_stream_max_chars:
            return (
                f"Stream minimum (router_stream_min_chars) is {self.router_stream_min_chars} characters, more than the "
                f"stream maximum (router_stream_max_chars), {self.router_stream_max_chars}. Lower the one or raise the other."
            )
        return None

    @rule("router_live_mode_exit_phrase", "router_live_mode_enter_phrase")
    def _phrases_differ(self) -> str | None:
        if (
            self.router_live_mode_enter_phrase.strip().casefold()
            == self.router_live_mode_exit_phrase.strip().casefold()
        ):
            return (
                "Live mode exit phrase (router_live_mode_exit_phrase) is the same as the enter phrase "
                "(router_live_mode_enter_phrase). They must differ."
            )
        return None
