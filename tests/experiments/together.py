"""What every process of the tests of several processes does; started by torchrun with the folder for its findings.

``python -m tests.experiments.together checks FOLDER`` compares what they find, ``... dies FOLDER`` trains
and is killed in the middle.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import models
from datamodules import digits
from evaluation.config import EvaluationConfig
from evaluation.runner import Answers, answer
from evaluation.sharing import tell, total
from experiments import launch, training
from experiments.config import TrainerConfig
from experiments.discovery import model_names
from experiments.distributed import joined
from models.base import Stage, alone, own_rows, processes
from models.diffusion.proposal import NUM_BINS, LearnedProposal
from models.gan import family, likelihood
from models.vqvae.ema import EMACodebook
from tests.models.tiny import budget_for, randomised, silent, tiny_config, tiny_data, tiny_model

STEPS = 24
KILLED, DEADLY_STAGE, DEADLY_STEP = "vqvae", "prior", 13
EXAM = EvaluationConfig(num_samples=21, num_likelihood_images=7, num_slow_likelihood_images=0, batch_size=4)
SLOW = {"gan": 3}  # images of a likelihood that takes long; the others have a quick one or the same


def columns() -> dict[str, torch.Tensor]:
    images, labels = tiny_data()
    return {"image": images, "label": labels}


def gradients(name: str, position: int, folder: Path, trainer: TrainerConfig) -> list[torch.Tensor]:
    """The gradients of one step of a stage, one vector for each optimiser's step, through the real runner."""
    model = randomised(tiny_model(name)).train()
    stage = model.stages()[position]
    found: list[torch.Tensor] = []

    def look(optimizer: torch.optim.Optimizer) -> None:
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        found.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))

    plan = training.StagePlan(stage.name, stage.batch_size, 1, 1.0, 1.0, 8 if stage.name == "prior" else 0)
    stage.on_before_optimizer_step = look  # Lightning's hook, called before every optimiser's step
    training.train_stage(
        stage, columns(), plan, folder, position=position, seed=5, progress=silent(), trainer_config=trainer
    )
    return found


def all_gradients(folder: Path, trainer: TrainerConfig) -> dict[str, list[torch.Tensor]]:
    """Of every stage of every model."""
    training.quiet_lightning()
    return {
        f"{name} {i}": gradients(name, i, folder / f"{name} {i}", trainer)
        for name in model_names() for i in range(len(tiny_model(name).stages()))
    }  # fmt: skip


def train(name: str, folder: Path, trainer: TrainerConfig) -> dict[str, torch.Tensor]:
    """The weights that the real runner ends with."""
    model, _ = training.train(
        lambda: tiny_model(name, int(torch.initial_seed() % 2**32)), *tiny_data(), folder,
        budget=BUDGETS[name], seed=3, progress=silent(), trainer=trainer,
    )
    return model.state_dict()


def digits_model(name: str) -> Any:
    """A model of digits with noise on its weights."""
    torch.manual_seed(0)
    config = vars(tiny_config(name, digits.INFO))
    return randomised(models.model_class(name)(image_shape=(1, 8, 8), num_classes=10, **config))


def plain(answers: Answers) -> list[Any]:
    """Answers as text and bytes, which are equal if all is equal."""
    bounds = [(repr(b.likelihood), b.log_likelihood.tobytes(), b.images.tobytes()) for b in answers.bounds]
    return [answers.generated.images.tobytes(), answers.generated.images.shape, *bounds]


def same_answers(name: str) -> bool:
    """Whether the first process has, bit by bit, what it finds alone."""
    dataset, seeds = digits.load(digits.Config()), {"samples": 1, "likelihood": 2}
    exam = replace(EXAM, num_slow_likelihood_images=SLOW.get(name, 0), batch_size=2 if name in SLOW else 4)
    together = answer(digits_model(name), dataset, exam, seeds=seeds)
    if processes()[0] > 0:
        return True
    with alone():
        return plain(answer(digits_model(name), dataset, exam, seeds=seeds)) == plain(together)


