"""What a sweep says while it runs: sentences and a bar with rate and time left, on stderr."""

import sys
from typing import Any

from basis_bt.sweeps.plan import Plan


class Progress:
    """The voice of one sweep; ``quiet`` says nothing. Where stderr is no terminal, only sentences appear."""

    def __init__(self, plan: Plan, *, quiet: bool) -> None:
        self.quiet, self.n_trials = quiet, plan.n_trials
        self._bar: Any = None
        self._task: Any = None

    def say(self, *sentences: str) -> None:
        """One line each."""
        if not self.quiet:
            for sentence in sentences:
                print(sentence, file=sys.stderr, flush=True)

    def start(self, *, n_done: int) -> None:
        """Begin the bar, some trials being there already."""
        if n_done:
            self.say(f"{n_done:,} of {self.n_trials:,} trials are there already")
        if self.quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} trials"), BarColumn(),
            TextColumn("{task.speed:,.0f}/s"), TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task("trials", total=self.n_trials, completed=n_done)

    def advance(self, n_trials: int) -> None:
        """Some trials are done."""
        if self._bar is not None:
            self._bar.advance(self._task, n_trials)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
