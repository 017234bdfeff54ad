"""Prometheus metrics of a session, for this machine only: what the last snapshot says, on ``/metrics``.

Prometheus itself, or an agent that forwards, runs beside the session; nothing is served to other machines.
"""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from basis_bt.core.errors import ConfigError, StoreError
from basis_bt.live.snapshot import Snapshot

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

ADDRESS = "127.0.0.1"
PREFIX = "basis_bt"


class MetricsPage:
    """A server of metrics in a thread of its own; a context manager, or ``close`` it.

    It has its registry to itself, so that it says nothing of the process and two of them do not meet. Before the first
    ``update`` it serves no metric. A value that the journal does not tell is left out, not 0.

    Parameters
    ----------
    port : 0 takes a free one, see ``port``

    Raises
    ------
    ConfigError
        If ``prometheus-client`` is not installed, or the port is none.
    StoreError
        If the port is taken.
    """

    def __init__(self, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            raise ConfigError(
                "metrics need the package prometheus-client", fix="pip install 'basis-bt[metrics]'"
            ) from None
        if not 0 <= port <= 65_535:
            raise ConfigError(f"a port is between 0 and 65535, found {port}", fix="take a free one, e.g. 9464")
        self._shown: Snapshot | None = None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, addr=ADDRESS, registry=registry)
        except OSError as error:
            raise StoreError(
                f"metrics cannot be served: {error.strerror or error}", where={"port": port}, fix="take another port"
            ) from error
        self._lock = threading.Lock()
        self._is_open = True

    def __enter__(self) -> "MetricsPage":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self._server.server_port)

    def update(self, shown: Snapshot) -> None:
        """Serve this snapshot from now on."""
        self._shown = shown

    def close(self) -> None:
        """Stop serving: the port is free and the thread over when this returns; a second time does nothing."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                self._server.shutdown()
                self._server.server_close()
                self._thread.join()

    def describe(self) -> list[Any]:
        """Nothing is known before the first snapshot."""
        return []

    def collect(self) -> "Iterator[Metric]":
        """What Prometheus reads; called by the server's thread."""
        if self._shown is not None:
            yield from metrics_of(self._shown)


def metrics_of(shown: Snapshot) -> "Iterator[Metric]":
    """A snapshot as metrics; labels are ``mode`` and what the name says."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    def gauge(name: str, about: str, rows: list[tuple[dict[str, str], float | None]]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"{PREFIX}_{name}", about, labels=list(rows[0][0]) if rows else [])
        for labels, value in rows:
            if value is not None:
                family.add_metric(list(labels.values()), value)
        return family

    info = {"name": shown.name, "mode": shown.mode, "status": shown.status}
    yield gauge("session", "1, with name, mode and status of the session", [(info, 1.0)])
    yield gauge("equity_usd", "Equity at the last mark", [({}, shown.equity_usd)])
    yield gauge("pnl_usd", "PnL by source at the last mark, costs negative; the sources add up",
                [({"source": source}, usd) for source, usd in shown.pnl_by_source_usd.items()])  # fmt: skip
    yield gauge("position_base", "Position, signed, in base units",
                [({"instrument": one.instrument}, one.position_base) for one in shown.legs])  # fmt: skip
    yield gauge("net_delta_usd", "Sum of the positions at their last closes", [({}, shown.net_delta_usd)])
    yield gauge("margin_ratio", "Equity over the notional of margined legs", [({}, shown.margin_ratio)])
    yield gauge("drawdown_pct", "Equity under its peak, percent", [({}, shown.drawdown_pct)])
    yield gauge("settlement_seconds", "Seconds to the next funding settlement",
                [({"instrument": one.instrument}, one.in_s) for one in shown.funding])  # fmt: skip
    yield gauge("data_age_seconds", "Seconds since the end of the last bar marked", [({}, shown.data_age_s)])
    yield gauge("event_age_seconds", "Seconds since the last event of the journal", [({}, shown.age_s)])
    yield gauge("snapshot_timestamp_seconds", "When all this was true", [({}, shown.at_us / 1e6)])
    yield gauge("breaker_open", "Whether the circuit breaker is open", [({}, float(shown.breaker.is_open))])
    yield gauge("open_orders", "Orders whose end is not known", [({}, float(len(shown.open_orders)))])
    yield CounterMetricFamily(f"{PREFIX}_incidents", "Incidents in the journal", value=shown.n_incidents)
    orders = CounterMetricFamily(f"{PREFIX}_orders", "Orders that came to their end, by outcome", labels=["outcome"])
    for outcome, n in shown.orders.items():
        orders.add_metric([outcome], n)
    yield orders
    yield _requests(shown)


def _requests(shown: Snapshot) -> "Metric":
    """Quantiles of the last requests, with count and sum of all of them."""
    from prometheus_client.metrics_core import SummaryMetricFamily

    name = f"{PREFIX}_request_seconds"
    family = SummaryMetricFamily(name, "Time from the send of an order to the venue's word",
                                 count_value=shown.n_requests, sum_value=shown.request_sum_s)  # fmt: skip
    for quantile, seconds in shown.request_s.items():
        family.add_sample(name, {"quantile": quantile}, seconds)
    return family
