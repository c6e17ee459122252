"""Saves a model as data and loads it back.

A saved model is a folder of two files, or three. `model.json` is for reading: what the predictors are (names, order, units,
ranges), how and when the model was trained, which versions wrote it, and the SHA-256 of the files beside it: the
regressor as plain data, and what is kept of the training rows.

========================  ==================================================================================
`regressor.npz`           forests, SVR and MLP: one numpy array a field, not compressed; `numpy.load` opens it
`regressor.json`          XGBoost's own text; `xgboost.Booster(model_file=...)` opens it
`regressor.skops`         any other estimator (`pip install 'smgrid[skops]'`)
`calibration.npz`         beside it where stations were known: training rows and errors, for `interval` and
                          `dissimilarity`
========================  ==================================================================================

The same model gives the same bytes (but for skops). Loading executes nothing: every file is held against its SHA-256,
`model.json` against a sum of its own, every node number and shape against the model, and the rebuilt regressor against
the fingerprint of the one that was saved. skops builds only types that it knows to be safe, and no trees, whose numbers
it does not check; so a pipeline around a forest needs `trusted=True`.

A pickle (also joblib's, also compressed, under whatever name) runs the code it holds when it is opened. It is refused
unless `trusted=True` says that its maker is trusted.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickletools
import shutil
import stat
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from smgrid import __version__
from smgrid.arrays import fingerprint, from_arrays, kind_of, to_arrays
from smgrid.calibration import Calibration
from smgrid.models import Model

log = logging.getLogger("smgrid")

CARD = "model.json"
FORMAT, PLAIN, CALIBRATED = "smgrid model", 1, 2  # versions: what 1 says is whole without the training rows
_BESIDE = {"rf": "regressor.npz", "svr": "regressor.npz", "mlp": "regressor.npz", "xgb": "regressor.json"}
_OTHER = "regressor.skops"
_ROWS = "calibration.npz"
_UNCHECKED = {  # earlier skops takes them for safe, but a crafted file makes them read outside their memory
    '"sklearn.tree._tree"': "sklearn.tree._tree.Tree",
    '"TreePredictor"': "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
}


# ---- saving


def save_model(model: Model, path: str | os.PathLike[str]) -> Path:
    """Save a model as a folder of plain data.

    Parameters
    ----------
    model : Model
    path : str or path
        The folder. If it exists it is replaced, once the new one is whole, and only if it is a saved model.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        Something else is there.
    ImportError
        The regressor is none of our kinds, and skops is not installed.
    ValueError
        skops cannot save the regressor, or the path is not local.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from smgrid import load_model, make_regressor, train
    >>> table = pd.DataFrame({"vv": [-15.0, -10.0, -5.0], "soil_moisture": [0.1, 0.2, 0.3]})
    >>> model = train(table, make_regressor("svr"), features=["vv"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_model(model, folder + "/svr")
    ...     print(sorted(file.name for file in path.iterdir()), load_model(path).digest == model.digest)
    ['model.json', 'regressor.npz'] True
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"save_model takes a smgrid.Model, not {type(model).__name__}: "
            "give a fitted estimator its contract with smgrid.Model.from_estimator(estimator)"
        )
    target = _local(path)
    if target.exists() and not _is_saved_model(target):
        raise FileExistsError(f"{target} exists and is not a saved smgrid model: choose another path or remove it")
    regressor, name, data = _pack(model.regressor)
    beside = {name: data}
    if model.calibration is not None:
        beside[_ROWS] = _npz(model.calibration.to_arrays())
    card = {
        "format": FORMAT,
        "version": PLAIN if model.calibration is None else CALIBRATED,
        "model": model.description(),
        "regressor": regressor,
        "fingerprint": fingerprint(model.regressor),
        "digest": model.digest,
        "written by": {"smgrid": __version__, "python": ".".join(map(str, sys.version_info[:3]))},
        "files": {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in beside.items()},
    }
    _put(target, {**beside, CARD: _render({**card, "check": _check(card)})})
    return target


def _local(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if "://" in text:
        raise ValueError(f"{text!r} is not a local path: save locally, then copy the folder")
    return Path(os.path.realpath(text))


def _pack(regressor: Any) -> tuple[dict[str, Any], str, bytes]:
    """What `model.json` says of a regressor, the name of the file beside it, and its bytes."""
    kind = kind_of(regressor)
    if kind is not None:
        header, arrays = to_arrays(regressor)
        return header, _BESIDE[kind], arrays["json"].tobytes() if kind == "xgb" else _npz(arrays)
    io_ = _skops()
    cls = type(regressor)
    try:
        data = io_.dumps(regressor)
    except Exception as error:
        raise ValueError(
            f"{cls.__name__} cannot be saved as data: skops says {error}. Train one of smgrid.make_regressor's kinds "
            "instead, or keep the estimator yourself and give it to Model.from_estimator each time"
        ) from error
    import sklearn
    import skops

    versions = {"numpy": np.__version__, "scikit-learn": sklearn.__version__, "skops": skops.__version__}
    return {"kind": "other", "class": f"{cls.__module__}.{cls.__qualname__}", "versions": versions}, _OTHER, data


def _skops() -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(
            "an estimator that is not a forest, SVR, MLP or XGBoost regressor is saved and loaded through skops: "
            "pip install 'smgrid[skops]'"
        ) from error
    return skops.io


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """As `numpy.savez` writes them, without the time of day: the same arrays, the same bytes."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(arrays[name]), version=(1, 0), allow_pickle=False)
            info = ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # the same on every system
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()


def _render(card: Mapping[str, Any]) -> bytes:
    # keys keep their order: the order of the predictors is part of the model
    return (json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _check(card: Mapping[str, Any]) -> str:
    return hashlib.sha256(_render({k: v for k, v in card.items() if k != "check"})).hexdigest()


def _is_saved_model(folder: Path) -> bool:
    """Whether all that a folder holds is a model that smgrid wrote (or nothing)."""
    if not folder.is_dir():
        return False
    names = {file.name for file in folder.iterdir()}
    if not names:
        return True
    try:
        said = json.loads((folder / CARD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    ours = {CARD, _OTHER, _ROWS, *_BESIDE.values()}
    return isinstance(said, dict) and said.get("format") == FORMAT and names <= ours


def _put(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder beside the target, then rename it: nobody ever sees half a model."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{uuid4().hex[:12]}.partial")
    old = fresh.with_suffix(".old")
    try:
        fresh.mkdir()
        for name, data in files.items():
            with open(fresh / name, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(fresh, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


# ---- loading


def load_model(path: str | os.PathLike[str], *, trusted: bool = False) -> Model:
    """Load a model that `save_model` saved; nothing in it is executed.

    Parameters
    ----------
    path : str or path
        The folder; with `trusted=True` also a pickle or joblib file of a fitted estimator, which gets its contract as
        by `Model.from_estimator`.
    trusted : bool
        Open pickles, and all types of a skops file: only for files whose maker you trust with your account.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    ValueError
        The file named is missing, changed, of another format, does not fit the model, or is a pickle.
    ImportError
        The regressor was saved through skops, which is not installed.
    """
    target = _local(path)
    if not target.exists():
        raise FileNotFoundError(f"{target} does not exist: a saved model is a folder with a {CARD}")
    if not target.is_dir():
        return _from_pickle(target, trusted)
    beside = sorted(file for file in target.iterdir() if file.name != CARD and not file.name.startswith("."))
    if not (target / CARD).exists():
        pickles = [file for file in beside if file.is_file() and _is_pickle(file)]
        if len(pickles) == 1:
            return _from_pickle(pickles[0], trusted)
        raise ValueError(f"{target} has no {CARD}: it is not a saved smgrid model; it holds {_names(beside)}")
    card = _read_card(target / CARD)
    file, *more = _listed(target, card, beside)
    data = _read(file, card["files"][file.name])
    rows = [_read(other, card["files"][other.name]) for other in more]
    try:
        regressor = _unpack(card["regressor"], file, data, trusted)
        model = Model.from_description(card["model"], regressor)
        if rows:
            width = sum(p.inputs for p in model.predictors.values())
            model = replace(model, calibration=Calibration.from_arrays(_arrays_of(rows[0]), width))
        found = fingerprint(regressor)
    except ImportError:
        raise
    except Exception as error:  # whatever a crafted file breaks, it is the file's fault
        said = ", ".join(map(str, [file, *more]))
        raise ValueError(f"{said} and {CARD} do not make a model: {error}") from error
    if found != card["fingerprint"] and file.name != _OTHER:
        raise ValueError(f"{file} was read as another model than was saved, with {card['regressor']['versions']}")
    if found != card["fingerprint"]:
        log.warning("%s reads differently than when saved with %s", file, card["regressor"]["versions"])
    return model


def _names(files: list[Path]) -> list[str]:
    return [file.name for file in files[:8]]


def _read_card(file: Path) -> dict[str, Any]:
    """`model.json`, once it is known to be as it was written, to the byte."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number of JSON")

    _regular(file)
    raw = file.read_bytes()
    try:
        card = json.loads(raw.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is not whole JSON ({error}): get the model's folder anew from where it was saved"
        ) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(f"{file} is not a smgrid model: its 'format' is not {FORMAT!r}")
    if card.get("version") not in (PLAIN, CALIBRATED) or type(card["version"]) is not int:
        raise ValueError(
            f"{file} has the format version {card.get('version')!r}; this smgrid ({__version__}) reads {PLAIN} and "
            f"{CALIBRATED}: upgrade smgrid"
        )
    try:
        whole = card.get("check") == _check(card) and _render(card) == raw
    except (ValueError, RecursionError):  # lone surrogates, endless numbers
        whole = False
    if not whole:
        raise ValueError(f"{file} was changed after it was saved: get it anew from where it was saved, or save again")
    for name, kind in {"model": dict, "regressor": dict, "files": dict, "fingerprint": str}.items():
        if not isinstance(card.get(name), kind):
            raise ValueError(f"{file} lacks {name!r}, or it is not of the kind {kind.__name__}")
    return card


def _regular(file: Path) -> int:
    """Size of a file, once it is known to be one (and not a device without end)."""
    found = os.stat(file)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{file} is not a regular file")
    return found.st_size


def _listed(folder: Path, card: Mapping[str, Any], beside: list[Path]) -> list[Path]:
    """The files beside `model.json`, the regressor's first, once no other is there."""
    names = [_BESIDE.get(str(card["regressor"].get("kind")), _OTHER)]
    if card["version"] == CALIBRATED:
        names.append(_ROWS)
    if list(card["files"]) != names or not all(isinstance(said, dict) for said in card["files"].values()):
        raise ValueError(f"{folder / CARD} lists the files {list(card['files'])}, where {' and '.join(names)} belong")
    for stray in beside:
        if stray.name not in names:
            if stray.is_file() and _is_pickle(stray):
                raise ValueError(_refusal(stray))
            raise ValueError(
                f"{stray} does not belong to the model, which is {' and '.join([CARD, *names])}: take it out"
            )
    return [folder / name for name in names]


def _read(file: Path, said: Mapping[str, Any]) -> bytes:
    """The content of a file, once it is known to be what was saved."""
    if not file.exists():
        raise ValueError(f"{file} is missing: get the model's folder anew from where it was saved")
    size = _regular(file)
    if size != said.get("bytes"):
        raise ValueError(f"{file} has {size} bytes, but {said.get('bytes')} were saved: get it anew")
    data = file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != said.get("sha256"):
        raise ValueError(f"{file} was changed after it was saved (its SHA-256 is {found[:16]}...): get it anew")
    return data


def _unpack(header: Mapping[str, Any], file: Path, data: bytes, trusted: bool) -> Any:
    if file.name == _OTHER:
        return _from_skops(data, file, trusted)
    if header["kind"] == "xgb":
        return from_arrays(header, {"json": np.frombuffer(data, "u1")})
    return from_arrays(header, _arrays_of(data))


def _arrays_of(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file, which may neither be compressed nor claim more than is there."""
    with ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if any(m.compress_type != ZIP_STORED for m in members) or sum(m.file_size for m in members) > len(data):
            raise ValueError("its members are compressed or overlap")
        arrays: dict[str, NDArray[Any]] = {}
        for member in members:
            content = io.BytesIO(archive.read(member))
            if np.lib.format.read_magic(content) != (1, 0):
                raise ValueError(f"{member.filename} is not an array as smgrid writes it")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(content)
            rest = content.read()
            name = member.filename.removesuffix(".npy")
            count = int(np.prod([int(s) for s in shape], dtype=object)) if shape else 1
            if dtype.kind not in "iuf" or count * dtype.itemsize != len(rest) or name in arrays:
                raise ValueError(f"{member.filename} claims {dtype} of shape {shape}, but holds {len(rest)} bytes")
            arrays[name] = np.frombuffer(rest, dtype).reshape(shape, order="F" if fortran else "C")
    return arrays


def _from_skops(data: bytes, file: Path, trusted: bool) -> Any:
    io_ = _skops()
    with ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if any(m.compress_type != ZIP_STORED for m in members) or sum(m.file_size for m in members) > len(data):
            raise ValueError("its members are compressed or overlap")
        schema = archive.read("schema.json").decode()
    unknown = {*io_.get_untrusted_types(data=data), *(name for mark, name in _UNCHECKED.items() if mark in schema)}
    if unknown and not trusted:
        raise ValueError(
            f"it holds types not known to be safe, {sorted(unknown)}: if you trust who saved it, "
            f"load_model({str(file.parent)!r}, trusted=True)"
        )
    return io_.loads(data, trusted=sorted(unknown))


# ---- pickles


_COMPRESSED = (
    b"\x1f\x8b",
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"BZh",
    b"\xfd7zXZ",
    b"\x5d\x00\x00",
    b"\x04\x22\x4d\x18",
    b"ZF",
)


def _is_pickle(file: Path) -> bool:
    """Whether a file's content is a pickle, plain or as joblib compresses it; its name says nothing."""
    size = _regular(file)
    with open(file, "rb") as stream:
        head = stream.read(16)
        if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 1:
            return True
        if head.startswith(_COMPRESSED):
            return True
        if head.startswith((b"PK\x03\x04", b"{")) or size > 2**26:
            return False
        stream.seek(0)
        content = stream.read()
    if not content.rstrip().endswith(b"."):
        return False
    try:  # protocols 0 and 1 have no mark: read the instructions, which runs none of them
        return sum(1 for _ in pickletools.genops(content)) > 1
    except Exception:
        return False


def _refusal(file: Path) -> str:
    return (
        f"{file} is a pickle (or a file that joblib compressed): opening one runs whatever code it holds, so it is "
        "refused. Load it where it was made and save it with smgrid.save_model(model, folder), or train the model "
        f"again; only if you trust who made it: load_model({str(file)!r}, trusted=True)"
    )


def _from_pickle(file: Path, trusted: bool) -> Model:
    if not _is_pickle(file):
        with open(file, "rb") as stream:
            own = stream.read(4096).lstrip().startswith(b'{"learner"')
        hint = ": it is XGBoost's own; load it there and give it to smgrid.Model.from_estimator(booster)" if own else ""
        raise ValueError(f"{file} is not a saved model: that is a folder with a {CARD}{hint}")
    if not trusted:
        raise ValueError(_refusal(file))
    import joblib

    try:
        found = joblib.load(file)
    except Exception as error:
        raise ValueError(f"{file} is a pickle that does not open: {type(error).__name__} {error}") from error
    return Model.from_estimator(found)
