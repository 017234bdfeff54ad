"""The terminal view of a session: one page, two columns where the terminal is wide enough, one where it is not."""

from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from basis_bt.core.units import from_us
from basis_bt.live.snapshot import Snapshot, snapshot
from basis_bt.reports.summary import NOTHING, number, percent

__all__ = ["Snapshot", "View", "render", "snapshot"]

WIDE = 92  # columns from which two panels stand side by side
MOST_ORDERS = 6
NAKED_SHARE, DUST_SHARE = 0.02, 1e-4  # of the gross notional, and of the capital: a net delta over both is red
_GOOD, _BAD, _DIM, _WARN = "green", "bold red", "dim", "yellow"
_STATUS_STYLES = {"running": _GOOD, "silent": _BAD, "ended": _DIM}
Rows = Iterable[Sequence[RenderableType]]


def render(shown: Snapshot) -> RenderableType:
    """A snapshot as something that rich prints, at the width of its terminal."""
    return View(shown)


class View:
    """The page of a snapshot."""

    def __init__(self, shown: Snapshot) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The panels in the order in which they are looked at: is it alive, is it hedged, what does it earn."""
        shown = self._shown
        yield _head(shown)
        left: list[RenderableType] = [_positions(shown), _funding(shown), _orders(shown)]
        right: list[RenderableType] = [_pnl(shown), _risk(shown)]
        if options.max_width >= WIDE:
            columns = Table.grid(expand=True, padding=(0, 1))
            columns.add_column(ratio=60)
            columns.add_column(ratio=40)
            columns.add_row(Group(*left), Group(*right))
            yield columns
        else:
            yield Group(left[0], right[0], left[1], right[1], left[2])
        yield _incidents(shown)


def _head(shown: Snapshot) -> Text:
    style = _STATUS_STYLES[shown.status]
    line = Text.assemble((shown.name, "bold"), "  ", (shown.mode, "bold" if shown.mode == "live" else ""), "  ")
    line.append(shown.status, style=style)
    line.append(f"  last event {_age(shown.age_s)} ago", style=_BAD if shown.status == "silent" else _DIM)
    line.append(f"  started {from_us(shown.started_us):%Y-%m-%d %H:%M} UTC", style=_DIM)
    if shown.n_sessions > 1:
        line.append(f" ({shown.n_sessions} sessions)", style=_DIM)
    return line


def _positions(shown: Snapshot) -> Panel:
    rows = [
        (Text(one.instrument), _number(one.position_base, 8), _usd(one.delta_usd)) for one in shown.legs
    ]  # fmt: skip
    gross = sum(abs(one.delta_usd or 0.0) for one in shown.legs)
    bound_usd = max(NAKED_SHARE * gross, DUST_SHARE * shown.capital_usd)
    is_naked = shown.net_delta_usd is not None and abs(shown.net_delta_usd) > bound_usd
    net = _usd(shown.net_delta_usd)
    net.stylize(_BAD if is_naked else "bold")
    rows.append((Text("net delta", style="bold"), Text(""), net))
    way = "as written" if shown.direction > 0 else "reversed"
    held = f"trade {shown.trade}, {way}" if shown.direction else "flat"
    if shown.entry_us is not None:
        held += f", since {from_us(shown.entry_us):%m-%d %H:%M}"
    return _panel(f"positions · {held}", _table(("", "base", "USD"), rows))


def _pnl(shown: Snapshot) -> Panel:
    rows: list[Sequence[RenderableType]] = [
        (Text(source), _usd(usd, signed=True)) for source, usd in shown.pnl_by_source_usd.items()
        if usd or source in ("funding", "basis", "fees")
    ]  # fmt: skip
    total = _usd(shown.pnl_usd, signed=True)
    total.stylize("bold")
    rows.append((Text("PnL", style="bold"), total))
    rows.append((Text("equity"), _usd(shown.equity_usd)))
    return _panel("PnL, USD", _table(("", ""), rows))


def _funding(shown: Snapshot) -> Panel:
    rows = []
    for one in shown.funding:
        rate = Text(NOTHING) if one.funding_rate is None else Text(percent(one.funding_rate, digits=4))
        when = f"{from_us(one.at_us):%H:%M} in {_age(one.in_s)}" + (" ?" if one.is_assumed else "")
        rows.append((Text(one.instrument), Text(when), rate, _usd(one.expected_usd, signed=True)))
    body: RenderableType = _table(("", "settles, UTC", "last rate", "USD"), rows)
    if any(one.is_assumed for one in shown.funding):
        body = Group(body, Text("? by the venue's usual interval", style=_DIM))
    return _panel("funding to the next settlement", body if rows else Text("no perp", style=_DIM))


def _risk(shown: Snapshot) -> Panel:
    breaker = shown.breaker
    state = Text("closed", style=_GOOD)
    if breaker.is_open:
        until = "reset" if breaker.until_us is None else f"{from_us(breaker.until_us):%m-%d %H:%M} UTC"
        state = Text(f"OPEN until {until}", style=_BAD, overflow="fold")
    word = "margin ratio" if shown.is_margin_recorded else "equity/notional"
    rows: list[Sequence[RenderableType]] = [
        (Text("breaker"), state),
        (Text(word), Text(percent(shown.margin_ratio, digits=1))),
        (Text("drawdown"), Text(f"{number(shown.drawdown_pct)} of {shown.max_drawdown_pct:g} %")),
        (Text("failed orders"), Text(f"{shown.failed_orders} in an hour", style=_WARN if shown.failed_orders else "")),
        (Text("data age"), Text(NOTHING if shown.data_age_s is None else _age(shown.data_age_s))),
    ]
    for venue in shown.venues:
        limit = "" if venue.limit_usd is None else f" of {number(venue.limit_usd, digits=0)}"
        rows.append((Text(venue.venue), Text(f"{number(venue.notional_usd, digits=0)}{limit}")))
        if venue.cash_usd is not None:
            rows.append((Text(f"{venue.venue} cash"), _usd(venue.cash_usd)))
    body: list[RenderableType] = [_table(("", ""), rows)]
    body += [Text(reason, style=_BAD) for reason in breaker.reasons]
    return _panel("risk", Group(*body))


def _orders(shown: Snapshot) -> Panel:
    counts = ", ".join(f"{n:,} {outcome}" for outcome, n in shown.orders.items()) or "none yet"
    if shown.request_s:
        counts += f" · venue's word in {_seconds(shown.request_s['0.5'])} (99 %: {_seconds(shown.request_s['0.99'])})"
    if not shown.open_orders:
        return _panel("orders", Group(Text(counts, style=_DIM), Text("none open")))
    rows = [
        (Text(one.instrument), Text(f"{one.purpose} {'buy' if one.side > 0 else 'sell'} {_plain(one.quantity_base)}"),
         Text(one.kind if one.limit_price is None else f"{one.kind} {_plain(one.limit_price)}"), Text(_age(one.age_s)))
        for one in shown.open_orders[:MOST_ORDERS]
    ]  # fmt: skip
    table = _table(("", "", "", "age"), rows)
    more = len(shown.open_orders) - MOST_ORDERS
    body: list[RenderableType] = [Text(counts, style=_DIM), table]
    body += [Text(f"and {more} more", style=_DIM)] if more > 0 else []
    return _panel(f"orders · {len(shown.open_orders)} without an end", Group(*body), style=_WARN)


def _incidents(shown: Snapshot) -> Panel:
    if not shown.incidents:
        return _panel("incidents", Text("none", style=_GOOD))
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, style=_DIM)
    grid.add_column(ratio=1, overflow="fold")
    for one in reversed(shown.incidents):
        text = Text.assemble((one.kind, _WARN), f"  {one.text}" if one.text else "")
        grid.add_row(f"{from_us(one.at_us):%m-%d %H:%M:%S}", text)
    return _panel(f"incidents · {shown.n_incidents:,} in all", grid)


def _panel(title: str, body: RenderableType, *, style: str = "") -> Panel:
    return Panel(body, title=Text(title, style="bold"), title_align="left", border_style=style or _DIM, padding=(0, 1))


def _table(header: Sequence[str], rows: Rows) -> Table:
    is_headed = any(header)
    table = Table(box=None, show_header=is_headed, header_style=_DIM, padding=(0, 1, 0, 0), expand=True, pad_edge=False)
    gives_way = 1 if len(header) == 2 else 0  # the column that is folded where the terminal is narrow
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left", ratio=1 if place == gives_way else None,
                         overflow="fold", no_wrap=place != gives_way)  # fmt: skip
    for row in rows:
        table.add_row(*row)
    return table


def _number(value: float, digits: int) -> Text:
    return Text(_plain(value, digits=digits), style=_DIM if not value else "")


def _plain(value: float, *, digits: int = 8) -> str:
    """A quantity or price with the digits it has, at most so many after the point."""
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".") if value else "0"


def _usd(value: float | None, *, signed: bool = False) -> Text:
    text = number(value)
    if not signed or value is None:
        return Text(text)
    is_zero = not text.strip("0.,-")
    return Text(text if value < 0 or is_zero else f"+{text}", style="" if is_zero else _GOOD if value > 0 else "red")


def _seconds(value: float) -> str:
    return f"{1e3 * value:.0f} ms" if value < 1.0 else f"{value:.2f} s"


def _age(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    for size, unit, below, small in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // below:02d}{small}"
    return f"{whole}s"
