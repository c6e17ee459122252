"""A synthetic Yanco, start to end: cube, train, predict, write, judge. The Python twin of `smgrid demo`.

    python examples/yanco.py [FOLDER]

Everything in this scene is synthetic: no real measurement, no real place.
"""

import sys
from pathlib import Path

import smgrid

out = Path(sys.argv[1] if len(sys.argv) > 1 else "smgrid-demo")
out.mkdir(parents=True, exist_ok=True)

# An invented scene on the real grid: predictors on four dates of 2015, station samples of 2016-2021, and the truth.
scene = smgrid.synthetic.yanco(seed=0)
print(scene)

# Four regressors learn from the stations. A model keeps names, units and ranges of its predictors with it. (Where samples
# say which station they are of, it learns five times more, to know how it errs elsewhere: docs/layers.md. Not here.)
samples = scene.samples.drop_vars("station")
models = {
    name: smgrid.train(samples, smgrid.make_regressor(kind))
    for name, kind in {"MLP": "mlp", "SVR": "svr", "RF": "rf", "XGB": "xgb"}.items()
}
print(models["RF"])

# The three calls. Lazy until written; a stopped write goes on where it stopped.
maps, seams = {}, {}
for name, model in models.items():
    lazy = smgrid.predict_map(scene.cube.chunk(time=1, y=45, x=45), model)
    maps[name] = smgrid.write_zarr(lazy, out / f"{name}.zarr")
    seams[name] = smgrid.seams.detect(maps[name])

# Against the airborne maps, on the cells that all of them have.
common = smgrid.scores.common_mask(scene.airborne, *maps.values())
for name, each in maps.items():
    soil = each.soil_moisture.where(common)
    bias = smgrid.scores.bias(soil, scene.airborne, dim=("y", "x"))
    rmse = smgrid.scores.rmse(soil, scene.airborne, dim=("y", "x"))
    for k, day in enumerate(each.time.dt.strftime("%Y-%m-%d").values):
        b, p = seams[name].ratio.values[k], seams[name].p_value.values[k]
        scored = f"bias {bias.values[k]:+.3f}  RMSE {rmse.values[k]:.3f} m3 m-3"
        print(f"{day} {name:4} {scored}  seams B = {b:.2f}, p = {p:.3f}")

smgrid.plot.maps({"airborne": scene.airborne, **maps}, seams=seams).savefig(out / "maps.png", dpi=150)
smgrid.write_geotiff(maps["RF"], out / "RF.tif")
print(f"maps, figure and GeoTIFFs are in {out}")
