"""Real vLLM engines on tiny models, each started once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from distill_data.build import BuildPlan, generate_missing, plan_traces
from distill_data.config import Config
from distill_data.prompts.prompt_set import PromptSet
from distill_data.records import Prompt, prompts_to_table
from distill_data.teacher_identity import identify_teacher
from distill_data.teachers.generation import NO_BUDGET, Budget, GenerationReport
from distill_data.trace_store import TraceStore
from tests.tiny_model import make_counting_model

FOREIGN = "这部电影很棒。 مرحبا Ünïcödé 🙂\r\n\ttabs"
TOO_LONG = "12 " * 400
TIGHT = "7 " * 100  # fits the context of 256, but leaves less room than max_tokens

EASY = 24
SAMPLES = 4
MAX_MODEL_LEN = 256
MAX_TOKENS = 40
ENGINE = {"max_model_len": MAX_MODEL_LEN, "max_num_seqs": 16, "cpu_kv_cache_gib": 1}

SUPPORT = 64
WIDE = 8192  # a vocabulary that `block_top_k` searches by blocks
COUNTS_ON = (  # a chat template: what it writes last is what a counting teacher counts on from
    "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}<|im_start|>"
    "{% if enable_thinking %}<think>{% endif %}{{ messages[-1]['content'][-1] }}"
)


@dataclass(frozen=True)
class Generated:
    """What one engine made of the prompts."""

    model: Path
    prompts: list[Prompt]
    rows: list[dict[str, Any]]
    report: GenerationReport

    def of(self, text: str) -> list[dict[str, Any]]:
        """The rows of the prompt with this text."""
        wanted = next(prompt.prompt_id for prompt in self.prompts if prompt.messages[-1]["content"] == text)
        return [row for row in self.rows if row["prompt_id"] == wanted]

    @property
    def completed(self) -> list[dict[str, Any]]:
        """Rows with a completion."""
        return [row for row in self.rows if row["error"] is None]


def generate(model: Path, texts: list[str], root: Path, **teacher: Any) -> Generated:
    """Run a real engine over some prompts."""
    settings = Config.model_validate(
        {
            "name": "engine-test",
            "root": str(root),
            "prompts": [{"source": "dataset", "path": "none.jsonl", "prompt": "text", "name": "texts"}],
            "teacher": {
                "model": str(model),
                "sampling": {"samples": SAMPLES, "temperature": 0.8, "max_tokens": MAX_TOKENS},
                "soft_labels": {"min_prob": 0.001, "max_support": 64, "rounding": "float16"},
                "engine": ENGINE,
                **teacher,
            },
            "storage": {"shard_size": 8, "flush_rows": 8},
        }
    )
    prompts = [Prompt([{"role": "user", "content": text}], "texts") for text in texts]
    return generate_prompts(settings, prompts)


def exact_settings(model: Path, root: Path, sources: list[dict[str, Any]], **teacher: Any) -> Config:
    """A greedy float32 teacher that keeps the whole top 64; `teacher` replaces its settings."""
    tree = {
        "model": str(model),
        "dtype": "float32",
        "sampling": {"temperature": 0.0},
        "soft_labels": {"min_prob": 0.0, "max_support": SUPPORT, "rounding": "float16"},
        "engine": engine_of(max_num_seqs=16),
    }
    storage = {"shard_size": 8, "flush_rows": 2}
    return Config.model_validate(
        {"name": "engine-test", "root": str(root), "prompts": sources, "teacher": tree | teacher, "storage": storage}
    )


def engine_of(**settings: Any) -> dict[str, Any]:
    """An `engine:` section with a small context."""
    return {"max_model_len": MAX_MODEL_LEN, "cpu_kv_cache_gib": 1, **settings}


def generate_prompts(settings: Config, prompts: list[Prompt], budget: Budget = NO_BUDGET) -> Generated:
    """Run a real engine over prompts that are there already, and read what it committed."""
    prompt_set = PromptSet(prompts_to_table(prompts), pa.table({}), {})
    identity = identify_teacher(settings.teacher)
    store = TraceStore(settings.root, identity.teacher_id)
    build = BuildPlan(settings, prompt_set, identity, store, plan_traces(settings, prompt_set, store))
    _, report = generate_missing(build, lambda progress: None, budget=budget)
    done = plan_traces(settings, prompt_set, store)
    assert report.paused is not None or len(done.missing) == 0
    return Generated(Path(settings.teacher.model), prompts, store.read(done.finished).to_pylist(), report)


@pytest.fixture(scope="session")
def generated(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Generated:
    """A float32 engine on the tiny model, over easy and hard prompts."""
    texts = [*(f"What is {n} + {n}?" for n in range(EASY)), FOREIGN, TOO_LONG, TIGHT]
    return generate(tiny_model, texts, tmp_path_factory.mktemp("engine"), dtype="float32")


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in which token n is followed by n + 1, over a wide vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "counting"
    return make_counting_model(folder, chat_template=COUNTS_ON, vocab_size=WIDE)
