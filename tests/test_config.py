"""Configurations: what loads, what is refused, and that every refusal names its key and what to write instead."""

import copy
import math
from pathlib import Path

import pytest

from basis_bt.core.config import apply_settings, build_config, config_dict, config_hash, load_config, read_toml
from basis_bt.core.errors import ConfigError
from basis_bt.signals import build_signal

SAMPLE = Path(__file__).resolve().parent.parent / "configs" / "sample_btc_carry.toml"
REFUSALS = {
    # unknown keys, and choices with a typo
    "section": ("rool", "1", "rool: unknown key; did you mean 'rule'?"),
    "key": ("rule.entyr", "0.1", "rule.entyr: unknown key; did you mean 'entry'?"),
    "key of a list": ("combo.legs.1.ratios", "1.0", "combo.legs.1.ratios: unknown key; did you mean 'ratio'?"),
    "key like none": ("fills.zzz", "1", "fills.zzz: unknown key; allowed: model, latency"),
    "lots": ("size.lots", '"vanue"', "size.lots: must be 'venue' or 'none', found 'vanue'; did you mean 'venue'?"),
    "liquidity": ("costs.liquidity", '"takr"', "costs.liquidity: must be 'taker' or 'maker', found 'takr'; did you"),
    "fill model": ("fills.model", '"certian"', "or 'maker', found 'certian'; did you mean 'certain'?"),
    # types
    "text for a number": ("size.leverage", '"five"', "size.leverage: input should be a valid number, found 'five'"),
    "true for a number": ("size.leverage", "true", "size.leverage: input should be a valid number, found True (bool)"),
    "true by leg": ("costs.taker_fee_bps.spot", "true", "costs.taker_fee_bps.spot: input should be a valid number"),
    "true for hours": ("signal.hours", "true", "signal.hours: input should be a valid number, found True (bool)"),
    "list for a number": ("rule.entry", "[0.1]", "rule.entry: input should be a valid number, found [0.1] (list)"),
    "number for a list": ("costs.bucket_usd", "5", "costs.bucket_usd: input should be a valid array, found 5 (int)"),
    "number for a table": ("rule", "3", "rule: input should be an object, found 3 (int)"),
    "number for a bool": ("size.compounding", "1", "size.compounding: input should be a valid boolean, found 1 (int)"),
    "number for a text": ("data.root", "3", "data.root: input should be a valid string, found 3 (int)"),
    # numbers that are none
    "nan": ("rule.entry", "nan", "rule.entry: input should be a finite number, found nan"),
    "inf": ("size.capital_usd", "inf", "size.capital_usd: input should be a finite number, found inf"),
    "nan by leg": ("costs.half_spread_bps", "{ spot = nan }", "costs.half_spread_bps.spot: input should be a finite"),
    "nan hours": ("signal.hours", "nan", "signal.hours: input should be a finite number, found nan"),
    # ranges
    "negative hours": ("signal.hours", "-3", "signal: hours: a duration is a finite number of hours >= 0, found -3"),
    "negative cooldown": ("rule.cooldown_hours", "-1", "rule: cooldown_hours: a duration is a finite number"),
    "negative latency": ("fills.latency", '"-1h"', "fills: latency: '-1h' is no duration"),
    "no duration": ("data.bar", '"soon"', "data: bar: 'soon' is no duration; write hours as a number, or '30m'"),
    "bar that divides no day": ("data.bar", '"7m"', "data: bar must divide a day"),
    "entry at exit": ("rule.exit", "0.1", "rule: entry must be above exit, found entry = 0.1 and exit = 0.1"),
    "entry under exit": ("rule.exit", "0.2", "rule: entry must be above exit, found entry = 0.1 and exit = 0.2"),
    "reverse under zero": ("rule", "{ entry = -0.1, exit = -0.2, reverse = true }", "rule: with reverse, entry must"),
    "start at end": ("data.start", '"2024-12-31T00:00:00Z"', "data: start must be before end"),
    "start after end": ("data.start", '"2025-06-01T00:00:00Z"', "data: start must be before end"),
    "naive text": ("data.start", '"2024-01-01T00:00:00"', "data: 2024-01-01T00:00:00 names no time zone; write"),
    "naive instant": ("data.start", "2024-01-01T00:00:00", "data: 2024-01-01T00:00:00 names no time zone; write"),
    "bare date": ("data.start", "2024-01-01", "found 2024-01-01 (date)"),
    "negative taker fee": ("costs.taker_fee_bps", "-5", "costs: taker_fee_bps must be at least 0"),
    "negative taker fee by leg": ("costs.taker_fee_bps.perp", "-5", "costs: taker_fee_bps.perp must be at least 0"),
    "too high a rebate": ("costs.maker_fee_bps", "-6", "costs: maker_fee_bps must be at least -5"),
    "leverage 0": ("size.leverage", "0", "size: leverage must be above 0 and at most 150, found 0"),
    "leverage negative": ("size.leverage", "-2", "size: leverage must be above 0 and at most 150, found -2"),
    "allocation above 1": ("size.allocation", "1.5", "size: allocation must be above 0 and at most 1, found 1.5"),
    # legs
    "kind": ("combo.legs.0.instrument", '"option:binance:BTC-USDT"', "combo.legs.0: 'option:binance:BTC-USDT': kind"),
    "no instrument": ("combo.legs.0.instrument", '"BTC"', "combo.legs.0: 'BTC' is no instrument; write kind"),
    "kind of a cost": ("costs.half_spread_bps", "{ spto = 1.0 }", "costs: 'spto' is no instrument"),
    "one leg": ("combo.legs", '[{ instrument = "spot:a:BTC-USDT", ratio = 1.0 }]', "combo: a combo has two legs"),
    "same twice": ("combo.legs.1.instrument", '"spot:binance:BTC-USDT"', "combo: an instrument stands once in a combo"),
    "ratio 0": ("combo.legs.1.ratio", "0", "combo.legs.1: ratio of perp:binance:BTC-USDT must be a finite number"),
    "own signal without sql": ("signal.name", '"sql"', "signal: a signal of your own has both"),
}  # fmt: skip


