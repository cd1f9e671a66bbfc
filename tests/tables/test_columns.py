from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import crosspatch
from crosspatch.errors import CohortError
from crosspatch.features.layouts import load_layout
from crosspatch.tables.column_map import Ambiguity, ColumnMap
from crosspatch.tables.columns import map_columns
from crosspatch.tables.mapping import Override, Overrides, read_mapping
from crosspatch.tables.meanings import feature_at
from crosspatch.tables.names import features, names, range_of
from crosspatch.tables.units import dimension_of

SHARED, FULL = load_layout("shared"), load_layout("full")

#: A plausible value of each shared feature, in our unit.
TYPICAL = {
    "v_baseline": -68.7,
    "input_resistance": 191.0,
    "tau": 14.0,
    "sag": 0.06,
    "vm_for_sag": -89.0,
    "rheobase_i": 90.0,
    "fi_fit_slope": 0.28,
    "latency_rheo": 0.07,
    "upstroke_downstroke_ratio_rheo": 2.2,
    "threshold_v_rheo": -35.5,
    "peak_deltav_rheo": 62.8,
    "fast_trough_deltav_rheo": -15.3,
    "trough_deltav_rheo": -16.3,
    "width_rheo": 0.6,
    "upstroke_rheo": 297.0,
    "upstroke_downstroke_ratio_ramp": 2.1,
    "threshold_v_ramp": -32.4,
    "peak_deltav_ramp": 56.3,
    "fast_trough_deltav_ramp": -16.7,
    "trough_deltav_ramp": -18.1,
    "threshold_i_ramp": 128.0,
    "upstroke_downstroke_ratio_short_square": 2.06,
    "threshold_v_short_square": -40.9,
    "peak_deltav_short_square": 68.9,
    "fast_trough_deltav_short_square": -15.5,
    "adapt_hero": 0.03,
    "avg_rate_hero": 13.0,
    "first_isi_inv_hero": 43.7,
    "isi_cv_hero": 0.27,
    "latency_hero": 0.025,
    "mean_isi_hero": 0.045,
    "median_isi_hero": 0.04,
}


def cells(count: int = 20) -> pd.DataFrame:
    """Cells around the typical values, the same every time."""
    factors = 1 + 0.1 * np.random.default_rng(0).uniform(-1, 1, (count, len(TYPICAL)))
    return pd.DataFrame(factors * np.array(list(TYPICAL.values())), columns=list(TYPICAL))


def one(header: str, values, layout=SHARED, overrides=None, **others):
    """The map of a table with one column, and some others."""
    frame = pd.DataFrame({header: values, **others})
    return map_columns(frame, layout, overrides)


def taken_of(mapped, feature: str):
    return next(taken for taken in mapped.taken if taken.feature == feature)


def reason(pairs, column: str) -> str:
    return str(dict(pairs)[column])


@pytest.mark.parametrize(
    ("header", "value", "feature", "unit", "expected"),
    [
        # our own names
        ("tau", 14.0, "tau", "ms", 14.0),
        ("tau", 0.014, "tau", "s", 14.0),
        ("Input_Resistance", 0.19, "input_resistance", "GOhm", 190.0),
        ("width_rheo", 0.0006, "width_rheo", "s", 0.6),
        ("width_rheo_us", 600, "width_rheo", "us", 0.6),
        ("upstroke_rheo (V/s)", 300, "upstroke_rheo", "mV/ms", 300),
        # IPFX
        ("rheo_threshold_v", -35.0, "threshold_v_rheo", "mV", -35.0),
        ("threshold_v_ramp", -0.032, "threshold_v_ramp", "V", -32.0),
        ("hero_adapt", 0.03, "adapt_hero", "ratio", 0.03),
        ("hero_avg_rate", 13.0, "avg_rate_hero", "spikes/s", 13.0),
        ("hero_first_isi", 0.025, "first_isi_inv_hero", "s", 40.0),
        ("hero_latency", 0.025, "latency_hero", "s", 0.025),
        ("latency at rheobase (ms)", 70, "latency_rheo", "ms", 0.07),
        ("rheo_width", 0.0006, "width_rheo", "s", 0.6),
        # Allen Cell Types Database
        ("vrest", -70.0, "v_baseline", "mV", -70.0),
        ("ef__vrest", -70.0, "v_baseline", "mV", -70.0),
        ("ri", 190.0, "input_resistance", "MOhm", 190.0),
        ("f_i_curve_slope", 0.28, "fi_fit_slope", "spikes/s/pA", 0.28),
        ("adaptation", 0.03, "adapt_hero", "ratio", 0.03),
        ("avg_isi", 45.0, "mean_isi_hero", "ms", 0.045),
        ("threshold_i_long_square", 90.0, "rheobase_i", "pA", 90.0),
        ("upstroke_downstroke_ratio_ramp", 2.2, "upstroke_downstroke_ratio_ramp", "ratio", 2.2),
        # eFEL
        ("voltage_base", -70.0, "v_baseline", "mV", -70.0),
        ("ohmic_input_resistance", 190.0, "input_resistance", "MOhm", 190.0),
        ("decay_time_constant_after_stim", 14.0, "tau", "ms", 14.0),
        ("sag_ratio1", 0.06, "sag", "ratio", 0.06),
        ("sag_ratio2", 0.94, "sag", "ratio", 0.06),
        ("AP_begin_voltage", -35.0, "threshold_v_rheo", "mV", -35.0),
        ("AP_amplitude", 62.0, "peak_deltav_rheo", "mV", 62.0),
        ("AP_duration_half_width", 0.6, "width_rheo", "ms", 0.6),
        ("AP_peak_upstroke", 300.0, "upstroke_rheo", "mV/ms", 300.0),
        ("inv_first_ISI", 40.0, "first_isi_inv_hero", "1/s", 40.0),
        ("minimum_voltage", -89.0, "vm_for_sag", "mV", -89.0),
        # challenge tables
        ("Threshold V (long square) (millivolts)", -35.0, "threshold_v_rheo", "mV", -35.0),
        ("Threshold I (ramp) (picoamps)", 128.0, "threshold_i_ramp", "pA", 128.0),
        ("AP maximum rate of rise (Upstroke) (mV/ms)", 297.0, "upstroke_rheo", "mV/ms", 297.0),
        ("Input resistance (M?)", 190.0, "input_resistance", "MOhm", 190.0),
        ("Input resistance (MΩ)", 190.0, "input_resistance", "MOhm", 190.0),
        ("Input resistance (M\u2126)", 190.0, "input_resistance", "MOhm", 190.0),
        ("Input resistance (MÎ©)", 190.0, "input_resistance", "MOhm", 190.0),
        ("Input resistance (M\ufffd)", 190.0, "input_resistance", "MOhm", 190.0),
        # plain English and abbreviations
        ("Resting membrane potential (mV)", -70.0, "v_baseline", "mV", -70.0),
        ("Resting membrane potential, mV", -70.0, "v_baseline", "mV", -70.0),
        ("RestingMembranePotential", -70.0, "v_baseline", "mV", -70.0),
        ("RMP", -0.07, "v_baseline", "V", -70.0),
        ("Vm", -70.0, "v_baseline", "mV", -70.0),
        ("V_rest [mV]", -70.0, "v_baseline", "mV", -70.0),
        ("Rin_GOhm", 0.19, "input_resistance", "GOhm", 190.0),
        ("IR_mohm", 190.0, "input_resistance", "MOhm", 190.0),
        ("Rm in MOhm", 190.0, "input_resistance", "MOhm", 190.0),
        ("τm (ms)", 14.0, "tau", "ms", 14.0),
        ("Membrane time constant (µs)", 14000.0, "tau", "us", 14.0),
        ("Membrane time constant (μs)", 14000.0, "tau", "us", 14.0),
        ("Sag ratio (%)", 6.0, "sag", "%", 0.06),
        ("sag ratio", 6.0, "sag", "%", 0.06),
        ("AP threshold", -35.0, "threshold_v_rheo", "mV", -35.0),
        ("spike threshold (V)", -0.035, "threshold_v_rheo", "V", -35.0),
        ("threshold (mV)", -35.0, "threshold_v_rheo", "mV", -35.0),
        ("threshold (pA)", 90.0, "rheobase_i", "pA", 90.0),
        ("Action potential amplitude", 62.0, "peak_deltav_rheo", "mV", 62.0),
        ("spike height", 62.0, "peak_deltav_rheo", "mV", 62.0),
        ("AP half-width", 0.6, "width_rheo", "ms", 0.6),
        ("half width (ms)", 0.6, "width_rheo", "ms", 0.6),
        ("FWHM", 0.0006, "width_rheo", "s", 0.6),
        ("Rheobase", 0.09, "rheobase_i", "nA", 90.0),
        ("rheobase (nA)", 0.09, "rheobase_i", "nA", 90.0),
        ("AHP amplitude (mV)", 15.0, "fast_trough_deltav_rheo", "mV", -15.0),
        ("AHP amplitude (mV)", -15.0, "fast_trough_deltav_rheo", "mV", -15.0),
        ("f-I slope (Hz/nA)", 280.0, "fi_fit_slope", "Hz/nA", 0.28),
        ("F/I slope (spikes/s/pA)", 0.28, "fi_fit_slope", "spikes/s/pA", 0.28),
        ("fi_slope_hz_per_pa", 0.28, "fi_fit_slope", "spikes/s/pA", 0.28),
        ("Max rate of rise (V/s)", 297.0, "upstroke_rheo", "mV/ms", 297.0),
        ("adaptation index", 0.03, "adapt_hero", "ratio", 0.03),
        ("mean ISI (ms)", 45.0, "mean_isi_hero", "ms", 0.045),
        ("CV of ISI", 0.27, "isi_cv_hero", "ratio", 0.27),
        ("mean firing rate", 13.0, "avg_rate_hero", "spikes/s", 13.0),
        ("Firing rate (spikes/s)", 13.0, "avg_rate_hero", "spikes/s", 13.0),
        ("first ISI (ms)", 25.0, "first_isi_inv_hero", "ms", 40.0),
    ],
)  # fmt: skip
def test_names_and_units(header: str, value: float, feature: str, unit: str, expected: float):
    for values in ([value], [str(value)] * 3):
        frame = pd.DataFrame({header: values})
        mapped = map_columns(frame, SHARED)
        taken = taken_of(mapped, feature)
        assert (taken.columns, taken.unit) == ((header,), unit)
        X, counted = mapped.values(frame)
        assert X.dtype == np.float32
        assert X.shape == (len(values), 32)
        np.testing.assert_allclose(X[:, SHARED.feature_names.index(feature)], expected, rtol=1e-5)
        assert np.isfinite(X).sum() == len(values)
        assert counted == {}


