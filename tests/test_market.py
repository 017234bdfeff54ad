"""Market files: what is refused and how, what is read, and the bars, gaps and settlements of the panel made of them."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from basis_bt.core.errors import DataError
from basis_bt.core.instruments import Combo, Instrument, Leg
from basis_bt.core.models import Data
from basis_bt.core.units import to_us
from basis_bt.frames.align import resample
from basis_bt.frames.panel import load_panel
from basis_bt.frames.settlements import MARK_SOURCES, snap
from basis_bt.market.files import read_series
from basis_bt.market.schemas import SeriesKey

START = datetime(2024, 3, 1, tzinfo=UTC)
START_US = to_us(START)
MINUTE, HOUR = 60_000_000, 3_600_000_000
SPOT, PERP = Instrument.parse("spot:here:BTC-USDT"), Instrument.parse("perp:here:BTC-USDT")
LEGS = Combo(legs=[Leg(instrument=str(SPOT), ratio=1.0), Leg(instrument=str(PERP), ratio=-1.0)])


def instants(offsets_us):
    return pl.Series([START_US + offset for offset in offsets_us], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))


def bars(*, hours=range(6), step_us=HOUR, base=100.0, **columns):
    """Bars that open at ``base + k`` and close half above, changed by column."""
    opens = [base + k for k in hours]
    frame = {
        "ts": instants(k * step_us for k in hours),
        "open": opens,
        "high": [value + 1.0 for value in opens],
        "low": [value - 1.0 for value in opens],
        "close": [value + 0.5 for value in opens],
        "volume": [10.0 + k for k in hours],
    }
    return pl.DataFrame(frame).with_columns(
        pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items()
    )


def funding(*, hours=(0, 1, 2, 3, 4, 5), rates=None, offset_us=0, **columns):
    rates = [1e-4] * len(hours) if rates is None else rates
    frame = pl.DataFrame({"ts": instants(round(k * HOUR) + offset_us for k in hours), "rate": rates})
    return frame.with_columns(pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items())


def write(root, instrument, frame, *, series=None):
    path = root / instrument.path(series or instrument.kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return path


def market(root, *, spot=None, perp=None, paid=None, marks=None):
    write(root, SPOT, bars() if spot is None else spot)
    write(root, PERP, bars() if perp is None else perp)
    write(root, PERP, funding() if paid is None else paid, series="funding")
    if marks is not None:
        write(root, PERP, marks, series="mark")
    return root


def panel_of(root, *, bar="1h", n_hours=6, **options):
    end = START.replace(hour=n_hours)
    return load_panel(Data(root=str(root), start=START, end=end, bar=bar), LEGS, **options)


# ---------------------------------------------------------------------------------------------------------- refusals


def changed(frame, column, row, value):
    values = frame[column].to_list()
    values[row] = value
    return frame.with_columns(pl.Series(column, values, dtype=frame.schema[column]))


BAD_CELLS = {
    "nan": ("close", float("nan"), "close must be a number above 0, found nan", "mask the gap"),
    "zero": ("open", 0.0, "open must be a number above 0, found 0.0", "mask the gap"),
    "negative": ("low", -5.0, "low must be a number above 0, found -5.0", "mask the gap"),
    "inf": ("high", float("inf"), "high must be a number above 0, found inf", "mask the gap"),
    "null": ("close", None, "close must be a number above 0, found None", "mask the gap"),
    "negative volume": ("volume", -1.0, "volume must be 0 or more, found -1.0", "set it to 0"),
    "nan volume": ("volume", float("nan"), "volume must be 0 or more, found nan", "set it to 0"),
    "infinite volume": ("volume", float("inf"), "volume must be 0 or more, found inf", "set it to 0"),
    "null volume": ("volume", None, "volume must be 0 or more, found None", "set it to 0"),
    "duplicate stamp": ("ts", START.replace(hour=2), "ts must be unique: duplicate stamp", "which of the rows"),
    "unsorted stamp": ("ts", START.replace(hour=1), "ts must increase", "sort the file by ts"),
}


@pytest.mark.parametrize(("column", "value", "what", "fix"), BAD_CELLS.values(), ids=BAD_CELLS)
def test_a_bad_cell_is_refused_with_its_place_and_remedy(tmp_path, column, value, what, fix):
    frame = changed(bars(), column, 3, value)
    path = write(tmp_path, SPOT, frame)
    with pytest.raises(DataError) as caught:
        read_series(tmp_path, SeriesKey.of(SPOT, "spot"))
    error = caught.value
    assert what in error.what
    assert "(1 row)" in error.what
    assert error.where == {"file": path, "column": column, "row": 3, "ts": frame["ts"][3].isoformat()}
    assert fix in error.fix
    for part in (what, str(path), f"column={column}", "row=3", frame["ts"][3].isoformat(), "fix: "):
        assert part in str(error)


BAD_RATES = {
    "percent, large": ([0.01, 0.9, 0.01], "rate is too large for a fraction (percent?), found 0.9", 1, "divide"),
    "percent, typical": ([0.01, 0.02, 0.01], "rate looks like percent: its median is 0.01 per 8 hours", 0, "divide"),
    "null": ([1e-4, None, 1e-4], "rate must be a finite number, found None", 1, "drop the settlement"),
    "nan": ([1e-4, 1e-4, float("nan")], "rate must be a finite number, found nan", 2, "drop the settlement"),
    "inf": ([float("-inf"), 1e-4, 1e-4], "rate must be a finite number, found -inf", 0, "drop the settlement"),
}


@pytest.mark.parametrize(("rates", "what", "row", "fix"), BAD_RATES.values(), ids=BAD_RATES)
def test_a_bad_rate_is_refused_with_its_place_and_remedy(tmp_path, rates, what, row, fix):
    path = write(tmp_path, PERP, funding(hours=(0, 8, 16), rates=rates), series="funding")
    with pytest.raises(DataError) as caught:
        read_series(tmp_path, SeriesKey.of(PERP, "funding"))
    assert what in caught.value.what
    stamp = START.replace(hour=8 * row).isoformat()
    assert caught.value.where == {"file": path, "column": "rate", "row": row, "ts": stamp}
    assert fix in caught.value.fix


def test_rates_of_hourly_funding_are_judged_per_eight_hours(tmp_path):
    write(tmp_path, PERP, funding(hours=range(0, 48, 8), rates=[3e-4] * 6, interval_hours=[8.0] * 6), series="funding")
    assert read_series(tmp_path, SeriesKey.of(PERP, "funding")).frame.height == 6
    write(tmp_path, PERP, funding(rates=[1e-3] * 6, interval_hours=[1.0] * 6), series="funding")
    with pytest.raises(DataError, match="looks like percent"):
        read_series(tmp_path, SeriesKey.of(PERP, "funding"))


@pytest.mark.parametrize(
    ("change", "what", "column", "fix"),
    [
        (lambda f: f.with_columns(pl.col("ts").dt.replace_time_zone(None)), "without a time zone", "ts", "replace"),
        (lambda f: f.with_columns(pl.col("ts").to_physical()), "must be a Datetime with a time zone", "ts", "epochs"),
        (lambda f: f.with_columns(pl.col("close").cast(pl.String)), "close must be a number", "close", "Float64"),
        (lambda f: f.drop("close"), "missing: close", None, "rename"),
        (lambda f: f.drop("ts"), "missing: ts", None, "rename"),
        (lambda f: f.clear(), "the file has no rows", None, "fetch the series again"),
    ],
    ids=["naive ts", "integer ts", "text prices", "no close", "no ts", "no rows"],
)
def test_a_bad_table_is_refused_with_its_place_and_remedy(tmp_path, change, what, column, fix):
    path = write(tmp_path, SPOT, change(bars()))
    with pytest.raises(DataError) as caught:
        read_series(tmp_path, SeriesKey.of(SPOT, "spot"))
    assert what in caught.value.what
    assert caught.value.where["file"] == path
    assert caught.value.where.get("column") == column
    assert fix in caught.value.fix


@pytest.mark.parametrize("keep", [0, 4, 100, -9], ids=["empty", "magic only", "start only", "cut footer"])
def test_a_file_that_is_no_parquet_is_refused(tmp_path, keep):
    path = write(tmp_path, SPOT, bars())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="cannot be read as parquet|is empty") as caught:
        read_series(tmp_path, SeriesKey.of(SPOT, "spot"))
    assert caught.value.where == {"file": path}
    assert "again" in caught.value.fix


def test_a_missing_file_names_those_near_it(tmp_path):
    write(tmp_path, SPOT, bars())
    with pytest.raises(DataError, match="no spot file for spot:here:BTC-USDC") as caught:
        read_series(tmp_path, SeriesKey.of(Instrument.parse("spot:here:BTC-USDC"), "spot"))
    assert caught.value.where["file"] == tmp_path / "spot/here/BTC-USDC.parquet"
    assert "spot/here/BTC-USDT.parquet" in caught.value.fix
    with pytest.raises(DataError, match="the folder has no perp files"):
        read_series(tmp_path, SeriesKey.of(PERP, "perp"))
    with pytest.raises(DataError, match="the market folder does not exist"):
        read_series(tmp_path / "nowhere", SeriesKey.of(SPOT, "spot"))


# ----------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("unit", "zone"), [("ms", "UTC"), ("ns", "UTC"), ("us", "Asia/Tokyo"), ("ms", "America/New_York")]
)
def test_units_and_zones_of_the_same_instants_read_equal(tmp_path, unit, zone):
    write(tmp_path, SPOT, bars())
    bounds = {"start_us": START_US + HOUR, "end_us": START_US + 5 * HOUR}
    plain = read_series(tmp_path, SeriesKey.of(SPOT, "spot"), **bounds)
    other = bars().with_columns(pl.col("ts").dt.cast_time_unit(unit).dt.convert_time_zone(zone))
    write(tmp_path, SPOT, other)
    read = read_series(tmp_path, SeriesKey.of(SPOT, "spot"), **bounds)
    assert read.frame.equals(plain.frame)
    assert read.frame.schema == plain.frame.schema
    assert (read.first_us, read.last_us) == (plain.first_us, plain.last_us) == (START_US, START_US + 5 * HOUR)


def test_only_the_rows_of_the_range_are_read(tmp_path):
    write(tmp_path, SPOT, bars(hours=range(200)))
    key = SeriesKey.of(SPOT, "spot")
    series = read_series(tmp_path, key, start_us=START_US + 50 * HOUR, end_us=START_US + 60 * HOUR)
    stamps = series.frame["ts"].to_physical()
    assert (stamps.min(), stamps.max()) == (START_US + 50 * HOUR, START_US + 59 * HOUR)
    assert (series.first_us, series.last_us) == (START_US, START_US + 199 * HOUR)
    row = series.manifest_row()
    assert (row["rows"], row["first"], row["last"]) == (10, "2024-03-03T02:00:00+00:00", "2024-03-03T11:00:00+00:00")


def test_a_bad_row_outside_the_range_does_not_stop_a_run(tmp_path):
    write(tmp_path, SPOT, changed(bars(), "close", 5, -1.0))
    assert read_series(tmp_path, SeriesKey.of(SPOT, "spot"), end_us=START_US + 5 * HOUR).frame.height == 5
    with pytest.raises(DataError):
        read_series(tmp_path, SeriesKey.of(SPOT, "spot"), end_us=START_US + 6 * HOUR)


def test_columns_that_are_not_asked_for_are_not_read(tmp_path):
    write(tmp_path, SPOT, bars().with_columns(note=pl.lit("x")))
    read = read_series(tmp_path, SeriesKey.of(SPOT, "spot"))
    assert read.frame.columns == ["ts", "open", "high", "low", "close", "volume"]


# -------------------------------------------------------------------------------------------------------------- bars


def test_a_finer_bar_than_the_file_is_refused(tmp_path):
    market(tmp_path)
    with pytest.raises(DataError, match="bars of 0.5 h cannot be made of a file with bars of 1 h") as caught:
        panel_of(tmp_path, bar="30m")
    assert "ask for 1 h or more" in caught.value.fix
    assert caught.value.where["file"] == tmp_path / SPOT.path("spot")


def test_a_file_on_another_clock_is_refused(tmp_path):
    shifted = bars().with_columns(pl.col("ts") + pl.duration(minutes=30))
    path = write(tmp_path, SPOT, shifted)
    with pytest.raises(DataError, match="must open at multiples of their step") as caught:
        resample(read_series(tmp_path, SeriesKey.of(SPOT, "spot")), bar_us=HOUR)
    assert caught.value.where == {"file": path, "column": "ts", "row": 0, "ts": "2024-03-01T00:30:00+00:00"}
    assert "shift it" in caught.value.fix


def test_bars_are_resampled_as_by_hand(tmp_path):
    # four bars of 15 minutes an hour; the second hour misses its first, the third all but its last, the fourth is gone
    frame = pl.DataFrame(
        {
            "ts": instants(k * 15 * MINUTE for k in (0, 1, 2, 3, 5, 6, 7, 11, 16)),
            "open": [10.0, 11.0, 12.0, 13.0, 21.0, 22.0, 23.0, 31.0, 50.0],
            "high": [11.5, 19.0, 13.5, 14.5, 22.5, 29.0, 24.5, 32.5, 51.5],
            "low": [9.5, 10.5, 8.0, 12.5, 20.5, 21.5, 18.0, 30.5, 49.5],
            "close": [11.0, 12.0, 13.0, 14.0, 22.0, 23.0, 24.0, 32.0, 51.0],
            "volume": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
        }
    )
    write(tmp_path, SPOT, frame)
    assert resample(read_series(tmp_path, SeriesKey.of(SPOT, "spot")), bar_us=HOUR).rows() == [
        (START.replace(hour=0), 10.0, 19.0, 8.0, 14.0, 10.0),
        (START.replace(hour=1), None, 29.0, 18.0, 24.0, 18.0),
        (START.replace(hour=2), None, 32.5, 30.5, 32.0, 8.0),
        (START.replace(hour=4), 50.0, 51.5, 49.5, 51.0, 9.0),
    ]


def test_gaps_are_masked_and_prices_carried_only_where_they_mark(tmp_path):
    kept = bars(hours=[0, 1, 4, 5])
    panel = panel_of(market(tmp_path, perp=kept))
    assert panel.n_bars == 6
    assert panel.tradable.tolist() == [[True, k not in (2, 3)] for k in range(6)]
    assert panel.missing.tolist() == [[False, k in (2, 3)] for k in range(6)]
    assert panel.open_price[:, 1].tolist() == [100.0, 101.0, 101.5, 101.5, 104.0, 105.0]
    assert panel.close_price[:, 1].tolist() == [100.5, 101.5, 101.5, 101.5, 104.5, 105.5]
    assert panel.open_price[:, 0].tolist() == [100.0 + k for k in range(6)]
    assert np.isnan(panel.volume_before[0]).all()
    assert panel.volume_before[1:, 1].tolist() == [10.0, 11.0, 11.0, 11.0, 14.0]
    assert panel.frame["close_1"].to_list() == [None, 100.5, 101.5, None, None, 104.5, 105.5]
    assert panel.frame["open_1"].null_count() == 3


def test_a_bar_without_its_first_small_bar_has_a_close_but_cannot_be_traded(tmp_path):
    half = {"step_us": 30 * MINUTE}
    perp = bars(hours=[0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11], **half)
    panel = panel_of(market(tmp_path, spot=bars(hours=range(12), **half), perp=perp))
    assert panel.tradable[:, 1].tolist() == [True, False, True, True, True, True]
    assert not panel.missing.any()
    assert panel.open_price[1, 1] == 101.5
    assert panel.close_price[1, 1] == 103.5


def test_a_run_spans_the_bars_all_legs_have(tmp_path):
    panel = panel_of(market(tmp_path, spot=bars(hours=range(1, 6)), perp=bars(hours=range(5))))
    assert panel.ts_us.tolist() == [START_US + k * HOUR for k in (1, 2, 3, 4)]
    with pytest.raises(DataError, match="no bar is common to all legs") as caught:
        panel_of(market(tmp_path, spot=bars(hours=range(4, 6)), perp=bars(hours=range(3))))
    assert f"{SPOT} 2024-03-01T04:00Z to 2024-03-01T05:00Z" in caught.value.where["legs"]


def test_arrays_of_a_panel_are_contiguous_and_cannot_be_written(tmp_path):
    panel = panel_of(market(tmp_path))
    for name in ("ts_us", "open_price", "close_price", "volume_before", "tradable", "missing"):
        array = getattr(panel, name)
        assert array.flags.c_contiguous
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    assert panel.open_price.dtype == panel.close_price.dtype == np.float64
    assert panel.tradable.dtype == np.bool_


# ------------------------------------------------------------------------------------------------------- settlements


@pytest.mark.parametrize(
    ("late_us", "bar_us", "snapped"),
    [
        (0, HOUR, 0),
        (18_000, HOUR, 0),
        (60_000_000, HOUR, 0),
        (60_000_001, HOUR, 60_000_001),
        (61_000_000, HOUR, 61_000_000),
        (30_000_000, MINUTE, 0),
        (30_000_001, MINUTE, 30_000_001),
        (HOUR - 1, HOUR, HOUR - 1),
    ],
)
def test_stamps_snap_back_within_a_minute_and_half_a_bar(late_us, bar_us, snapped):
    assert snap(np.array([START_US + late_us]), bar_us=bar_us).tolist() == [START_US + snapped]


def test_settlements_keep_their_raw_stamps(tmp_path):
    paid = funding(hours=(1, 2), offset_us=18_000).vstack(funding(hours=(3,), offset_us=61_000_000))
    part = panel_of(market(tmp_path, paid=paid)).settlements[1]
    assert (part.raw_us - START_US).tolist() == [HOUR + 18_000, 2 * HOUR + 18_000, 3 * HOUR + 61_000_000]
    assert (part.paid_us - START_US).tolist() == [HOUR, 2 * HOUR, 3 * HOUR + 61_000_000]
    assert part.known_us.tolist() == part.paid_us.tolist()


def sources_and_marks(part):
    return [(MARK_SOURCES[source], price) for source, price in zip(part.mark_source, part.mark_price, strict=True)]


def test_a_settlement_without_a_mark_is_priced_by_trades_an_open_before_a_close(tmp_path):
    # at 2 h the open of bar 2 and the close of bar 1 are both known; at 3 h bar 3 is missing: the close of bar 2
    perp = bars(hours=[0, 1, 2, 4, 5])
    part = panel_of(market(tmp_path, perp=perp, paid=funding(hours=(0, 2, 3, 3.5, 4.5)))).settlements[1]
    assert sources_and_marks(part) == [
        ("trade", 100.0),
        ("trade", 102.0),
        ("trade", 102.5),
        ("trade", 102.5),
        ("trade", 104.0),
    ]


def test_mark_bars_beat_trades_at_equal_times_and_only_then(tmp_path):
    marks = bars(hours=[0, 1, 2], base=200.0).select("ts", "open", "close")
    part = panel_of(market(tmp_path, paid=funding(hours=(1, 2.5, 3, 3.5, 4)), marks=marks)).settlements[1]
    # at 3 h the close of mark bar 2 ties with the open of trade bar 3; at 4 h the trade is later
    assert sources_and_marks(part) == [
        ("mark", 201.0),
        ("mark", 202.0),
        ("mark", 202.5),
        ("mark", 202.5),
        ("trade", 104.0),
    ]


def test_a_settlements_own_mark_comes_first(tmp_path):
    paid = funding(hours=(1, 2, 3), mark_price=[150.0, None, 170.0])
    marks = bars(base=200.0).select("ts", "open", "close")
    part = panel_of(market(tmp_path, paid=paid, marks=marks)).settlements[1]
    assert sources_and_marks(part) == [("own", 150.0), ("mark", 202.0), ("own", 170.0)]
    bad = funding(hours=(1, 2, 3), mark_price=[150.0, 0.0, None])
    with pytest.raises(DataError, match="mark_price must be a number above 0, found 0.0") as caught:
        panel_of(market(tmp_path, paid=bad))
    assert caught.value.where["row"] == 1


def test_marks_do_not_depend_on_the_bar_of_the_run(tmp_path):
    paid = funding(hours=(1, 3, 5))
    root = market(tmp_path, paid=paid, marks=bars(base=200.0).select("ts", "open", "close"))
    hourly, two_hourly = panel_of(root).settlements[1], panel_of(root, bar="2h").settlements[1]
    assert sources_and_marks(hourly) == sources_and_marks(two_hourly)


def test_a_span_without_settlements_is_refused(tmp_path):
    root = market(tmp_path, paid=funding(hours=(100, 108)))
    with pytest.raises(DataError, match="no funding settlement of perp:here:BTC-USDT within the run") as caught:
        panel_of(root)
    assert caught.value.where["file"] == root / PERP.path("funding")


def test_the_last_close_before_a_gap_at_the_start_is_found(tmp_path):
    # the run begins at 3 h; the perp's last bar before it is that of 0 h, older than what the warm-up reads
    root = market(tmp_path, perp=bars(hours=[0, 4, 5]))
    data = Data(root=str(root), start=START.replace(hour=3), end=START.replace(hour=6), bar="1h")
    panel = load_panel(data, LEGS)
    assert panel.ts_us[0] == START_US + 3 * HOUR
    assert panel.missing[:, 1].tolist() == [True, False, False]
    assert panel.open_price[:, 1].tolist() == [100.5, 104.0, 105.0]
    assert panel.close_price[:, 1].tolist() == [100.5, 104.5, 105.5]
