"""Being asked to end, by SIGTERM or Ctrl-C: raised wherever the program is, and not lost on its way out.

Two things lose what a signal raises. Python drops it inside a destructor, and a library in another
language that calls Python raises an error of its own instead (``torch.save`` does). So the former is
asked again, and whoever turns any error into a sentence calls ``end_if_asked`` first. Imports no torch.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

INTERRUPTED, TERMINATED = 130, 143  # exit codes, by custom 128 and the signal's number
AGAIN_SECONDS = 0.01

_asked: int | None = None  # the signal that came


class Terminated(SystemExit):
    """SIGTERM came, as schedulers send it before they kill; what is on disk can be resumed at any moment."""


def end_if_asked() -> None:
    """Raise what a signal has raised before, if one came."""
    if _asked == signal.SIGTERM:
        raise Terminated(TERMINATED)
    if _asked == signal.SIGINT:
        raise KeyboardInterrupt


def _handle(number: int, frame: FrameType | None) -> None:
    global _asked
    if number != signal.SIGALRM:
        _asked = number
    while frame is not None:
        if frame.f_code is _Dropped.__call__.__code__:  # where it would be dropped once more
            _Dropped.ask_again()
            return
        frame = frame.f_back
    end_if_asked()


class _Dropped:
    """The hook for errors that Python drops: ours comes again a moment later, by a timer.

    A thread would do, but starting one takes locks that the interrupted code may hold.
    """

    def __init__(self, report: Callable[[Any], object]) -> None:
        self.report = report
        self.alarm: Any = None  # the handler before ours, once that is needed

    def __call__(self, dropped: Any) -> None:
        if _asked is None or not isinstance(dropped.exc_value, Terminated | KeyboardInterrupt):
            self.report(dropped)
            return
        if self.alarm is None:
            self.alarm = signal.signal(signal.SIGALRM, _handle)
        self.ask_again()

    @staticmethod
    def ask_again() -> None:
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)

    def restore(self) -> None:
        sys.unraisablehook = self.report
        if self.alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.alarm)


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """Let SIGTERM end what runs inside as Ctrl-C does: children are ended, files closed, locks freed."""
    global _asked
    if threading.current_thread() is not threading.main_thread():  # only the main one is told of signals
        yield
        return
    _asked = None
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _handle)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the shell or the caller has other plans
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _handle)
    hook = sys.unraisablehook = _Dropped(sys.unraisablehook)
    try:
        yield
        end_if_asked()  # a command that took it for an error of its own
    except Exception:
        end_if_asked()
        raise
    finally:
        hook.restore()
        for which, handler in before.items():
            signal.signal(which, handler)
        _asked = None
