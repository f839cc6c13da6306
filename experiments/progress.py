"""Progress: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import progress as bars
from rich.console import Console

if TYPE_CHECKING:
    from experiments.training import StagePlan

PLAIN_LINES = 10


def duration(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Stage, images seen, share of the budget, losses, images per second and time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: bars.Progress | None = None

    def warn(self, message: str) -> None:
        """One sentence that the user must see."""
        self.console.print(f"warning: {message}", style="yellow", highlight=False, soft_wrap=True)

    def start(self, plan: StagePlan) -> None:
        """A stage begins."""
        self.plan, self.shown = plan, 0
        if self.console.is_terminal:
            self.bar = bars.Progress(
                bars.TextColumn("{task.description}"), bars.BarColumn(bar_width=5), bars.TaskProgressColumn(),
                bars.TextColumn("{task.fields[text]}"), console=self.console,
            )
            self.task = self.bar.add_task(plan.name, total=plan.steps, text="")
            self.bar.start()

    def update(self, done: int, losses: dict[str, float], seconds: float) -> None:
        """``done`` steps of the stage took ``seconds``."""
        rate = done / max(seconds, 1e-9)
        left = duration((self.plan.steps - done) / rate)
        loss = " ".join(f"{name} {value:.3g}" for name, value in sorted(losses.items()))
        images = done * self.plan.batch_size
        text = f"{images:,} img  {loss}  {rate * self.plan.batch_size:,.0f} img/s  {left} left"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, text=text)
        elif done * PLAIN_LINES // self.plan.steps > self.shown:
            self.shown = done * PLAIN_LINES // self.plan.steps
            share = f"{done / self.plan.steps:4.0%}"
            self.console.print(f"{self.plan.name}  {share}  {text}", highlight=False, soft_wrap=True)

    def finish(self) -> None:
        """The stage is over, or something went wrong: give the terminal back."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
