"""What is judged is what was given, on the cells and days that all share; words say what the numbers say."""

import re

import numpy as np
import pytest
import rasterio
import xarray as xr

import smgrid
from smgrid import coarse, exhibits, patterns, sayings, seams, tables
from smgrid.cli import main
from smgrid.grid import Grid
from smgrid.verdict import _compare, judge

GRID = Grid(1, 11466, 31401, 63, 54)
DAYS = np.array(["2015-05-05", "2015-09-15"], "M8[ns]")
RNG = np.random.default_rng(0)
SMAP = xr.DataArray(RNG.normal(0.2, 0.04, (2, *GRID.coarsen(9).shape)).astype("f4"),
                    {**GRID.coarsen(9).coords(), "time": DAYS}, ("time", "y", "x"), "smap", {"units": "m3 m-3"})  # fmt: skip
TEXTURE = RNG.normal(0, 0.01, (2, *GRID.shape))


def field(values, name="soil_moisture", grid=GRID, days=DAYS, **attrs):
    coords = grid.coords() if days is None else {**grid.coords(), "time": days}
    dims = ("y", "x") if days is None else ("time", "y", "x")
    return xr.DataArray(np.asarray(values, "f4"), coords, dims, name, {"units": "m3 m-3", **attrs})


WAVES = np.sin(np.arange(54) / 4) * np.cos(np.arange(63) / 5)[:, None] * np.array([1, 0.7])[:, None, None]
REFERENCE = field(0.2 + 0.1 * WAVES + TEXTURE, "airborne")


@pytest.fixture(scope="module")
def verdict():
    copy = 0.4 * (0.2 + 0.1 * WAVES) + 0.6 * coarse.blocks(SMAP, GRID).values + TEXTURE[::-1]
    clean = 0.23 + 0.1 * WAVES + TEXTURE[::-1]
    return judge({"copy": field(copy), "clean": field(clean)}, REFERENCE, coarse=SMAP)


def said(verdict, about, name):
    lines = next(saying.lines for saying in sayings.sayings(verdict) if saying.about == about)
    return next(line for line in lines if line.startswith(name))


# ---- the judgement


def test_findings_are_those_of_the_judges(verdict):
    for name, one in verdict.maps.items():
        card = patterns.compare(one, REFERENCE, coarse=SMAP)
        xr.testing.assert_equal(verdict.cards[name], card)
        xr.testing.assert_equal(verdict.seams[name], seams.detect(one))
        xr.testing.assert_equal(verdict.edges[name], seams.edges(one, SMAP))
        xr.testing.assert_equal(verdict.imprints[name], seams.imprint(one, SMAP))
        assert verdict.overall[name]["rmse"] == pytest.approx(float(smgrid.scores.rmse(one, REFERENCE)), rel=1e-9)


def test_chunks_do_not_matter(verdict):
    lazy = judge({"copy": verdict.maps["copy"].chunk(y=20, x=20, time=1)}, REFERENCE.chunk(y=31), coarse=SMAP)
    topics = ("Edges of coarse cells", "What is copied")
    found, whole = ([one for one in sayings.sayings(v) if one.about in topics] for v in (lazy, verdict))
    assert found == [sayings.Saying(each.about, [line for line in each.lines if "clean" not in line]) for each in whole]


def test_scores_rest_on_cells_that_all_have():
    half = REFERENCE.where(REFERENCE.x > REFERENCE.x[20])
    both = judge({"half": half + 0.01, "whole": REFERENCE + 0.02}, REFERENCE)
    assert both.overall["half"]["n"] == both.overall["whole"]["n"] == 2 * 63 * 33
    assert any("cells that all maps" in note for note in both.notes)


def test_undated_maps_are_judged_too():
    one = judge(REFERENCE.isel(time=0, drop=True) + 0.01, REFERENCE.isel(time=0, drop=True))
    assert one.days == [] and one.overall["map"]["bias"] == pytest.approx(0.01, abs=1e-6)
    assert "95 % interval" in said(one, "Accuracy", "map: RMSE") and tables.score_table(one).rows[0][0] == "no date"
    assert smgrid.report.page(one).startswith("<!doctype html>")


