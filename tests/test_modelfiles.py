import hashlib
import io
import json
import os
import pickle
import sys
import zipfile

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBRegressor

import smgrid.modelfiles as modelfiles
from smgrid.modelfiles import load_model, save_model
from smgrid.models import Model, train
from smgrid.regressors import make_regressor

RNG = np.random.default_rng(3)
TABLE = pd.DataFrame(
    {"vv": RNG.uniform(-20, -5, 200), "longitude": RNG.uniform(-180, 180, 200), "ndvi": RNG.random(200)}
)
TABLE["soil_moisture"] = (0.3 + TABLE.vv / 100 + 0.05 * np.sin(TABLE.longitude)).clip(0, 0.6)
NAMES = ["vv", "longitude", "ndvi"]
SMALL = {
    "rf": {"n_estimators": 8},
    "xgb": {"n_estimators": 10},
    "svr": {},
    "mlp": {"hidden_layer_sizes": (6,), "tol": 9.0},
}


def named(estimator):
    return estimator.fit(TABLE[NAMES], TABLE.soil_moisture)


MODELS = {
    **{kind: train(TABLE, make_regressor(kind, **params), features=NAMES) for kind, params in SMALL.items()},
    "named forest": Model.from_estimator(named(RandomForestRegressor(4, random_state=0))),
    "booster": Model.from_estimator(named(XGBRegressor(n_estimators=4)).get_booster()),
    "pipeline": Model.from_estimator(named(make_pipeline(StandardScaler(), Ridge()))),
}
OWN = [name for name in MODELS if name != "pipeline"]


@pytest.fixture(params=MODELS)
def model(request):
    if request.param == "pipeline":
        pytest.importorskip("skops")
    return MODELS[request.param]


@pytest.fixture
def saved(tmp_path):
    return save_model(MODELS["rf"], tmp_path / "soil")


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# ---- round trips


def test_a_model_comes_back_whole(model, tmp_path):
    back = load_model(save_model(model, tmp_path / "soil"))
    assert back.predict(TABLE).tobytes() == model.predict(TABLE).tobytes()
    assert back.digest == model.digest
    assert back.description() == model.description()
    assert list(back.predictors) == list(model.predictors)  # their order is part of the model
    assert repr(back) == repr(model)
    assert sorted(os.listdir(tmp_path)) == ["soil"]


@pytest.mark.parametrize("name", OWN)
def test_the_same_model_gives_the_same_bytes(name, tmp_path):
    first = contents(save_model(MODELS[name], tmp_path / "one"))
    assert contents(save_model(load_model(tmp_path / "one"), tmp_path / "two")) == first


def test_order_of_predictors_is_kept(tmp_path):
    turned = train(TABLE, make_regressor("svr"), features=NAMES[::-1])
    back = load_model(save_model(turned, tmp_path / "soil"))
    assert list(back.predictors) == NAMES[::-1]


def test_files_are_what_their_names_say(tmp_path):
    with np.load(save_model(MODELS["svr"], tmp_path / "svr") / "regressor.npz", allow_pickle=False) as arrays:
        assert arrays["vectors"].shape[1] == 4  # longitude makes two inputs
    import xgboost

    file = save_model(MODELS["xgb"], tmp_path / "xgb") / "regressor.json"
    assert xgboost.Booster(model_file=str(file)).num_features() == 4
    card = json.loads((tmp_path / "xgb" / "model.json").read_text())
    assert card["files"]["regressor.json"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["regressor"]["versions"]["xgboost"] == xgboost.__version__


# ---- saving is whole or not at all


def test_a_saved_model_is_replaced(saved):
    save_model(MODELS["xgb"], saved)
    assert set(contents(saved)) == {"model.json", "regressor.json"}
    assert load_model(saved).digest == MODELS["xgb"].digest
    assert os.listdir(saved.parent) == ["soil"]


@pytest.mark.parametrize("what", ["file", "folder", "model and more", "model.json of others"])
def test_nothing_else_is_replaced(what, tmp_path):
    target = tmp_path / "soil"
    if what == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / ("model.json" if "others" in what else "mine.txt")).write_text('{"format": "another"}')
    if what == "model and more":
        save_model(MODELS["svr"], tmp_path / "other")
        for name, data in contents(tmp_path / "other").items():
            (target / name).write_bytes(data)
    before = target.read_text() if what == "file" else contents(target)
    with pytest.raises(FileExistsError, match="exists and is not a saved smgrid model: choose another path"):
        save_model(MODELS["rf"], target)
    assert (target.read_text() if what == "file" else contents(target)) == before


