"""The synthetic market folder: the same every time, plausible, with the planted defects where its README says."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from basis_bt.core.errors import DataError, StoreError
from basis_bt.market.sample import COINS, GAPS, MARKER, N_BARS, N_LATE, START, VENUES, write_sample

HOUR_MS = 3_600_000
BAR_FILES = [
    f"{kind}/{venue}/{coin}-USDT.parquet" for kind in ("spot", "perp", "mark") for venue in VENUES for coin in COINS
]
FUNDING_FILES = [f"funding/{venue}/{coin}-USDT.parquet" for venue in VENUES for coin in COINS]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("market") / "sample"
    write_sample(root)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def late_ms(frame: pl.DataFrame) -> pl.Series:
    return frame["ts"].dt.epoch("ms") % HOUR_MS


def test_same_seed_gives_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    files = write_sample(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(sample)
    assert sorted(path.relative_to(tmp_path / "again").as_posix() for path in files) == sorted(contents(sample))


def test_another_seed_gives_other_prices_everywhere(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "other", seed=7)
    first, other = contents(sample), contents(tmp_path / "other")
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_folder_is_complete_and_small(sample: Path) -> None:
    found = contents(sample)
    assert sorted(found) == sorted([*BAR_FILES, *FUNDING_FILES, "README.md"])
    assert sum(len(data) for data in found.values()) < 5_000_000
    assert sorted(path.name for path in sample.parent.iterdir()) == ["sample"]


@pytest.mark.parametrize("name", BAR_FILES)
def test_bars_have_the_schema_and_make_sense(sample: Path, name: str) -> None:
    frame = pl.read_parquet(sample / name)
    prices = ["open", "high", "low", "close"]
    columns = prices + ([] if name.startswith("mark") else ["volume"])
    assert dict(frame.schema) == {"ts": pl.Datetime("ms", "UTC"), **dict.fromkeys(columns, pl.Float64())}
    assert frame.height == N_BARS - GAPS.get(name, (START, 0))[1]
    assert frame["ts"][0] == START and frame["ts"][-1] == datetime(2024, 12, 31, 23, tzinfo=UTC)
    assert frame["ts"].is_sorted() and frame["ts"].is_unique().all() and (late_ms(frame) == 0).all()
    assert frame.select(pl.all_horizontal((pl.col(columns) > 0) & pl.col(columns).is_finite()).all()).item()
    assert (frame["high"] >= frame.select(pl.max_horizontal("open", "close")).to_series()).all()
    assert (frame["low"] <= frame.select(pl.min_horizontal("open", "close")).to_series()).all()
    next_open_bps = (frame["open"][1:] / frame["close"][:-1] - 1).abs() * 1e4
    assert next_open_bps.quantile(0.99) < 0.5


@pytest.mark.parametrize("name", FUNDING_FILES)
def test_funding_has_the_schema_and_rests_often(sample: Path, name: str) -> None:
    frame = pl.read_parquet(sample / name)
    assert dict(frame.schema) == {"ts": pl.Datetime("ms", "UTC"), "rate": pl.Float64(), "interval_hours": pl.Int32()}
    assert frame["ts"].is_sorted() and frame["ts"].is_unique().all()
    assert frame["rate"].is_finite().all() and frame["rate"].abs().max() <= 0.003
    at_rest = (frame["rate"] == 0.0001 * frame["interval_hours"] / 8).mean()
    assert 0.3 < at_rest < 0.8
    assert 0.02 < (frame["rate"] < 0).mean() < 0.3


def test_coins_move_as_much_as_real_ones_and_venues_agree(sample: Path) -> None:
    for coin in COINS:
        spot = pl.read_parquet(sample / f"spot/bybit/{coin}-USDT.parquet")["close"].to_numpy()
        moves = np.diff(np.log(spot))
        assert 0.025 < moves.std() * np.sqrt(24) < 0.05
        kurtosis = ((moves - moves.mean()) ** 4).mean() / moves.var() ** 2
        assert kurtosis > 5
        size = np.abs(moves)
        assert np.corrcoef(size[24:], size[:-24])[0, 1] > 0.1
        basis = {}
        for venue in VENUES:
            legs = [
                pl.read_parquet(sample / f"{kind}/{venue}/{coin}-USDT.parquet") for kind in ("perp", "spot", "mark")
            ]
            joined = legs[0].join(legs[1], on="ts", suffix="_spot").join(legs[2], on="ts", suffix="_mark")
            basis[venue] = joined.select("ts", bps=(pl.col("close") / pl.col("close_spot") - 1) * 1e4)
            assert basis[venue]["bps"].abs().max() < 60
            assert ((joined["close"] / joined["close_mark"] - 1) * 1e4).abs().max() < 4
        both = basis["binance"].join(basis["bybit"], on="ts", suffix="_bybit")
        assert 0.6 < np.corrcoef(both["bps"], both["bps_bybit"])[0, 1] < 0.95


def test_gaps_are_where_the_readme_says(sample: Path) -> None:
    hour = timedelta(hours=1)
    missing = {
        "spot/binance/BTC-USDT.parquet": [datetime(2024, 5, 14, h, tzinfo=UTC) for h in (7, 8, 9)],
        "perp/bybit/ETH-USDT.parquet": [datetime(2024, 9, 10, h, tzinfo=UTC) for h in (15, 16)],
    }
    every = pl.datetime_range(START, START + (N_BARS - 1) * hour, hour, time_unit="ms", eager=True)
    for name in BAR_FILES:
        stamps = set(pl.read_parquet(sample / name)["ts"].to_list())
        assert [stamp for stamp in every.to_list() if stamp not in stamps] == missing.get(name, [])


def test_sol_on_bybit_changes_to_four_hours(sample: Path) -> None:
    for name in FUNDING_FILES:
        frame = pl.read_parquet(sample / name).with_columns(hour=pl.col("ts").dt.truncate("1h"))
        spacing = frame["hour"].diff().dt.total_hours()[1:]
        assert (spacing == frame["interval_hours"][1:]).all()
        four = frame.filter(pl.col("interval_hours") == 4)
        if name != "funding/bybit/SOL-USDT.parquet":
            assert four.is_empty() and frame.height == 1098
        else:
            assert four["hour"][0] == datetime(2024, 8, 1, 4, tzinfo=UTC)
            assert frame.filter(pl.col("hour") >= datetime(2024, 8, 1, 4, tzinfo=UTC)).equals(four)


def test_settlements_are_late_as_on_their_venue(sample: Path) -> None:
    for name in FUNDING_FILES:
        late = late_ms(pl.read_parquet(sample / name))
        usual = 20 if "binance" in name else 0
        assert ((late > usual) & (late < 1000)).sum() == N_LATE
        assert (late <= usual).sum() == len(late) - N_LATE
        assert late.n_unique() > 15 or usual == 0


def test_funding_follows_from_the_premium(sample: Path) -> None:
    """By hand: mean of mark over spot weighted 1 to 8, plus clamp(0.01 % - mean, +-0.05 %); spot adds some noise."""
    mark = pl.read_parquet(sample / "mark/bybit/BTC-USDT.parquet")["close"].to_numpy()
    spot = pl.read_parquet(sample / "spot/bybit/BTC-USDT.parquet")["close"].to_numpy()
    rates = pl.read_parquet(sample / "funding/bybit/BTC-USDT.parquet")["rate"].to_numpy()
    premium = (mark / spot - 1)[: 8 * 1097].reshape(-1, 8) @ np.arange(1, 9) / 36
    expected = premium + np.clip(0.0001 - premium, -0.0005, 0.0005)
    assert np.abs(expected - rates[1:]).max() < 1.5e-4


@pytest.mark.parametrize("coin", COINS)
@pytest.mark.parametrize("venue", VENUES)
def test_a_carry_enters_and_leaves_several_times(sample: Path, coin: str, venue: str) -> None:
    frame = pl.read_parquet(sample / f"funding/{venue}/{coin}-USDT.parquet")
    hours = (frame["ts"].dt.epoch("ms") - int(START.timestamp()) * 1000).to_numpy() // HOUR_MS
    paid = np.zeros(N_BARS)
    paid[hours] = frame["rate"].to_numpy()
    apr = np.convolve(paid, np.ones(72))[72:N_BARS] * 8760 / 72
    held, entries, exits = False, 0, 0
    for value in apr:
        if not held and value >= 0.10:
            held, entries = True, entries + 1
        elif held and value <= 0.02:
            held, exits = False, exits + 1
    assert 5 <= entries <= 25 and exits >= entries - 1


def test_files_carry_page_checksums_and_say_they_are_synthetic(sample: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = sample / "perp/binance/BTC-USDT.parquet"
    assert pq.read_schema(path).metadata[b"basis_bt.synthetic"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.parquet").write_bytes(data)
    with pytest.raises(OSError, match="(?i)crc|checksum"):
        pq.read_table(tmp_path / "bad.parquet", page_checksum_verification=True)


def test_readme_names_the_seed_and_what_is_planted(sample: Path) -> None:
    text = (sample / "README.md").read_text(encoding="utf-8")
    assert text.startswith(MARKER)
    planted = ("2024-05-14 07:00", "2024-09-10 15:00", "2024-08-01 00:00", "20 ms")
    assert all(words in text for words in ("No real prices", "seed 20240101", *planted))


def test_an_existing_folder_is_refused_and_left_as_it_is(sample: Path) -> None:
    before = contents(sample)
    with pytest.raises(StoreError, match="--overwrite") as caught:
        write_sample(sample, seed=1)
    assert caught.value.where["path"] == sample.resolve()
    assert contents(sample) == before


def test_overwrite_replaces_a_sample(sample: Path, tmp_path: Path) -> None:
    root = tmp_path / "sample"
    write_sample(root, seed=1)
    write_sample(root, overwrite=True)
    assert contents(root) == contents(sample)
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


@pytest.mark.parametrize("name", ["notes.txt", "perp/binance/DOGE-USDT.parquet", "perp/binance/BTC-USDT.parquet"])
def test_overwrite_never_removes_what_the_generator_did_not_write(tmp_path: Path, name: str) -> None:
    root = tmp_path / "sample"
    write_sample(root)
    pl.DataFrame({"mine": [1.0]}).write_parquet(root / name)
    before = contents(root)
    with pytest.raises(StoreError, match="no sample file"):
        write_sample(root, overwrite=True)
    assert contents(root) == before


def test_overwrite_refuses_a_folder_without_the_marker(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my data")
    with pytest.raises(StoreError, match="no sample"):
        write_sample(tmp_path, overwrite=True)
    assert (tmp_path / "README.md").read_text() == "my data"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("basis_bt.market.sample._readme", lambda **_: full())
    with pytest.raises(OSError, match="disk full"):
        write_sample(tmp_path / "sample")
    assert list(tmp_path.iterdir()) == []


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="-1"):
        write_sample(tmp_path / "sample", seed=-1)


def test_command_prints_files_size_and_that_it_is_synthetic(tmp_path: Path) -> None:
    from basis_bt.cli.data import command

    done = CliRunner().invoke(command, ["sample", str(tmp_path / "s"), "--seed", "3"])
    assert done.exit_code == 0, done.output
    assert "perp/bybit/ETH-USDT.parquet" in done.output and "25 files" in done.output
    assert "Synthetic" in done.output and "seed 3" in done.output
