"""What unit a column has in the fit, it must have in every table that the calibration is applied to."""

import json
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fedlas
from fedlas.calibrated import apply_to_files
from fedlas.errors import CalibrationWarning, InputError

RANDOM = np.random.default_rng(3)
SHARE = RANDOM.uniform(0.4, 0.99, 400)
P = np.clip(RANDOM.normal(SHARE, 0.3), 0.02, 0.98).round(4)
Y = (RANDOM.random(400) < SHARE).astype(int)
ROWS = [
    {"p": p, "load": load, "y": int(y)}
    for p, load, y in zip(P.tolist(), SHARE.round(5).tolist(), Y, strict=True)
]
FORMS = {
    "plain": lambda share: share,
    "sign": lambda share: f"{100 * share:.3f}%",
    "percent": lambda share: round(100 * share, 3),
}


def write(path, rows):
    names = list(rows[0])
    if path.suffix == ".csv":
        path.write_text(
            "\n".join(
                [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
            )
        )
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def in_form(column, form, rows=ROWS):
    return [row | {column: FORMS[form](row[column])} for row in rows]


def calibrate(path, **options):
    method = "auto" if "covariates" in options else "temperature"
    return fedlas.calibrate(path, probs="p", target="y", method=method, **options)


def apply(calibration, path):
    return apply_to_files(calibration, [path], path.with_name(f"out{path.suffix}"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The file of a calibration on a table of a format, with one column in a form; each is fitted once."""
    folder = tmp_path_factory.mktemp("saved")

    @cache
    def fitted(suffix, column, form):
        val = write(folder / f"val{suffix}", in_form(column, form))
        options = {"covariates": "load"} if column == "load" else {}
        return calibrate(val, **options).save(folder / f"{suffix[1:]}-{column}-{form}.json")

    return fitted


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("column", ["load", "p"])
@pytest.mark.parametrize(
    ("fit", "live"), [("sign", "plain"), ("plain", "sign"), ("sign", "percent")]
)
def test_percent_signs_of_column_match_the_fit(tmp_path, saved, suffix, column, fit, live):
    calibration = fedlas.TableCalibration.load(saved(suffix, column, fit))
    assert apply(calibration, write(tmp_path / f"same{suffix}", in_form(column, fit))).rows == 400
    other = write(tmp_path / f"live{suffix}", in_form(column, live))
    with pytest.raises(
        InputError, match=f"column '{column}' must have .*percent signs, as in the fit; got .*live"
    ) as caught:
        apply(calibration, other)
    assert "fit the calibration to a table like this one" in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_column_has_one_unit(tmp_path, suffix):
    rows = [
        *in_form("load", "sign", ROWS[:300]),
        *[row | {"load": str(row["load"])} for row in ROWS[300:]],
    ]
    with pytest.raises(
        InputError, match=r"numbers of column 'load' must have percent signs; got none in row 301"
    ):
        calibrate(write(tmp_path / f"val{suffix}", rows), covariates="load")


def test_files_of_one_table_have_one_unit(tmp_path):
    files = [
        write(tmp_path / "a.csv", in_form("load", "sign")),
        write(tmp_path / "b.csv", in_form("load", "plain")),
    ]
    with pytest.raises(
        InputError, match=r"'load' must have percent signs, as in earlier rows; got no .* b\.csv"
    ):
        calibrate(files, covariates="load")


def test_percentages_by_an_option_stay_percentages(tmp_path):
    calibration = calibrate(write(tmp_path / "val.csv", in_form("p", "percent")), percent=True)
    calibration = fedlas.TableCalibration.load(calibration.save(tmp_path / "cal.json"))
    assert not any(
        "percent" in note
        for note in apply(calibration, write(tmp_path / "same.csv", in_form("p", "percent"))).notes
    )
    with pytest.raises(
        InputError,
        match=r"percentages, as in the fit; got 400 numbers of at most 1 in live.csv. Multiply",
    ):
        apply(calibration, write(tmp_path / "live.csv", ROWS))
    few = apply(calibration, write(tmp_path / "live.csv", ROWS[:2]))
    assert any("at most 1 %" in note for note in few.notes)
    with pytest.raises(InputError, match="'p' must have no percent signs, as in the fit"):
        apply(calibration, write(tmp_path / "signs.csv", in_form("p", "sign")))


def test_decimal_marks_are_those_of_the_fit(tmp_path):
    text = "\n".join(["p;y", *(f"{p};{y}" for p, y in zip(P, Y, strict=True))])
    (tmp_path / "comma.csv").write_text(text.replace(".", ","))
    (tmp_path / "point.csv").write_text(text)
    for fit, live in (("comma", "point"), ("point", "comma")):
        calibration = calibrate(tmp_path / f"{fit}.csv")
        assert apply(calibration, tmp_path / f"{fit}.csv").rows == 400
        with pytest.raises(
            InputError,
            match=f"must have a decimal {fit}, as in the fit; got a decimal {live} in {live}.csv",
        ):
            apply(calibration, tmp_path / f"{live}.csv")
        assert len(calibration.apply({"p": P})["calibrated_p"]) == 400


def test_values_far_outside_the_fit_are_counted(tmp_path):
    calibration = calibrate(write(tmp_path / "val.csv", ROWS), covariates="load")
    rows = [row | {"load": row["load"] * (100 if n < 7 else 1)} for n, row in enumerate(ROWS)]
    notes = " ".join(apply(calibration, write(tmp_path / "live.csv", rows)).notes)
    assert "'load' (7 values; fit: 0.4" in notes
    assert not any("outside" in note for note in apply(calibration, tmp_path / "val.csv").notes)


def test_older_file_without_units_loads_with_a_note(tmp_path):
    fitted = calibrate(write(tmp_path / "val.csv", ROWS), covariates="load")
    content = json.loads(fitted.save(tmp_path / "new.json").read_text())
    del content["units"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = fedlas.TableCalibration.load(tmp_path / "old.json")
    again = fedlas.TableCalibration.load(old.save(tmp_path / "again.json"))
    live = {name: [row[name] for row in ROWS] for name in ("load", "p")}
    for calibration in (old, again):
        with pytest.warns(
            CalibrationWarning, match="without units, so percent signs.*Fit it again"
        ):
            assert calibration.apply(live)["calibrated_p"] == pytest.approx(
                fitted.apply(live)["calibrated_p"]
            )
        signs = write(tmp_path / "signs.csv", in_form("load", "sign"))
        assert "without units" in " ".join(apply(calibration, signs).notes)


def test_frame_with_unusual_values_warns_like_a_file(tmp_path):
    rows = [row | {"site": "ab"[number % 2]} for number, row in enumerate(ROWS)]
    calibration = calibrate(write(tmp_path / "val.csv", rows), covariates="load,site")
    frame = {name: [row[name] for row in rows] for name in ("load", "p", "site")}
    frame["site"][:7] = ["mars"] * 7
    frame["load"][:9] = [1e4] * 9
    with pytest.warns(CalibrationWarning) as caught:
        calibration.apply(frame)
    text = " ".join(str(each.message) for each in caught)
    assert "7 rows have a missing or unseen value of 'site'" in text
    assert "far outside the range of the fit; check the unit of 'load' (9 values;" in text
