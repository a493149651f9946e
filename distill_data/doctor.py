"""The doctor: find before the engine starts what would otherwise be found after the GPU hour is spent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_data.build import BuildPlan, plan_build
from distill_data.config import Config
from distill_data.errors import ConfigError, DistillDataError, InputError, ModelError
from distill_data.estimate import estimate_build
from distill_data.judge_config import LlmJudge
from distill_data.judging import example_answers, judging_job, judging_prompts
from distill_data.models import load_tokenizer
from distill_data.prompts import PromptSet
from distill_data.publish import check_rights
from distill_data.records import Prompt, table_to_prompts
from distill_data.screening import prompts_of
from distill_data.student.check import check_student
from distill_data.teacher_config import Teacher
from distill_data.teachers.rendering import RenderedPrompt, render_prompts, render_text
from distill_data.teachers.vllm_reasoning import parser_splitter
from distill_data.verify import VerifierPool

SAMPLED_PROMPTS = 1000
SPARE_BYTES = 1 << 29  # room to leave on the disk beside what is written


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def examine(settings: Config) -> list[Check]:
    """Every check, in order; what rests on a failed one is left out."""
    checks: list[Check] = []
    prompts = _run(checks, "prompts", lambda: prompts_of(settings), describe_prompts)
    if prompts is None:
        return checks
    plan = _run(checks, "teacher", lambda: plan_build(settings, prompts), _describe_teacher)
    if plan is None:
        return checks
    tokenizer = _run(checks, "tokenizer", lambda: _load_tokenizer(plan), _describe_tokenizer)
    if tokenizer is not None:
        if _run(checks, "template", lambda: check_template(plan, tokenizer), str) is not None:
            _run(checks, "context", lambda: check_context(plan, tokenizer), str)
        if settings.teacher.reasoning_parser is not None:
            _run(checks, "reasoning", lambda: check_reasoning(plan, tokenizer), str)
        if settings.judges:
            _run(checks, "judge", lambda: check_judges(plan), str)
        if (student := settings.student) is not None:
            _run(
                checks,
                "student",
                lambda: check_student(student, tokenizer, plan.identity.source, settings.teacher),
                str,
            )
    if settings.teacher.engine.servers is not None:
        _run(checks, "servers", lambda: check_servers(plan), str)
    _run(checks, "disk", lambda: check_disk(plan), str)
    if (to := settings.publish) is not None:
        _run(checks, "publish", lambda: check_rights(to), str)
    if settings.student is not None and (sent := settings.student.publish) is not None:
        _run(checks, "student.publish", lambda: check_rights(sent, "model"), str)
    return checks


def require_ready(plan: BuildPlan) -> None:
    """The checks of `examine` that an engine's start rests on.

    Raises:
        DistillDataError: the first one that fails.
    """
    tokenizer = _load_tokenizer(plan)
    check_template(plan, tokenizer)
    check_context(plan, tokenizer)
    if plan.config.teacher.reasoning_parser is not None:
        check_reasoning(plan, tokenizer)
    check_judges(plan)
    if plan.config.student is not None:
        check_student(plan.config.student, tokenizer, plan.identity.source, plan.config.teacher)
    check_disk(plan)


def check_template(plan: BuildPlan, tokenizer: Any) -> str:
    """The first prompt renders, with its system prompt and its own words in it, and there is an EOS to learn."""
    teacher = plan.config.teacher
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of {teacher.model} has no EOS token: set eos_token in its tokenizer_config.json"
        )
    if teacher.prompt_format == "text":
        return "prompts are fed as plain text"
    if "strftime_now" in (tokenizer.chat_template or "") and "date_string" not in teacher.chat_template_kwargs:
        raise ConfigError(
            f"the chat template of {teacher.model} writes today's date into every prompt, so tomorrow's traces would "
            'answer other prompts: fix it with teacher.chat_template_kwargs: {date_string: "1 January 2026"}'
        )
    if not tokenizer.chat_template:
        raise ModelError(
            f"{teacher.model} has no chat template (a base model): set teacher.prompt_format: text, or use its "
            "instruction-tuned version"
        )
    prompt = table_to_prompts(plan.prompts.table.slice(0, 1))[0]
    try:
        text = render_text(prompt, tokenizer, teacher)
    except Exception as error:
        raise _refused(plan, error) from error
    expected = [message["content"].strip() for message in prompt.messages]
    if teacher.system_prompt and prompt.messages[0]["role"] != "system":
        expected.append(teacher.system_prompt.strip())
    for words in expected:
        if words not in text:
            raise ConfigError(f"the chat template of {teacher.model} leaves out {words[:60]!r}: use another template")
    return f"chat template ends with {text[-40:]!r}"


def check_servers(plan: BuildPlan) -> str:
    """Servers run this teacher as it has to be run."""
    from distill_data.teachers.server_teacher import ServerTeacher

    teacher = plan.config.teacher
    running = ServerTeacher(plan.identity.source, teacher)
    urls = teacher.engine.servers.urls if teacher.engine.servers else []
    return f"{running.servers_up} of {len(urls)} answer; context {running.max_model_len:,}"


def check_context(plan: BuildPlan, tokenizer: Any) -> str:
    """At least one prompt fits the context; those that do not are dropped by name when generated."""
    limit = plan.config.teacher.engine.max_model_len
    sample = table_to_prompts(plan.prompts.table.slice(0, SAMPLED_PROMPTS))
    try:
        rendered = render_prompts(sample, tokenizer, plan.config.teacher)
    except ConfigError:
        raise
    except Exception as error:
        raise _refused(plan, error) from error
    lengths = [len(prompt.token_ids) for prompt in rendered]
    if limit is None:
        return f"longest of {len(sample):,} prompts: {max(lengths):,} tokens; the model's own context is used"
    too_long = sum(length >= limit for length in lengths)
    if too_long == len(sample):
        raise InputError(
            f"none of the first {len(sample):,} prompts fits teacher.engine.max_model_len {limit:,} (the shortest has "
            f"{min(lengths):,} tokens): raise it"
        )
    rooms = _rooms(plan.config.teacher, sample, rendered)
    tight = sum(limit > length > limit - room for length, room in zip(lengths, rooms, strict=True))
    name = {"score": "their completions take", "classify": "labels take"}.get(plan.config.teacher.mode, "max_tokens")
    needed = f"{name} {min(rooms):,}" + (f" to {max(rooms):,}" if min(rooms) < max(rooms) else "")
    return (
        f"of {len(sample):,} prompts {too_long:,} do not fit {limit:,} tokens and {tight:,} leave less than "
        f"{needed}; the longest has {max(lengths):,}"
    )


def _rooms(teacher: Teacher, sample: list[Prompt], rendered: list[RenderedPrompt]) -> list[int]:
    """How many tokens the completion of every prompt may take; of one that exists, or of labels, takes."""
    if teacher.mode != "generate":
        return [len(prompt.to_read_after) for prompt in rendered]
    return [teacher.sampling.with_overrides(prompt.sampling).max_tokens for prompt in sample]


def check_reasoning(plan: BuildPlan, tokenizer: Any) -> str:
    """The reasoning parser is there and splits what this tokenizer writes. Imports vLLM: some 10 seconds."""
    parser_splitter(plan.config.teacher, tokenizer)
    return f"vLLM's reasoning parser {plan.config.teacher.reasoning_parser} splits thinking from answer"


def check_judges(plan: BuildPlan) -> str:
    """Every verifier starts, in a process as it will when answers are judged; every model that judges can be asked."""
    judges = plan.config.judges
    for judge in judges:
        if isinstance(judge, LlmJudge):
            _check_model_judge(plan, judge)
        else:
            VerifierPool(judge.model_copy(update={"processes": 1})).close()
    return f"{', '.join(judge.verifier for judge in judges)} can judge"


def _check_model_judge(plan: BuildPlan, judge: LlmJudge) -> None:
    """A judge's model is there, its template renders what it will be asked, and that fits its context."""
    sample = plan.prompts.table.slice(0, SAMPLED_PROMPTS)
    try:
        judging = plan_build(judging_job(plan.config, judge), judging_prompts(judge, example_answers(sample)))
        tokenizer = _load_tokenizer(judging)
        check_template(judging, tokenizer)
        check_context(judging, tokenizer)
        if judge.teacher.reasoning_parser is not None:
            check_reasoning(judging, tokenizer)
    except DistillDataError as error:
        raise type(error)(f"the teacher of judge: {error}") from error