def test_every_unit_can_be_told_from_the_values():
    # Two units of one dimension never both make a median plausible.
    for feature, ours in features().items():
        allowed = range_of(feature)
        dimension = dimension_of(ours.unit)
        if dimension in ("ratio", "angle", "area"):
            continue
        sizes = [abs(edge) for edge in (allowed.low, allowed.high)]
        least = allowed.floor or min(sizes)
        assert 0 < max(sizes) / least < 1000, feature


@pytest.mark.parametrize("feature", FULL.feature_names)
def test_every_feature_of_the_full_layout_is_read_by_its_own_name(feature: str):
    allowed = range_of(feature)
    # Not in the middle, which is 0 where both signs occur.
    value = 0.4 * allowed.low + 0.6 * allowed.high
    mapped = one(feature, [value], FULL)
    assert [taken.feature for taken in mapped.taken] == [feature]
    assert mapped.taken[0].factor == 1


def test_times_in_seconds_are_told_from_milliseconds_by_their_values():
    assert taken_of(one("tau", [0.014, 0.02]), "tau").how == "our own name; unit from the values"
    assert taken_of(one("tau (s)", [0.014]), "tau").how == "unit in the name; our own name"


@pytest.mark.parametrize(
    ("header", "value", "says", "right"),
    [
        ("AP half-width (ms)", 0.00062, "says ms", "unit: s"),
        ("Rin (MOhm)", 0.19, "says MOhm", "unit: GOhm"),
        ("RMP_mV", -0.07, "says mV", "unit: V"),
        ("rheobase (pA)", 0.09, "says pA", "unit: nA"),
        ("latency_hero (s)", 25.0, "says s", "unit: ms"),
    ],
)
def test_a_unit_that_cannot_be_is_refused(header: str, value: float, says: str, right: str):
    mapped = one(header, [value] * 5)
    assert mapped.taken == ()
    why = reason(mapped.refused, header)
    assert says in why
    assert right in why
    # What the message says to write is what settles it.
    line = why.split("write '", 1)[1].rsplit("' in the mapping file", 1)[0]
    entry = yaml.safe_load(line)[header]
    override = Overrides("m", {header: Override(entry["feature"], entry["unit"])})
    assert len(one(header, [value] * 5, overrides=override).taken) == 1


def test_a_unit_of_another_dimension_is_refused():
    mapped = one("Rin (ms)", [190.0])
    assert "says ms, but input_resistance is a resistance" in reason(mapped.refused, "Rin (ms)")


def test_a_value_plausible_in_no_unit_is_refused():
    name = "membrane time constant"
    mapped = one(name, [0.8])
    assert mapped.taken == ()
    assert "plausible for tau in none of s, ms, us" in reason(mapped.refused, name)
    # The line that is proposed makes the values no worse.
    assert "unit: ms}" in reason(mapped.refused, name)
    assert "unit:" not in reason(one(name, [1e9]).refused, name)


def test_small_percentages_are_not_taken_for_fractions():
    # Half could be a fraction, but not beside 30.
    mapped = one("sag", [0.5, 3.0, 6.0, 8.0, 30.0])
    assert taken_of(mapped, "sag").unit == "%"
    assert one("sag", [0.3, 0.5, 1.5]).taken == ()