# ---- the words


def test_copied_steps_are_said_with_their_error(verdict):
    found, line = verdict.imprints["copy"], said(verdict, "What is copied", "copy")
    shares, errors = re.search(r": ([\d. to]+) %, each ± ([\d. to]+) %", line).groups()
    for words, values in ((shares, found.beta), (errors, found.standard_error)):
        numbers = [float(number) for number in words.split(" to ")]
        np.testing.assert_allclose([numbers[0], numbers[-1]], 100 * np.sort(values), atol=0.5)
    assert "copies SMAP's 9-km steps on 2 of 2 days (p < 0.05)" in line
    assert "none of SMAP's 9-km steps beyond chance" in said(verdict, "What is copied", "clean")


def test_one_day_is_said_with_its_p_value(verdict):
    one = judge({"copy": verdict.maps["copy"].isel(time=[0])}, REFERENCE, coarse=SMAP)
    found = one.imprints["copy"].isel(time=0)
    share = (
        f"copy copies {100 * float(found.beta):.0f} ± {100 * float(found.standard_error):.0f} % of SMAP's 9-km steps"
    )
    assert said(one, "What is copied", "copy") == f"{share} (p < 0.001)."
    assert float(found.p_value) < 0.001 and any("1 days" in note for note in one.notes)


def test_nothing_is_claimed_without_evidence(verdict):
    assert "show on 0 of 2 days" in said(verdict, "Edges of coarse cells", "clean")
    assert "show on 2 of 2 days" in said(verdict, "Edges of coarse cells", "copy")
    same = judge({"twin": REFERENCE + TEXTURE[::-1]}, REFERENCE)
    assert "neither wetter nor drier on any of 2 days" in said(same, "Accuracy", "twin: mean difference")
    assert "wetter on 2 of 2 days" in said(verdict, "Accuracy", "clean: mean difference +0.030")
    assert [saying.about for saying in sayings.sayings(same)].count("What is copied") == 0


def test_a_map_at_the_wrong_place_is_said():
    blocks = field(coarse.blocks(SMAP, GRID).values + TEXTURE)
    moved = blocks.copy(data=np.roll(blocks.values, 4, axis=-1))
    found = judge({"moved": moved}, REFERENCE, coarse=SMAP)
    assert "phase 4 along x" in said(found, "Something is out of place", "moved")


def test_an_empty_map_is_said_to_be_empty():
    nothing = judge({"empty": REFERENCE * np.nan, "even": xr.full_like(REFERENCE, 0.2)}, REFERENCE)
    assert said(nothing, "Accuracy", "empty") == "empty: no cell in common with the reference."
    assert said(nothing, "Edges of coarse cells", "empty").endswith("too even, to look for 9-km edges.")
    assert smgrid.report.page(nothing).startswith("<!doctype html>")


def test_tables_hold_the_numbers(verdict):
    table = tables.score_table(verdict)
    column = [head.name for head in table.heads].index("RMSE")
    shown = [float(row[column].split()[0]) for row in table.rows if row[1] == "copy"]
    np.testing.assert_allclose(shown, verdict.cards["copy"].rmse, atol=5e-4)
    found = {one.caption: one for one in tables.all_tables(verdict)}
    borders = found["copy: borders of coarse cells that stand out (q < 0.05)"]
    assert len(borders.rows) == int((verdict.edges["copy"].q_value < 0.05).sum())
    assert all(len(row) == len(one.heads) for one in found.values() for row in one.rows)


@pytest.mark.parametrize(
    "ny, nx, note",
    [(9, 9, "No two cells of the coarse field meet"), (1, 40, "too narrow for single borders"), (1, 1, "too narrow")],
)
def test_small_windows_make_a_page_that_says_what_is_left_out(tmp_path, ny, nx, note):
    some = REFERENCE.isel(y=slice(ny), x=slice(nx))
    found = judge({"a": some.copy(data=some * 1.1)}, some, coarse=SMAP)
    assert not found.imprints and any(note in one for one in found.notes)
    assert note in smgrid.report.page(found)


