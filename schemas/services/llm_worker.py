"""The language model."""

from typing import Literal

from pydantic import SecretStr

from schemas.settings import ServiceModel, setting


class LlmWorker(ServiceModel):
    """Writes the answers."""

    llm_provider: Literal["openai", "anthropic", "ollama"] = setting(
        "openai",
        title="Provider",
        description="Who runs the language model.",
        help_text="openai and anthropic answer best, and get to see every question; they need a key and the internet. "
        "ollama runs a model on this machine or in your network: private and free, slow on a board without an "
        "accelerator.",
        complexity="simple",
        apply="restart",
    )
    openai_api_key: SecretStr | None = setting(
        None,
        title="OpenAI API key",
        description="The key of your OpenAI project.",
        help_text="Made at platform.openai.com under API keys; it begins with sk-. Make one for the assistant alone and "
        "give it a monthly limit. Needed only while the provider is openai.",
        complexity="simple",
        apply="restart",
        min_length=10,
    )
    openai_model: str = setting(
        "gpt-4o-mini",
        title="OpenAI model",
        description="Which of OpenAI's models answers.",
        help_text="gpt-4o-mini is quick, cheap and good enough for spoken answers; gpt-4o knows more, at a multiple of the "
        "price. A name that the account may not use fails at the next question, not here.",
        complexity="simple",
        apply="live",
        examples=["gpt-4o-mini", "gpt-4o"],
        min_length=1,
        max_length=100,
    )
    rag_enabled: bool = setting(
        True,
        title="RAG",
        description="Add what the memory holds on the subject to each question.",
        help_text="On, the assistant remembers earlier conversations; each question gets longer, costs a little more and "
        "takes some tenths of a second more. Off, it answers each one afresh.",
        complexity="simple",
        apply="live",
        examples=[True, False],
    )
    llm_timeout_sec: float = setting(
        30.0,
        title="Timeout",
        description="How long to wait for the language model before giving up and saying so.",
        help_text="Higher suits a slow local model; lower tells people sooner that the internet is away. 20 to 30 for "
        "openai and anthropic, 60 or more for ollama.",
        complexity="advanced",
        apply="live",
        examples=[20.0, 30.0, 90.0],
        unit="s",
        ge=1.0,
        le=120.0,
    )