def test_sag_given_as_steady_state_over_peak_is_refused_and_can_be_mapped():
    mapped = one("Sag ratio", [0.9, 0.95])
    assert "operation: one_minus" in reason(mapped.refused, "Sag ratio")
    override = Overrides("m", {"Sag ratio": Override("sag", None, "one_minus")})
    assert taken_of(one("Sag ratio", [0.9, 0.95], overrides=override), "sag").factor == 1


def test_bare_latency_is_ambiguous_but_not_beside_the_allen_institutes_names():
    mapped = one("Latency", [0.025])
    assert mapped.taken == ()
    assert mapped.ambiguous == (Ambiguity("Latency", ("latency_hero", "latency_rheo")),)
    why = reason(mapped.refused, "Latency")
    assert """write '"Latency": latency_hero' or '"Latency": latency_rheo' in the mapping""" in why
    for header in ("first spike latency", "time_to_first_spike", "AP latency (ms)"):
        assert one(header, [0.025]).ambiguous
    beside = one("latency", [0.025], adaptation=[0.03], avg_isi=[45.0])
    assert taken_of(beside, "latency_hero").columns == ("latency",)
    assert not beside.ambiguous


def test_ambiguous_column_is_not_asked_for_where_better_ones_give_all_it_may_be():
    mapped = one("latency", [0.025], latency_hero=[0.025], latency_rheo=[0.07])
    assert mapped.ambiguous == ()
    assert mapped.refused == ()
    assert "latency" in dict(mapped.unused)


def test_width_without_a_height_is_ambiguous():
    mapped = one("AP width (ms)", [0.6], FULL)
    assert mapped.ambiguous[0].candidates == ("width_rheo", "width_suprathresh_rheo")
    # Even in a layout that has only one of them.
    assert one("AP width (ms)", [0.6]).taken == ()


def test_names_of_efel_with_another_definition_are_not_taken():
    others = {"AP_begin_voltage": [-35.0], "voltage_base": [-70.0]}
    for header, value in {
        "AP_width": 1.0,
        "AHP_depth": 8.0,
        "AP_rise_rate": 100.0,
        "mean_frequency": 10.0,
        "ISI_CV": 0.3,
        "adaptation_index": 0.03,
    }.items():
        mapped = one(header, [value], **others)
        assert {taken.feature for taken in mapped.taken} == {"threshold_v_rheo", "v_baseline"}
        assert "eFEL" in reason(mapped.unused, header)
    # Elsewhere the same words are plain English.
    assert one("AHP depth", [8.0]).taken[0].feature == "fast_trough_deltav_rheo"


def test_time_of_threshold_is_no_latency():
    mapped = one("threshold_t_long_square", [0.59])
    assert mapped.taken == ()
    assert "onset" in reason(mapped.unused, "threshold_t_long_square")


def test_absolute_potentials_become_differences_of_the_same_stimulus():
    frame = pd.DataFrame(
        {
            "peak_v_rheo": [30.0, 28.0],
            "fast_trough_v_long_square": [-50.0, -51.0],
            "rheo_trough_v": [-0.052, -0.053],
            "threshold_v_long_square": [-35.0, -36.0],
            "Peak V (ramp) (millivolts)": [25.0, 26.0],
            "Threshold V (ramp) (millivolts)": [-31.0, -32.0],
            "peak_v_short_square": [27.0, 27.5],
        }
    )
    mapped = map_columns(frame, SHARED)
    X, _ = mapped.values(frame)
    result = pd.DataFrame(X, columns=SHARED.feature_names)
    np.testing.assert_allclose(result["peak_deltav_rheo"], [65.0, 64.0], rtol=1e-6)
    np.testing.assert_allclose(result["fast_trough_deltav_rheo"], [-15.0, -15.0], rtol=1e-6)
    np.testing.assert_allclose(result["trough_deltav_rheo"], [-17.0, -17.0], rtol=1e-6)
    np.testing.assert_allclose(result["peak_deltav_ramp"], [56.0, 58.0], rtol=1e-6)
    taken = taken_of(mapped, "trough_deltav_rheo")
    assert taken.columns == ("rheo_trough_v", "threshold_v_long_square")
    assert taken.unit == "V and mV"
    assert "threshold of the same stimulus" in reason(mapped.unused, "peak_v_short_square")


def test_a_peak_without_stimulus_needs_a_threshold_without_stimulus():
    mapped = one("AP peak voltage", [30.0], **{"AP threshold": [-35.0]})
    assert taken_of(mapped, "peak_deltav_rheo").operation == "difference"
    mapped = one("AP peak voltage", [30.0], threshold_v_rheo=[-35.0])
    assert "peak_deltav_rheo" in mapped.missing


def test_a_column_that_names_its_stimulus_beats_one_that_does_not():
    mapped = one("AP threshold (mV)", [-30.0], **{"Threshold V (long square) (mV)": [-35.0]})
    taken = taken_of(mapped, "threshold_v_rheo")
    assert taken.columns == ("Threshold V (long square) (mV)",)
    assert "does not name its stimulus" in reason(mapped.unused, "AP threshold (mV)")


def test_two_columns_that_agree_give_the_first_and_two_that_differ_none():
    agreeing = one("Rin (MOhm)", [190.0, 200.0], **{"input resistance (GOhm)": [0.19, 0.2]})
    assert taken_of(agreeing, "input_resistance").columns == ("Rin (MOhm)",)
    assert "same values as 'Rin (MOhm)'" in reason(agreeing.unused, "input resistance (GOhm)")
    differing = one("Rin (MOhm)", [190.0, 200.0], Rm=[190.0, 230.0])
    assert differing.taken == ()
    assert {column for column, _ in differing.refused} == {"Rin (MOhm)", "Rm"}
    assert "'Rm' also gives input_resistance" in reason(differing.refused, "Rin (MOhm)")


def test_duplicate_headers_are_refused():
    frame = pd.DataFrame([[14.0, 15.0, -70.0]], columns=["tau", "tau", "RMP"])
    mapped = map_columns(frame, SHARED)
    assert [taken.feature for taken in mapped.taken] == ["v_baseline"]
    assert "2 columns have this name" in reason(mapped.refused, "tau")
    assert np.isfinite(mapped.values(frame)[0]).sum() == 1
    with pytest.raises(CohortError, match="several such columns"):
        map_columns(frame, SHARED, Overrides("m.yaml", {"tau": Override("tau")}))


def test_headers_that_pandas_has_numbered_are_duplicates():
    mapped = one("tau", [14.0], **{"tau.1": [15.0]})
    assert {column for column, _ in mapped.refused} == {"tau", "tau.1"}
    override = Overrides("m", {"tau.1": Override("ignore")})
    mapped = one("tau", [14.0], overrides=override, **{"tau.1": [15.0]})
    assert taken_of(mapped, "tau").columns == ("tau",)


