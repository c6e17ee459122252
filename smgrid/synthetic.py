"""An invented Yanco whose truth is known: predictors, truth, airborne maps, SMAP, stations; with faults to switch on.

Everything here is synthetic and says so. No mark is stamped on any map: what a model trained on the samples does on the
cube (too wet when dry, too dry when wet, patches missed, SMAP cells showing) follows from the physics in `landscape`
and from what the sensors below lose of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from operator import index
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.random import Generator
from numpy.typing import NDArray

from smgrid import landscape, sensors
from smgrid import network as networks
from smgrid.grid import YANCO, Grid
from smgrid.landscape import BANDS, WINDOW, Field, Ground, State, day_date, day_number

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "synthetic: invented by smgrid.synthetic, no observation in it"
FLIGHTS = tuple(map(day_number, ("2015-05-05", "2015-05-17", "2015-09-15", "2015-09-26")))
HALF_SEEN = day_number("2015-05-17")  # Sentinel-1 saw the western half only
PASSES = range(day_number("2016-01-04"), day_number("2022-01-01"), 12)  # the days that train
STATIONS = 39

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
    "cover": (None, "land cover"),
    "patches": (None, "patches wet on 17 May 2015, south-west"),
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
    chosen, seed = _known(faults), index(seed)
    world = _world(seed)
    block_error = "no_block_error" not in chosen
    retrievals = {day: world.smap.retrieval(day, block_error=block_error) for day in (*FLIGHTS, *PASSES)}
    spread = {day: _spread(coarse, chosen) for day, coarse in retrievals.items()}
    maps = {**world.maps, "smap": np.stack([spread[day] for day in FLIGHTS])}
    rows = {**world.rows, "smap": np.stack([spread[day][world.cells] for day in PASSES])}
    if "unsmoothed_rain" in chosen:
        maps["precipitation"], rows["precipitation"] = maps["sharp_precipitation"], rows["sharp_precipitation"]
    stations = _stations(world, ideal="probe_gain_one" in chosen)
    return Scene(
        cube=_say_how(_spoil(_cube(maps, seed, chosen), world.smap, chosen), chosen),
        truth=_array("soil_moisture", world.truth),
        airborne=_array("airborne", world.airborne),
        smap=_array("smap", np.stack([_on_window(retrievals[day]) for day in FLIGHTS]), YANCO.coarsen(9)),
        samples=_say_how(_samples(stations, rows, world.probes.up[len(FLIGHTS) :]), chosen),
        stations=_table(stations),
        cover=_flags("cover", world.cover),
        patches=_flags("patches", _patches()),
    )


def network(n_cells: int = networks.CELLS, seed: int = 0) -> xr.Dataset:
    """Invent a network of stations as large as the paper's: samples of 2016-2021 in cells of 25 networks and OzNet.

    Parameters
    ----------
    n_cells : int
        Cells of 1 km; 1021 as in the paper give some 209 000 samples, another number as many in proportion.
    seed : int
        Every random choice follows from it.

    Returns
    -------
    Dataset (sample)
        Training samples, labelled synthetic: the 20 stored predictors, `soil_moisture`, `time`, `row`, `col`,
        `latitude`, `longitude`, `network`, `station`. See `smgrid.network` for the physics.

    Examples
    --------
    >>> samples = network(20, seed=0)
    >>> samples.soil_moisture.attrs["units"], len(set(samples.station.values))
    ('m3 m-3', 20)
    """
    if n_cells < 1:
        raise ValueError(f"a network has at least 1 cell, not {n_cells}")
    # a stream for each part: one that draws more or less leaves the others as they were
    places, weathers, sights, instruments, ground = np.random.default_rng(seed).spawn(5)
    sites = networks.Sites.draw(places, n_cells)
    weather = networks.Weather.draw(weathers, sites)
    water = networks.soil_water(sites, weather)
    day, cell = networks.passes(sights, sites, weather)
    columns = networks.look(instruments, sites, weather, water, day, cell)
    columns["soil_moisture"] = networks.probe(ground, sites, water, day, cell)
    names = np.array([f"{net.name} (synthetic)" for net in networks.NETWORKS])
    place = {
        "time": networks.FIRST.astype("M8[ns]") + day.astype("m8[D]"),
        "row": sites.row[cell],
        "col": sites.col[cell],
        "latitude": sites.latitude[cell],
        "longitude": sites.longitude[cell],
        "network": names[sites.network][cell],
        "station": np.array([f"synthetic_{number:04d}" for number in range(1, n_cells + 1)])[cell],
    }
    data = {name: ("sample", values.astype("f4"), _attributes(name)) for name, values in columns.items()}
    data |= {name: ("sample", values, _attributes(name)) for name, values in place.items()}
    attrs = {"title": "Samples of a network of stations, synthetic", "source": SOURCE, "seed": seed}
    return _say_how(xr.Dataset(data, attrs=attrs), frozenset())


def _known(faults: Iterable[str]) -> frozenset[str]:
    """The faults asked for; one that nobody knows is refused."""
    chosen = (faults,) if isinstance(faults, str) else tuple(faults)
    for name in chosen:
        if name not in FAULTS:
            near = get_close_matches(str(name), FAULTS, n=2, cutoff=0.5)
            hint = f"; near it are {near}" if near else ""
            raise ValueError(f"no fault is called {name!r}{hint}. The faults are {sorted(FAULTS)}")
    return frozenset(chosen)


# ---- what a seed decides


@dataclass(frozen=True, eq=False)
class _World:
    """All that follows from the seed alone; days are those of flights, then those of passes."""

    cover: NDArray[np.uint8]  # (y, x)
    truth: Field  # (flight, y, x), m3 m-3
    airborne: Field  # (flight, y, x), m3 m-3
    maps: dict[str, Field]  # predictors but SMAP, (flight, y, x)
    rows: dict[str, Field]  # the same at the stations, (pass, station)
    cells: sensors.Cells
    moisture: Field  # truth at the stations, (day, station)
    probes: sensors.Probes
    smap: sensors.Smap


@lru_cache(maxsize=4)  # scenes of one seed differ in faults only; what is handed out is always a copy
def _world(seed: int) -> _World:
    # a stream for each part: one that draws more or less leaves the others as they were
    grounds, weathers, retrievals, stations, instruments, flights = np.random.default_rng(seed).spawn(6)
    ground = Ground.draw(grounds)
    states, footprints = _watch(weathers, ground)
    cells = sensors.place_stations(stations, ground, STATIONS)
    maps, rows = _look(instruments, ground, states, cells)
    return _World(
        cover=np.select([ground.forest[WINDOW], ground.irrigated[WINDOW]], [3, 2], default=1).astype("u1"),
        truth=np.stack([states[day].soil_moisture[WINDOW] for day in FLIGHTS]),
        airborne=np.stack([sensors.fly_over(flights, states[day].soil_moisture) for day in FLIGHTS]),
        maps=maps,
        rows=rows,
        cells=cells,
        moisture=np.stack([state.soil_moisture[WINDOW][cells] for state in states.values()]),
        probes=sensors.Probes.draw(stations, len(states), STATIONS),
        smap=sensors.Smap.draw(retrievals, footprints, states),
    )


def _watch(rng: Generator, ground: Ground) -> tuple[dict[int, State], dict[int, Field]]:
    """One run: the states on the days of flights and passes, the footprints of SMAP at the overpasses around them."""
    days = {*FLIGHTS, *PASSES}
    swaths = {swath for day in [*days, *(day - 1 for day in FLIGHTS)] for swath in sensors.overpasses(day)[:2]}
    states, footprints = {}, {}
    for day, state in landscape.run(rng, ground, days | swaths):
        if day in days:
            states[day] = state
        if day in swaths:
            footprints[day] = sensors.Smap.footprint(state.soil_moisture)
    return states, footprints


def _look(
    rng: Generator, ground: Ground, states: Mapping[int, State], cells: sensors.Cells
) -> tuple[dict[str, Field], dict[str, Field]]:
    """The predictors as maps of the flight days, and at the stations on the days of passes."""
    maps: dict[str, list[Field]] = {}
    rows: dict[str, list[Field]] = {}
    for day, fields in sensors.observe(rng, ground, states):
        for name, field in fields.items():
            if day in FLIGHTS:
                maps.setdefault(name, []).append(field[WINDOW])
            else:
                rows.setdefault(name, []).append(field[WINDOW][cells])
    return {name: np.stack(seen) for name, seen in maps.items()}, {name: np.stack(seen) for name, seen in rows.items()}


def _spread(coarse: Field, chosen: frozenset[str], shift: int = 0) -> Field:
    """SMAP on the 1-km cells of the window, as blocks or smooth; `shift` cells south and east of its place."""
    field = sensors.spread_smap(coarse, smooth_out="smooth_smap" in chosen)
    return np.roll(field, shift, axis=(0, 1))[WINDOW]


def _on_window(coarse: Field) -> Field:
    """The 9-km cells that the window touches."""
    rows, cols = sensors.SMAP_TILES.rows[WINDOW[0]], sensors.SMAP_TILES.cols[WINDOW[1]]
    return coarse[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


# ---- what is handed over


def _attributes(name: str) -> dict[str, Any]:
    units, meaning = LABELS[name]
    return {"long_name": f"{meaning} (synthetic)", **({"units": units} if units else {}), "source": SOURCE}


def _array(name: str, values: Field, grid: Grid = YANCO) -> xr.DataArray:
    """A float32 field of the grid, (time, y, x) or (y, x), labelled."""
    dims = ("time", "y", "x")[-values.ndim :]
    coords = xr.Dataset(coords=grid.coords())
    if "time" in dims:
        coords["time"] = ("time", [day_date(day) for day in FLIGHTS], {"standard_name": "time", "long_name": "UTC day"})
    array = xr.DataArray(values.astype("f4"), coords=coords.coords, dims=dims, name=name, attrs=_attributes(name))
    array.encoding["grid_mapping"] = "spatial_ref"
    return array


def _cube(maps: Mapping[str, Field], seed: int, chosen: frozenset[str]) -> xr.Dataset:
    """The predictors of the flight days; Sentinel-1 covers half of the second."""
    unseen = landscape.COL[WINDOW] >= 40 - 0.17 * (landscape.ROW[WINDOW] - 42)  # a swath's edge leans ten degrees
    cube = xr.Dataset()
    for name in PREDICTORS:
        cube[name] = _array(name, maps[name] if name in DYNAMIC else maps[name][0])
        if name in ("vv", "vh", "incidence_angle"):
            cube[name].data[FLIGHTS.index(HALF_SEEN), unseen] = np.nan
        if name in BANDS:
            cube[name].attrs["composite_period"] = "substitute: in May 2015 no Sentinel-2 was in orbit"
    return cube.assign_attrs(
        title="Yanco, a synthetic scene",
        source="synthetic",
        comment="every value is invented by smgrid.synthetic; none was observed",
        seed=seed,
        faults=", ".join(name for name in FAULTS if name in chosen) or "none",
    )


def _say_how(predictors: xr.Dataset, chosen: frozenset[str]) -> xr.Dataset:
    """Say how predictors were made: what cube and samples must agree on."""
    for name in ("vv", "vh"):
        predictors[name].attrs["averaging"] = "dB"
    predictors["smap"].attrs["spreading"] = "smooth" if "smooth_smap" in chosen else "blocks"
    return predictors


def _stations(world: _World, *, ideal: bool) -> xr.Dataset:
    """What the probes said, a row per station and day on which it was up."""
    day, site = np.nonzero(world.probes.up)
    rows, cols = (axis[site] for axis in world.cells)
    lon, lat = YANCO.lonlat()
    columns = {
        "time": np.array([day_date(day) for day in (*FLIGHTS, *PASSES)])[day],
        "row": YANCO.row + rows,
        "col": YANCO.col + cols,
        "latitude": lat[rows],
        "longitude": lon[cols],
        "network": np.full(day.size, "SYNTHETIC"),
        "station": np.array([f"synthetic_{number:02d}" for number in range(1, STATIONS + 1)])[site],
        "soil_moisture": world.probes.reading(world.moisture, ideal=ideal)[day, site].astype("f4"),
    }
    return xr.Dataset({name: ("sample", values, _attributes(name)) for name, values in columns.items()})


def _samples(stations: xr.Dataset, seen: Mapping[str, Field], up: NDArray[np.bool_]) -> xr.Dataset:
    """The predictors beside what the probes said, on the days that train."""
    trains = stations["time"].to_numpy() >= day_date(PASSES[0])
    columns = {name: ("sample", seen[name][up].astype("f4"), _attributes(name)) for name in PREDICTORS}
    attrs = {"title": "Training samples of Yanco, synthetic", "source": "synthetic"}
    return xr.Dataset({**columns, **stations.isel(sample=trains).data_vars}, attrs=attrs)


def _table(stations: xr.Dataset) -> pd.DataFrame:
    table = stations[["time", "latitude", "longitude", "network", "station", "soil_moisture"]].to_dataframe()
    table.attrs = {"source": SOURCE, "units": {"soil_moisture": "m3 m-3"}}
    return table


def _patches() -> NDArray[np.bool_]:
    """The hearts of the two storms in the south-west."""
    near = [landscape.distance_km(row, col) < radius - 1 for row, col, radius, _ in landscape.STORMS[:2]]
    return (near[0] | near[1])[WINDOW]


def _flags(name: str, values: NDArray[Any]) -> xr.DataArray:
    array = xr.DataArray(values.copy(), coords=YANCO.coords(), dims=("y", "x"), name=name, attrs=_attributes(name))
    array.encoding["grid_mapping"] = "spatial_ref"
    if name == "cover":
        array.attrs["flag_values"] = np.array([1, 2, 3], "u1")
        array.attrs["flag_meanings"] = "dryland_crop_and_pasture irrigated forest"
    return array


# ---- faults of the file


def _spoil(cube: xr.Dataset, smap: sensors.Smap, chosen: frozenset[str]) -> xr.Dataset:
    """The cube with the chosen faults of the file; those of values before those of place."""
    if chosen & {"smap_previous_day", "smap_wrong_phase"}:
        lag, shift = int("smap_previous_day" in chosen), 4 * ("smap_wrong_phase" in chosen)
        fields = [smap.retrieval(day, lag=lag, block_error="no_block_error" not in chosen) for day in FLIGHTS]
        cube = _replaced(cube, smap=np.stack([_spread(field, chosen, shift) for field in fields]))
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
