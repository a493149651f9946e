from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from distill_data.teachers.vllm_top_k import block_top_k

K = 64
WIDE = 8192  # wide enough that 64 blocks of 64 are well below it


def random_rows(width: int) -> torch.Tensor:
    return torch.randn(7, width, generator=torch.Generator().manual_seed(0))


def tied_rows(width: int) -> torch.Tensor:
    """Few distinct values, so that the k-th largest is one of many alike."""
    return random_rows(width).round()


def sorted_rows(width: int) -> torch.Tensor:
    """The k largest stand in one block."""
    return torch.arange(width).float().repeat(3, 1)


def rows_with_nan(width: int) -> torch.Tensor:
    rows = random_rows(width)
    rows[0] = float("nan")
    rows[1, 5] = float("nan")
    rows[2, ::50] = float("nan")
    return rows


def rows_with_infinity(width: int) -> torch.Tensor:
    rows = random_rows(width)
    rows[0] = float("-inf")
    rows[1, 3:] = float("-inf")
    rows[2, ::2] = float("-inf")
    return rows


@pytest.mark.parametrize("make", [random_rows, tied_rows, sorted_rows, rows_with_nan, rows_with_infinity])
@pytest.mark.parametrize(("width", "k"), [(WIDE, K), (WIDE, 1), (WIDE, 95), (WIDE + 1, K), (WIDE - 63, K), (448, K)])
def test_it_is_the_top_k_of_torch(make: Callable[[int], torch.Tensor], width: int, k: int) -> None:
    rows = make(width)
    values, indices = block_top_k(rows, k)
    torch.testing.assert_close(values, torch.topk(rows, k).values, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(rows.gather(1, indices), values, rtol=0, atol=0, equal_nan=True)
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize(("width", "k", "whole"), [(WIDE, K, False), (WIDE, 97, True), (WIDE + 1, K, True)])
def test_rows_are_searched_whole_only_where_blocks_would_not_help(
    monkeypatch: pytest.MonkeyPatch, width: int, k: int, whole: bool
) -> None:
    searched: list[int] = []
    search = torch.Tensor.topk

    def watched(rows: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        searched.append(rows.shape[-1])
        return search(rows, *args, **kwargs)

    monkeypatch.setattr(torch, "topk", watched)
    monkeypatch.setattr(torch.Tensor, "topk", watched)
    block_top_k(random_rows(width), k)
    assert searched == ([width] if whole else [width // 64, k * 64])