def test_an_absolute_potential_is_not_taken_for_a_depth():
    assert "outside" in reason(one("AHP (mV)", [-55.0]).refused, "AHP (mV)")


def test_exact_zeros_that_cannot_be_are_missing():
    frame = pd.DataFrame({"threshold_v_ramp": [-32.0, 0.0, -31.0], "sag": [0.06, 0.0, 0.05]})
    mapped = map_columns(frame, SHARED)
    X, counted = mapped.values(frame)
    result = pd.DataFrame(X, columns=SHARED.feature_names)
    assert result["threshold_v_ramp"].isna().tolist() == [False, True, False]
    # A sag of 0 can be.
    assert result["sag"].notna().all()
    assert list(counted) == ["threshold_v_ramp"]
    assert counted["threshold_v_ramp"].total == 1
    assert "exactly 0" in str(counted["threshold_v_ramp"])


def test_a_zero_is_missing_in_rows_where_the_same_sweep_has_one_that_cannot_be():
    frame = pd.DataFrame(
        {
            "threshold_v_ramp": [-32.0, 0.0, -31.0, -30.0],
            "mean_isi_hero": [0.045, 0.0, 0.04, 0.05],
            "isi_cv_hero": [0.3, 0.0, 0.0, 0.2],
            "sag": [0.06, 0.0, 0.05, 0.0],
            "tau": [14.0, 13.0, 15.0, 0.0],
        }
    )
    mapped = map_columns(frame, SHARED)
    X, counted = mapped.values(frame)
    result = pd.DataFrame(X, columns=SHARED.feature_names)
    assert result["isi_cv_hero"].isna().tolist() == [False, True, False, False]
    assert result["sag"].isna().tolist() == [False, False, False, True]
    assert "exactly 0 beside" in str(counted["isi_cv_hero"])
    # What a cell gives does not depend on the others.
    for row in range(len(frame)):
        np.testing.assert_array_equal(mapped.values(frame.iloc[[row]])[0][0], X[row])


def test_impossible_values_are_missing_and_counted_but_do_not_stop_the_column():
    frame = pd.DataFrame({"Rin (MOhm)": ["190", "-62", "200", "inf", "12 mV", "n.a.", "=A1*2"]})
    mapped = map_columns(frame, SHARED)
    X, counted = mapped.values(frame)
    column = X[:, SHARED.feature_names.index("input_resistance")]
    assert np.flatnonzero(np.isfinite(column)).tolist() == [0, 2]
    reasons = {why: (count, example) for why, count, example in counted["Rin (MOhm)"].reasons}
    assert reasons == {
        "not a number": (1, "=A1*2"),
        "in no unit of resistance": (1, "12 mV"),
        "infinite": (1, "inf"),
        "outside 1 to 20000 MOhm": (1, "-62"),
    }


@pytest.mark.parametrize("mark", ["", " ", "NA", "n/a", "N.A.", "nan", "NaN", "-", ".", "NULL"])
def test_marks_of_missing_values_are_not_counted(mark: str):
    frame = pd.DataFrame({"tau": ["14", mark, "15"]})
    X, counted = map_columns(frame, SHARED).values(frame)
    assert np.isfinite(X).sum() == 2
    assert counted == {}


@pytest.mark.parametrize("text", ["#DIV/0!", "12 h", "=A1*2", "1_000", "0x10", "True", "1.2.3"])
def test_text_is_no_number(text: str):
    frame = pd.DataFrame({"tau": ["14", text, "15"]})
    _, counted = map_columns(frame, SHARED).values(frame)
    assert counted["tau"].reasons == (("not a number", 1, text),)


def test_decimal_commas_are_read_where_all_values_have_them():
    frame = pd.DataFrame({"half width (ms)": ["0,62", "0,7", "NA", "1"]})
    mapped = map_columns(frame, SHARED)
    X, counted = mapped.values(frame)
    assert "decimal commas" in taken_of(mapped, "width_rheo").how
    column = X[:, SHARED.feature_names.index("width_rheo")]
    np.testing.assert_allclose(column, [0.62, 0.7, np.nan, 1.0], rtol=1e-6)
    assert counted == {}
    mixed = pd.DataFrame({"half width (ms)": ["0.62", "0,7", "0.5"]})
    assert map_columns(mixed, SHARED).values(mixed)[1]["half width (ms)"].total == 1


def values_of(mapped: ColumnMap, frame: pd.DataFrame, feature: str) -> np.ndarray:
    X, _ = mapped.values(frame)
    return X[:, SHARED.feature_names.index(feature)]


@pytest.mark.parametrize(
    ("header", "values", "feature", "expected"),
    [
        # Each tells what it can be by itself,
        ("Rin (MOhm)", ["380,0", "1.060,9", "1.450,0"], "input_resistance", [380, 1060.9, 1450]),
        ("Rin (MOhm)", ["380.0", "1,060.9", "1,450.0"], "input_resistance", [380, 1060.9, 1450]),
        (
            "Rin (MOhm)",
            ["380,5", "1 060,9", "1\u202f450"],
            "input_resistance",
            [380.5, 1060.9, 1450],
        ),
        (
            "Rin (MOhm)",
            ["380.5", "1'060.9", "1\u2019450"],
            "input_resistance",
            [380.5, 1060.9, 1450],
        ),
        # or by the values that are plausible.
        ("Rin (MOhm)", ["1,234", "1,100"], "input_resistance", [1234, 1100]),
        ("Rin (MOhm)", ["380", "1.061", "1.158"], "input_resistance", [380, 1061, 1158]),
        ("tau (ms)", ["12,345", "8,900"], "tau", [12.345, 8.9]),
        ("width_rheo (ms)", ["1,125", "1,250"], "width_rheo", [1.125, 1.25]),
        # Points are decimal points where nothing speaks against it.
        ("tau (ms)", ["12.345", "8.900"], "tau", [12.345, 8.9]),
    ],
)
def test_marks_of_thousands(header: str, values: list[str], feature: str, expected: list[float]):
    frame = pd.DataFrame({header: values})
    for as_arrow in (False, True):
        given = frame.astype(pd.ArrowDtype(pa.string())) if as_arrow else frame
        found = values_of(map_columns(given, SHARED), given, feature)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_marks_are_told_by_other_columns():
    for other, expected in (("-70,5", 1234), ("-70.5", 1.234)):
        frame = pd.DataFrame({"Rin": ["1.234", "1.100"], "RMP (mV)": [other] * 2})
        taken = taken_of(map_columns(frame, SHARED), "input_resistance")
        assert taken.unit == ("MOhm" if expected > 2 else "GOhm")
        assert values_of(map_columns(frame, SHARED), frame, "input_resistance")[0] == 1234
    mapped = one("Rin (MOhm)", ["1.234", "380"], **{"RMP (mV)": ["-70,5", "-71"]})
    assert "decimal commas; points between thousands" in taken_of(mapped, "input_resistance").how


