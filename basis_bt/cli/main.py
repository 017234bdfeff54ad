"""``basis-bt``: finds the verb, runs it, and turns every known error into one message and an exit code."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from basis_bt.cli._lazy import LazyGroup

#: verb -> module:attribute, and its line in ``basis-bt --help``
VERBS: dict[str, tuple[str, str]] = {
    "run": ("basis_bt.cli.run:command", "Run one backtest from a configuration and keep it in a run folder."),
    "sweep": ("basis_bt.cli.sweep:command", "Run every parameter set of a configuration, resumably."),
    "top": ("basis_bt.cli.top:command", "Show the best trials of a sweep, and run some of them again."),
    "luck": ("basis_bt.cli.luck:command", "Judge how much of a sweep's best result is luck."),
    "walk-forward": ("basis_bt.cli.walk_forward:command", "Re-optimise a sweep in each window, trade it in the next."),
    "ls": ("basis_bt.cli.ls:command", "List the runs in a folder."),
    "show": ("basis_bt.cli.show:command", "Show the numbers of one run, and its first fills, events or trades."),
    "sql": ("basis_bt.cli.sql:command", "Answer one SELECT over all runs."),
    "report": ("basis_bt.cli.report:command", "Write the report of one run, with charts."),
    "diff": ("basis_bt.cli.diff:command", "Show where two runs differ."),
    "explain": ("basis_bt.cli.explain:command", "Take a funding settlement apart, down to the files behind it."),
    "strategies": ("basis_bt.cli.strategies:command", "List the named strategies, or print one as a configuration."),
    "stress": ("basis_bt.cli.stress:command", "Show at which prices the wallets of a book die."),
    "breakeven": ("basis_bt.cli.breakeven:command", "Show how long a carry must be held to pay its round trip."),
    "capacity": ("basis_bt.cli.capacity:command", "Show what a carry earns with more and more capital."),
    "sensitivity": ("basis_bt.cli.sensitivity:command", "Show which assumed cost a result hangs on."),
    "replay": ("basis_bt.cli.replay:command", "Run history bar by bar through the live engine."),
    "parity": ("basis_bt.cli.parity:command", "Compare the live engine with the backtest, or trading with its model."),
    "paper": ("basis_bt.cli.paper:command", "Trade a configuration on paper, against the live market."),
    "live": ("basis_bt.cli.live:command", "Trade a configuration for real."),
    "status": ("basis_bt.cli.status:command", "Show how a paper or live session stands."),
    "stop": ("basis_bt.cli.stop:command", "Cancel all orders, close all positions, and end a session."),
    "quote": ("basis_bt.cli.quote:command", "Show at which venue a size is cheapest now."),
    "export": ("basis_bt.cli.export:command", "Write a journal as a run folder, for sql, report, diff and explain."),
    "calibrate": ("basis_bt.cli.calibrate:command", "Re-estimate the costs of a backtest from fills."),
    "data": ("basis_bt.cli.data:command", "Fetch, inspect and check market data."),
}


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"basis-bt {version('basis_bt')}")
    except PackageNotFoundError:
        click.echo("basis-bt (not installed as a package)")
    ctx.exit()


@click.group(
    cls=LazyGroup, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the version and exit.")  # fmt: skip
def main() -> None:
    """Backtests of crypto carry: spot, perpetuals, funding, and the books behind every number."""


def entry(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for a failed run, 2 for usage, 130 when interrupted."""
    _print_anything()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
        return code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        return _leave_pipe()
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _leave_pipe()
        path = f" ({error.filename})" if error.filename else ""
        click.echo(f"{type(error).__name__}: {error.strerror or error}{path}", err=True)
        return 1
    except Exception as error:
        from basis_bt.core.errors import BasisBtError

        if not isinstance(error, BasisBtError):
            raise
        click.echo(f"{type(error).__name__}: {error}", err=True)
        return error.exit_code


def _invoke(arguments: list[str]) -> int:
    # not main.main(): that one would turn interrupts and closed pipes into its own exits
    try:
        with main.make_context("basis-bt", arguments) as context:
            result: Any = main.invoke(context)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _print_anything() -> None:
    """Let a terminal that lacks a character show '?' for it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _leave_pipe() -> int:
    """The reader of our output left: end quietly, also when Python flushes at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    except (OSError, ValueError):
        pass
    finally:
        os.close(devnull)
    return 0


if __name__ == "__main__":
    sys.exit(entry())
