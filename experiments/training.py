"""The one runner that trains any list of stages within a budget of FLOPs.

The cost of a step is counted on one real step of every stage (forward, backward, penalties, all
networks) with ``torch.utils.flop_counter`` and turned into a number of steps; what a frozen stage
produces for the next is computed once per image and counted too. A Lightning epoch is a chunk of
steps, at whose end a checkpoint is written; noise and data order are functions of the step, so a
resumed run does what the uninterrupted one would have done.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from datamodules.module import StepDataModule, stream_indices
from evaluation.sharing import in_turns
from experiments.checkpoints import AtomicCheckpointIO, KeepCheckpoints, newest_fitting, weights_digest
from experiments.config import TrainerConfig
from experiments.distributed import on_main, trainer_options
from experiments.ending import TERMINATED
from experiments.progress import Progress
from experiments.seeds import axis_seed
from experiments.stage_log import Rows, StageLog
from models.base import GenerativeModel, Stage, alone, processes
from models.flops import FlopCounter

CHUNKS = 20  # checkpoints per stage
LOG_LINES = 200  # rows of the training log per stage
LOOKS = 20  # at most, per stage
STEPS_BETWEEN_LOOKS = 50  # at least: a look that costs no more than a step then takes 2 % of the time at most
PRECOMPUTE_BATCH = 500
ALONE = TrainerConfig()

QUIET: dict[str, Any] = {
    "accelerator": "auto", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False,
    "num_sanity_val_steps": 0, "limit_val_batches": 0, "use_distributed_sampler": False,
}


def plugins(config: TrainerConfig) -> list[Any]:
    """Checkpoints of our own; one process alone is told so, or inside a Slurm job Lightning would count that job's
    tasks and answer its signals."""
    return [AtomicCheckpointIO()] if config.processes > 1 else [AtomicCheckpointIO(), LightningEnvironment()]



class TrainingError(RuntimeError):
    """Training cannot go on; the message is one sentence."""


@dataclass(frozen=True)
class StagePlan:
    """How many steps a stage may take; FLOPs are per step, and per image for what is precomputed."""

    name: str
    batch_size: int
    steps: int
    step_flops: float
    precompute_flops: float
    precompute_images: int

    @property
    def flops(self) -> float:
        """Everything the stage will run."""
        return self.steps * self.step_flops + self.precompute_images * self.precompute_flops


@dataclass(frozen=True)
class StageResult:
    """What a stage did, and the rows of its training log."""

    plan: StagePlan
    seconds: float
    rows: Rows


def plan_steps(
    budget: float, step_flops: float, precompute_flops: float, batch_size: int, num_images: int
) -> tuple[int, int]:
    """Steps within a budget, and how many distinct images must be precomputed for them; at least one step."""
    steps = int(budget / (step_flops + batch_size * precompute_flops))  # every image is new
    if steps * batch_size >= num_images:  # every image has been seen; more steps cost no more of them
        steps = int((budget - num_images * precompute_flops) / step_flops)
    steps = max(steps, 1)
    return steps, min(steps * batch_size, num_images) if precompute_flops else 0


class _CountFlops(Callback):
    """Counts one training step, from the batch's arrival to its end."""

    def on_train_batch_start(self, trainer: pl.Trainer, stage: Any, batch: Any, batch_idx: int) -> None:
        stage.set_progress(0.0)
        self.counter = FlopCounter()
        self.counter.__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, stage: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.counter.__exit__(None, None, None)


@contextlib.contextmanager
def _ended_as_asked() -> Iterator[None]:
    """What Lightning makes of a signal, in the terms of everybody else."""
    try:
        yield
    except SIGTERMException:  # nobody else in this process listens to SIGTERM
        raise SystemExit(TERMINATED) from None
    except SystemExit as error:
        if error.code == 1:  # Lightning answers Ctrl-C with an exit of its own
            raise KeyboardInterrupt from None
        raise


def plan_stage(stage: Stage, columns: dict[str, Tensor], budget: float) -> StagePlan:
    """Count one step of a stage (whose weights are spent on it) and plan the rest."""
    batch = {name: column[: stage.batch_size] for name, column in columns.items()}
    n = len(batch["image"])
    with FlopCounter() as frozen, torch.no_grad():
        batch |= stage.precompute(batch["image"])
    if n < stage.batch_size:
        raise TrainingError(f"the batch size {stage.batch_size} is larger than the training set of {n} images")
    counter = _CountFlops()
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[counter], plugins=[LightningEnvironment()],
        **QUIET,
    )
    data = StepDataModule(batch, batch_size=n, steps=1, chunk=1, seed=0)
    seed_libraries(0)  # a step whose cost depends on its noise costs the same in every plan
    with _ended_as_asked():
        trainer.fit(stage, datamodule=data)
    step_flops = float(counter.counter.get_total_flops())
    per_image = frozen.get_total_flops() / n
    steps, images = plan_steps(stage.share * budget, step_flops, per_image, n, len(columns["image"]))
    return StagePlan(stage.name, n, steps, step_flops, per_image, images)