def same_codes() -> bool:
    """Whether what a frozen stage makes is in every process what it makes alone."""
    stage: Stage = randomised(tiny_model("vqvae")).stages()[1]
    training.PRECOMPUTE_BATCH = 7
    plan = training.StagePlan(stage.name, 8, 99, 1.0, 1.0, 40)
    shared = training.precompute(stage, columns(), plan, 0)["indices"]
    with alone():
        return torch.equal(shared, training.precompute(stage, columns(), plan, 0)["indices"])


def same_proposal() -> bool:
    """Whether a proposal that is told this process's losses has learned from those of all."""
    draws = torch.Generator().manual_seed(0)
    log_sigma, losses = torch.randn(8, generator=draws), torch.rand(8, generator=draws)
    shared, whole = (LearnedProposal(-4.0, 4.0, torch.full((NUM_BINS,), 1 / NUM_BINS)) for _ in range(2))
    shared.learn(own_rows(lambda n: log_sigma, 4), own_rows(lambda n: losses, 4))
    with alone():
        whole.learn(log_sigma, losses)
    return torch.equal(shared.moment, whole.moment)


def same_codebook() -> bool:
    """Whether a codebook that sees this process's encodings has learned from those of all, its start included."""
    shared, whole = (EMACodebook(24, 4) for _ in range(2))
    for step in range(3):
        z_e = torch.randn(8, 4, 2, 3, generator=torch.Generator().manual_seed(step))
        torch.manual_seed(step)
        shared.quantize(own_rows(lambda n, z_e=z_e: z_e, 4))
        torch.manual_seed(step)
        with alone():
            whole.quantize(z_e)
    return all(torch.equal(value, whole.state_dict()[name]) for name, value in shared.state_dict().items())


def same_plans(name: str, trainer: TrainerConfig) -> bool:
    """Whether FLOPs and steps are those of one process."""
    plans = training.shared_plans(lambda: tiny_model(name), columns(), 1e9, trainer)
    with alone():
        return plans == [training.plan_stage(stage, columns(), 1e9) for stage in tiny_model(name).stages()]


def same_weights(weights: dict[str, torch.Tensor]) -> bool:
    """Whether every process has the weights of the first one."""
    first = tell({name: value.contiguous() for name, value in weights.items()})
    return all(torch.equal(value, first[name]) for name, value in weights.items())


def checks(folder: Path, trainer: TrainerConfig) -> dict[str, Any]:
    """All findings that need two processes at once."""
    names = model_names()
    found: dict[str, Any] = {"gradients": all_gradients(folder / "gradients", trainer)}
    found["plans"] = {name: same_plans(name, trainer) for name in names}
    found["codes"], found["proposal"], found["codebook"] = same_codes(), same_proposal(), same_codebook()
    found["answers"] = {name: same_answers(name) for name in names}
    found["resumed"] = train(KILLED, folder / "killed", trainer)
    found["whole"] = {name: train(name, folder / "whole" / name, trainer) for name in names}
    found["replicas"] = {name: same_weights(found["whole"][name]) for name in names}
    bad = [name for name in ("plans", "answers", "replicas") if not all(found[name].values())]
    bad += [name for name in ("codes", "proposal", "codebook") if not found[name]]
    found["disagreeing processes"] = total(float(bool(bad)))
    return found


def die_at(stage_name: str, step: int) -> None:
    """Let the second process be killed when it begins a step of a stage."""
    begin = training.StageLoop.on_train_batch_start

    def deadly(self: Any, trainer: Any, stage: Any, batch: Any, batch_idx: int) -> None:
        if (stage.name, self.step(trainer, batch_idx), processes()[0]) == (stage_name, step, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        begin(self, trainer, stage, batch, batch_idx)

    training.StageLoop.on_train_batch_start = deadly


def main(mode: str, folder: Path) -> None:
    likelihood.TEMPERATURES, likelihood.TUNING_TEMPERATURES = 6, 3
    family.CHECKED_IMAGES = 2
    torch.set_num_threads(1)
    trainer = TrainerConfig(devices=launch.torchrun_processes())
    with joined(trainer):
        if mode == "checks":
            found = checks(folder, trainer)
            if processes()[0] == 0:
                torch.save(found, folder / "found.pt")
            return
        die_at(DEADLY_STAGE, DEADLY_STEP)
        train(KILLED, folder / "killed", trainer)


BUDGETS = {name: budget_for(name, STEPS) for name in model_names()}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
