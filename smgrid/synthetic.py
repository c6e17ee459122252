"""An invented Yanco whose truth is known: predictors, truth, airborne maps, SMAP, stations; with faults to switch on.

Everything here is synthetic and says so. No mark is stamped on any map: what a model trained on the samples does on the
cube (too wet when dry, too dry when wet, patches missed, SMAP cells showing) follows from the physics in `landscape`
and from what the sensors below lose of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.random import Generator
from numpy.typing import NDArray

from smgrid.grid import YANCO, Grid
from smgrid.landscape import (
    BANDS,
    COL,
    ROW,
    STORMS,
    WINDOW,
    Field,
    Ground,
    State,
    day_date,
    day_number,
    distance_km,
    run,
)
from smgrid.sensors import (
    BLOCK_ERROR,
    SMAP_TILES,
    Cells,
    Smap,
    fly_over,
    observe,
    overpasses,
    place_stations,
    probe,
    spread_smap,
)

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "synthetic: invented by smgrid.synthetic, no observation in it"
FLIGHTS = tuple(map(day_number, ("2015-05-05", "2015-05-17", "2015-09-15", "2015-09-26")))
HALF_SEEN = day_number("2015-05-17")  # Sentinel-1 saw the western half only
PASSES = range(day_number("2016-01-04"), day_number("2022-01-01"), 12)  # the days that train
STATIONS = 39
COARSE = YANCO.coarsen(9)

# Name: units, meaning. The 20 stored predictors in the order of the model's inputs, then what goes with them.
PREDICTORS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "vv": ("dB", "Sentinel-1 backscatter, VV"),
    "vh": ("dB", "Sentinel-1 backscatter, VH"),
    "incidence_angle": ("degree", "Sentinel-1 incidence angle"),
    "sand": ("%", "sand content, 0-5 cm"),
    "clay": ("%", "clay content, 0-5 cm"),
    "bulk_density": ("g cm-3", "bulk density, 0-5 cm"),
    "elevation": ("m", "elevation"),
    "slope": ("degree", "slope"),
    "aspect_sin": ("1", "mean sine of aspect"),
    "aspect_cos": ("1", "mean cosine of aspect"),
    "ndvi": ("1", "NDVI"),
    "air_temperature": ("degC", "air temperature, mean of the 7 days before"),
    "precipitation": ("m d-1", "precipitation, mean of the 7 days before"),
    **{band: ("1", f"Sentinel-2 reflectance {band.upper()}, one-year median") for band in BANDS},
    "smap": ("m3 m-3", "SMAP soil moisture, 9 km"),
})  # fmt: skip
LABELS: Mapping[str, tuple[str | None, str]] = MappingProxyType({
    **PREDICTORS,
    "soil_moisture": ("m3 m-3", "soil moisture, 0-5 cm"),
    "airborne": ("m3 m-3", "airborne soil moisture"),
    "time": (None, "UTC day"),  # xarray keeps the units of a time itself
    "network": (None, "name of the network"),
    "station": (None, "name of the station"),
    "latitude": ("degree_north", "latitude of the cell centre"),
    "longitude": ("degree_east", "longitude of the cell centre"),
    "row": ("1", "row in the global 1-km EASE-Grid 2.0"),
    "col": ("1", "column in the global 1-km EASE-Grid 2.0"),
})  # fmt: skip
DYNAMIC = ("vv", "vh", "incidence_angle", "ndvi", "air_temperature", "precipitation", "smap")

FAULTS: Mapping[str, str] = MappingProxyType({
    # faults of the file: the cube alone is wrong, the samples are as they should be
    "flipped_rows": "all data upside down, the coordinates not",
    "half_cell_shift": "x half a cell too far east",
    "linear_vv": "vv and vh in linear power, the units still say dB",
    "kelvin": "air_temperature in K, the units still say degC",
    "smap_wrong_phase": "SMAP cells 4 rows south and 4 columns east of their place",
    "fill_not_masked": "fill values -9999 and 65534 left in two SMAP cells",
    "smap_previous_day": "SMAP of the UTC day before",
    "era5_naive_sum": "precipitation summed over running totals, 12.5 times too much",
    # switches of the recipe: cube and samples change alike
    "probe_gain_one": "probes that answer with gain 1 and do not drift",
    "no_block_error": "SMAP free of the fixed error of each 9-km cell",
    "smooth_smap": "SMAP spread smoothly over the cells, not as blocks",
    "unsmoothed_rain": "precipitation as sharp as its 0.1-degree cells allow",
})  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Scene:
    """A synthetic Yanco: what a model sees, what is true, what trains it.

    Attributes
    ----------
    cube : Dataset
        The 20 stored predictors on `smgrid.YANCO`, dynamic (time, y, x) and static (y, x), float32, with units.
    truth : DataArray (time, y, x), m3 m-3
        Soil moisture as it is.
    airborne : DataArray (time, y, x), m3 m-3
        Soil moisture as a radiometer in an aircraft has it: the reference, with errors of its own.
    smap : DataArray (time, y, x), m3 m-3
        SMAP on its 9-km cells, `YANCO.coarsen(9)`.
    samples : Dataset (sample)
        Training samples of 2016-2021: the 20 predictors, soil moisture, time and place.
    stations : DataFrame
        The probes' series, a row per station and day of a pass, the days of the maps included.
    cover : DataArray (y, x)
        Land cover, with CF flag attributes.
    patches : DataArray (y, x), bool
        The two patches in the south-west that were wet on 17 May 2015.
    """

    cube: xr.Dataset
    truth: xr.DataArray
    airborne: xr.DataArray
    smap: xr.DataArray
    samples: xr.Dataset
    stations: pd.DataFrame
    cover: xr.DataArray
    patches: xr.DataArray

    def __repr__(self) -> str:
        days = ", ".join(np.datetime_as_string(self.cube["time"].values, "D"))
        sites = self.stations["station"].nunique()
        return (
            f"Scene: synthetic Yanco, seed {self.cube.attrs['seed']}, faults: {self.cube.attrs['faults']}\n"
            f"  cube, truth, airborne  {YANCO.ny} x {YANCO.nx} cells of 1 km, {len(self.cube)} predictors; {days}\n"
            f"  smap                   {self.smap.sizes['y']} x {self.smap.sizes['x']} cells of 9 km\n"
            f"  samples, stations      {self.samples.sizes['sample']} samples of 2016-2021 at {sites} stations\n"
            f"  cover, patches         land cover; the two wet patches of 17 May"
        )


def yanco(seed: int = 0, faults: Iterable[str] = ()) -> Scene:
    """Invent a Yanco: four days of maps in 2015, station samples of 2016-2021, and the truth behind both.

    The same seed gives the same arrays, bit for bit; a fault changes what it names and nothing else.

    Parameters
    ----------
    seed : int
        Every random choice follows from it.
    faults : names, optional
        Faults of the file, which spoil the cube alone:

        - `flipped_rows`: all data upside down, the coordinates not
        - `half_cell_shift`: x half a cell too far east
        - `linear_vv`: vv and vh in linear power, the units still say dB
        - `kelvin`: air_temperature in K, the units still say degC
        - `smap_wrong_phase`: SMAP cells 4 rows south and 4 columns east of their place
        - `fill_not_masked`: fill values -9999 and 65534 left in two SMAP cells
        - `smap_previous_day`: SMAP of the UTC day before
        - `era5_naive_sum`: precipitation summed over running totals, 12.5 times too much

        Switches of the recipe, which act on cube and samples alike:

        - `probe_gain_one`: probes that answer with gain 1 and do not drift
        - `no_block_error`: SMAP free of the fixed error of each 9-km cell
        - `smooth_smap`: SMAP spread smoothly over the cells, not as blocks
        - `unsmoothed_rain`: precipitation as sharp as its 0.1-degree cells allow

    Returns
    -------
    Scene
        With `cube`, `truth`, `airborne`, `smap`, `samples`, `stations`, `cover`, `patches`, all labelled synthetic.

    Raises
    ------
    ValueError
        A fault is not one of these.

    Examples
    --------
    >>> scene = yanco(seed=0)
    >>> scene.cube.sizes["time"], scene.cube["vv"].attrs["units"], scene.truth.dims
    (4, 'dB', ('time', 'y', 'x'))
    """
    chosen = _known(faults)
    # a stream for each part: one that draws more or less leaves the others as they were
    streams = np.random.default_rng(seed).spawn(6)
    ground = Ground.draw(streams[0])
    states, footprints = _watch(streams[1], ground)
    smap = Smap.draw(streams[2], footprints, states, block_error=0.0 if "no_block_error" in chosen else BLOCK_ERROR)
    cells = place_stations(streams[3], ground, STATIONS)
    maps, rows = _look(streams[4], ground, states, smap, cells, chosen)
    moisture = np.stack([state.soil_moisture[WINDOW][cells] for state in states.values()])
    probes, up = probe(streams[3], moisture, ideal="probe_gain_one" in chosen)

    stations = _at_stations([*states], cells, probes, up)
    trains = stations["time"].to_numpy() >= day_date(PASSES[0])
    flights = {day: states[day].soil_moisture for day in FLIGHTS}
    return Scene(
        cube=_spoil(_cube(maps, seed, chosen), smap, chosen),
        truth=_maps("soil_moisture", [moisture[WINDOW] for moisture in flights.values()], YANCO),
        airborne=_maps("airborne", [fly_over(streams[5], moisture) for moisture in flights.values()], YANCO),
        smap=_maps("smap", [_on_window(smap.retrieval(day)) for day in FLIGHTS], COARSE),
        samples=_samples(stations.isel(sample=trains), rows, up),
        stations=_table(stations),
        cover=_cover(ground),
        patches=_patches(),
    )


def _known(faults: Iterable[str]) -> frozenset[str]:
    """The faults asked for; one that nobody knows is refused."""
    chosen = (faults,) if isinstance(faults, str) else tuple(faults)
    for name in chosen:
        if name not in FAULTS:
            near = get_close_matches(str(name), FAULTS, n=2, cutoff=0.5)
            hint = f"; near it are {near}" if near else ""
            raise ValueError(f"no fault is called {name!r}{hint}. The faults are {sorted(FAULTS)}")
    return frozenset(chosen)


# ---- what is seen


def _watch(rng: Generator, ground: Ground) -> tuple[dict[int, State], dict[int, Field]]:
    """One run: the states on the days of flights and passes, the footprints of SMAP at the overpasses around them."""
    days = {*FLIGHTS, *PASSES}
    swaths = {swath for day in [*days, *(day - 1 for day in FLIGHTS)] for swath in overpasses(day)[:2]}
    states, footprints = {}, {}
    for day, state in run(rng, ground, days | swaths):
        if day in days:
            states[day] = state
        if day in swaths:
            footprints[day] = Smap.footprint(state.soil_moisture)
    return states, footprints


def _look(
    rng: Generator, ground: Ground, states: Mapping[int, State], smap: Smap, cells: Cells, chosen: frozenset[str]
) -> tuple[dict[str, Field], dict[str, Field]]:
    """The predictors as maps of the flight days (day, y, x), and at the stations on passes (day, station)."""
    maps: dict[str, list[Field]] = {name: [] for name in PREDICTORS}
    rows: dict[str, list[Field]] = {name: [] for name in PREDICTORS}
    for day, fields in observe(rng, ground, states, sharp_rain="unsmoothed_rain" in chosen):
        fields["smap"] = spread_smap(smap.retrieval(day), smooth_out="smooth_smap" in chosen)
        for name in PREDICTORS:
            if day in FLIGHTS:
                maps[name].append(fields[name][WINDOW])
            else:
                rows[name].append(fields[name][WINDOW][cells])
    return {name: np.stack(seen) for name, seen in maps.items()}, {name: np.stack(seen) for name, seen in rows.items()}


def _on_window(coarse: Field) -> Field:
    """The 9-km cells that the window touches."""
    rows, cols = SMAP_TILES.rows[WINDOW[0]], SMAP_TILES.cols[WINDOW[1]]
    return coarse[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


# ---- what is handed over


def _attributes(name: str) -> dict[str, Any]:
    units, meaning = LABELS[name]
    return {"long_name": f"{meaning} (synthetic)", **({"units": units} if units else {}), "source": SOURCE}


def _array(name: str, dims: tuple[str, ...], values: Field, grid: Grid) -> xr.DataArray:
    """A float32 field of the grid, labelled."""
    days = [day_date(day) for day in FLIGHTS]
    time = xr.Variable("time", days, {"standard_name": "time", "long_name": "UTC day", "axis": "T"})
    coords = xr.Dataset(coords=grid.coords()).assign_coords({"time": time} if "time" in dims else {}).coords
    array = xr.DataArray(np.asarray(values, "f4"), coords=coords, dims=dims, name=name, attrs=_attributes(name))
    array.encoding["grid_mapping"] = "spatial_ref"
    return array


def _maps(name: str, values: list[Field], grid: Grid) -> xr.DataArray:
    return _array(name, ("time", "y", "x"), np.stack(values), grid)


def _cube(maps: Mapping[str, Field], seed: int, chosen: frozenset[str]) -> xr.Dataset:
    """The predictors of the flight days; Sentinel-1 covers half of the second."""
    unseen = COL[WINDOW] >= 40 - 0.17 * (ROW[WINDOW] - 42)  # the swath's edge leans some ten degrees from north
    cube = xr.Dataset()
    for name, values in maps.items():
        if name in ("vv", "vh", "incidence_angle"):
            values[FLIGHTS.index(HALF_SEEN), unseen] = np.nan
        moving = name in DYNAMIC
        cube[name] = _array(name, ("time", "y", "x") if moving else ("y", "x"), values if moving else values[0], YANCO)
        if name in BANDS:
            cube[name].attrs["composite_period"] = (
                "substitute: an invented year; in May 2015 no Sentinel-2 was in orbit"
            )
    return cube.assign_attrs(
        title="Yanco, a synthetic scene",
        source="synthetic",
        comment="every value is invented by smgrid.synthetic; none was observed",
        seed=seed,
        faults=", ".join(name for name in FAULTS if name in chosen) or "none",
        backscatter_averaging="dB",
        smap_spreading="smooth" if "smooth_smap" in chosen else "blocks",
    )


def _at_stations(days: list[int], cells: Cells, probes: Field, up: NDArray[np.bool_]) -> xr.Dataset:
    """What the probes said, a row per station and day on which it was up."""
    when, site = np.nonzero(up)
    rows, cols = cells[0][site], cells[1][site]
    lon, lat = YANCO.lonlat()
    names = np.array([f"synthetic_{number:02d}" for number in range(1, STATIONS + 1)])
    columns = {
        "time": np.array([day_date(day) for day in days])[when],
        "row": YANCO.row + rows,
        "col": YANCO.col + cols,
        "latitude": lat[rows],
        "longitude": lon[cols],
        "network": np.full(when.size, "SYNTHETIC"),
        "station": names[site],
        "soil_moisture": probes[when, site].astype("f4"),
    }
    return xr.Dataset(
        {name: ("sample", values, _attributes(name)) for name, values in columns.items()},
        attrs={"title": "Probes of Yanco, synthetic", "source": "synthetic"},
    )


def _samples(stations: xr.Dataset, seen: Mapping[str, Field], up: NDArray[np.bool_]) -> xr.Dataset:
    """The predictors beside what the probes said, on the days that train."""
    kept = up[len(FLIGHTS) :]
    columns = {name: ("sample", values[kept].astype("f4"), _attributes(name)) for name, values in seen.items()}
    return (
        xr.Dataset(columns, attrs={"source": "synthetic"})
        .merge(stations)
        .assign_attrs(title="Training samples of Yanco, synthetic")
    )


def _table(stations: xr.Dataset) -> pd.DataFrame:
    names = ["time", "latitude", "longitude", "network", "station", "soil_moisture"]
    table = stations[names].to_dataframe()
    table.attrs = {"source": SOURCE, "units": {"soil_moisture": "m3 m-3"}}
    return table


def _cover(ground: Ground) -> xr.DataArray:
    kinds = np.select([ground.forest[WINDOW], ground.irrigated[WINDOW]], [3, 2], default=1).astype("u1")
    attrs = {
        "long_name": "land cover (synthetic)",
        "flag_values": np.array([1, 2, 3], "u1"),
        "flag_meanings": "dryland_crop_and_pasture irrigated forest",
        "source": SOURCE,
    }
    return xr.DataArray(kinds, coords=YANCO.coords(), dims=("y", "x"), name="cover", attrs=attrs)


def _patches() -> xr.DataArray:
    wet = np.logical_or(*(distance_km(row, col) < radius - 1 for row, col, radius, _ in STORMS[:2]))
    attrs = {"long_name": "wet patches of 17 May 2015 in the south-west (synthetic)", "source": SOURCE}
    return xr.DataArray(wet[WINDOW], coords=YANCO.coords(), dims=("y", "x"), name="patches", attrs=attrs)


# ---- faults of the file


def _spoil(cube: xr.Dataset, smap: Smap, chosen: frozenset[str]) -> xr.Dataset:
    """The cube with the chosen faults of the file; those of values before those of place."""
    if chosen & {"smap_previous_day", "smap_wrong_phase"}:
        lag = 1 if "smap_previous_day" in chosen else 0
        shift = 4 if "smap_wrong_phase" in chosen else 0
        smooth_out = "smooth_smap" in chosen
        fields = [spread_smap(smap.retrieval(day, lag), smooth_out=smooth_out) for day in FLIGHTS]
        cube = _replaced(cube, smap=np.stack([np.roll(field, shift, axis=(0, 1))[WINDOW] for field in fields]))
    if "fill_not_masked" in chosen:
        values = cube["smap"].to_numpy().copy()
        values[:, 27:36, 18:27], values[:, 45:54, 36:45] = -9999, 65534
        cube = _replaced(cube, smap=values)
    if "linear_vv" in chosen:
        cube = _replaced(cube, vv=10 ** (cube["vv"] / 10), vh=10 ** (cube["vh"] / 10))
    if "kelvin" in chosen:
        cube = _replaced(cube, air_temperature=cube["air_temperature"] + 273.15)
    if "era5_naive_sum" in chosen:  # hour h of even rain holds h / 24 of the day: the 24 of them sum to 12.5 days
        cube = _replaced(cube, precipitation=cube["precipitation"] * 12.5)
    if "flipped_rows" in chosen:
        cube = _replaced(cube, **{str(name): field[..., ::-1, :] for name, field in cube.data_vars.items()})
    if "half_cell_shift" in chosen:
        cube = cube.assign_coords(x=cube["x"].copy(data=YANCO.x + YANCO.cell / 2))
    return cube


def _replaced(cube: xr.Dataset, **values: Any) -> xr.Dataset:
    """The cube with other values under the same names, attributes and coordinates."""
    return cube.assign({name: cube[name].copy(data=np.asarray(field, "f4")) for name, field in values.items()})