@pytest.fixture
def raw():
    return read_toml(SAMPLE)


def test_the_sample_configuration_loads():
    config = load_config(SAMPLE)
    assert config.name == "btc-carry"
    assert [str(leg) for leg in config.combo.instruments] == ["spot:binance:BTC-USDT", "perp:binance:BTC-USDT"]
    assert [leg.ratio for leg in config.combo.legs] == [1.0, -1.0]
    assert config.combo.reference == 0
    assert config.data.bar_us == 3_600_000_000
    assert (config.signal.name, config.signal.hours) == ("funding_apr", 72.0)
    assert (config.rule.entry, config.rule.exit, config.rule.reverse) == (0.10, 0.02, False)
    assert (config.size.capital_usd, config.size.leverage, config.size.compounding) == (1_000_000.0, 3.0, True)
    assert config.costs.taker_fee_bps == {"spot": 10.0, "perp": 5.0}
    assert (config.fills.model, config.fills.latency, config.wallets.mode) == ("certain", "0h", "pooled")


@pytest.mark.parametrize(("key", "value", "says"), REFUSALS.values(), ids=REFUSALS)
def test_a_mistake_is_refused_by_its_key(raw, key, value, says):
    with pytest.raises(ConfigError) as caught:
        build_config(apply_settings(raw, {key: value}), source="carry.toml")
    assert says in str(caught.value)
    assert caught.value.fix
    assert caught.value.exit_code == 2


def test_every_mistake_of_a_configuration_is_named_at_once(raw):
    settings = {"rule.entyr": "1", "size.leverage": '"five"', "fills.model": '"certian"'}
    with pytest.raises(ConfigError) as caught:
        build_config(apply_settings(raw, settings), source="carry.toml")
    for key in settings:
        assert f"{key}: " in caught.value.what
    assert caught.value.where["file"] == "carry.toml"