def shared_plans(
    build: Callable[[], GenerativeModel], columns: dict[str, Tensor], budget: float, trainer: TrainerConfig
) -> list[StagePlan]:
    """The plans of all stages, made by one process for all: they are those of whole batches."""

    def plan() -> list[dict[str, Any]]:
        stages = build().stages()
        reasons = (trainer.refusal(stage.batch_size) for stage in stages)
        if reason := next(filter(None, reasons), None):
            raise TrainingError(reason)
        with alone():
            return [asdict(plan_stage(stage, columns, budget)) for stage in stages]

    return [StagePlan(**found) for found in on_main(plan)]


class StageLoop(Callback):
    """What happens around every step: seed, schedules, moving average, log, looks, progress, time."""

    def __init__(
        self, plan: StagePlan, chunk: int, seed: int, progress: Progress, log: StageLog, columns: dict[str, Tensor]
    ) -> None:
        self.plan, self.chunk, self.seed, self.progress, self.lines = plan, chunk, seed, progress, log
        self.columns = columns
        self.seconds = 0.0
        self.log_every = max(1, plan.steps // LOG_LINES)
        self.look_every = look_every(plan.steps, self.log_every)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "rows": self.lines.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = float(state_dict["seconds"])
        self.lines.restore(state_dict["rows"])

    def step(self, trainer: pl.Trainer, batch_idx: int) -> int:
        return trainer.current_epoch * self.chunk + batch_idx

    def is_logged(self, done: int) -> bool:
        """Whether the log keeps the step after which so many are done."""
        return done % self.log_every == 0 or done == self.plan.steps

    def on_train_epoch_start(self, trainer: pl.Trainer, stage: Any) -> None:
        self.started = time.perf_counter() - self.seconds

    def on_train_batch_start(self, trainer: pl.Trainer, stage: Any, batch: Any, batch_idx: int) -> None:
        step = self.step(trainer, batch_idx)
        seed_libraries(axis_seed(self.seed, "training noise", self.plan.name, step))
        stage.set_progress((step + 0.5) / self.plan.steps)  # the middle: even a first step moves
        stage.quiet = not self.is_logged(step + 1)

    def on_train_batch_end(self, trainer: pl.Trainer, stage: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        stage.ema.update(stage.network)
        done = self.step(trainer, batch_idx) + 1
        if self.is_logged(done):
            stage.log("images_seen", float(done * self.plan.batch_size))
            stage.log("flops", done * self.plan.step_flops)
            if done % self.look_every == 0:
                self.look(stage, done)
            values = {k: float(v) for k, v in trainer.callback_metrics.items()}
            losses = {k: v for k, v in values.items() if k.endswith("loss")}
            check_finite(losses | {k: v for k, v in values.items() if k.endswith("grad_norm")}, self.plan.name, done)
            if reason := stage.trouble(values):
                raise TrainingError(f"training stopped at step {done} of stage {self.plan.name}: {reason}")
            self.progress.update(done, losses, time.perf_counter() - self.started)

    def look(self, stage: Stage, done: int) -> None:
        """A row of its own: Lightning would repeat the values in the rows of the steps that come after."""
        if found := stage.look(self.columns["image"], self.columns["label"]):
            where = {"images_seen": float(done * self.plan.batch_size), "flops": done * self.plan.step_flops}
            self.lines.log_metrics(where | found, done - 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, stage: Any) -> None:
        self.seconds = time.perf_counter() - self.started


def look_every(steps: int, log_every: int) -> int:
    """Steps from one look to the next, of the steps that are logged: a function of the plan, so resuming is exact."""
    least = max(math.ceil(steps / LOOKS), STEPS_BETWEEN_LOOKS)
    return math.ceil(least / log_every) * log_every


def seed_libraries(seed: int) -> None:
    """Put every global generator, of Python, NumPy and torch on all devices, where a 63-bit seed says."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Without an accelerator torch.manual_seed would keep a stack trace of every step for the day that there is one.
    seed_torch = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
    seed_torch(seed)


def check_finite(values: dict[str, float], stage: str, step: int) -> None:
    """Raise ``TrainingError`` if a loss, or the norm of gradients, is not a finite number."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(f"training diverged: {name} became {value} at step {step} of stage {stage}")


def precompute(stage: Stage, columns: dict[str, Tensor], plan: StagePlan, seed: int) -> dict[str, Tensor]:
    """What frozen parts make of the images the stage will see; rows it will not see stay zero."""
    if plan.precompute_images == 0:
        return columns
    images = columns["image"]
    seen = stream_indices(len(images), 0, plan.steps * plan.batch_size, seed)[: plan.precompute_images]
    extra: dict[str, Tensor] = {}
    batches = torch.from_numpy(seen).split(PRECOMPUTE_BATCH)
    with torch.no_grad():
        made = in_turns(batches, lambda rows: stage.precompute(images[rows]), for_all=True)
    for rows, found in zip(batches, made, strict=True):
        for name, values in found.items():
            column = extra.setdefault(name, values.new_zeros(len(images), *values.shape[1:]))
            column[rows] = values
    return columns | extra


def train_stage(
    stage: Stage, columns: dict[str, Tensor], plan: StagePlan, folder: Path, *, position: int, seed: int,
    progress: Progress, start: str = "", trainer_config: TrainerConfig = ALONE,
) -> StageResult:
    """Train (or go on training) one stage; its averaged weights are in place afterwards.

    ``start`` names the weights of the whole model that the stage starts from.
    """
    chunk = math.ceil(plan.steps / CHUNKS)
    order_seed = axis_seed(seed, "data order")
    where = folder / "checkpoints" / f"{position}-{stage.name}"
    belongs_to = asdict(plan) | {"seed": seed, "start": start}
    newest = on_main(lambda: str(newest_fitting(where, belongs_to, progress.warn) or ""))
    log = StageLog(folder / "logs" / f"{position}-{stage.name}")
    on_main(log.clear)
    loop = StageLoop(plan, chunk, seed, progress, log, columns)
    trainer = pl.Trainer(
        max_epochs=math.ceil(plan.steps / chunk), callbacks=[loop, KeepCheckpoints(where, belongs_to)],
        plugins=plugins(trainer_config), logger=log,
        log_every_n_steps=loop.log_every, reload_dataloaders_every_n_epochs=1, default_root_dir=folder,
        **QUIET | trainer_options(trainer_config),
    )
    progress.start(plan.name, plan.steps, plan.batch_size)
    seed_libraries(axis_seed(seed, "training noise", plan.name, "before"))
    data = StepDataModule(
        precompute(stage, columns, plan, order_seed), batch_size=plan.batch_size, steps=plan.steps, chunk=chunk,
        seed=order_seed, share=processes(),
    )
    with _ended_as_asked():
        trainer.fit(stage, datamodule=data, ckpt_path=newest or None, weights_only=True)
    stage.finish()
    progress.finish()
    return StageResult(plan, loop.seconds, log.rows)


def train(
    build: Callable[[], GenerativeModel], images: Tensor, labels: Tensor, folder: Path, *, budget: float, seed: int,
    progress: Progress, trainer: TrainerConfig = ALONE,
) -> tuple[GenerativeModel, list[StageResult]]:
    """Train all stages of a model within ``budget`` FLOPs, going on where a former run stopped.

    Args:
        build: Makes the untrained model.
        images: uint8 (N, C, H, W) with ``labels`` int64 (N,).
        folder: The cell's folder, for checkpoints and logs.
        budget: Training FLOPs over all stages.
        seed: The cell's seed.
        progress: Where progress is shown.
        trainer: By how many processes, which have met (``experiments.distributed.joined``).

    Raises:
        TrainingError: if a loss is not finite, a stage sees itself fail, the data is too small or a batch cannot
            be shared.
    """
    quiet_lightning()
    columns = {"image": images, "label": labels}
    plans = shared_plans(build, columns, budget, trainer)
    seed_libraries(axis_seed(seed, "initialisation"))
    model = build()
    model.measure(images)
    on_main(lambda: remove_other_stages(folder, plans))
    results = [
        train_stage(stage, columns, plan, folder, position=i, seed=seed, progress=progress,
                    start=weights_digest(model), trainer_config=trainer)
        for i, (stage, plan) in enumerate(zip(model.stages(), plans, strict=True))
    ]
    return model.eval(), results


def remove_other_stages(folder: Path, plans: list[StagePlan]) -> None:
    """Delete what a former run left of stages that the model does not have now."""
    names = {f"{i}-{plan.name}" for i, plan in enumerate(plans)}
    for path in (*(folder / "checkpoints").glob("*-*"), *(folder / "logs").glob("*-*")):
        if path.is_dir() and path.name not in names:
            shutil.rmtree(path)


def quiet_lightning() -> None:
    """Silence notices that tell a user of this program nothing."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*(lr_scheduler|treespec|isinstance).*")
