"""First stages through the real runner: every quantiser, its log and its resume; and the adversarial option."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from experiments.checkpoints import save_checked
from experiments.engine import run_cell
from experiments.stage_log import LOG_FILE, write_log
from experiments.training import plan_stage, quiet_lightning, train
from models import FORMAT, load
from models.base import GenerativeModel, to_float
from models.vqvae import adversarial
from models.vqvae.adversarial import AdversarialAutoencoderStage, PatchDiscriminator, feature_distance, hinge_loss
from models.vqvae.autoencoder import AutoencoderStage
from models.vqvae.ema import EMACodebook
from tests.experiments import grids
from tests.experiments.test_checkpoints import Interrupted, Stopping
from tests.models.tiny import SHAPE, assert_same_weights, budget_for, randomised, silent, tiny_data, tiny_model

QUANTIZERS = ["fsq", "ema", "original", "rotation"]


def trained(name: str, folder: Path, progress: Any = None, steps: int = 24, **changes: Any) -> GenerativeModel:
    """A tiny model from the real runner; the log is beside it."""
    model, results = train(
        lambda: tiny_model(name, int(torch.initial_seed() % 2**32), **changes), *tiny_data(), folder,
        budget=budget_for(name, steps), seed=3, progress=progress or silent(),
    )  # fmt: skip
    write_log(folder / LOG_FILE, [(result.plan.name, result.rows) for result in results])
    return model


def log_of(folder: Path) -> pd.DataFrame:
    log = pd.read_csv(folder / LOG_FILE)
    return log[log["stage"] == "autoencoder"]


@pytest.mark.parametrize(
    ("quantizer", "cosine"), [*((name, False) for name in QUANTIZERS), ("ema", True), ("rotation", True)]
)
def test_every_quantiser_trains_and_is_saved(quantizer: str, cosine: bool, tmp_path: Path) -> None:
    model = trained("vqvae", tmp_path, steps=50, quantizer=quantizer, cosine=cosine)
    log = log_of(tmp_path)
    assert log["loss"].tail(10).mean() < log["loss"].head(5).mean() - 0.1
    size = model.autoencoder.codebook_size
    assert ((log["codes_used"] + log["dead_codes"]) == size).all()
    assert (log["codes_used"] >= 1).all() and (log["perplexity"] <= log["codes_used"] + 1e-6).all()
    assert ("commitment_loss" in log) == (quantizer != "fsq") and ("codebook_loss" in log) == (quantizer == "original")
    images = tiny_data(8)[0]
    assert model.reconstruct(images).indices.max() < size
    content = {"format": FORMAT, "model": "vqvae", "hyper_parameters": dict(model.hparams)}
    save_checked(content | {"state_dict": model.state_dict()}, tmp_path / "model.ckpt")
    loaded = load(tmp_path / "model.ckpt")
    assert torch.equal(loaded.reconstruct(images).images, model.reconstruct(images).images)


@pytest.mark.parametrize(("name", "quantizer"), [("vqvae", "ema"), ("vqvae2", "rotation")])
def test_a_codebook_resumes_bit_by_bit(name: str, quantizer: str, tmp_path: Path) -> None:
    options = {"quantizer": quantizer, "codebook_size": 40}  # too many for tiny data, so that some are replaced
    whole = trained(name, tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        trained(name, tmp_path / "other", Stopping(17, 0), **options)
    assert_same_weights(whole.state_dict(), trained(name, tmp_path / "other", **options).state_dict())
    pd.testing.assert_frame_equal(log_of(tmp_path / "whole"), log_of(tmp_path / "other"))


def test_the_second_stage_leaves_the_codebook_alone(tmp_path: Path) -> None:
    model = tiny_model("vqvae", quantizer="ema").train()
    before = {key: value.clone() for key, value in model.autoencoder.state_dict().items()}
    model.stages()[1].precompute(tiny_data(6)[0])
    assert_same_weights(before, model.autoencoder.state_dict())


def test_every_level_has_its_own_numbers(tmp_path: Path) -> None:
    trained("vqvae2", tmp_path, quantizer="ema")
    log = log_of(tmp_path)
    for level in ("_top", "_bottom"):
        assert ((log[f"codes_used{level}"] + log[f"dead_codes{level}"]) == 6).all()


def test_the_start_is_not_taken_for_a_step() -> None:
    """The cost of a step, counted on the first, is that of the others: k-means happens once."""
    quiet_lightning()
    columns = dict(zip(("image", "label"), tiny_data(), strict=True))

    def step_flops(started: bool) -> float:
        stage = tiny_model("vqvae", quantizer="ema").stages()[0]
        stage.network.quantizer.updates += int(started)
        return plan_stage(stage, columns, 1e9).step_flops

    assert step_flops(False) == step_flops(True)
    fsq = plan_stage(tiny_model("vqvae").stages()[0], columns, 1e9).step_flops
    assert step_flops(True) > fsq  # the codebook's own work is counted


def test_losses_of_the_discriminator_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    assert float(hinge_loss(real, fake)) == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1) / 2))
    a, b = [torch.zeros(2, 1), torch.ones(1, 2)], [torch.full((2, 1), 3.0), torch.ones(1, 2)]
    assert float(feature_distance(a, b)) == pytest.approx(9 / 2)
    logits, features = PatchDiscriminator(3, 8)(torch.randn(2, 3, 8, 12))
    assert logits.shape == (2, 1, 2, 3) and len(features) == 3


def test_a_patch_sees_its_neighbourhood_only() -> None:
    torch.manual_seed(0)
    network, x = PatchDiscriminator(1, 8), torch.zeros(1, 1, 32, 32)
    changed = x.clone()
    changed[..., 0, 0] = 1
    difference = (network(changed)[0] - network(x)[0]).abs()[0, 0]
    assert difference[0, 0] > 0 and (difference[4:] == 0).all() and (difference[:, 4:] == 0).all()


class Recorder(AdversarialAutoencoderStage):
    """Keeps the losses of both updates instead of a trainer's log."""

    def log(self, name: str, value: Any, **options: Any) -> None:
        self.__dict__.setdefault("seen", {})[name] = float(torch.as_tensor(value).detach())

    def optimizers(self) -> Any:
        return self.pair

    def manual_backward(self, loss: torch.Tensor) -> None:
        self.__dict__.setdefault("totals", []).append(float(loss.detach()))
        loss.backward()


