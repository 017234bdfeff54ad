"""Market folders in an S3-compatible store on this machine: written, read, checked and run from."""

import polars as pl
import pytest

import basis_bt
from basis_bt.core.errors import ConfigError, DataError
from basis_bt.market.audit import audit
from basis_bt.market.catalogue import catalogue
from basis_bt.market.files import read_series
from basis_bt.market.remote import market_root
from basis_bt.market.sample import write_sample
from basis_bt.market.schemas import SeriesKey
from basis_bt.market.write import write_series

KEY = SeriesKey("spot", "binance", "BTC-USDT")
RUN = {
    "name": "remote",
    "data": {"start": "2024-02-01T00:00Z", "end": "2024-03-01T00:00Z"},
    "combo": {"legs": [{"instrument": "spot:binance:BTC-USDT", "ratio": 1.0},
                       {"instrument": "perp:binance:BTC-USDT", "ratio": -1.0}]},
    "signal": {"name": "funding_apr", "hours": 72},
    "rule": {"entry": 0.05, "exit": 0.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An empty bucket of a store on loopback, and a sample folder beside it."""
    pytest.importorskip("s3fs", reason="remote folders need the extra basis-bt[s3]")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        patch.setenv(name, value)
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="market")
    sample = tmp_path_factory.mktemp("remote") / "sample"
    write_sample(sample)
    yield sample
    patch.undo()
    server.stop()


@pytest.fixture(scope="module")
def remote(bucket):
    root = market_root("s3://market/all")
    for path in bucket.glob("*/binance/BTC-USDT.parquet"):
        target = root / path.relative_to(bucket).as_posix()
        target.write_bytes(path.read_bytes())
    return root


def test_a_remote_series_reads_as_a_local_one(bucket, remote):
    near, far = read_series(bucket, KEY), read_series(remote, KEY)
    assert far.frame.equals(near.frame)
    assert far.sha256 == near.sha256


def test_a_remote_series_is_written_whole(bucket, remote):
    frame = read_series(bucket, KEY).frame
    root = market_root("s3://market/written")
    path = write_series(root, KEY, frame)
    assert str(path) == "s3://market/written/spot/binance/BTC-USDT.parquet"
    assert read_series(root, KEY).frame.equals(frame)


def test_a_damaged_remote_series_is_refused(bucket, remote):
    root = market_root("s3://market/damaged")
    path = write_series(root, KEY, read_series(bucket, KEY).frame)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        read_series(root, KEY)


def test_a_run_on_a_remote_folder_equals_the_local_one(bucket, remote):
    def metrics(root):
        return basis_bt.run(RUN | {"data": RUN["data"] | {"root": str(root)}}).metrics

    assert metrics(remote).equals(metrics(bucket))


def test_a_remote_folder_is_listed_and_checked(bucket, remote):
    listed = catalogue(remote)
    assert listed["rows"].to_list() == catalogue(bucket).filter(
        pl.col("venue") == "binance", pl.col("symbol") == "BTC-USDT")["rows"].to_list()  # fmt: skip
    assert audit(remote).filter(pl.col("severity") != "note").is_empty()


def test_an_unknown_store_is_refused_with_the_extra_to_install():
    with pytest.raises(ConfigError, match=r"nostore:// cannot be opened"):
        market_root("nostore://market/all")


def test_a_missing_remote_file_names_its_neighbours(remote):
    with pytest.raises(DataError, match="no perp file for perp:binance:BTC-USDC") as caught:
        read_series(remote, SeriesKey("perp", "binance", "BTC-USDC"))
    assert "perp/binance/BTC-USDT.parquet" in caught.value.fix
