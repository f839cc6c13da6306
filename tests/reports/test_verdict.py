"""The sentences follow the numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluation.record import Budget, Record
from reports.verdict import verdict
from tests.reports.synthetic import GAN_REASON, control, metric, record
from tests.reports.test_tables import tables_of

CONTROLS = (control("real_train", fd=1.0), control("gaussian", fd=100.0))


def said(*records: Record, controls: tuple[Record, ...] = CONTROLS) -> str:
    return " ".join(verdict(tables_of(*records, controls=controls)[0].summary))


def both(gan: float, diffusion: float) -> tuple[Record, Record]:
    return record("gan", 1, fd=gan), record("diffusion", 1, fd=diffusion)


def test_the_best_changes_with_the_numbers() -> None:
    assert "diffusion has the lowest fd_digits, 2.00; next is gan with 9.00." in said(*both(9, 2))
    assert "gan has the lowest fd_digits, 2.00; next is diffusion with 9.00." in said(*both(2, 9))
    assert "closest to the real images: gan;" in said(*both(2, 9))


def test_separable_or_not() -> None:
    assert "separable from noise" in said(*both(9, 2))
    text = said(*both(9, 8.5))
    assert "Its interval overlaps that of gan: they cannot be told apart." in text
    assert "diffusion and gan (not separable)" in text
    bare = [
        replace(r, metrics={"fd_digits": metric(f, width=None)})
        for r, f in zip(both(1, 1), (9, 2), strict=True)
    ]
    assert "it is open whether the difference is noise" in said(*bare)


def test_floor_and_gaussian_are_factors() -> None:
    text = said(*both(9, 4.9))
    assert (
        "diffusion is 5 times as far from the test images as real training images are (the floor, 0.980)"
        in text
    )
    assert "A Gaussian fitted to the pixels (98.0) is 20 times as far as diffusion." in text
    assert "did not beat" not in text
    assert "gan did not beat this simple Gaussian (98.0)." in said(*both(120, 4))
    assert "No floor was measured" in said(*both(9, 2), controls=())


def test_better_than_real_is_suspicious_and_a_copycat_is_named() -> None:
    assert "reason to look for copied training images" in said(*both(9, 0.5))
    text = said(*both(9, 4), controls=(*CONTROLS, control("copycat")))
    assert "A copycat that returns training images scores 0.882" in text
    assert "copycat" not in said(*both(9, 0.5), controls=(*CONTROLS, control("copycat", fd=50.0)))


def test_speed_is_a_factor_too() -> None:
    text = said(record("gan", 1, rate=300), record("diffusion", 1, rate=10))
    assert (
        "gan samples fastest: 300 images/s, 30 times the rate of the slowest, diffusion (10.0 images/s)."
        in text
    )
    assert "diffusion, with the lowest distance, needs 30 times as long per image." in text
    assert "It is also the one with the lowest distance." in said(
        record("gan", 1), record("diffusion", 1, rate=1e6)
    )


def test_likelihoods_and_the_reason_of_a_missing_one() -> None:
    text = said(*(record(model, 1) for model in ("gan", "diffusion", "vqvae")))
    assert "diffusion 3.10 (elbo), vqvae 3.40 (two-part code)" in text
    assert "different kinds are not ranked" in text
    assert f"gan has no likelihood: {GAN_REASON}." in text


def test_one_seed_is_hedged_and_three_are_not() -> None:
    assert "Every model was trained with one seed only" in said(*both(9, 2))
    seeds = [record(model, seed) for model in ("gan", "diffusion") for seed in range(3)]
    assert "one seed only" not in said(*seeds)
    assert "vqvae was trained with one seed only" in said(*seeds, record("vqvae", 0))


def test_unequal_compute_is_said() -> None:
    gan, diffusion = both(9, 2)
    assert "Training compute was not equal" not in said(gan, diffusion)
    cheap = replace(gan, budget=Budget(1e12, 100, 10))
    assert "Training compute was not equal: the largest is 3 times the smallest." in said(cheap, diffusion)


def test_another_winner_in_another_metric_is_said() -> None:
    gan, diffusion = both(9, 2)
    diffusion = replace(diffusion, metrics=diffusion.metrics | {"recall": metric(0.1, up=True)})
    assert "Not every metric names the same model: gan is separably best in recall." in said(gan, diffusion)


def test_a_single_model_is_not_called_the_best() -> None:
    text = said(record("gan", 1))
    assert "only gan has been measured, so there is nothing to choose between" in text
    assert "lowest" not in text and "fastest" not in text


def test_no_distance_at_all() -> None:
    lost = metric(None, n=0, reason="no extractor for this dataset")
    records = [replace(record(m, 1), metrics={"fd_digits": lost}) for m in ("gan", "vqvae")]
    assert "(no extractor for this dataset), so image quality is not ranked" in said(*records, controls=())


@pytest.mark.parametrize("name", ["diffusion", "gan", "vqvae"])
def test_no_model_is_known_by_name(name: str) -> None:
    made = record(name, 1)
    assert said(replace(made, model="zebra")) == said(made).replace(name, "zebra")