@pytest.mark.parametrize(
    ("header", "values", "says"),
    [
        ("Rin", ["1,234", "1,100"], "commas may be decimal commas or thousands"),
        ("Rin (MOhm)", ["9.500", "380"], "points may be decimal points or thousands"),
        ("Rin (MOhm)", ["120.5", "130,5", "110,5"], "some of its numbers have decimal points"),
    ],
)
def test_marks_that_cannot_be_told_are_refused(header: str, values: list[str], says: str):
    mapped = one(header, values)
    assert mapped.taken == ()
    assert says in reason(mapped.refused, header)


def test_columns_without_values_or_numbers_are_refused():
    assert "no values" in reason(one("tau", ["", "NA"]).refused, "tau")
    assert "not numbers" in reason(one("tau", ["slow", "fast"]).refused, "tau")
    assert "no values" in reason(one("tau", [np.nan, np.nan]).refused, "tau")


def test_numbers_of_any_type_are_read():
    for values in ([190, 200], pd.array([190, None], dtype="Int64"), [190, "200"]):
        frame = pd.DataFrame({"Rin": values})
        X, counted = map_columns(frame, SHARED).values(frame)
        assert X[0, 1] == 190
        assert counted == {}


def test_chunks_give_what_the_whole_gives():
    frame = cells(30).astype(str)
    frame.iloc[25, 2] = "broken"
    frame.iloc[3, 2] = "=A1"
    mapped = map_columns(frame.iloc[:10], SHARED)
    whole, counted = mapped.values(frame)
    parts = [mapped.values(frame.iloc[start : start + 10]) for start in (0, 10, 20)]
    np.testing.assert_array_equal(whole, np.concatenate([X for X, _ in parts]))
    together = parts[0][1]["tau"] + parts[2][1]["tau"]
    assert together == counted["tau"]
    assert together.reasons == (("not a number", 2, "=A1"),)
    with pytest.raises(CohortError, match="column 'tau' is missing from some rows"):
        mapped.values(frame.drop(columns="tau"))


def test_cell_id_species_and_labels():
    frame = pd.DataFrame(
        {
            "Organism": ["mouse"],
            "id": [7],
            "Cell ID": ["a"],
            "T-type": ["Pvalb Reln"],
            "Age (postnatal days)": [55],
            "T type assignment probability": [0.9],
            "Anything": ["text"],
            "Magic number": [3.0],
            "Unnamed: 0": [4.0],
            "": [5.0],
            "tau": [14.0],
        }
    )
    mapped = map_columns(frame, SHARED)
    assert mapped.cell_id == "Cell ID"
    assert mapped.species == "Organism"
    assert set(mapped.labels) == {
        "id",
        "T-type",
        "Age (postnatal days)",
        "T type assignment probability",
        "Anything",
        "Unnamed: 0",
        "",
    }
    assert mapped.unknown == ("Magic number",)
    assert len(mapped.missing) == 31


LABELS = [
    "Subclass",
    "t-type",
    "Cortical layer",
    "donor",
    "Sex",
    "cluster_label",
    "Genotype (full)",
]


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_labels_change_nothing(data: st.DataObject):
    frame = cells(5)
    before, _ = map_columns(frame, SHARED).values(frame)
    value = st.one_of(st.text(max_size=8), st.floats(-100, 300), st.none(), st.integers(0, 1))
    for name in data.draw(st.lists(st.sampled_from(LABELS), unique=True)):
        frame.insert(
            data.draw(st.integers(0, 5)), name, data.draw(st.lists(value, min_size=5, max_size=5))
        )
    mapped = map_columns(frame, SHARED)
    np.testing.assert_array_equal(mapped.values(frame)[0], before)
    assert set(mapped.labels) == set(frame.columns) & set(LABELS)


FOREIGN = {
    "ours in other units": {
        "v_baseline": ("v_baseline", 1e-3),
        "input_resistance": ("input_resistance", 1e-3),
        "tau": ("tau", 1e-3),
        "sag": ("sag", 100.0),
        "rheobase_i": ("rheobase_i", 1e-3),
        "fi_fit_slope": ("fi_fit_slope", 1e3),
        "latency_rheo": ("latency_rheo", 1e3),
        "latency_hero": ("latency_hero", 1e3),
        "width_rheo": ("width_rheo", 1e-3),
        "mean_isi_hero": ("mean_isi_hero", 1e3),
        "upstroke_rheo": ("upstroke_rheo", 1e3),
    },
    "english": {
        "v_baseline": ("Resting membrane potential (V)", 1e-3),
        "input_resistance": ("Input resistance [GΩ]", 1e-3),
        "tau": ("Membrane time constant in seconds", 1e-3),
        "sag": ("Sag ratio (%)", 100.0),
        "rheobase_i": ("Rheobase_nA", 1e-3),
        "fi_fit_slope": ("f-I slope (Hz/nA)", 1e3),
        "latency_rheo": ("Rheobase latency (ms)", 1e3),
        "threshold_v_rheo": ("Spike threshold (millivolts)", 1.0),
        "peak_deltav_rheo": ("Spike height (µV)", 1e3),
        "fast_trough_deltav_rheo": ("Fast AHP amplitude (mV)", -1.0),
        "width_rheo": ("AP half-width (µs)", 1e3),
        "upstroke_rheo": ("Max dV/dt (V/s)", 1.0),
        "adapt_hero": ("Adaptation index", 1.0),
        "avg_rate_hero": ("Mean firing rate (Hz)", 1.0),
        "isi_cv_hero": ("CV of ISI", 1.0),
        "mean_isi_hero": ("Mean ISI (ms)", 1e3),
    },
    "ipfx": {
        "threshold_v_rheo": ("rheo_threshold_v", 1.0),
        "width_rheo": ("rheo_width", 1e-3),
        "adapt_hero": ("hero_adapt", 1.0),
        "avg_rate_hero": ("hero_avg_rate", 1.0),
        "isi_cv_hero": ("hero_isi_cv", 1.0),
        "latency_hero": ("hero_latency", 1.0),
        "median_isi_hero": ("hero_median_isi", 1.0),
        "upstroke_downstroke_ratio_ramp": ("ramp_upstroke_downstroke_ratio", 1.0),
    },
}  # fmt: skip


@pytest.mark.parametrize("vocabulary", FOREIGN)
@pytest.mark.parametrize("as_text", [False, True])
def test_values_come_back_from_another_vocabulary(vocabulary: str, as_text: bool):
    ours = cells()
    foreign = pd.DataFrame(
        {header: ours[name] * factor for name, (header, factor) in FOREIGN[vocabulary].items()}
    )
    if as_text:
        foreign = foreign.astype(str)
    mapped = map_columns(foreign, SHARED)
    assert mapped.refused == ()
    assert {taken.feature for taken in mapped.taken} == set(FOREIGN[vocabulary])
    X, counted = mapped.values(foreign)
    result = pd.DataFrame(X, columns=SHARED.feature_names)
    for name in FOREIGN[vocabulary]:
        np.testing.assert_allclose(result[name], ours[name], rtol=1e-5)
    assert counted == {}


