"""A book under stress as a picture: what each wallet has beyond its maintenance, over a factor on all prices."""

from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from basis_bt.reports.charts import BLACK, LEG_COLOURS, LEG_DASHES, VERMILLION, chart_style, save_chart


def stress_figure(surplus: pl.DataFrame, wallets: pl.DataFrame, *, title: str) -> Figure:
    """Margin surplus of each wallet over the price factor; a cross where it dies.

    Parameters
    ----------
    surplus : ``wallet``, ``factor``, ``surplus_usd``
    wallets : ``wallet``, ``factor_down``, ``factor_up``, null for never
    title : what book it is, and when
    """
    with chart_style():
        figure = Figure(figsize=(9.0, 5.2), facecolor="white")
        axes = figure.add_axes((0.115, 0.115, 0.855, 0.745))
        names = surplus["wallet"].unique(maintain_order=True).to_list()
        for place, name in enumerate(names):
            rows = surplus.filter(pl.col("wallet") == name)
            colour, dash = LEG_COLOURS[place % len(LEG_COLOURS)], LEG_DASHES[place % len(LEG_DASHES)]
            axes.plot(rows["factor"], rows["surplus_usd"], color=colour, linestyle=dash, linewidth=1.6, label=name)
        low, high = surplus["factor"].min(), surplus["factor"].max()
        axes.set_xlim(low, high)  # type: ignore[arg-type]
        _mark_deaths(axes, wallets)
        axes.axhline(0.0, color=BLACK, linewidth=0.9)
        axes.axvline(1.0, color="#8a8a8a", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _change(value)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("change of all prices")
        axes.set_ylabel("margin equity less maintenance, USD")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=max(len(names), 1), borderaxespad=0.3)
        figure.text(0.03, 0.975, title, fontsize=12.5, fontweight="bold", va="top", parse_math=False)
    return figure


def write_stress_chart(surplus: pl.DataFrame, wallets: pl.DataFrame, path: Path, *, title: str) -> Path:
    """Save the picture of a stress as PNG and return its path.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    return save_chart(stress_figure(surplus, wallets, title=title), path)


def _change(factor: float) -> str:
    percent = round(100.0 * (factor - 1.0))
    return f"{percent:+d} %" if percent else "0 %"


def _mark_deaths(axes: Axes, wallets: pl.DataFrame) -> None:
    left, right = axes.get_xlim()
    for side, name in ((-1, "factor_down"), (+1, "factor_up")):
        dying = wallets.filter(pl.col(name).is_between(left, right))
        for place, row in enumerate(dying.iter_rows(named=True)):
            factor = row[name]
            axes.plot([factor], [0.0], marker="X", markersize=9, color=VERMILLION, markeredgecolor="white", zorder=4)
            axes.annotate(
                f"{row['wallet']} dies at {100.0 * (factor - 1.0):+.1f} %", (factor, 0.0), (4 * side, 9 + 14 * place),
                textcoords="offset points", ha="left" if side > 0 else "right", va="bottom", fontsize=9,
            )  # fmt: skip
