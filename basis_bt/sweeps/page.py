"""The report of a sweep: heat maps, parallel coordinates, the best and how they stand among their neighbours."""

from pathlib import Path
from typing import Any

import polars as pl

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
    """
    metric = metric or sweep.metric
    varying = [name for name in sweep.columns if sweep.trials[name].n_unique() > 1]
    pairs = [(_column(x, sweep), _column(y, sweep))] if x and y else _pairs(sweep.trials, varying)
    title = str(sweep.manifest["name"])
    figures: list[tuple[str, Any]] = [
        (f"{metric} over {a} and {b}", heatmap_figure(sweep.trials, x=a, y=b, metric=metric, title=title))
        for a, b in pairs
    ]
    if len(varying) > 1:
        figures.append(("all trials", parallel_figure(sweep.trials, axes=varying, metric=metric, title=title)))
    facts = sweep.manifest["sweep"]
    best = facts["best"]
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
        tables.append(("the most robust trials", robust_scores(sweep.trials, axes=varying, metric=metric).head(20)))
    folder.mkdir(parents=True, exist_ok=True)
    return write_sweep_page(folder / "report.html", title=title, facts=told, figures=figures, tables=tables)


def _column(name: str, sweep: Sweep) -> str:
    return name if name in sweep.trials.columns else f"param_{name.replace('.', '_')}"


def _pairs(trials: pl.DataFrame, varying: list[str]) -> list[tuple[str, str]]:
    """Axes for heat maps: neighbours in the list, numbers first."""
    ordered = sorted(varying, key=lambda name: not trials.schema[name].is_numeric())
    return [(ordered[k], ordered[k + 1]) for k in range(min(len(ordered) - 1, MOST_MAPS))]
