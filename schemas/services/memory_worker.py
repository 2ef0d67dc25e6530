"""Long-term memory and the character."""

from typing import Literal

from schemas.settings import AbsolutePath, ServiceModel, setting


class MemoryWorker(ServiceModel):
    """Remembers conversations, and knows who the assistant is."""

    memory_dir: AbsolutePath = setting(
        "/data/memory",
        title="Memory folder",
        description="Folder that the memory is stored in.",
        help_text="An absolute path that the worker may write to, with some hundred megabytes free. What was remembered "
        "stays in the old folder when this changes: stop the worker and move the file first.",
        complexity="advanced",
        apply="restart",
        examples=["/data/memory", "/var/lib/tars/memory"],
        min_length=1,
        max_length=500,
    )
    memory_file: str = setting(
        "memory.pickle.gz",
        title="Memory file",
        description="Name of the memory's file in that folder.",
        help_text="Letters, digits, _, - and . only, no folders. Another name begins an empty memory and leaves the old one"
        " as it is, so one file for each experiment is a safe way to try things.",
        complexity="advanced",
        apply="restart",
        examples=["memory.pickle.gz", "memory-2026.pickle.gz"],
        min_length=1,
        max_length=255,
        pattern=r"^[\w\-\.]+$",
    )
    character_name: str = setting(
        "TARS",
        title="Character name",
        description="Who the assistant is.",
        help_text="The name of a character in the character folder; its file says how the assistant speaks and what it "
        "knows of itself.",
        complexity="simple",
        apply="live",
        examples=["TARS", "CASE"],
        min_length=1,
        max_length=50,
    )
    character_dir: AbsolutePath = setting(
        "/config/characters",
        title="Character folder",
        description="Folder with one subfolder for each character.",
        help_text="An absolute path that the worker may read. It must hold the chosen character.",
        complexity="advanced",
        apply="restart",
        examples=["/config/characters", "/etc/tars/characters"],
        min_length=1,
        max_length=500,
    )
    embed_model: str = setting(
        "sentence-transformers/all-MiniLM-L6-v2",
        title="Embedding model",
        description="The model that turns text into vectors, so that what is related can be found.",
        help_text="A name from Hugging Face, fetched at the first start. all-MiniLM-L6-v2 takes 90 MB and is quick on an "
        "Orange Pi; for other languages than English take paraphrase-multilingual-MiniLM-L12-v2, 470 MB. With "
        "another model the whole memory is indexed again, which can take minutes.",
        complexity="advanced",
        apply="restart",
        examples=[
            "sentence-transformers/all-MiniLM-L6-v2",
            "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        ],
        min_length=1,
        max_length=200,
    )
    rag_strategy: Literal["hybrid", "semantic", "keyword"] = setting(
        "hybrid",
        title="RAG strategy",
        description="How memories that fit a question are found.",
        help_text="semantic finds what means the same in other words; keyword finds names and numbers exactly and is "
        "fastest; hybrid does both and merges them, which is best for nearly everybody.",
        complexity="simple",
        apply="live",
    )
    memory_top_k: int = setting(
        5,
        title="Top k",
        description="How many of the best matching memories are given to the language model.",
        help_text="Higher remembers more of the past, makes questions longer and dearer, and may distract the model; lower "
        "keeps it to the point. 3 to 8 is usual.",
        complexity="advanced",
        apply="live",
        examples=[3, 5, 8],
        unit="memories",
        ge=1,
        le=20,
    )