@pytest.mark.parametrize("call", ["open", "fsync", "rename", "second rename"])
def test_a_failed_save_leaves_what_was_there(saved, call, monkeypatch):
    before, calls = contents(saved), []

    def fail(*args):
        calls.append(args)
        if call != "second rename" or len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(*args)

    real = os.rename
    if call == "open":
        monkeypatch.setattr(modelfiles, "open", fail, raising=False)
    else:
        monkeypatch.setattr(modelfiles.os, call.split()[-1], fail)
        if call == "second rename":
            monkeypatch.setattr(modelfiles.os, "rename", lambda *a: fail(*a) if len(calls) < 2 else real(*a))
    with pytest.raises(OSError, match="No space left"):
        save_model(MODELS["xgb"], saved)
    assert contents(saved) == before
    assert os.listdir(saved.parent) == ["soil"]


def test_wrong_use_is_said(tmp_path):
    with pytest.raises(TypeError, match=r"takes a smgrid.Model, not Ridge.*Model.from_estimator"):
        save_model(Ridge(), tmp_path / "soil")
    with pytest.raises(ValueError, match="'s3://bucket/soil' is not a local path: save locally"):
        save_model(MODELS["rf"], "s3://bucket/soil")
    with pytest.raises(FileNotFoundError, match=r"soil does not exist: a saved model is a folder with a model.json"):
        load_model(tmp_path / "soil")


# ---- spoiled files


def test_single_byte_mutants_are_all_refused(tmp_path):
    for name in ("rf", "xgb"):
        folder = save_model(MODELS[name], tmp_path / name)
        for file in sorted(folder.iterdir()):
            data = file.read_bytes()
            for at, byte in zip(RNG.integers(len(data), size=100), RNG.integers(1, 256, size=100)):
                mutant = bytearray(data)
                mutant[at] ^= byte
                file.write_bytes(mutant)
                with pytest.raises(ValueError, match=file.name):
                    load_model(folder)
            file.write_bytes(data)
        assert load_model(folder).digest == MODELS[name].digest