def test_days_without_cells_are_not_counted():
    half = REFERENCE.where(REFERENCE.time == REFERENCE.time[0])
    found = judge({"a": (half + 0.05).assign_attrs(REFERENCE.attrs)}, REFERENCE)
    assert "over 1,701 cells" in said(found, "Accuracy", "a: RMSE") or "3,402 cells" in said(
        found, "Accuracy", "a: RMSE"
    )
    assert "wetter than the reference" in said(found, "Accuracy", "a: mean difference +0.050")


# ---- map against map


def test_pairs_are_judged_on_the_same_cells_and_draws(verdict):
    found = verdict.differences["copy", "clean"]
    whole = patterns.compare(verdict.maps["copy"], REFERENCE, coarse=SMAP, versus=verdict.maps["clean"])
    for name in ("rmse_difference", "rmse_difference_interval", "r_within_difference_interval"):
        np.testing.assert_array_equal(found[name], whole[name])
    np.testing.assert_allclose(found.rmse_difference, verdict.cards["copy"].rmse - verdict.cards["clean"].rmse)
    assert not [name for card in verdict.cards.values() for name in card if "versus" in name or "difference" in name]
    table = tables.pair_table(verdict)
    assert [row[:3] for row in table.rows] == [[str(day)[:10], "copy", "clean"] for day in DAYS]
    assert all(len(row) == len(table.heads) for row in table.rows)
    numbers = [float(found.rmse_difference[0]), *map(float, found.rmse_difference_interval[0])]
    assert table.rows[0][4] == "{} ({} to {})".format(*(sayings.number(n) for n in numbers))
    assert said(verdict, "Map against map", "copy").startswith(
        "copy against clean: RMSE lower on 0 and higher on 0 of 2 days; R lower on 2 and higher on 0 of 2 days, by 95 %"
    )  # the bias of one weighs as much as the steps of the other


def test_the_better_map_is_named(verdict):
    maps = {"copy": verdict.maps["copy"], "near": verdict.maps["clean"].copy(data=verdict.maps["clean"] - 0.03)}
    assert [row[3] for row in tables.pair_table(judge(maps, REFERENCE)).rows] == ["near", "near"]
    turned = judge(dict(reversed(maps.items())), REFERENCE.isel(time=0))
    assert [row[3] for row in tables.pair_table(turned).rows] == ["near"]
    assert (
        said(turned, "Map against map", "near: RMSE is lower than that of copy (−0.0").count("; R is higher than") == 1
    )


def test_equal_maps_and_single_maps_have_no_better_one(verdict):
    one = verdict.maps["clean"].isel(time=[0])
    twins = judge({"a": one, "b": one.copy()}, REFERENCE)
    assert [row[3] for row in tables.pair_table(twins).rows] == ["neither beyond chance"]
    assert "RMSE is not beyond chance different from that of b" in said(twins, "Map against map", "a")
    alone = judge({"a": one}, REFERENCE)
    assert not alone.differences and not tables.pair_table(alone).rows
    assert "Is one map better" not in smgrid.report.page(alone)


@pytest.mark.parametrize("number, pairs", [(3, 3), (4, 6), (5, 4)])
def test_many_maps_are_set_against_the_first_alone(monkeypatch, number, pairs):
    monkeypatch.setattr(patterns, "compare", lambda field, *_, **__: xr.Dataset({"n": 0, "rmse_difference": 0}))
    cards, differences = _compare(dict.fromkeys("abcde"[:number]), None)
    assert list(cards) == list("abcde"[:number]) and len(differences) == pairs
    assert all(first == "a" for first, _ in differences) or number < 5


