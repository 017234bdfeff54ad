"""The report of a sweep: heat maps, parallel coordinates, the best and how they stand among their neighbours."""

from pathlib import Path
from typing import Any

import polars as pl

from basis_bt.core.errors import ConfigError
from basis_bt.reports.chart_text import quantity
from basis_bt.reports.parallel_chart import parallel_figure
from basis_bt.reports.robustness import robust_scores, robustness
from basis_bt.reports.summary import number
from basis_bt.reports.sweep_charts import heatmap_figure
from basis_bt.reports.sweep_page import write_sweep_page
from basis_bt.sweeps.result import Sweep

MOST_MAPS = 3


def write_sweep_report(
    sweep: Sweep, folder: Path, *, x: str | None = None, y: str | None = None, metric: str | None = None
) -> list[Path]:
    """Write ``report.html`` of a sweep, and its pictures as PNG beside it; returns the paths.

    Parameters
    ----------
    x, y : axes of the heat map (``rule.entry`` or ``param_rule_entry``); the first pairs that vary if not given
    metric : what is drawn, the sweep's own by default

    Raises
    ------
    ConfigError
        If only one axis is named, a column is missing, or no trial has a value of the metric.
    StoreError
        If a file cannot be written.
    """
    if (x is None) != (y is None):
        raise ConfigError("a heat map has two axes, and one is named", fix="name both, or neither")
    metric = metric or sweep.metric
    varying = [name for name in sweep.columns if sweep.trials[name].n_unique() > 1]
    pairs = [(_column(x, sweep), _column(y, sweep))] if x and y else _pairs(sweep.trials, varying)
    title = str(sweep.manifest["name"])
    figures: list[tuple[str, Any]] = []
    for a, b in pairs:
        name = f"{_label(metric)} over {_label(a)} and {_label(b)}"
        figures.append((name, heatmap_figure(sweep.trials, x=a, y=b, metric=metric, title=title)))
    if varying:
        figures.append(("all trials", parallel_figure(sweep.trials, axes=varying, metric=metric, title=title)))
    facts = sweep.manifest["sweep"]
    best = next(sweep.top(1, metric=metric).iter_rows(named=True), None)
    told = [
        ("trials", f"{facts['n_trials']:,}"),
        ("status", ", ".join(f"{word} {n:,}" for word, n in facts["status"].items())),
        ("design", facts["spec"]["design"]),
        ("best", f"trial {best['trial']}, {metric} {number(best[metric], digits=4)}" if best else "none"),
    ]
    if varying:
        row = robustness(sweep.trials, axes=varying, metric=metric).row(0, named=True)
        mean, worst = (number(row[f"neighbourhood_{name}"], digits=4) for name in ("mean", "worst"))
        told.append(("its neighbours", f"{row['n_neighbours']:,}: mean {mean}, worst {worst}"))
    tables = [("the best trials", sweep.top(20, metric=metric))]
    if varying:
        tables.append(("the most robust trials", _robust(sweep.trials, varying, metric)))
    return write_sweep_page(folder / "report.html", title=title, facts=told, figures=figures, tables=tables)


def _robust(trials: pl.DataFrame, varying: list[str], metric: str) -> pl.DataFrame:
    """The best neighbourhoods, named and in the unit that the metric is shown in."""
    shown = quantity(metric, trials[metric])
    names = {"value": shown.title} | {
        f"neighbourhood_{name}": f"{name} of neighbours" for name in ("mean", "worst", "best")
    }
    scores = robust_scores(trials, axes=varying, metric=metric).head(20)
    return scores.with_columns(pl.col(*names) * shown.factor).rename(names)


def _label(name: str) -> str:
    return name.removeprefix("param_").replace("_", " ")


def _column(name: str, sweep: Sweep) -> str:
    return name if name in sweep.trials.columns else f"param_{name.replace('.', '_')}"


def _pairs(trials: pl.DataFrame, varying: list[str]) -> list[tuple[str, str]]:
    """Axes for heat maps: neighbours in the list, numbers first."""
    ordered = sorted(varying, key=lambda name: not trials.schema[name].is_numeric())
    return [(ordered[k], ordered[k + 1]) for k in range(min(len(ordered) - 1, MOST_MAPS))]