@pytest.mark.parametrize("section", ["data", "combo", "signal", "rule"])
def test_a_missing_section_is_named(raw, section):
    del raw[section]
    with pytest.raises(ConfigError, match=f"^{section}: missing"):
        build_config(raw)


def test_a_rebate_of_the_maker_is_allowed(raw):
    assert build_config(apply_settings(raw, {"costs.maker_fee_bps": "-5"})).costs.maker_fee_bps == -5.0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"signal.name": "funding_arp"}, "no signal is called 'funding_arp'; did you mean 'funding_apr'?"),
        ({"signal.name": "zzz"}, "allowed: funding_apr, "),
        ({"signal.name": "basis_bps"}, "signal.hours: basis_bps takes no hours"),
        ({"signal.hours": "0"}, "signal.hours: must be above 0"),
    ],
)
def test_a_signal_that_is_none_is_refused(raw, settings, says):
    config = build_config(apply_settings(raw, settings))
    with pytest.raises(ConfigError) as caught:
        build_signal(config.signal, config.combo, bar_us=config.data.bar_us)
    assert "signal." in str(caught.value)
    assert says in str(caught.value)


def test_settings_reach_nested_keys_and_lists(raw):
    before = copy.deepcopy(raw)
    out = apply_settings(
        raw,
        {
            "rule.entry": "0.08",
            "combo.legs.1.ratio": "-0.5",
            "signal.hours": "1d",
            "costs.maker_fee_bps.perp": "-0.5",
            "size.compounding": "false",
        },
    )
    assert raw == before
    config = build_config(out)
    assert config.rule.entry == 0.08
    assert [leg.ratio for leg in config.combo.legs] == [1.0, -0.5]
    assert config.signal.hours == "1d"
    assert config.costs.maker_fee_bps == {"perp": -0.5}
    assert config.size.compounding is False


@pytest.mark.parametrize("key", ["combo.legs.7.ratio", "combo.legs.7", "combo.legs.x.ratio", "rule.entry.deep"])
def test_a_setting_that_leads_nowhere_is_refused(raw, key):
    with pytest.raises(ConfigError, match="is not inside a table") as caught:
        apply_settings(raw, {key: "1"})
    assert f"--set {key}" in str(caught.value)


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.toml"):
        load_config(tmp_path / "nowhere.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = 'a'\n[rule\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        load_config(broken)
    assert caught.value.where["file"] == broken


def test_the_hash_is_of_values_and_not_of_the_name(raw):
    def hash_of(**settings):
        dotted = {key.replace("__", "."): value for key, value in settings.items()}
        return config_hash(build_config(apply_settings(raw, dotted)))

    plain = config_hash(build_config(raw))
    assert len(plain) == 64
    assert hash_of(name="another") == plain
    assert hash_of(size__leverage="3.0") == plain
    assert hash_of(costs__half_spread_bps="-0.0") == hash_of(costs__half_spread_bps="0.0") == hash_of(
        costs__half_spread_bps="0"
    )
    assert hash_of(costs__half_spread_bps="{ spot = -0.0 }") == hash_of(costs__half_spread_bps="{ spot = 0.0 }")
    others = {hash_of(size__leverage="4"), hash_of(rule__exit="0.03"), hash_of(combo__legs__1__ratio="-2")}
    assert len(others | {plain}) == 4


def test_the_plain_configuration_reads_back_as_itself(raw):
    config = build_config(raw)
    plain = config_dict(config)
    assert plain["size"]["lots"] == "venue"
    assert plain["rule"]["max_hold_hours"] is None
    assert math.isfinite(plain["costs"]["impact_exponent"])
    again = build_config(plain)
    assert again == config
    assert config_hash(again) == config_hash(config)