def write(folder: Path, text: str) -> Path:
    file = folder / "map.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_mapping_file_decides(tmp_path: Path):
    mapping = read_mapping(
        write(
            tmp_path,
            '"Widerstand": {feature: input_resistance, unit: GOhm}\n'
            '"Breite": width_rheo\n'
            '"First": {feature: first_isi_inv_hero, unit: ms}\n'
            '"AHP": fast_trough_deltav_rheo\n'
            '"Spitze": peak_v_rheo\n'
            '"Schwelle": threshold_v_rheo\n'
            '"tau": ignore\n'
            '"Zelle": cell_id\n'
            '"Art": species\n',
        )
    )
    frame = pd.DataFrame(
        {
            "Zelle": ["a"],
            "Art": ["mouse"],
            "Widerstand": [0.19],
            "Breite": [0.0006],
            "First": [25.0],
            "AHP": [15.0],
            "Spitze": [30.0],
            "Schwelle": [-35.0],
            "tau": [14.0],
            "AP threshold": [-20.0],
            "cell_id": [1],
        }
    )
    mapped = map_columns(frame, SHARED, mapping)
    X, _ = mapped.values(frame)
    result = pd.DataFrame(X, columns=SHARED.feature_names).iloc[0].dropna()
    assert result.round(4).to_dict() == pytest.approx(
        {
            "input_resistance": 190.0,
            "threshold_v_rheo": -35.0,
            "peak_deltav_rheo": 65.0,
            "fast_trough_deltav_rheo": -15.0,
            "width_rheo": 0.6,
            "first_isi_inv_hero": 40.0,
        }
    )
    assert (mapped.cell_id, mapped.species, mapped.labels) == ("Zelle", "Art", ("cell_id",))
    assert "mapping file" in taken_of(mapped, "width_rheo").how
    assert reason(mapped.unused, "tau") == f"{tmp_path / 'map.yaml'} says to ignore it"
    assert "AP threshold" in dict(mapped.unused)


def test_an_implausible_unit_in_the_mapping_file_is_taken_and_said():
    override = Overrides("m", {"tau (ms)": Override("tau", "ms")})
    mapped = one("tau (ms)", [1.2, 1.5], overrides=override)
    assert "its median 1.35 ms is outside 2 to 150 ms" in taken_of(mapped, "tau").how
    # But not where hardly a value can be.
    with pytest.raises(CohortError, match=r"^m, column 'tau \(ms\)': most of its values are out"):
        one("tau (ms)", [0.01, 0.02], overrides=override)


