from __future__ import annotations

from typing import Any

import pytest

from distill_data import teacher_config
from distill_data.records import Prompt
from distill_data.teachers.rendering import SUFFIX_LENGTH, render_prompts, render_text, with_system_prompt
from tests.tiny_model import SPECIAL_TOKENS, make_tokenizer

START, END = (SPECIAL_TOKENS.index(name) for name in ("<|im_start|>", "<|im_end|>"))
USER = {"role": "user", "content": "Grüße 你好 🙂"}
BRIEF = {"role": "system", "content": "Be brief."}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture(scope="module")
def tokenizer_with_bos() -> Any:
    """Adds <|im_start|> to plain text of its own accord, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", START)]
    )
    return tokenizer


def teacher(**fields: Any) -> teacher_config.Teacher:
    return teacher_config.Teacher(model="x/y", **fields)


def test_the_system_prompt_comes_first_unless_there_is_one() -> None:
    asked = teacher(system_prompt="Think.")
    assert with_system_prompt([USER], asked) == [{"role": "system", "content": "Think."}, USER]
    assert with_system_prompt([BRIEF, USER], asked) == [BRIEF, USER]
    assert with_system_prompt([USER], teacher()) == [USER]


def test_a_chat_is_rendered_by_its_template(tokenizer: Any) -> None:
    text = render_text(Prompt([USER], "s"), tokenizer, teacher(system_prompt="Think."))
    assert text == (
        "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\nGrüße 你好 🙂<|im_end|>\n<|im_start|>assistant\n"
    )


def test_template_arguments_reach_the_template(tokenizer: Any) -> None:
    template = tokenizer.chat_template
    tokenizer.chat_template = template + "{% if thinking %}<think>\n{% endif %}"
    try:
        rendered = render_prompts([Prompt([USER], "s")], tokenizer, teacher(chat_template_kwargs={"thinking": True}))
    finally:
        tokenizer.chat_template = template
    assert rendered[0].suffix.endswith("<|im_start|>assistant\n<think>\n")


def test_plain_text_is_fed_as_it_is(tokenizer: Any) -> None:
    settings = teacher(prompt_format="text")
    assert render_text(Prompt([USER], "s"), tokenizer, settings) == "Grüße 你好 🙂"
    bare = make_tokenizer(chat_template=None)
    assert bare.decode(render_prompts([Prompt([USER], "s")], bare, settings)[0].token_ids) == "Grüße 你好 🙂"


def test_ids_say_the_text_and_the_suffix_is_its_end(tokenizer: Any) -> None:
    prompts = [Prompt([{"role": "user", "content": f"{number} + 1 = ? " * number}], "s") for number in (1, 9, 30)]
    for prompt, rendered in zip(prompts, render_prompts(prompts, tokenizer, teacher()), strict=True):
        text = render_text(prompt, tokenizer, teacher())
        assert tokenizer.decode(rendered.token_ids) == text
        assert rendered.suffix == text[-SUFFIX_LENGTH:]


def test_special_tokens_are_not_doubled_in_a_chat(tokenizer_with_bos: Any) -> None:
    ids = render_prompts([Prompt([USER], "s")], tokenizer_with_bos, teacher())[0].token_ids
    assert ids[0] == START
    assert (ids.count(START), ids.count(END)) == (2, 1)  # user and assistant; the user's end


def test_plain_text_gets_the_tokenizers_own_special_tokens(tokenizer_with_bos: Any) -> None:
    ids = render_prompts([Prompt([USER], "s")], tokenizer_with_bos, teacher(prompt_format="text"))[0].token_ids
    assert ids[0] == START
    assert ids.count(START) == 1


def test_no_prompts(tokenizer: Any) -> None:
    assert render_prompts([], tokenizer, teacher()) == []