# ---- what meets


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "nothing to judge"),
        ({"reference": REFERENCE}, "cannot be named 'reference'"),
        ({"a": REFERENCE.assign_attrs(units="K")}, "'a' is in 'K', which is no volumetric soil moisture"),
        ({"a": REFERENCE.drop_attrs()}, "'a' does not say its units"),
        ({"a": REFERENCE * 100}, "'a' has a median of .* likely percent"),
        (
            {"a": REFERENCE.assign_coords(time=DAYS + np.timedelta64(1, "D"))},
            "no day in common: the map 'a' has 2015-05-06",
        ),
        ({"a": REFERENCE.isel(time=0, drop=True)}, "'a' has no date, so which of 2015-05-05, 2015-09-15"),
        ({"a": REFERENCE.isel(time=[0, 0])}, "'a' has several maps of one day"),
        ({"a": field(np.full((2, 63, 54), 0.2), grid=Grid(1, 100, 31401, 63, 54))}, "no cell in common: it lies at 14"),
        (
            {"a": field(np.full((2, 7, 6), 0.2), grid=Grid(9, 1274, 3489, 7, 6))},
            "'a' has cells of 9 km, the reference of 1",
        ),
        ({"a": REFERENCE.assign_coords(x=REFERENCE.x + 500)}, "the map 'a': .*half a cell|'a'.*0.5"),
        ({"a": REFERENCE.expand_dims(member=2)}, r"the dims \['member'\] beside time, y and x"),
    ],
)
def test_what_does_not_meet_is_refused(given, message):
    for name, one in given.items():
        given[name] = one if one.attrs or "does not say" in message else one.assign_attrs(units="m3 m-3")
    with pytest.raises(ValueError, match=message):
        judge(given, REFERENCE)


def test_windows_and_days_are_cut_to_what_all_have():
    other = Grid(1, GRID.row + 5, GRID.col - 3, 63, 54)
    days = np.array(["2015-05-05", "2016-01-01"], "M8[ns]")
    maps, reference, notes = exhibits.meet(
        {"a": field(np.full((2, 63, 54), 20.0), grid=other, days=days, units="%")}, REFERENCE
    )
    assert Grid.of(reference) == Grid.of(maps["a"]) == Grid(1, GRID.row + 5, GRID.col, 58, 51)
    assert reference.sizes["time"] == 1 and float(maps["a"][0, 0, 0]) == pytest.approx(0.2)
    xr.testing.assert_equal(reference, REFERENCE[:1, 5:, :51])
    assert len(notes) == 2 and "58 x 51 cells" in notes[0] and "1 days that all have, 2015-05-05" in notes[1]


@pytest.mark.parametrize("when, message", [("lacks", "lacks the days 2015-09-15"), ("undated", "the maps no date")])
def test_a_coarse_field_of_other_days_is_refused(when, message):
    maps = REFERENCE if when == "lacks" else REFERENCE.isel(time=0, drop=True)
    with pytest.raises(ValueError, match=message):
        judge(maps, maps, coarse=SMAP.isel(time=[0]) if when == "lacks" else SMAP)


# ---- files and the shell


@pytest.fixture(scope="module")
def files(tmp_path_factory, verdict):
    folder = tmp_path_factory.mktemp("judge")
    maps = verdict.maps["copy"].assign_attrs(source="synthetic").to_dataset(name="soil_moisture")
    maps["status"] = maps.soil_moisture.notnull().astype("u1")
    maps.to_netcdf(folder / "copy.nc")
    smgrid.write_zarr(maps.chunk(time=1), folder / "stored.zarr", progress=False)
    smgrid.write_geotiff(maps, folder / "tiles.tif")
    (REFERENCE * 100).assign_attrs(units="%").to_netcdf(folder / "airborne.nc")
    (REFERENCE * 100).drop_attrs(deep=False).to_netcdf(folder / "silent.nc")
    SMAP.to_netcdf(folder / "smap.nc")
    xr.Dataset({"a": REFERENCE, "b": REFERENCE}).to_netcdf(folder / "two.nc")
    (folder / "broken.nc").write_bytes(b"\x89HDF\r\n\x1a\n no")
    return folder


