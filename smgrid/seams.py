"""Finds the marks that coarse inputs leave on a fine map.

A model that is fed one value per 9-km cell may copy the edges of that cell onto its 1-km map. These verbs ask, of any
map and without its model,

- `detect`: do edges of coarse cells stand out at all, and do they at the right place? It needs the map alone.
- `imprint`: which share of a coarse field's steps does the map copy? It needs the coarse field too, or several.
- `edges`: which segments of the borders show, and `raster`: where, as a map to lay over another.
- `straight_lines`: are there lines right across the map, as trees leave them that were fed coordinates?
- `correct`: the map with its borders smoothed out, for show.

`attribution.seams` asks the model which predictor carries the steps. A landscape that has edges where coarse cells have
theirs is no imprint, yet looks like one to `detect`: judge the reference map and the predictors too.
"""

from smgrid.cosmetics import correct
from smgrid.imprints import imprint
from smgrid.phases import WRONG_PHASE, detect
from smgrid.segments import edges, raster
from smgrid.streaks import straight_lines

__all__ = ["WRONG_PHASE", "correct", "detect", "edges", "imprint", "raster", "straight_lines"]