def test_one_step_adds_both_weighted_terms_and_moves_both_networks() -> None:
    model = randomised(tiny_model("vqvae", adversarial=0.5, perceptual=2.0))
    stage = Recorder(
        model.autoencoder, model.discriminator, adversarial=0.5, perceptual=2.0, share=0.5, batch_size=8, lr=1e-3,
        ema_half_life=100.0,
    )  # fmt: skip
    stage.pair = stage.configure_optimizers()
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (model.autoencoder, model.discriminator)]
    stage.training_step({"image": tiny_data(8)[0]}, 0)
    seen = stage.seen
    expected = seen["loss"] + 0.5 * seen["g_loss"] + 2.0 * seen["feature_loss"]
    assert stage.totals == pytest.approx([seen["d_loss"], expected], rel=1e-5)
    for old, module in zip(before, (model.autoencoder, model.discriminator), strict=True):
        moved = [k for k, v in module.state_dict().items() if not torch.equal(v, old[k])]
        constant = {"head.bias"}  # within the margins it has no gradient: it cancels between real and fake
        assert set(moved) | constant == {name for name, _ in module.named_parameters()} | constant


@pytest.mark.parametrize("option", ["adversarial", "perceptual"])
def test_the_bound_is_given_up_and_the_reason_is_told(option: str) -> None:
    model, plain = tiny_model("vqvae", **{option: 0.1}), tiny_model("vqvae")
    assert model.likelihood_kinds == () and model.likelihood_missing == adversarial.REASON
    images = tiny_data(2)[0]
    assert model.log_likelihood_bound(images, generator=torch.Generator()) is None
    with pytest.raises(ValueError, match="unknown kind of likelihood 'two-part code'; allowed: none"):
        model.log_likelihood_bound(images, generator=torch.Generator(), kind="two-part code")
    assert type(model.stages()[0]) is AdversarialAutoencoderStage and type(plain.stages()[0]) is AutoencoderStage
    assert plain.likelihood_kinds == ("two-part code", "importance-weighted") and plain.discriminator is None


def test_a_cell_with_the_option_has_the_reason_in_its_record(tmp_path: Path) -> None:
    cell = grids.tiny_cell("vqvae", adversarial=0.1, perceptual=1.0, quantizer="ema")
    record = run_cell(replace(cell, budget=2e8), tmp_path, console=silent().console)
    assert record.likelihood.bits_per_dim is None and record.likelihood.reason_missing == adversarial.REASON
    log = pd.read_csv(grids.folder_of(cell, tmp_path) / LOG_FILE)
    assert {"d_loss", "g_loss", "feature_loss", "commitment_loss", "dead_codes"} <= set(log.columns)
    stages = {stage.name: stage.flops for stage in record.budget.stages}
    assert set(stages) == {"autoencoder", "prior"} and all(stages.values())


def test_an_adversarial_run_resumes_bit_by_bit(tmp_path: Path) -> None:
    options = {"adversarial": 0.1, "perceptual": 1.0, "quantizer": "ema"}
    whole = trained("vqvae", tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        trained("vqvae", tmp_path / "other", Stopping(13, 0), **options)
    assert_same_weights(whole.state_dict(), trained("vqvae", tmp_path / "other", **options).state_dict())


def test_averaging_the_weights_keeps_the_codebook_of_the_last_step() -> None:
    stage = tiny_model("vqvae", quantizer="ema").train().stages()[0]
    stage.network(to_float(tiny_data(8)[0]))
    stage.ema.update(stage.network)
    codebook = stage.network.quantizer.codebook.clone()
    stage.finish()
    assert isinstance(stage.network.quantizer, EMACodebook) and SHAPE == (1, 8, 8)
    assert torch.equal(stage.network.quantizer.codebook, codebook)
    assert int(stage.network.quantizer.updates) == 1
