"""The special tokens of a student are those of the tokenizer that it is saved with."""

from __future__ import annotations

from typing import Any


def take_special_tokens(model: Any, tokenizer: Any) -> None:
    """Let a model's config and generation config name the tokenizer's BOS, EOS and padding, in place.

    A model that was begun from another one, a base model say, knows that one's EOS, and generation would run past the
    one that it learns. What the tokenizer does not define stays as it was.
    """
    old = [*eos_ids(model.config), *eos_ids(model.generation_config)]
    configs = [model.config, model.config.get_text_config(), model.generation_config]
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if (token := getattr(tokenizer, name)) is not None:
            for config in filter(None, configs):
                setattr(config, name, token)
    if model.generation_config is not None and tokenizer.eos_token_id is not None:
        model.generation_config.eos_token_id = _ends(tokenizer, old)


def eos_ids(config: Any) -> list[int]:
    """The ids that a config or generation config says end a text: none, one or several."""
    found = None if config is None else getattr(config, "eos_token_id", None)
    return [] if found is None else list(found) if isinstance(found, list | tuple) else [found]


def _ends(tokenizer: Any, old: list[int]) -> int | list[int]:
    """What generation stops at: the EOS that is learnt, and the old ones that cannot stand in an answer.

    A base model falls back into its old end of text now and then. Only a special token is safe to stop at: the id may
    be a plain word in this tokenizer.
    """
    ends = dict.fromkeys([tokenizer.eos_token_id, *(token for token in old if _is_special(tokenizer, token))])
    return list(ends) if len(ends) > 1 else tokenizer.eos_token_id


def _is_special(tokenizer: Any, token: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(token)
    return token in tokenizer.all_special_ids or (added is not None and added.special)