def test_a_feature_of_another_layout_is_unused():
    override = Overrides("m", {"x": Override("sag_tau")})
    mapped = one("x", [90.0], overrides=override)
    assert "not in layout 'shared'" in reason(mapped.unused, "x")
    assert one("x", [90.0], FULL, override).taken[0].feature == "sag_tau"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- a\n- b\n", "one entry a column"),
        (
            '"Rin": input_resistence\n',
            "column 'Rin': there is no feature 'input_resistence'; the ne",
        ),
        ('"Rin": {feature: input_resistance, unit: parsec}\n', "column 'Rin': there is no unit"),
        ('"Rin": {feature: input_resistance, unit: ms}\n', "column 'Rin': ms is no unit of"),
        ('"Rin": {unit: ms}\n', "column 'Rin': write a feature"),
        ('"Rin": {feature: tau, operation: difference}\n', "there is no operation"),
        ('"Rin": {feature: ignore, unit: ms}\n', "has no unit"),
        ('"A": tau\n"B": tau\n', "column 'B': 'tau' is already given by column 'A'"),
        ('"A": tau\n"A": sag\n', "column 'A' has two entries"),
        ("yes: tau\n", "column 'True': write the column's name in quotes"),
    ],
)
def test_bad_mapping_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str):
    file = write(tmp_path, text)
    with pytest.raises(CohortError) as error:
        read_mapping(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_mapping_file_changes_nothing_and_a_missing_one_is_an_error(tmp_path: Path):
    assert read_mapping(write(tmp_path, "# nothing\n")).columns == {}
    with pytest.raises(CohortError, match="cannot be read"):
        read_mapping(tmp_path / "absent.yaml")


def test_overrides_that_cannot_be_are_errors():
    with pytest.raises(CohortError, match="no such column; the nearest is 'Rin'"):
        one("Rin", [190.0], overrides=Overrides("m.yaml", {"Rinn": Override("input_resistance")}))
    with pytest.raises(CohortError, match="no feature 'nonsense'"):
        one("Rin", [190.0], overrides=Overrides("m.yaml", {"Rin": Override("nonsense")}))
    with pytest.raises(CohortError, match="pA is no unit of tau"):
        one("Rin", [190.0], overrides=Overrides("m.yaml", {"Rin": Override("tau", "pA")}))


def test_layouts_of_vectors_are_refused():
    with pytest.raises(CohortError, match="shared, full"):
        one("tau", [14.0], load_layout("paper"))


def test_the_report_names_every_column_and_feature():
    frame = cells(5).drop(columns="sag").assign(Subclass="Pvalb", x=1.0)
    frame["slow_trough_v_ramp"] = -50.0
    frame["tau"] = 1e9
    mapped = map_columns(frame, SHARED)
    text = "\n".join(mapped.lines())
    for name in [*frame.columns, "sag"]:
        assert name in text
    assert {row[0] for row in mapped.report()} == {
        "taken",
        "refused",
        "unused",
        "never features",
        "not understood",
        "missing",
    }
    assert set(mapped.missing) == {"sag", "tau"}


def test_names_mean_one_thing():
    # Two rows of the table of names must not claim the same name for different features.
    for key, meanings in names().name.items():
        placed = {feature_at(name, None, None) for name in meanings}
        meant = {found.features for found in placed if found is not None and found.features}
        assert len(meant) <= 1, key
        assert key not in names().unlike, key
        assert key not in names().either, key


@cache
def shared_cohort(name: str, real_data: Path):
    return crosspatch.load_cohort(name, "shared", real_data)


def real(real_data: Path, path: str) -> tuple[pd.DataFrame, ColumnMap, pd.DataFrame]:
    frame = pd.read_csv(real_data / path, dtype=str, encoding="latin-1")
    mapped = map_columns(frame, SHARED)
    X, _ = mapped.values(frame)
    return frame, mapped, pd.DataFrame(X, columns=SHARED.feature_names)


def test_the_challenge_table_gives_our_mouse_cohort(real_data: Path):
    path = "allen_mouse_visp/gouwens_tasic_byCell.csv.gz"
    frame, mapped, values = real(real_data, path)
    assert mapped.cell_id == "cell_id"
    assert mapped.refused == ()
    assert len(mapped.taken) >= 24
    assert {"Subclass", "T type assignment probability", "Cortical layer"} <= set(mapped.labels)
    cohort = shared_cohort("allen-mouse", real_data)
    ours = pd.DataFrame(cohort.X, index=cohort.obs_names, columns=cohort.var_names)
    values.index = pd.Index(frame["cell_id"].str.extract(r"#(\d+)$", expand=False))
    values = values.reindex(ours.index)
    # Of these the table has values of another version of the analysis.
    other = {"width_rheo", "adapt_hero", "latency_hero", "mean_isi_hero"}
    for taken in mapped.taken:
        both = values[taken.feature].notna() & ours[taken.feature].notna()
        theirs, mine = values.loc[both, taken.feature], ours.loc[both, taken.feature]
        assert both.sum() > 3700
        if taken.feature in other:
            assert theirs.corr(mine, method="spearman") > 0.87, taken.feature
            assert theirs.median() == pytest.approx(mine.median(), rel=0.05)
        else:
            assert theirs.median() == pytest.approx(mine.median(), rel=1e-3), taken.feature
            close = np.isclose(theirs, mine, rtol=1e-3, atol=1e-6)
            assert np.mean(close) > 0.99, taken.feature


@pytest.mark.parametrize(
    ("path", "cohort", "least"),
    [
        ("allen_mouse_visp/efeature.csv", "allen-mouse", 25),
        ("allen_human_gaba/LeeDalley_ephys_fx.csv", "allen-human", 32),
    ],
)
def test_the_tables_of_our_cohorts_give_them(real_data: Path, path: str, cohort: str, least: int):
    _, mapped, values = real(real_data, path)
    assert len(mapped.taken) >= least
    assert mapped.refused == ()
    table = shared_cohort(cohort, real_data)
    ours = pd.DataFrame(table.X, columns=table.var_names)
    for taken in mapped.taken:
        # The files have cells that the cohorts leave out.
        theirs, mine = values[taken.feature].median(), ours[taken.feature].median()
        assert theirs == pytest.approx(mine, rel=0.15), taken.feature


HEADERS = sorted(
    {header for names in FOREIGN.values() for header, _ in names.values()}
    | {f"{stem}_{at}" for stem in ("peak_v", "threshold_v", "trough_v") for at in ("rheo", "ramp")}
    | {
        "AP threshold",
        "Threshold",
        "AP peak voltage",
        "AP peak",
        "AP amplitude",
        "peak_deltav_rheo",
    }
    | {
        "latency",
        "avg_isi",
        "adaptation",
        "AP width",
        "AHP",
        "Rm",
        "tau",
        "voltage_base",
        "AP_width",
    }
    | {"cell", "id", "species", "layer", "x", "AP\nwidth (ms)", "RMP.1", "RMP", "Rin %", "µ", ""}
)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_column_has_exactly_one_fate_and_nothing_fails(data: st.DataObject):
    headers = data.draw(st.lists(st.sampled_from(HEADERS), max_size=12))
    rows = data.draw(st.integers(0, 3))
    value = st.sampled_from([-70.0, -35, 0, 0.03, 0.6, 25, 90, 200, "0,6", "1,234", "", "x", None])
    content = [[data.draw(value) for _ in headers] for _ in range(rows)]
    frame = pd.DataFrame(content, columns=pd.Index(headers, dtype=object))
    mapped = map_columns(frame, SHARED)
    X, counted = mapped.values(frame)
    assert X.shape == (rows, 32)
    assert not np.isinf(X).any()
    used = {column for taken in mapped.taken for column in taken.columns}
    special = {name for name in (mapped.cell_id, mapped.species) if name is not None}
    groups: list[set[str]] = [used, special, set(dict(mapped.refused)), set(dict(mapped.unused))]
    groups += [set(mapped.labels), set(mapped.unknown)]
    assert sorted(column for group in groups for column in group) == sorted(set(headers))
    assert {item.column for item in mapped.ambiguous} <= set(dict(mapped.refused))
    assert set(counted) <= used
    assert all("\n" not in line for line in mapped.lines())


@pytest.mark.parametrize(
    ("header", "feature"),
    [
        ("threshold ramp (mV)", "threshold_v_ramp"),
        ("threshold ramp (pA)", "threshold_i_ramp"),
        ("threshold (mV)", "threshold_v_rheo"),
    ],
)
def test_a_threshold_is_that_of_its_stimulus(header: str, feature: str):
    value = 120.0 if "pA" in header else -38.0
    mapped = map_columns(pd.DataFrame({header: [value] * 5}), SHARED)
    assert [taken.feature for taken in mapped.taken] == [feature]


def test_a_mapping_names_one_feature(tmp_path: Path):
    (tmp_path / "m.yaml").write_text('"Rin": {feature: [tau]}')
    with pytest.raises(CohortError, match="one feature"):
        read_mapping(tmp_path / "m.yaml")


def lines_in(why: str) -> list[Override]:
    """What the mapping lines of a message say."""
    found = []
    for text in re.findall(r"""'("(?:[^"\\\\]|\\\\.)*": .*?)'(?= |,|;|$)""", why):
        ((said),) = yaml.safe_load(text).values()
        said = {"feature": said} if isinstance(said, str) else said
        found.append(Override(said["feature"], said.get("unit"), said.get("operation")))
    return found


@pytest.mark.parametrize("header", ["Sag ratio", "sag index", "Sag ratio (%)"])
def test_a_sag_ratio_that_may_be_steady_over_peak_is_refused(header: str):
    size = 100 if "%" in header else 1
    values = np.array([0.5, 0.6, 0.68])
    why = reason(one(header, values * size).refused, header)
    plain, one_minus = lines_in(why)
    for override, expected in ((plain, values), (one_minus, 1 - values)):
        frame = pd.DataFrame({header: values * size})
        X, _ = map_columns(frame, SHARED, Overrides("m", {header: override})).values(frame)
        np.testing.assert_allclose(X[:, SHARED.feature_names.index("sag")], expected, rtol=1e-5)
    assert one(header, [0.2 * size, 0.34 * size]).taken
    assert one("sag", values).taken


def test_a_sag_ratio_just_above_1_is_not_taken_for_per_cent():
    assert one("Sag ratio", [1.1, 1.2, 1.4]).taken == ()
    assert taken_of(one("Sag ratio", [4.0, 6.0]), "sag").unit == "%"


@pytest.mark.parametrize("values", [[0.3, 0.45], [0.9, 1.0, 1.1], [1.2, 1.5], [3.0, 4.0]])
@pytest.mark.parametrize("header", ["Adaptation index", "adaptation ratio"])
def test_adaptation_of_another_definition_is_refused(header: str, values: list[float]):
    why = reason(one(header, values).refused, header)
    assert "another definition" in why
    override = lines_in(why)[0]
    assert one(header, values, overrides=Overrides("m", {header: override})).taken
    assert one(header, [0.02, 0.1]).taken
    assert one("hero_adapt", [0.3, 0.45]).taken


def test_adaptation_in_the_allen_institutes_tables_is_taken():
    beside = {"avg_isi": [45.0, 40.0]}
    assert taken_of(one("adaptation", [0.3, 0.45], **beside), "adapt_hero")


def test_an_amplitude_from_rest_is_refused():
    name = "AP amplitude (mV)"
    why = reason(one(name, [95.0, 105.0]).refused, name)
    assert "measured from rest" in why
    assert one(name, [95.0, 105.0], overrides=Overrides("m", {name: lines_in(why)[0]})).taken
    assert one("AP amplitude", [0.095, 0.105]).taken == ()
    assert one(name, [62.0, 85.0]).taken
    assert one("peak_deltav_rheo", [95.0, 105.0]).taken


def test_units_named_too_small_are_refused():
    for values in ([0.06, 0.12, 0.3], [0.12]):
        why = reason(one("sag (%)", values).refused, "sag (%)")
        assert "unit: fraction}" in why
        override = lines_in(why)[0]
        assert one("sag (%)", values, overrides=Overrides("m", {"sag (%)": override})).taken
    name = "peak_v_rheo (mV)"
    assert "unit: V}" in reason(one(name, [0.03], threshold_v_rheo=[-35.0]).refused, name)
    assert "says fraction" in reason(one("sag (fraction)", [6.0]).refused, "sag (fraction)")
    assert one("sag (%)", [0.5, 6.0, 12.0]).taken


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("tau (ms)", 1.9),
        ("AP half-width (ms)", 0.14),
        ("tau", 1.9),
        ("latency_hero", 0.0004),
        ("sag", 0.8),
    ],
)
def test_one_unusual_cell_is_taken_and_said(header: str, value: float):
    (taken,) = one(header, [value]).taken
    assert "unusual values" in taken.how
    assert taken.factor == 1


