"""Makes the maps, one block at a time.

`predict_map` hands every predictor of a block, as it is stored, to one function. Static fields and coordinates are
broadcast inside it, so nothing the size of the cube is ever built, and only cells that have every predictor reach the
regressor. The model is one key of the graph; all layers of a block come from one read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from dask.base import is_dask_collection, tokenize
from numpy.typing import NDArray

from smgrid import __version__
from smgrid.conformal import LEVEL
from smgrid.features import Predictor
from smgrid.features import day_of_year as day_of_year_of
from smgrid.grid import Grid, find_crs, is_ease2, latitude_of_y, longitude_of_x
from smgrid.layers import LAYERS as LAYERS
from smgrid.layers import NOTHING, Input, Plan, Wanted, dtype_of
from smgrid.matching import check_where, match
from smgrid.models import Model
from smgrid.shapes import as_cube
from smgrid.units import SAME, Conversion

if TYPE_CHECKING:
    from pyproj import CRS


def predict_map(
    cube: xr.Dataset | xr.DataArray,
    model: Any,
    *,
    layers: Sequence[str] = ("soil_moisture", "status"),
    where: xr.DataArray | None = None,
    units: Mapping[str, str] | str | None = None,
    level: float = LEVEL,
) -> xr.Dataset:
    """Apply a trained model to every cell of a cube.

    Parameters
    ----------
    cube : Dataset, or DataArray with named bands
        One variable a predictor, dims (time, y, x) or (y, x), further dims pass through; on one common grid with a CRS;
        `units` in attrs; NaN where missing. Variables are matched by name; others are left alone. `day_of_year`,
        `latitude` and `longitude` are computed from coordinates where the cube lacks them.
    model : Model, or a fitted estimator with feature names of its own
    layers : sequence of str
        `soil_moisture` (m3 m-3, float32), `status` (what happened in a cell), `culprit` (the first predictor that was
        missing, invalid or outside the training range); `spread` (of a forest's trees); of a model trained on samples
        with `station` also `interval` (the variables `lower` and `upper`) and `dissimilarity` (the variables
        `dissimilarity` and `applicability`: inside or outside the area of applicability). See docs/layers.md.
    where : DataArray of bool, dims among the cube's, optional
        Cells to predict; elsewhere the map is empty and `status` says so.
    units : mapping of str to str, or "canonical", optional
        Units of variables at the caller's word.
    level : float
        Nominal coverage of `interval` at a place that nobody trained on.

    Returns
    -------
    Dataset
        Maps with the dims of the cube's predictors (y, x last), lazy when the cube is, on the cube's chunks.

    Raises
    ------
    ValueError
        Everything that is wrong with the cube at once, a line each, with lines that can be pasted; or a layer that the
        model cannot give, with what to do.

    Notes
    -----
    A cell is empty where a predictor is missing (NaN) or invalid: infinite, or farther outside the range of the paper's
    table than that range is wide (a fill value, or a unit that was not declared).

    Examples
    --------
    >>> import pandas as pd, smgrid
    >>> from sklearn.linear_model import LinearRegression
    >>> table = pd.DataFrame({"vv": [-15.0, -10.0, -5.0], "soil_moisture": [0.1, 0.2, 0.3]})
    >>> model = smgrid.train(table, LinearRegression(), features=["vv"])
    >>> grid = smgrid.Grid(1, 11466, 31401, 2, 2)
    >>> vv = (("y", "x"), [[-15.0, -10.0], [-5.0, float("nan")]], {"units": "dB"})
    >>> cube = xr.Dataset({"vv": vv}, coords=grid.coords())
    >>> predict_map(cube, model).soil_moisture.values.astype(float).round(3).tolist()
    [[0.1, 0.2], [0.3, nan]]
    """
    job = Job.of(cube, model, layers=layers, where=where, units=units, level=level)
    names = job.plan.wanted.names
    if job.is_lazy:
        variables = _lazy(job)
    else:
        made = job.plan(job.model, *job.arrays())
        variables = dict(zip(names, made if len(names) > 1 else [made]))
    return _finish(variables, job.cube, job.model, job.plan.wanted, job.dims)


class Job(NamedTuple):
    """A cube that is matched to a model: how a block is worked out, and the arrays it is worked out of."""

    plan: Plan
    model: Model
    cube: xr.Dataset
    dims: tuple[str, ...]
    inputs: list[xr.Variable | None]  # in the order of the plan's names; None where coordinates say it

    @classmethod
    def of(
        cls,
        cube: xr.Dataset | xr.DataArray,
        model: Any,
        *,
        layers: Sequence[str] = ("soil_moisture",),
        where: xr.DataArray | None = None,
        units: Mapping[str, str] | str | None = None,
        level: float = LEVEL,
    ) -> Job:
        """Check everything, as `predict_map` does; nothing is computed."""
        cube, model = as_cube(cube), Model.from_estimator(model)
        wanted = Wanted.of(layers, model, level)
        sources, conversions = match(cube, model, units)
        if where is not None:
            sources["where"] = check_where(where, cube)
        dims = _out_dims(cube, model, sources)
        plan = _plan(cube, model, wanted, sources, conversions, dims)
        return cls(plan, model, cube, dims, [sources[n].variable if n in sources else None for n in plan.names])

    @property
    def is_lazy(self) -> bool:
        """Whether any input is."""
        return any(v is not None and is_dask_collection(v.data) for v in self.inputs)

    def kept_model(self) -> Any:
        """The model as one key of a graph, however many blocks need it."""
        import dask.array as da
        from dask.highlevelgraph import HighLevelGraph

        key = f"smgrid-model-{self.model.digest[:32]}"
        graph = HighLevelGraph.from_collections(key, {(key,): self.model})
        return da.Array(graph, key, chunks=(), dtype=object)

    def arrays(self) -> list[Any]:
        """The inputs in the order of the plan's names: in memory, or all lazy and on one chunk grid."""
        if not self.is_lazy:
            return [_axes(self.cube, n, None) if v is None else v.values for n, v in zip(self.plan.names, self.inputs)]
        import dask.array as da

        chunks = _chunks(self.inputs, self.cube, self.dims)
        found: list[Any] = []
        for name, variable, i in zip(self.plan.names, self.inputs, self.plan.inputs):
            own = tuple(chunks[self.dims[axis]] for axis in i.axes)
            if variable is None:
                found.append(_axes(self.cube, name, own))
            elif is_dask_collection(variable.data):
                found.append(variable.data if variable.data.chunks == own else variable.data.rechunk(own))
            else:
                found.append(da.from_array(variable.values, chunks=own))
        return found


# ---- the plan of a block


def _out_dims(cube: xr.Dataset, model: Model, sources: Mapping[str, xr.DataArray]) -> tuple[str, ...]:
    """Leading dims in the order they are met, then y and x."""
    dims = dict.fromkeys(d for source in sources.values() for d in source.dims if d not in ("y", "x"))
    if "day_of_year" in model.predictors and "day_of_year" not in sources and cube["time"].ndim:
        dims = {"time": None, **dims} if "time" not in dims else dims
    return (*map(str, dims), "y", "x")


def _plan(
    cube: xr.Dataset,
    model: Model,
    wanted: Wanted,
    sources: Mapping[str, xr.DataArray],
    conversions: Mapping[str, Conversion],
    dims: tuple[str, ...],
) -> Plan:
    names, inputs = [], []
    for name, predictor in model.predictors.items():
        source = sources.get(name)
        own = _computed_dims(cube, name) if source is None else tuple(map(str, source.dims))
        names.append(name)
        inputs.append(
            Input(
                tuple(dims.index(d) for d in own),
                conversions.get(name, SAME),
                predictor.plausible,
                _trained(model, name, predictor),
            )
        )
    if "where" in sources:
        names.append("where")
        axes = tuple(dims.index(str(d)) for d in sources["where"].dims)
        inputs.append(Input(axes, SAME, (-np.inf, np.inf), None))
    return Plan(tuple(names), tuple(inputs), wanted, len(dims), "where" in sources)


def _trained(model: Model, name: str, predictor: Predictor) -> tuple[float, float] | None:
    """Range in training; the float32 at rest of the values it came from may differ in the last bit."""
    if name not in model.ranges or (predictor.period is not None and name == "day_of_year"):
        return None
    low, high = model.ranges[name]
    slack = 1e-6 * max(abs(low), abs(high), high - low)
    return low - slack, high + slack


# ---- coordinates as predictors


def _computed_dims(cube: xr.Dataset, name: str) -> tuple[str, ...]:
    if name == "day_of_year":
        return tuple(map(str, cube["time"].dims))
    if _axis_apart(find_crs(cube)):
        return ("y",) if name == "latitude" else ("x",)
    return ("y", "x")


def _axis_apart(crs: CRS | None) -> bool:
    """Whether latitude follows from y alone and longitude from x alone."""
    return crs is None or is_ease2(crs) or crs.is_geographic


def _axes(cube: xr.Dataset, name: str, chunks: Any) -> Any:
    """Day of year, latitude or longitude from the cube's coordinates; `chunks` make it lazy."""
    import dask.array as da

    if name == "day_of_year":
        values = day_of_year_of(cube["time"].values)
        return (
            values if chunks is None else da.from_array(values, chunks=chunks, name=f"doy-{tokenize(values, chunks)}")
        )
    crs = find_crs(cube)
    if crs is None or is_ease2(crs):
        grid = Grid.of(cube)
        values = latitude_of_y(grid.y) if name == "latitude" else longitude_of_x(grid.x)
    elif crs.is_geographic:
        values = np.asarray(cube["y" if name == "latitude" else "x"].values, "f8")
        values = values if name == "latitude" else (values + 180) % 360 - 180
    else:
        y, x = (np.asarray(cube[axis].values, "f8") for axis in ("y", "x"))
        if chunks is None:
            return _project(y[:, None], x[None, :], crs.to_wkt(), name)
        y, x = da.from_array(y, chunks=chunks[0])[:, None], da.from_array(x, chunks=chunks[1])[None, :]
        return da.map_blocks(_project, y, x, crs.to_wkt(), name, dtype="f8", meta=np.empty((0, 0)))
    return values if chunks is None else da.from_array(values, chunks=chunks, name=f"{name}-{tokenize(values, chunks)}")


def _project(y: NDArray[np.float64], x: NDArray[np.float64], wkt: str, name: str) -> NDArray[np.float64]:
    from pyproj import Transformer

    x, y = np.broadcast_arrays(x, y)
    lon, lat = Transformer.from_crs(wkt, 4326, always_xy=True).transform(x, y)
    return lat if name == "latitude" else lon


# ---- lazy maps


def _lazy(job: Job) -> dict[str, Any]:
    """One task a block makes all layers; one more a layer takes its array out."""
    import dask.array as da

    plan, model, dims = job.plan, job.model, job.dims
    pairs: list[Any] = [part for array, i in zip(job.arrays(), plan.inputs) for part in (array, i.axes)]
    out, one = tuple(range(len(dims))), len(plan.wanted.names) == 1
    dtype = dtype_of(plan.wanted.names[0]) if one else object
    token = tokenize(plan, model.digest, *(a.name for a in pairs[::2]))
    blocks = da.blockwise(
        plan,
        out,
        job.kept_model(),
        (),
        *pairs,
        name=f"smgrid-block-{token}",
        dtype=dtype,
        meta=np.empty((0,) * len(dims), dtype),
        align_arrays=False,
    )
    if one:
        return {plan.wanted.names[0]: blocks}
    return {
        layer: da.blockwise(
            itemgetter(k),
            out,
            blocks,
            out,
            name=f"smgrid-{layer}-{token}",
            dtype=dtype_of(layer),
            meta=np.empty((0,) * len(dims), dtype_of(layer)),
            align_arrays=False,
        )
        for k, layer in enumerate(plan.wanted.names)
    }


def _chunks(inputs: list[xr.Variable | None], cube: xr.Dataset, dims: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The chunk grid that most lazy variables have; the few others are brought to it."""
    lazy = [v for v in inputs if v is not None and is_dask_collection(v.data)]
    chunks = {}
    for dim in dims:
        seen = Counter(v.data.chunks[v.dims.index(dim)] for v in lazy if dim in v.dims)
        size = next((v.sizes[dim] for v in inputs if v is not None and dim in v.dims), cube.sizes[dim])
        chunks[dim] = max(seen, key=lambda c: (seen[c], -len(c))) if seen else (size,)
    return chunks


# ---- finished maps


def _finish(
    variables: Mapping[str, Any], cube: xr.Dataset, model: Model, wanted: Wanted, dims: tuple[str, ...]
) -> xr.Dataset:
    """Name, flag and place the layers, so that plain to_netcdf, to_zarr, rio.to_raster and plot come out right."""
    coords = {n: c for n, c in cube.coords.items() if set(c.dims) <= set(dims) and n not in ("y", "x", "spatial_ref")}
    crs = find_crs(cube)
    if crs is None or is_ease2(crs):
        grid = Grid.of(cube)
        where: Any = grid.coords()
        place = f"{grid.km} km" if grid.km >= 1 else f"{1000 * grid.km:.0f} m"
        place = f"EASE-Grid 2.0, {place}"
    else:
        reference = {**crs.to_cf(), "spatial_ref": crs.to_wkt()}
        where = {"y": cube["y"], "x": cube["x"], "spatial_ref": ((), np.int64(0), reference)}
        place = crs.name
    maps = xr.Dataset({name: (dims, data, wanted.attributes(name, model)) for name, data in variables.items()})
    maps = maps.assign_coords(coords).assign_coords(where)
    for name in maps.data_vars:
        encoding: dict[str, Any] = {"dtype": dtype_of(str(name)), "grid_mapping": "spatial_ref"}
        encoding["_FillValue"] = np.float32(np.nan) if np.isnan(NOTHING[str(name)]) else None
        maps[name].encoding = encoding
    if "time" in maps.coords:
        maps["time"].attrs.setdefault("standard_name", "time")
        maps["time"].attrs.setdefault("long_name", "UTC day")
        maps["time"].encoding = {"units": "days since 1970-01-01", "calendar": "standard", "dtype": "i8"}
    source = f"smgrid {__version__}, {type(model.regressor).__name__} on {len(model.predictors)} predictors"
    invented = [
        str(a["source"]) for a in (cube.attrs, model.training) if "synthetic" in str(a.get("source", "")).lower()
    ]
    maps.attrs = {
        "Conventions": "CF-1.11",
        "title": f"Soil moisture of the top layer; {place}" + (" (synthetic)" if invented else ""),
        "source": "; ".join([source, *dict.fromkeys(invented)]),
        "model_digest": model.digest,
    }
    return maps
