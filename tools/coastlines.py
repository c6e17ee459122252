"""Makes the outlines of land that figures draw, from Natural Earth at 1:110 million.

    python tools/coastlines.py land-110m.json smgrid/data/land_110m.npy

Natural Earth is in the public domain. The input is its land polygons, version 4.1.0, as the npm package world-atlas
2.0.2 carries them (TopoJSON; `npm pack world-atlas@2.0.2`). Needs shapely.
"""

import json
import sys
from pathlib import Path

import numpy as np
from shapely import MultiPolygon, Polygon, box
from shapely.affinity import translate

GAP = -32768  # a row of these stands between two rings
WORLD = box(-180, -90, 180, 90)


def main(topology, out):
    """Store longitude and latitude of all rings in hundredths of a degree."""
    topology = json.loads(Path(topology).read_text())
    place = topology["transform"]
    arcs = [np.cumsum(arc, axis=0) * place["scale"] + place["translate"] for arc in topology["arcs"]]
    pieces = []
    for land in topology["objects"]["land"]["geometries"]:
        for polygon in land["arcs"]:
            outer, *holes = (
                Polygon(unwrapped(np.concatenate([arcs[k] if k >= 0 else arcs[~k][::-1] for k in ring])))
                for ring in polygon
            )
            whole = outer.difference(MultiPolygon([translate(hole, east) for hole in holes for east in (-360, 0, 360)]))
            for ring in rings(whole):
                points = np.rint(100 * ring).astype("<i2")
                moved = np.r_[True, (points[1:] != points[:-1]).any(axis=1)]
                pieces += [np.full((1, 2), GAP, "<i2"), points[moved]]
    np.save(out, np.concatenate(pieces[1:]))
    print(f"{out}: {len(pieces) // 2} rings, {sum(map(len, pieces[1::2]))} points")


def unwrapped(ring):
    """The ring without jumps at the date line; one that goes round the pole is closed over it."""
    ring = np.stack([np.unwrap(ring[:, 0], period=360), ring[:, 1]], axis=1)
    if abs(ring[-1, 0] - ring[0, 0]) > 180:
        ring = np.concatenate([ring, [[ring[-1, 0], -90], [ring[0, 0], -90], ring[0]]])
    return ring


def rings(polygon):
    """Rings of the polygon between 180 W and 180 E; holes turn the other way round, so that they stay holes."""
    for east in (-360, 0, 360):
        part = translate(polygon, east) & WORLD
        for one in part.geoms if isinstance(part, MultiPolygon) else [part]:
            if one.area > 0:
                one = one.normalize()
                yield from (np.array(ring.coords) for ring in (one.exterior, *one.interiors))


if __name__ == "__main__":
    main(*sys.argv[1:])