def test_unusual_potentials_give_a_difference_if_their_units_are_known():
    mapped = one("peak_v_rheo", [-30.0], threshold_v_rheo=[-35.0])
    assert "unusual values" in taken_of(mapped, "peak_deltav_rheo").how


def test_a_latency_of_more_than_a_second_is_not_told():
    for header in ("latency_hero", "hero_latency"):
        assert one(header, [1.2]).taken == ()
        assert "does not tell" in reason(one(header, [1.2]).refused, header)
        assert taken_of(one(header, [9.04]), "latency_hero").unit == "ms"
    assert taken_of(one("latency_hero (ms)", [1.2]), "latency_hero").unit == "ms"
    frame = pd.DataFrame({"latency_hero": [0.02, 0.03, 9.04]})
    assert np.isfinite(map_columns(frame, SHARED).values(frame)[0]).sum() == 2


@pytest.mark.parametrize(
    ("columns", "factor"),
    [
        ({"tau (ms)": [14.0, 15.0]}, 1e-3),
        ({"tau": [0.014, 0.015]}, 1e3),
        ({"sag": [0.06, 0.08] * 10}, 100),
        ({"sag (%)": [6.0, 8.0] * 10}, 0.01),
        ({"peak_v_rheo": [30.0, 31.0] * 9, "threshold_v_rheo": [-35.0, -36.0] * 9}, 1e-3),
    ],
)
def test_a_unit_that_changes_in_later_rows_is_found(columns: dict[str, list[float]], factor: float):
    frame = pd.DataFrame(columns)
    mapped = map_columns(frame, SHARED)
    X, counted = mapped.values(frame)
    assert np.isfinite(X).any()
    assert counted == {}
    later = frame.copy()
    later.iloc[:, 0] *= factor
    X, counted = mapped.values(later)
    assert not np.isfinite(X[:, SHARED.feature_names.index(mapped.taken[-1].feature)]).any()
    ((why, count, _),) = counted[frame.columns[0]].reasons
    assert why.startswith("the unit changes here: median ")
    assert count == len(frame)


def test_a_unit_that_the_user_insists_on_does_not_change():
    frame = pd.DataFrame({"tau": [0.014]})
    mapped = map_columns(frame, SHARED, Overrides("m", {"tau": Override("sag", "%")}))
    assert np.isfinite(mapped.values(pd.DataFrame({"tau": [0.014] * 20}))[0]).sum() == 20


def test_a_mapping_that_the_values_contradict_is_an_error_but_an_answer_is_refused():
    with pytest.raises(CohortError, match=r"m.yaml, column 'x': most of its values are outside"):
        one("x", [14.0], overrides=Overrides("m.yaml", {"x": Override("tau", "s")}))
    answer = Override("tau", "s", source="the answer")
    assert "outside" in reason(
        one("x", [14.0], overrides=Overrides("m", {"x": answer})).refused, "x"
    )
    # A column without values contradicts nothing.
    empty = one("x", [None], overrides=Overrides("m.yaml", {"x": Override("tau", "s")}))
    assert "no values" in reason(empty.refused, "x")


def test_an_answer_is_not_said_to_be_the_mapping_files():
    overrides = Overrides("m.yaml", {"Latency": Override("ignore", source="the answer")})
    mapped = one("Latency", [0.02], overrides=overrides)
    assert reason(mapped.unused, "Latency") == "the answer says to ignore it"
    overrides = Overrides("m.yaml", {"Latency": Override("latency_hero", source="the answer")})
    assert "the answer" in taken_of(one("Latency", [0.02], overrides=overrides), "latency_hero").how


def test_columns_of_the_mapping_may_be_absent_if_so_asked():
    overrides = Overrides("m.yaml", {"Cell": Override("cell_id"), "Rin": Override("tau")})
    frame = pd.DataFrame({"Rin": [14.0]})
    with pytest.raises(CohortError, match="no such column"):
        map_columns(frame, SHARED, overrides)
    mapped = map_columns(frame, SHARED, overrides, absent_ok=True)
    assert (mapped.absent, mapped.cell_id) == (("Cell",), None)
    assert taken_of(mapped, "tau").columns == ("Rin",)


def test_what_predictions_are_written_with_are_labels():
    names = ["p_reference", "completeness", "quality", "notes", "verdict", "probability_Pvalb"]
    names += ["probability", "prediction_set", "species_known", "families", "source"]
    mapped = one("tau", [14.0], **{name: [1.0] for name in names})
    assert mapped.labels == tuple(names)
    assert mapped.unknown == ()


def test_several_columns_without_a_name_are_labels():
    frame = pd.DataFrame([[1.0, 14.0, 2.0]], columns=["", "tau", ""])
    mapped = map_columns(frame, SHARED)
    assert (mapped.labels, mapped.refused) == (("",), ())
    assert [taken.feature for taken in mapped.taken] == ["tau"]


def test_what_is_printed_of_many_columns_is_bounded():
    frame = pd.DataFrame({f"x{k}": [1.0, 2.0] for k in range(500)})
    frame["tau"] = [14.0, 15.0]
    frame = frame.assign(**{f"donor {k}": ["a", "b"] for k in range(300)})
    lines = map_columns(frame, SHARED).lines()
    assert len(lines) < 20
    assert "not understood: 488 more columns" in lines
    assert any("and 288 more" in line for line in lines)