@pytest.mark.parametrize("name", ["copy.nc", "stored.zarr", "tiles_*.tif", "tiles_20150915.tif"])
def test_maps_open_from_every_kind_of_file(files, verdict, name):
    opened = exhibits.open_map(files / name)
    expected = verdict.maps["copy"] if "2015" not in name else verdict.maps["copy"].isel(time=1)
    xr.testing.assert_equal(opened.reset_coords(drop=True), expected.reset_coords(drop=True))
    assert np.array_equal(opened.time, expected.time) and opened.attrs["units"] == "m3 m-3"
    assert opened.attrs["source_files"].endswith(name[-4:].replace("zarr", "stored.zarr")[-4:])


def test_judge_writes_a_page_and_says_what_it_says(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ["judge", f"{files}/copy.nc", f"{files}/airborne.nc", "out.html", "--coarse", f"{files}/smap.nc"]
    assert main([*args, "--also", f"{files}/stored.zarr", "--dates", "2015-05", "--title", "a <b>"]) == 0
    out, page = capsys.readouterr().out, (tmp_path / "out.html").read_text()
    assert "written: out.html" in out and re.search(r"copy copies \d+ ± \d+ % of SMAP's 9-km steps \(p < 0.001\)", out)
    assert "a &lt;b&gt;" in page and "stored copies" in page and "copy.nc" in page and "Synthetic:" in page
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


@pytest.mark.parametrize(
    "args, message",
    [
        (["nowhere.nc", "{f}/airborne.nc", "a.html"], "no map at nowhere.nc"),
        (["{f}/copy.nc", "{f}/airborne.nc", "a.pdf"], r"ends in \.html, not '\.pdf'"),
        (
            ["{f}/copy.nc", "{f}/silent.nc", "a.html"],
            r"silent\.nc does not say its units.*--units map=% or reference=%",
        ),
        (["{f}/copy.nc", "{f}/two.nc", "a.html"], r"two\.nc holds \['a', 'b'\].*--variable map=a"),
        (["{f}/broken.nc", "{f}/airborne.nc", "a.html"], r"broken\.nc cannot be opened, it is damaged"),
        (["{f}/copy.nc", "{f}/airborne.nc", "a.html", "--dates", "2014"], "the cube has none of 2014"),
        (["{f}/copy.nc", "{f}/airborne.nc", "a.html", "--also", "{f}/copy.nc"], "comes more than once"),
        (["{f}/copy.nc", "{f}/airborne.nc", "a.html", "--units", "smap=%"], "--units take .*not .'smap'"),
        (["{f}/copy.nc", "{f}/airborne.nc", "a.html", "--units", "reference=m3 m-3"], "more water than volume"),
        (["{f}/tiles_20150505.tif", "{f}/tiles_20150915.tif", "a.html"], "no day in common"),
    ],
)
def test_what_cannot_be_judged_is_exit_3_and_says_why(files, tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    assert main(["judge", *(arg.format(f=files) for arg in args)]) == 3
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_units_and_variables_at_your_word(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = ["--units", "reference=%", "--variable", "map=a", "--title", "x"]
    assert main(["judge", f"{files}/two.nc", f"{files}/silent.nc", "out.html", *more]) == 0
    assert "RMSE 0.000 m³ m⁻³" in (tmp_path / "out.html").read_text()


def test_a_raster_without_a_date_is_taken_for_the_only_day(files, tmp_path):
    with rasterio.open(files / "tiles_20150505.tif") as tif:
        values, profile = tif.read(1), tif.profile
    profile = {
        key: profile[key] for key in ("driver", "height", "width", "count", "dtype", "crs", "transform", "nodata")
    }
    with rasterio.open(tmp_path / "bare.tif", "w", **profile | {"count": 1}) as tif:
        tif.write(values, 1)
    bare = exhibits.open_map(tmp_path / "bare.tif", units="m3 m-3")
    found = judge({"bare": bare}, REFERENCE.isel(time=[0]))
    assert found.days == ["2015-05-05"] and any("without a date" in note for note in found.notes)
