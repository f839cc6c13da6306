"""A signal that asks to end is obeyed wherever it comes, also where Python or a library drops what it raises."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments import checkpoints, cli, ending, training
from experiments.ending import end_if_asked, ending_cleanly
from tests.experiments.killing import arguments_of, folder_of

RESUME = "interrupted; run the same command again to resume\n"
SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


def work_until_asked() -> int:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        time.sleep(0.001)
    return 0


def in_a_destructor(number: int) -> int:
    class Dropping:
        def __del__(self) -> None:
            signal.raise_signal(number)

    Dropping()  # whose reference is gone at once
    return work_until_asked()


def in_a_library(number: int) -> int:
    class Buffer(io.BytesIO):
        def write(self, data: object) -> int:
            signal.raise_signal(number)
            raise AssertionError("the signal was not heard")

    with pytest.raises(RuntimeError, match="enforce fail"):
        torch.save({"a": torch.zeros(3)}, Buffer())
    return 0  # as a command that goes on to its next item


def in_an_error(number: int) -> int:
    try:
        signal.raise_signal(number)
    except BaseException:
        raise ValueError("a mask") from None
    return 0


@pytest.mark.parametrize("command", [in_a_destructor, in_a_library, in_an_error])
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_heard_wherever_it_comes(
    command: Callable[[int], int],
    number: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "_dispatch", lambda argv: command(number))
    before = signal.getsignal(number)
    start = time.monotonic()
    assert cli.main([]) == code
    assert time.monotonic() - start < 5
    assert capsys.readouterr().err == RESUME
    assert signal.getsignal(number) is before
    end_if_asked()  # nothing is asked any more


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_heard_once_more_where_it_would_be_dropped_again(
    number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask_again, asked = ending._Dropped.ask_again, []

    def another() -> None:
        asked.append(number)
        if len(asked) == 1:
            signal.raise_signal(number)  # inside the hook, from which nothing is raised
        else:
            ask_again()

    monkeypatch.setattr(ending._Dropped, "ask_again", staticmethod(another))
    monkeypatch.setattr(cli, "_dispatch", lambda argv: in_a_destructor(number))
    before = signal.getsignal(signal.SIGALRM)
    assert cli.main([]) == code
    assert capsys.readouterr().err == RESUME and len(asked) >= 2
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_errors_without_a_signal_are_what_they_were() -> None:
    with pytest.raises(ValueError, match="plain"), ending_cleanly():
        raise ValueError("plain")


def ended_cleanly(out: Path, err: str) -> bool:
    folder = folder_of("gan", out)
    left = [(folder / name).exists() for name in ("config.json", "failure.json", "lock.json")]
    return err == RESUME and left == [True, False, False]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_while_a_checkpoint_is_saved(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Buffer(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 1000:
                signal.raise_signal(number)
            return super().write(data)

    monkeypatch.setattr(checkpoints, "io", SimpleNamespace(BytesIO=Buffer))
    assert cli.main(arguments_of("gan", tmp_path)) == code
    assert ended_cleanly(tmp_path, capsys.readouterr().err)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_while_the_cost_of_a_step_is_counted(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training._CountFlops, "on_train_batch_end", lambda *args: signal.raise_signal(number))
    assert cli.main(arguments_of("gan", tmp_path)) == code
    assert ended_cleanly(tmp_path, capsys.readouterr().err)