def test_cut_and_stretched_files_are_refused(saved):
    for file in sorted(saved.iterdir()):
        data = file.read_bytes()
        for spoiled in (b"", data[: len(data) // 2], data[:-1], data + b"\n", data + b"\0"):
            file.write_bytes(spoiled)
            with pytest.raises(ValueError, match=file.name):
                load_model(saved)
        file.write_bytes(data)


def test_missing_and_extra_files_are_refused(saved):
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(
        ValueError, match=r"notes.txt does not belong to the model, which is model.json and regressor.npz"
    ):
        load_model(saved)
    (saved / "notes.txt").unlink()
    (saved / ".DS_Store").write_text("never read")
    load_model(saved)
    (saved / "regressor.npz").rename(saved.parent / "taken")
    with pytest.raises(ValueError, match=r"regressor.npz is missing: get the model's folder anew"):
        load_model(saved)
    (saved / "model.json").unlink()
    with pytest.raises(ValueError, match=r"has no model.json: it is not a saved smgrid model; it holds \[\]"):
        load_model(saved)


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
def test_what_is_no_regular_file_is_refused(saved):
    (saved / "regressor.npz").unlink()
    os.mkfifo(saved / "regressor.npz")
    with pytest.raises(ValueError, match=r"regressor.npz is not a regular file"):
        load_model(saved)


def resign(folder, change=None, data=None):
    """Change a saved model as somebody would who knows all its sums."""
    card = json.loads((folder / "model.json").read_text())
    if data is not None:
        (name,) = card["files"]
        (folder / name).write_bytes(data)
        card["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if change:
        change(card)
    (folder / "model.json").write_bytes(modelfiles._render({**card, "check": modelfiles._check(card)}))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda card: card.update(version=3), r"version 3; this smgrid \(.*\) reads 1 and 2: upgrade smgrid"),
        (lambda card: card.update(version=True), "format version True"),
        (lambda card: card.update(format="other"), "'format' is not 'smgrid model'"),
        (lambda card: card.pop("model"), "lacks 'model'"),
        (lambda card: card.update(regressor=[]), "lacks 'regressor'"),
        (lambda card: card.update(files={"../regressor.npz": {}}), r"lists the files \['../regressor.npz'\]"),
        (lambda card: card["files"]["regressor.npz"].update(bytes=-1), "regressor.npz has .* bytes, but -1"),
        (lambda card: card["files"]["regressor.npz"].update(sha256=None), "regressor.npz was changed"),
        (lambda card: card["model"].pop("encoded"), "do not make a model: 'encoded'"),
        (lambda card: card["model"].update(predictors=7), "do not make a model"),
        (lambda card: card["model"].update(predictors={"vv": {"min": []}}), "do not make a model"),
        (lambda card: card["regressor"].update(kind="xgb"), "lists the files"),
        (lambda card: card["regressor"].update(kind="svr"), "do not make a model"),
        (lambda card: card["regressor"].update({"class": "ExtraTreesRegressor"}), "another model than was saved"),
        (lambda card: card["regressor"]["state"].update(n_features=2), "do not make a model: node .* unknown column"),
        (lambda card: card.update(fingerprint="0" * 64), "regressor.npz was read as another model than was saved"),
    ],
)
def test_hostile_cards_are_refused(saved, change, message):
    resign(saved, change)
    with pytest.raises(ValueError, match=message):
        load_model(saved)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"format": NaN}', b"7", b'{"format": "smgrid model", "version": 1e999}', b"\xff"]
)
def test_cards_that_are_none_are_refused(saved, text):
    (saved / "model.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"model\.json"):
        load_model(saved)


def archive(compression=zipfile.ZIP_STORED, **members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as packed:
        for name, content in members.items():
            packed.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array, shape=None, **how):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), **how)
    text = buffer.getvalue()
    return text if shape is None else text.replace(repr(array.shape).encode(), repr(shape).encode())


@pytest.mark.parametrize(
    "data, message",
    [
        (b"PK not a zip", "do not make a model"),
        (archive(value=b"not an array"), "do not make a model"),
        (archive(zipfile.ZIP_DEFLATED, value=npy(np.zeros(10**6))), "compressed or overlap"),
        (archive(value=npy(np.zeros(11), (99,))), r"claims float64 of shape \(99,\), but holds 88 bytes"),
        (archive(value=npy(np.array([{}]), allow_pickle=True)), "claims object"),
        (archive(value=npy(np.zeros(3, "c8"))), "claims complex64"),
        (archive(value=npy(np.zeros(3))), "do not make a model: the saved trees have the node fields"),
    ],
)
def test_hostile_archives_are_refused(saved, data, message):
    resign(saved, data=data)
    with pytest.raises(ValueError, match=message):
        load_model(saved)


def test_hostile_node_numbers_are_refused(saved):
    with np.load(saved / "regressor.npz") as arrays:
        arrays = dict(arrays)
    arrays["node_left_child"][0] = 10**8
    resign(saved, data=modelfiles._npz(arrays))
    with pytest.raises(
        ValueError, match=r"regressor.npz and model.json do not make a model: node 0 of the saved trees"
    ):
        load_model(saved)


# ---- pickles


