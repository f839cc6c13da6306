"""How busy training keeps the machine: counted FLOPs per second of every stage against the matrix-product peak.

    python -m tests.benchmarks.bench_training [--data fashion_mnist] [--steps 30]

Every stage runs with its preset under the Trainer and the callback of the project's runner (data order,
schedules, moving average, log), on the dataset's images or, without them, on noise of their shape. The
first steps are not counted, nor are checkpoints, of which a whole run writes twenty per stage. The peak
is measured before and after; the higher counts. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import models
from datamodules.base import DataNotFoundError, DatasetInfo
from datamodules.module import StepDataModule
from evaluation.speed import matmul_peak
from experiments.discovery import dataset_module, dataset_names, model_names, preset_module
from experiments.progress import Progress
from experiments.stage_log import StageLog
from experiments.training import QUIET, StageLoop, StagePlan, plan_stage, precompute, quiet_lightning
from models.base import Stage

BARS = {"diffusion": 0.50, "gan": 0.35}  # least share of the peak
SYNTHETIC_IMAGES = 4096
WARM_UP = 5
LOG_EVERY = 50  # of the thousands of steps of a run the log keeps 200


@dataclass(frozen=True)
class Measured:
    """One stage's speed."""

    model: str
    stage: str
    parameters: int
    flops_per_image: float
    images_per_second: float

    @property
    def flops_per_second(self) -> float:
        """Counted FLOPs of the steps over their time."""
        return self.flops_per_image * self.images_per_second


class Clock(Callback):
    """Notes the time after every step."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, stage: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.times[batch_idx + 1] = time.perf_counter()


def training_data(dataset: str) -> tuple[DatasetInfo, dict[str, torch.Tensor], str]:
    """The dataset's training images, or noise of the same shape, and which of the two it is."""
    module = dataset_module(dataset)
    info = module.INFO
    try:
        train = module.load(module.Config()).train
        return info, {"image": torch.from_numpy(train.images), "label": torch.from_numpy(train.labels)}, dataset
    except DataNotFoundError:
        shape = (SYNTHETIC_IMAGES, info.channels, info.image_size, info.image_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8)
        labels = torch.arange(SYNTHETIC_IMAGES) % info.num_classes
        return info, {"image": images, "label": labels}, f"noise of the shape of {dataset}"


def stages_of(name: str, info: DatasetInfo, columns: dict[str, torch.Tensor], steps: int) -> Iterator[Measured]:
    """Train ``steps`` steps of every stage of a model's preset and measure them."""
    shape = (info.channels, info.image_size, info.image_size)
    arguments = asdict(preset_module(name).preset(info))
    model = models.model_class(name)(image_shape=shape, num_classes=info.num_classes, **arguments)
    for stage in model.stages():
        plan = plan_stage(stage, columns, 0.0)
        total = WARM_UP + steps
        plan = replace(plan, steps=total, precompute_images=total * plan.batch_size if plan.precompute_flops else 0)
        clock = Clock()
        data = StepDataModule(
            precompute(stage, columns, plan, 0), batch_size=plan.batch_size, steps=total, chunk=total, seed=0
        )
        fit(stage, data, plan, clock)
        seconds = clock.times[plan.steps] - clock.times[WARM_UP]
        parameters = sum(p.numel() for n, p in stage.named_parameters() if not n.startswith("ema."))
        yield Measured(
            name, stage.name, parameters, plan.step_flops / plan.batch_size, steps * plan.batch_size / seconds
        )


def fit(stage: Stage, data: StepDataModule, plan: StagePlan, clock: Clock) -> None:
    """Train a stage as the runner does, its log included, without checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        log, progress = StageLog(Path(folder) / "log"), Progress(Console(file=io.StringIO()))
        progress.start(plan.name, plan.steps, plan.batch_size)
        loop = StageLoop(plan, plan.steps, 0, progress, log, data.columns.columns)
        loop.log_every = LOG_EVERY
        trainer = pl.Trainer(
            max_epochs=1, logger=log, log_every_n_steps=loop.log_every, enable_checkpointing=False,
            callbacks=[loop, clock], plugins=[LightningEnvironment()], default_root_dir=folder, **QUIET,
        )
        trainer.fit(stage, datamodule=data)


def table_of(rows: list[Measured], peak: float) -> Table:
    """One row per stage."""
    names = ("model", "stage", "parameters", "MFLOP/image", "images/s", "GFLOP/s", "peak GFLOP/s", "share")
    table = Table(*names, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(
            row.model, row.stage, f"{row.parameters:,}", f"{row.flops_per_image / 1e6:,.1f}",
            f"{row.images_per_second:,.0f}", f"{row.flops_per_second / 1e9:.1f}", f"{peak / 1e9:.1f}",
            f"{row.flops_per_second / peak:.0%}",
        )  # fmt: skip
    return table


def verdict(rows: list[Measured], peak: float) -> str:
    """One sentence on the bars."""
    said = []
    for model, bar in BARS.items():
        shares = [row.flops_per_second / peak for row in rows if row.model == model]
        if shares:
            word = "reaches" if min(shares) >= bar else "misses"
            said.append(f"{model} {word} its bar of {bar:.0%} with {min(shares):.0%}")
    return "; ".join(said) + "." if said else "No model with a bar was measured."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion_mnist", choices=dataset_names())
    parser.add_argument("--steps", type=int, default=30, help="timed steps per stage")
    parser.add_argument("--models", nargs="+", default=model_names(), choices=model_names())
    options = parser.parse_args()
    if not 1 <= options.steps <= 150:
        parser.error(f"--steps must be from 1 to 150, not {options.steps}")
    quiet_lightning()
    console = Console(width=110)
    info, columns, source = training_data(options.data)
    before = matmul_peak()
    rows = [row for name in options.models for row in stages_of(name, info, columns, options.steps)]
    peak = max(before, matmul_peak.__wrapped__())
    console.print(f"{source}, {options.steps} steps a stage, {torch.get_num_threads()} threads", highlight=False)
    console.print(table_of(rows, peak))
    console.print(verdict(rows, peak), highlight=False)


if __name__ == "__main__":
    main()
