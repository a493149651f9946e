"""Prompt sources: each becomes records.Prompt; together they are one PromptSet."""

from distill_data.prompts.loading import load_prompts
from distill_data.prompts.prompt_set import PromptSet, save_prompts

__all__ = ["PromptSet", "load_prompts", "save_prompts"]