class Canary:
    """Whoever unpickles this writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


COMPRESSED = {
    "plain": 0,
    "zlib": ("zlib", 3),
    "gzip": ("gzip", 3),
    "bz2": ("bz2", 3),
    "xz": ("xz", 3),
    "lzma": ("lzma", 3),
}


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "model.json", "regressor.npz", "m"])
@pytest.mark.parametrize("how", [*range(pickle.HIGHEST_PROTOCOL + 1), *COMPRESSED])
def test_a_hostile_pickle_never_runs(tmp_path, how, name):
    canary, folder = tmp_path / "canary", tmp_path / "soil"
    folder.mkdir()
    if isinstance(how, int):
        (folder / name).write_bytes(pickle.dumps(Canary(canary), protocol=how))
    else:
        joblib.dump(Canary(canary), folder / name, compress=COMPRESSED[how])
    with pytest.raises(ValueError, match=r"is a pickle .*runs whatever code it holds.*save_model.*trusted=True"):
        load_model(folder / name)
    with pytest.raises(ValueError, match=name):
        load_model(folder)
    assert not canary.exists()
    if name != "model.json":
        with pytest.raises(TypeError, match="a model has predict"):  # this is what trusted=True means
            load_model(folder, trusted=True)
        assert canary.exists()


@pytest.mark.parametrize("name", ["rf", "xgb"])
def test_a_pickle_in_a_saved_model_never_runs(tmp_path, name):
    canary = tmp_path / "canary"
    folder = save_model(MODELS[name], tmp_path / "soil")
    resign(folder, data=pickle.dumps(Canary(canary)))
    with pytest.raises(ValueError, match="do not make a model"):
        load_model(folder, trusted=True)
    (folder / "more.txt").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ValueError, match=r"more.txt is a pickle"):
        load_model(folder)
    assert not canary.exists()


@pytest.mark.parametrize("compress", [0, ("gzip", 3)])
def test_a_trusted_pickle_gets_a_contract(tmp_path, compress):
    estimator = named(RandomForestRegressor(3, random_state=1))
    joblib.dump(estimator, tmp_path / "forest.joblib", compress=compress)
    back = load_model(tmp_path / "forest.joblib", trusted=True)
    assert back.predict(TABLE).tobytes() == Model.from_estimator(estimator).predict(TABLE).tobytes()
    joblib.dump(MODELS["svr"], tmp_path / "whole.pkl")
    assert load_model(tmp_path / "whole.pkl", trusted=True).digest == MODELS["svr"].digest


def test_other_files_are_said_to_be_none(tmp_path):
    (tmp_path / "a.txt").write_text("soil moisture.")
    with pytest.raises(ValueError, match=r"a.txt is not a saved model: that is a folder with a model.json$"):
        load_model(tmp_path / "a.txt", trusted=True)
    MODELS["xgb"].regressor.save_model(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"it is XGBoost's own; load it there and give it to smgrid.Model.from_estim"):
        load_model(tmp_path / "x.json")
    (tmp_path / "broken.pkl").write_bytes(pickle.dumps(Ridge())[:-9])
    with pytest.raises(ValueError, match=r"broken.pkl is a pickle that does not open"):
        load_model(tmp_path / "broken.pkl", trusted=True)


# ---- skops


def test_trees_inside_pipelines_need_trust(tmp_path):
    pytest.importorskip("skops")
    model = Model.from_estimator(named(make_pipeline(StandardScaler(), RandomForestRegressor(3, random_state=0))))
    folder = save_model(model, tmp_path / "soil")
    with pytest.raises(ValueError, match=r"types not known to be safe, .*Tree.*load_model\('.*soil', trusted=True\)"):
        load_model(folder)
    back = load_model(folder, trusted=True)
    assert back.predict(TABLE).tobytes() == model.predict(TABLE).tobytes()
    assert back.digest == model.digest


def test_without_skops_the_extra_is_named(tmp_path, monkeypatch):
    pytest.importorskip("skops")
    folder = save_model(MODELS["pipeline"], tmp_path / "soil")
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match=r"pip install 'smgrid\[skops\]'"):
        save_model(MODELS["pipeline"], tmp_path / "more")
    with pytest.raises(ImportError, match=r"pip install 'smgrid\[skops\]'"):
        load_model(folder)
    load_model(save_model(MODELS["rf"], tmp_path / "rf"))


class Handle:
    feature_names_in_ = np.array(NAMES)

    def predict(self, rows):
        return np.zeros(len(rows))

    def __reduce_ex__(self, protocol):
        raise TypeError("a handle")

    def __getstate__(self):
        raise TypeError("a handle")


def test_what_cannot_be_saved_is_said(tmp_path):
    pytest.importorskip("skops")
    with pytest.raises(ValueError, match="Handle cannot be saved as data: skops says a handle"):
        save_model(Model.from_estimator(Handle()), tmp_path / "soil")
    assert not os.listdir(tmp_path)
