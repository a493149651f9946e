from __future__ import annotations

import numpy as np
import pytest

from distill_data.student.calibration import BINS, confidence_bins, expected_calibration_error


def test_the_error_is_the_gap_of_each_bin_by_its_tokens() -> None:
    # Bins [0.6, 0.667): three tokens at 0.65, two right; [0.933, 1]: one at 1.0, wrong.
    confidence, hit = np.array([0.65, 0.65, 0.65, 1.0]), np.array([1.0, 1.0, 0.0, 0.0])
    bins = confidence_bins(confidence, hit)
    assert bins.shape == (3, BINS) and bins[0].sum() == 4 and bins[0, 9] == 3 and bins[0, -1] == 1
    assert expected_calibration_error(bins) == pytest.approx((3 * abs(0.65 - 2 / 3) + 1.0) / 4)


def test_bins_add_up_over_batches() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0, 1, 50)
    hit = (random.uniform(0, 1, 50) < confidence).astype(float)
    parts = confidence_bins(confidence[:20], hit[:20]) + confidence_bins(confidence[20:], hit[20:])
    assert parts == pytest.approx(confidence_bins(confidence, hit))


def test_what_is_drawn_from_its_own_probabilities_is_calibrated() -> None:
    random = np.random.default_rng(1)
    confidence = random.uniform(0, 1, 200_000)
    hit = (random.uniform(0, 1, len(confidence)) < confidence).astype(float)
    assert expected_calibration_error(confidence_bins(confidence, hit)) < 0.01
    assert expected_calibration_error(confidence_bins(np.sqrt(confidence), hit)) > 0.1
