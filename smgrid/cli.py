"""Calls the rooms by name from a shell.

Exit codes: 0 done, 1 found wanting (verify), 2 wrong use, 3 bad input (what is wrong is printed), 130 or 143 stopped by
a signal.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

DONE, WANTING, WRONG_USE, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
SHOWN = 20  # faults of one store that are printed


class _Terminated(KeyboardInterrupt):
    """SIGTERM, taken like Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(args.run(args) or DONE)
    except _Terminated:
        print("terminated; the same command goes on where it stopped", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        print(f"smgrid {args.command}: {error}", file=sys.stderr)
        return BAD_INPUT


def _terminate(*_: Any) -> None:
    raise _Terminated


def _parser() -> argparse.ArgumentParser:
    from smgrid import __version__

    parser = argparse.ArgumentParser(prog="smgrid", description="Trained soil-moisture models as whole 1-km maps.")
    parser.add_argument("--version", action="version", version=f"smgrid {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="map a synthetic Yanco with four regressors, and judge the maps")
    demo.add_argument("--out", type=Path, default=Path("smgrid-demo"), help="folder for what is made (%(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="which synthetic scene (%(default)s)")
    demo.set_defaults(run=_demo)

    cube = commands.add_parser("cube", help="build a cube of predictors from product files and write it")
    cube.add_argument("config", metavar="CONFIG.toml", help="grid, days and sources; see docs/getting-data.md")
    cube.add_argument("out", metavar="OUT.zarr", help="store to write; a stopped write goes on where it stopped")
    cube.add_argument("--fresh", action="store_true", help="start anew instead of going on with an unfinished store")
    cube.add_argument(
        "--packed", action="store_true", help="all predictors of a place in one chunk: faster to map from"
    )
    cube.add_argument("--dry-run", action="store_true", help="open and check everything, write nothing")
    cube.set_defaults(run=_cube)

    train = commands.add_parser("train", help="train a regressor on a table of samples")
    train.add_argument("table", metavar="TABLE.csv", help="columns: predictors, soil_moisture (m3 m-3), time, ...")
    train.add_argument("model", metavar="MODEL", help="folder to save the model in")
    train.add_argument("--regressor", choices=["rf", "xgb", "svr", "mlp"], default="rf", help="(%(default)s)")
    train.add_argument("--features", type=_names, help="comma-separated predictors; all of the paper's otherwise")
    train.add_argument("--units", type=_pairs, default={}, help="units of columns, such as air_temperature=K,vv=1")
    train.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    train.set_defaults(run=_train)

    scenario = commands.add_parser("scenario", help="try regressors where, or when, they were not trained")
    scenario.add_argument(
        "table", metavar="TABLE.csv", help="columns: predictors, soil_moisture (m3 m-3), station, time"
    )
    scenario.add_argument(
        "--scenario", choices=["dependent", "temporal", "spatial", "regional"], default="spatial", help="(%(default)s)"
    )
    scenario.add_argument("--regressors", type=_names, default=["mlp", "svr", "rf", "xgb"], help="such as rf,xgb")
    scenario.add_argument("--features", type=_names, help="comma-separated predictors; all of the paper's otherwise")
    scenario.add_argument("--sizes", type=_numbers, help="training sizes, comma-separated; the paper's otherwise")
    scenario.add_argument("--year", type=int, help="temporal: the year that trains; the last one otherwise")
    scenario.add_argument("--campaigns", type=_names, help="regional: networks that test")
    scenario.add_argument("--repeats", type=int, default=5, help="training sets a size; the paper has 50 (%(default)s)")
    scenario.add_argument(
        "--draws", type=int, default=20, help="random configurations; the paper has 100 (%(default)s)"
    )
    scenario.add_argument(
        "--tuning", choices=["oracle", "honest"], default="oracle", help="choose on the test set, or not (%(default)s)"
    )
    scenario.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    scenario.add_argument("--workers", type=int, help="processes; one a core otherwise")
    scenario.add_argument("--out", type=Path, default=Path("results.nc"), help="NetCDF file of results (%(default)s)")
    scenario.add_argument("--figure", type=Path, metavar="FILE", help="draw the results, as PNG, PDF or SVG")
    scenario.set_defaults(run=_scenario)

    predict = commands.add_parser("predict", help="apply a model to a cube and write the maps")
    predict.add_argument("cube", metavar="CUBE", help="Zarr store or NetCDF file with the predictors")
    predict.add_argument("model", metavar="MODEL", help="folder of a saved model")
    predict.add_argument("out", metavar="OUT", help="OUT.zarr, OUT.tif or OUT.nc")
    predict.add_argument("--layers", type=_names, default=["soil_moisture", "status"], help="comma-separated layers")
    predict.add_argument("--level", type=float, default=0.9, help="coverage of the layer interval (%(default)s)")
    predict.add_argument("--bbox", type=float, nargs=4, metavar=("WEST", "SOUTH", "EAST", "NORTH"), help="in degrees")
    predict.add_argument("--dates", help="a date (or month), several with commas, or FROM:TO")
    predict.add_argument("--units", type=_pairs, default={}, help="units of variables, such as vv=dB")
    predict.add_argument("--fresh", action="store_true", help="start anew instead of going on with an unfinished store")
    predict.add_argument(
        "--dry-run", action="store_true", help="check everything, say what would be made, write nothing"
    )
    predict.set_defaults(run=_predict)

    judge = commands.add_parser("judge", help="judge maps against a reference, and write one HTML page about it")
    judge.add_argument(
        "map", metavar="MAP", help="soil moisture: Zarr store, NetCDF or GeoTIFF; 'maps_*.tif' for several days"
    )
    judge.add_argument("reference", metavar="REFERENCE", help="what it is judged by, such as airborne maps")
    judge.add_argument("out", metavar="OUT.html", help="page to write")
    judge.add_argument("--coarse", metavar="SMAP", help="coarse predictor: which share of its steps does the map copy?")
    judge.add_argument(
        "--also", metavar="MAP", action="append", default=[], help="another map to judge; may be repeated"
    )
    judge.add_argument("--dates", help="a date (or month), several with commas, or FROM:TO; all shared ones otherwise")
    judge.add_argument(
        "--bbox", type=float, nargs=4, metavar=("WEST", "SOUTH", "EAST", "NORTH"), help="in degrees; all otherwise"
    )
    judge.add_argument(
        "--variable",
        type=_pairs,
        default={},
        help="such as map=sm,reference=airborne; soil_moisture or the only one otherwise",
    )
    judge.add_argument("--units", type=_pairs, default={}, help="at your word, such as reference=%%,coarse='m3 m-3'")
    judge.add_argument("--title", help="of the page")
    judge.set_defaults(run=_judge)

    doctor = commands.add_parser("doctor", help="say what smgrid runs on: versions, compiled kernels, cores, memory")
    doctor.set_defaults(run=_doctor)

    bench = commands.add_parser("bench", help="say how fast a model maps a cube on this machine; writes nothing")
    bench.add_argument("cube", metavar="CUBE", help="Zarr store or NetCDF file with the predictors")
    bench.add_argument("model", metavar="MODEL", help="folder of a saved model")
    bench.add_argument("--layers", type=_names, default=["soil_moisture", "status"], help="comma-separated layers")
    bench.add_argument("--seconds", type=float, default=10, help="how long to measure (%(default)s)")
    bench.set_defaults(run=_bench)

    verify = commands.add_parser(
        "verify", help="check every byte of stored maps; exit code 1 where one is not as written"
    )
    verify.add_argument("paths", metavar="MAPS.zarr", nargs="+", help="stores that smgrid wrote")
    verify.set_defaults(run=_verify)
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in _names(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas") from error


def _pairs(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in _names(text)]
    if any(not middle for _, middle, _ in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=UNIT,NAME=UNIT")
    return {name: unit for name, _, unit in pairs}


def _demo(args: argparse.Namespace) -> None:
    from smgrid.demo import run

    logging.getLogger("smgrid").setLevel(logging.WARNING)  # the demo says itself what it does

    run(args.out, seed=args.seed, say=print)


def _cube(args: argparse.Namespace) -> None:
    from smgrid.packing import pack_cube
    from smgrid.recipe import build
    from smgrid.store import write_zarr

    cube = build(args.config)
    for name, array in cube.data_vars.items():
        print(f"{name} ({array.attrs.get('units', '?')}), {' x '.join(map(str, array.dims))}: {array.attrs['rule']}")
    print(f"{args.out}: {_size(cube)}")
    if args.dry_run:
        print("dry run: nothing written")
        return
    write_zarr(pack_cube(cube) if args.packed else cube, args.out, resume=not args.fresh)
    print(f"written: {args.out}")


def _train(args: argparse.Namespace) -> None:
    from smgrid.features import PAPER
    from smgrid.files import open_table
    from smgrid.modelfiles import save_model
    from smgrid.models import train
    from smgrid.regressors import make_regressor

    table = open_table(args.table)
    features = args.features or list(PAPER)
    model = train(table, make_regressor(args.regressor, seed=args.seed), features=features, units=args.units or None)
    print(model)
    print(f"saved: {save_model(model, args.model)}")


def _scenario(args: argparse.Namespace) -> None:
    from smgrid import scenarios
    from smgrid.features import PAPER
    from smgrid.files import open_table

    if args.figure is not None:  # what is wrong with it is better known before hours of work than after
        _check_figure(args.figure)
    table = open_table(args.table)
    options = {"sizes": args.sizes, "seed": args.seed}
    if args.scenario == "temporal":
        options["year"] = args.year
    if args.scenario == "regional":
        if not args.campaigns:
            raise ValueError("the regional scenario needs --campaigns, the networks that test")
        options["campaigns"] = args.campaigns
    results = scenarios.run(
        table,
        getattr(scenarios, args.scenario)(table, **options),
        args.regressors,
        path=args.out,
        repeats=args.repeats,
        draws=args.draws,
        tuning=args.tuning,
        features=args.features or list(PAPER),
        seed=args.seed,
        workers=args.workers,
    )
    print(f"median RMSE (m3 m-3) by {results['size'].attrs['long_name']}")
    print(results["rmse"].median("repeat").to_pandas().round(4).to_string())
    print(scenarios.verdict(results))
    print(f"written: {args.out}")
    if args.figure is not None:
        from smgrid import plot

        plot.scenarios(results).savefig(args.figure, dpi=150)
        print(f"written: {args.figure}")


def _check_figure(path: Path) -> None:
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in kinds:
        raise ValueError(f"--figure ends in .png, .pdf or .svg, not {path.suffix!r}: {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--figure: there is no folder {path.parent} to draw {path.name} in")


def _bench(args: argparse.Namespace) -> None:
    from smgrid.files import existing, open_cube
    from smgrid.modelfiles import load_model
    from smgrid.pace import measure

    model = load_model(existing(args.model, "model"))
    print(measure(open_cube(args.cube), model, layers=args.layers, seconds=args.seconds))


def _verify(args: argparse.Namespace) -> int:
    from smgrid.integrity import verify

    wanting = 0
    for path in args.paths:
        faults = verify(path)
        for fault in faults[:SHOWN]:
            print(f"{path}: {fault}")
        if len(faults) > SHOWN:
            print(f"{path}: and {len(faults) - SHOWN} more")
        print(
            f"{path}: {f'{len(faults)} files are not as they were written' if faults else 'every byte is as written'}"
        )
        wanting += bool(faults)
    return WANTING if wanting else DONE


def _predict(args: argparse.Namespace) -> None:
    from smgrid.files import existing, open_cube
    from smgrid.modelfiles import load_model
    from smgrid.predict import predict_map

    write = _writer(args)
    if Path(args.out).resolve() == Path(args.cube).resolve():
        raise ValueError(f"OUT is the cube itself, {args.cube}: give the maps another name")
    model = load_model(existing(args.model, "model"))
    cube = _cut(open_cube(args.cube), args.bbox, args.dates)
    maps = predict_map(cube, model, layers=args.layers, units=args.units or None, level=args.level)
    print(f"{args.out}: {_size(maps)}")
    if args.dry_run:
        print("dry run: nothing written")
        return
    written = write(maps)
    for path in written if isinstance(written, list) else [written]:
        print(f"written: {path}")


def _judge(args: argparse.Namespace) -> None:
    from smgrid.exhibits import open_map
    from smgrid.report import checked_path, page, save
    from smgrid.sayings import sayings
    from smgrid.verdict import judge

    roles = {"map", "reference", "coarse"}
    strange = sorted({*args.variable, *args.units} - roles)
    if strange:
        raise ValueError(f"--variable and --units take {sorted(roles)}, not {strange}")

    def opened(path: str, role: str) -> Any:
        return open_map(path, variable=args.variable.get(role), units=args.units.get(role))

    out = checked_path(args.out)
    maps = {name: opened(path, "map") for name, path in _named([args.map, *args.also]).items()}
    reference = opened(args.reference, "reference")
    coarse = None if args.coarse is None else opened(args.coarse, "coarse")
    cut = [_cut(f, args.bbox, args.dates if "time" in f.dims else None) for f in (*maps.values(), reference)]
    verdict = judge(dict(zip(maps, cut)), cut[-1], coarse=coarse)
    save(page(verdict, args.title), out)
    for saying in sayings(verdict):
        print(f"{saying.about}\n" + "\n".join(f"  {line}" for line in saying.lines))
    print(f"written: {out}")


def _doctor(_: argparse.Namespace) -> None:
    from smgrid.doctor import doctor

    print(doctor())


def _named(paths: list[str]) -> dict[str, str]:
    """Maps by the name of their file, and of its folder where two are alike."""
    names = [Path(path).stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{Path(path).absolute().parent.name}/{name}" for path, name in zip(paths, names)]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"maps are known by their file's name, and {double} comes more than once: rename one")
    return dict(zip(names, paths))


def _writer(args: argparse.Namespace) -> Any:
    """The function that writes maps to the suffix asked for."""
    suffix = Path(args.out).suffix.lower()
    if suffix == ".zarr":
        from smgrid.store import write_zarr

        return lambda maps: write_zarr(maps, args.out, resume=not args.fresh) and args.out
    if suffix in (".tif", ".tiff"):
        from smgrid.geotiff import write_geotiff

        return lambda maps: write_geotiff(maps, args.out)
    if suffix == ".nc":
        from smgrid.files import write_netcdf

        return lambda maps: write_netcdf(maps, args.out)
    raise ValueError(f"OUT ends in .zarr, .tif or .nc, not {suffix!r}: {args.out}")


def _cut(cube: Any, bbox: Sequence[float] | None, dates: str | None) -> Any:
    """The part of a cube that was asked for."""
    from smgrid.grid import Grid

    if bbox is not None:
        whole = Grid.of(cube)
        part = whole.crop(bbox)
        top, left = part.row - whole.row, part.col - whole.col
        cube = cube.isel(y=slice(top, top + part.ny), x=slice(left, left + part.nx))
    if dates is not None:
        if "time" not in cube.dims:
            raise ValueError(f"--dates {dates}: the cube has no dimension 'time'")
        first, colon, last = dates.partition(":")
        try:
            chosen = cube.sel(time=slice(first or None, last or None)) if colon else _on_days(cube, _names(dates))
        except TypeError as error:  # pandas' way to say that an end is no date
            raise ValueError(f"--dates {dates}: dates are written 2015-05-05") from error
        if not chosen.sizes["time"]:
            raise ValueError(f"--dates: the cube has none of {dates}; it has {_days(cube)}")
        cube = chosen
    return cube


def _on_days(cube: xr.Dataset, days: list[str]) -> xr.Dataset:
    import numpy as np

    try:
        wanted = [np.datetime64(day) for day in days]
    except ValueError as error:
        raise ValueError(f"--dates: {error}; dates are written 2015-05-05") from error
    times = cube["time"].values
    found = np.array([times.astype(day.dtype) == day for day in wanted])  # 2015-05 is all of May, as in FROM:TO
    absent = [day for day, there in zip(days, found) if not there.any()]
    if absent:
        raise ValueError(f"--dates: the cube has none of {', '.join(absent)}; it has {_days(cube)}")
    return cube.isel(time=found.any(axis=0))


def _days(cube: xr.Dataset) -> str:
    days = [str(day) for day in cube["time"].values.astype("M8[D]")]
    return ", ".join(days if len(days) < 9 else [*days[:4], "...", *days[-4:]])


def _size(maps: xr.Dataset) -> str:
    sizes = " x ".join(f"{n} {d}" for d, n in maps.sizes.items())
    return f"{', '.join(map(str, maps.data_vars))}; {sizes}; {maps.nbytes / 1e6:,.1f} MB before compression"