def check_disk(plan: BuildPlan) -> str:
    """What will be written fits the disk, once in the trace store and once in the corpus, and may be written."""
    estimate = estimate_build(plan)
    root = Path(plan.config.root).absolute()
    folder = next(parent for parent in (root, *root.parents) if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{folder} is no folder that can be written: set root: to another one")
    free, needed = shutil.disk_usage(folder).free, 2 * estimate.bytes + SPARE_BYTES
    if free < needed:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB free and this build needs about {needed / 1e9:.1f} GB: free space "
            "or set root: to another disk"
        )
    return f"{free / 1e9:,.1f} GB free, about {needed / 1e9:,.1f} GB needed"


def _refused(plan: BuildPlan, error: Exception) -> ConfigError:
    return ConfigError(
        f"the chat template of {plan.config.teacher.model} refuses a prompt: {' '.join(str(error).split())}: change "
        "teacher.system_prompt, teacher.chat_template_kwargs or the prompts' roles"
    )


def describe_prompts(prompts: PromptSet) -> str:
    """How many prompts there are and what was dropped."""
    dropped = prompts.dropped["drop_reason"].value_counts().to_pylist()
    left_out = "".join(f", {count['counts']:,} {count['values']}" for count in dropped)
    return f"{len(prompts.table):,} prompts{left_out}"


def _describe_teacher(plan: BuildPlan) -> str:
    return f"{plan.config.teacher.model} is teacher {plan.store.teacher_id}; {len(plan.plan.missing):,} traces missing"


def _describe_tokenizer(tokenizer: Any) -> str:
    return f"{len(tokenizer):,} tokens, EOS {tokenizer.eos_token!r}, pad {tokenizer.pad_token!r}"


def _load_tokenizer(plan: BuildPlan) -> Any:
    return load_tokenizer(plan.identity.source, trust_remote_code=plan.config.teacher.trust_remote_code)


def _run(checks: list[Check], name: str, look: Callable[[], Any], describe: Callable[[Any], str]) -> Any:
    """Run one check and note its outcome; None when it failed."""
    try:
        found = look()
    except DistillDataError as error:
        checks.append(Check(name, False, str(error)))
        return None
    checks.append(Check(name, True, describe(found)))
    return found
