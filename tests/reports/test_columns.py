"""Numbers as they are printed, and the order of columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.columns import (
    budget_text,
    duration,
    factor,
    main_metrics,
    metric_rank,
    metric_title,
    number,
    primary_metric,
    si,
    trimmed,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1.2345, "1.23"), (0.012345, "0.0123"), (12.345, "12.3"), (123.4, "123"), (1234, "1,230"),
        (9.999, "10.0"), (1.2345e-5, "1.23e-5"), (-0.5, "-0.500"), (1234567, "1.23e6"),
    ],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-12, 1e12))
def test_number_is_within_half_a_unit_of_the_third_digit(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.2e12, "1.20 TFLOP"), (999.6, "1.00 kFLOP"), (3e9, "3.00 GFLOP"), (5, "5 FLOP"), (0, "0 FLOP")],
)
def test_si(value: float, text: str) -> None:
    assert si(value, "FLOP") == text


def test_counts_stay_whole() -> None:
    assert si(35) == "35"
    assert si(1_712_345) == "1.71 M"


@pytest.mark.parametrize(("seconds", "text"), [(31.52, "31.5 s"), (600, "10.0 min"), (7200, "2.00 h")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "short"),
    [("3.00 TFLOP", "3 TFLOP"), ("1.20 ms", "1.2 ms"), ("100", "100"), ("10.0", "10"), ("0.500", "0.5"),
     ("1,230", "1,230"), ("1.05 s", "1.05 s")],
)  # fmt: skip
def test_trimmed_changes_no_value(text: str, short: str) -> None:
    assert trimmed(text) == short


def test_prose() -> None:
    assert factor(23.52) == "24"
    assert factor(5.1) == "5.1"
    assert budget_text(3e12) == "3 TFLOP of training"
    assert budget_text(0) == "nothing trained here"


def test_metric_order_and_the_main_distance() -> None:
    keys = ["zebra", "recall", "fd_digits_train", "precision", "kd_digits", "fd_digits"]
    ordered = ["fd_digits", "fd_digits_train", "kd_digits", "precision", "recall", "zebra"]
    assert sorted(keys, key=metric_rank) == ordered
    assert primary_metric(keys, "digits") == "fd_digits"
    assert primary_metric(["fd_dinov2", "fd_dinov2_train", "kd_x"], "digits") == "fd_dinov2"
    assert primary_metric(["precision"], "digits") is None


def test_what_only_begins_like_a_distance_is_never_the_main_one() -> None:
    assert primary_metric(["fd_class_x", "fd_infinity_x", "fd_x_train", "fd_x"], "digits") == "fd_x"
    assert primary_metric(["fd_class_x", "fd_infinity_x", "fid"], "digits") == "fid"
    assert primary_metric(["fd_class_x", "fd_infinity_x"], "digits") is None


def test_the_main_feature_space_decides_where_it_is_known() -> None:
    keys = ["fid", "fd_digits", "kid", "kid_subsets", "kd_digits", "precision", "precision_digits",
            "memorization_gap_pixels", "memorization_gap_inception", "vendi"]  # fmt: skip
    assert primary_metric(keys, "digits", "inception") == "fid"
    assert primary_metric(keys, "digits", "digits") == "fd_digits"
    assert main_metrics(keys, "fid") == ["fid", "kid", "precision", "memorization_gap_pixels"]
    assert main_metrics(keys, "fd_digits") == ["fd_digits", "kd_digits", "precision", "memorization_gap_pixels"]


@pytest.mark.parametrize(
    ("key", "title"),
    [("fd_infinity_digits", "fd_infinity_digits"), ("class_agreement", "class agreement"), ("vendi", "vendi"),
     ("precision_efficientnet_lite0", "precision (efficientnet_lite0)"), ("ct_pixels", "C_T (pixels)"),
     ("memorization_gap_digits", "memorisation gap (digits)"), ("brand_new", "brand new")],
)  # fmt: skip
def test_titles(key: str, title: str) -> None:
    assert metric_title(key) == title


def test_numbers_that_overflow_are_said() -> None:
    assert (number(float("inf")), si(float("-inf"), "FLOP"), duration(float("inf"))) == ("inf", "-inf FLOP", "inf h")
