"""Sees an invented landscape as satellites, reanalysis, aircraft and probes would: each with the errors it has.

Plain arrays over the window and its halo go in and come out: `landscape` says what is true, `synthetic` wraps what is
seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from smgrid.landscape import COL, EXTENT, ROW, WINDOW, Field, Ground, Mask, State, season, smooth, texture

WAVENUMBER = 1.133  # rad cm-1 at 5.405 GHz
Cells = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows and columns within the window

FOOTPRINT = 12.5  # km, sd of a Gaussian of 29 km full width at half maximum
BLOCK_ERROR = (
    0.06  # share by which each 9-km cell of SMAP is off, always: soil and vegetation ancillary data come on 9 km
)


# ---- coarse cells


@dataclass(frozen=True, eq=False)
class Tiles:
    """Coarse cells over the window and its halo: which coarse row and column each cell lies in."""

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """Coarse rows and columns."""
        return int(self.rows[-1]) + 1, int(self.cols[-1]) + 1

    def mean(self, field: Field) -> Field:
        """Mean of each coarse cell; at the far edge of the halo, of what there is of it."""
        starts = [np.unique(labels, return_index=True)[1] for labels in (self.rows, self.cols)]
        total = np.add.reduceat(np.add.reduceat(field, starts[0], axis=0), starts[1], axis=1)
        return total / np.outer(np.bincount(self.rows), np.bincount(self.cols))

    def spread(self, coarse: Field) -> Field:
        """Every cell gets the value of its coarse cell."""
        return coarse[np.ix_(self.rows, self.cols)]


def _from_zero(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(labels, return_inverse=True)[1]


def _tenths(degrees: Field) -> NDArray[np.int64]:
    """Labels of 0.1-degree cells, whose centres are whole tenths."""
    return _from_zero(np.round(10 * degrees).astype(np.int64))


SMAP_TILES = Tiles(
    _from_zero((EXTENT.row + np.arange(EXTENT.ny)) // 9),
    _from_zero((EXTENT.col + np.arange(EXTENT.nx)) // 9),
)
ERA5_TILES = Tiles(_tenths(EXTENT.lonlat()[1]), _tenths(EXTENT.lonlat()[0]))


# ---- optics and radar


def ndvi(ground: Ground, day: int, greenness: Field) -> Field:
    """NDVI: pasture follows the water of six weeks, winter crops peak in mid-September, farms and forest keep green."""
    year = season(day, peak=262)
    pasture = 0.14 + 0.9 * greenness
    growth = 0.30 * max(year, 0.0) * np.clip(greenness / 0.15, 0.4, 1.5)
    green = np.where(ground.irrigated, 0.35 + 0.20 * abs(year), pasture + growth * ground.crop)
    return np.clip(np.where(ground.forest, 0.62 + 0.03 * year, green), 0.1, 0.85)


# ---- radar


def soil_backscatter(soil_moisture: ArrayLike, roughness: ArrayLike, angle: ArrayLike) -> tuple[Field, Field]:
    """Backscatter of bare soil at C band (5.405 GHz), VV and VH, in linear power.

    Parameters
    ----------
    soil_moisture : array-like, m3 m-3
        The model was fitted on 0.04-0.29.
    roughness : array-like, cm
        Standard deviation of the surface height.
    angle : array-like, degree
        Incidence angle, 10-70.

    References
    ----------
    Oh (2004), IEEE Trans. Geosci. Remote Sens. 42, 596-601, doi:10.1109/TGRS.2003.821065

    Examples
    --------
    >>> vv, vh = soil_backscatter(0.20, 1.0, 38.0)
    >>> print(f"{10 * np.log10(vv):.2f} dB, {10 * np.log10(vh):.2f} dB")
    -10.00 dB, -21.57 dB
    """
    theta, ks = np.radians(np.asarray(angle, "f8")), WAVENUMBER * np.asarray(roughness, "f8")
    vh = 0.11 * np.asarray(soil_moisture, "f8") ** 0.7 * np.cos(theta) ** 2.2 * (1 - np.exp(-0.32 * ks**1.8))
    ratio = 0.095 * (0.13 + np.sin(1.5 * theta)) ** 1.4 * (1 - np.exp(-1.3 * ks**0.9))
    return vh / ratio, vh


def vegetation_water(greenness_index: ArrayLike, stems: ArrayLike) -> Field:
    """Water in vegetation, kg m-2, from NDVI and the water of stems in kg m-2.

    References
    ----------
    Chan et al. (2013), SMAP Ancillary Data Report: Vegetation Water Content, JPL D-53061.
    """
    index = np.asarray(greenness_index, "f8")
    return 1.9134 * index**2 - 0.3215 * index + np.asarray(stems, "f8")


def under_vegetation(soil: ArrayLike, water: ArrayLike, angle: ArrayLike, scatter: ArrayLike) -> Field:
    """Backscatter of soil under a cloud of water drops, in linear power.

    Parameters
    ----------
    soil : array-like, linear power
        Backscatter of the soil alone.
    water : array-like, kg m-2
        Vegetation water; B = 0.10 attenuates it.
    angle : array-like, degree
        Incidence angle.
    scatter : array-like
        A of the model: 0.02 for VV, 0.004 for VH under crops.

    References
    ----------
    Attema and Ulaby (1978), Radio Sci. 13, 357-364, doi:10.1029/RS013i002p00357
    """
    slant = np.cos(np.radians(np.asarray(angle, "f8")))
    through = np.exp(-2 * 0.10 * np.asarray(water, "f8") / slant)  # both ways
    return np.asarray(scatter, "f8") * water * slant * (1 - through) + through * np.asarray(soil, "f8")


def backscatter(ground: Ground, moisture: Field, green: Field, roughness: Field, angle: Field) -> tuple[Field, Field]:
    """VV and VH of every cell in dB, free of noise.

    Part of each cell carries scattered trees that never change (-10 dB in VV, -16 dB in VH) and so damp the signal of
    the soil; forest scatters more than crops for the same water.

    Parameters
    ----------
    ground : Ground
    moisture : array, m3 m-3
    green : array, NDVI
    roughness : array, cm
    angle : array, degree
    """
    water = vegetation_water(green, np.where(ground.forest, 5.0, green - 0.1))
    return radar(moisture, water, ground.trees, roughness, angle, forest=ground.forest)


def radar(
    moisture: Field, water: Field, trees: Field, roughness: Field, angle: Field, *, forest: Mask | bool = False
) -> tuple[Field, Field]:
    """VV and VH in dB of soil under vegetation beside trees that never change, free of noise.

    Parameters
    ----------
    moisture : array, m3 m-3
    water : array, kg m-2
        Of the vegetation.
    trees : array
        Share of the cell under scattered trees.
    roughness : array, cm
    angle : array, degree
    forest : array of bool
        Where vegetation scatters as wood does.
    """
    vv, vh = soil_backscatter(moisture, roughness, angle)
    seen = []
    for soil, crop, wood, still in ((vv, 0.02, 0.03, 0.10), (vh, 0.004, 0.009, 0.025)):
        cloud = under_vegetation(soil, water, angle, np.where(forest, wood, crop))
        seen.append(10 * np.log10((1 - trees) * cloud + trees * still))
    return seen[0], seen[1]


# ---- what the satellites and the reanalysis give


def observe(rng: Generator, ground: Ground, states: Mapping[int, State]) -> Iterator[tuple[int, dict[str, Field]]]:
    """The predictors of each day but SMAP, in canonical units.

    Beside `precipitation`, which like a reanalysis does not resolve convective cells (15-km smoothing), stands
    `sharp_precipitation`, whose coarse cells betray where they stood.
    """
    static = {
        name: getattr(ground, name)
        for name in ("sand", "clay", "bulk_density", "elevation", "slope", "aspect_sin", "aspect_cos")
    }
    tillage: dict[int, Field] = {}  # fields are worked, sown, grazed, burnt: the roughness is another each quarter
    for day, state in states.items():
        quarter = (day + 80) // 91
        if quarter not in tillage:
            tillage[quarter] = 0.35 * texture(rng, 1.2)
        roughness = np.clip(1.1 * np.exp(tillage[quarter] + 0.15 * texture(rng, 1.0)), 0.5, 2.5)
        green = ndvi(ground, day, state.greenness)
        angle = 34.5 + 0.075 * COL + 0.2 * rng.standard_normal()
        vv, vh = backscatter(ground, state.soil_moisture, green, roughness, angle)
        rain, gauge = state.precipitation, np.exp(0.2 * texture(rng, 20))
        yield (
            day,
            {
                "vv": _radiometric(rng, vv),
                "vh": _radiometric(rng, vh),
                "incidence_angle": angle,
                "ndvi": green + 0.02 * texture(rng, 1.0),
                "air_temperature": ERA5_TILES.spread(ERA5_TILES.mean(state.air_temperature)),
                "precipitation": ERA5_TILES.spread(ERA5_TILES.mean(smooth(rain, 15) * gauge)),
                "sharp_precipitation": ERA5_TILES.spread(ERA5_TILES.mean(rain * gauge)),
                **static,
                **ground.bands,
            },
        )


def _radiometric(rng: Generator, decibels: Field) -> Field:
    """Noise of each cell, 0.3 dB, and of the whole scene, 0.2 dB."""
    return decibels + 0.3 * rng.standard_normal(EXTENT.shape) + 0.2 * rng.standard_normal()


def overpasses(day: int) -> tuple[int, int, float]:
    """The SMAP overpasses around a day (three mornings in each eight-day repeat), and the weight of the later one."""
    before = next(past for past in range(day, day - 4, -1) if past % 8 in (0, 3, 6))
    after = next(future for future in range(day + 1, day + 5) if future % 8 in (0, 3, 6))
    return before, after, (day - before) / (after - before)


@dataclass(frozen=True, eq=False)
class Smap:
    """SMAP on its 9-km cells: what the footprint held at each overpass, and the errors of the retrieval.

    References
    ----------
    Chan et al. (2018), Remote Sens. Environ. 204, 931-941, doi:10.1016/j.rse.2017.08.025 (resolution of the product).
    """

    footprints: dict[int, Field]  # m3 m-3, coarse cells, by day of overpass
    gain: Field  # coarse cells
    noise: dict[int, Field]  # m3 m-3, coarse cells, by day

    @classmethod
    def draw(cls, rng: Generator, footprints: dict[int, Field], days: Iterable[int]) -> Smap:
        """Draw the errors: fixed ones of each 9-km cell, smooth ones of each day, one of each whole scene."""
        gain = 1 + BLOCK_ERROR * rng.standard_normal(SMAP_TILES.shape)
        noise = {day: 0.02 * SMAP_TILES.mean(texture(rng, 14)) + 0.01 * rng.standard_normal() for day in days}
        return cls(footprints, gain, noise)

    @staticmethod
    def footprint(moisture: Field) -> Field:
        """Mean of each 9-km cell as the radiometer's footprint blurs it, m3 m-3."""
        return SMAP_TILES.mean(smooth(moisture, FOOTPRINT))

    def retrieval(self, day: int, *, lag: int = 0, block_error: bool = True) -> Field:
        """Soil moisture of the 9-km cells, linear in time between overpasses; `lag` takes it from days before."""
        before, after, weight = overpasses(day - lag)
        seen = (1 - weight) * self.footprints[before] + weight * self.footprints[after]
        return np.clip(seen * (self.gain if block_error else 1.0) + self.noise[day], 0.02, 0.6)


def spread_smap(coarse: Field, *, smooth_out: bool = False) -> Field:
    """The 9-km cells on the 1-km cells: as blocks, or smoothed until no edge is left (Gaussian, sd half a cell)."""
    field = SMAP_TILES.spread(coarse)
    return smooth(field, 4.5) if smooth_out else field


def fly_over(rng: Generator, moisture: Field) -> Field:
    """The airborne map of the window, m3 m-3: errors that grow with moisture (range 3 km), and too high above 0.30.

    References
    ----------
    Ye et al. (2021), IEEE Trans. Geosci. Remote Sens. 59, doi:10.1109/TGRS.2020.3007371 (such campaigns).
    """
    true = moisture[WINDOW]
    error = (0.01 + 0.10 * true) * texture(rng, 2.1)[WINDOW] + 0.015 * rng.standard_normal(true.shape)
    return np.clip(true + 0.4 * np.maximum(true - 0.30, 0) + error, 0.01, 0.6)


# ---- stations


def place_stations(rng: Generator, ground: Ground, count: int) -> Cells:
    """Rows and columns, in the window, of the cells with a probe: never in forest, seldom on a farm.

    Fourteen of 39 (or that share of `count`) lie apart, the others in two focus areas, as networks are.
    """
    weight = np.where(ground.forest, 0, np.where(ground.irrigated, 0.3, 1.0))[WINDOW]
    row, col = ROW[WINDOW], COL[WINDOW]
    apart = (np.hypot(row - 40, col - 38) < 36) * weight
    focus = weight * sum(np.exp(-((row - r) ** 2 + (col - c) ** 2) / 40) for r, c in ((30, 40), (52, 46)))
    lone = rng.choice(row.size, round(count * 14 / 39), replace=False, p=(apart / apart.sum()).ravel())
    focus.ravel()[lone] = 0
    dense = rng.choice(row.size, count - lone.size, replace=False, p=(focus / focus.sum()).ravel())
    rows, cols = np.unravel_index(np.concatenate([lone, dense]), row.shape)
    return rows, cols


@dataclass(frozen=True, eq=False)
class Probes:
    """How far each probe is from its square kilometre; arrays (day, station) or (station).

    A probe answers with a gain below 1 about 0.11 m3 m-3 (its own soil, its own showers, its depth), has an offset of
    its site, and drifts over about a month as roots, cracks and stock do.
    """

    gain: Field
    offset: Field  # m3 m-3
    drift: Field  # m3 m-3 at a soil moisture of 0.13, by day
    noise: Field  # m3 m-3, by day
    up: Mask  # stations fail for long; thinned here

    @classmethod
    def draw(cls, rng: Generator, days: int, stations: int) -> Probes:
        """Draw gains, offsets, drifts, noise and failures."""
        gain = 0.65 * np.exp(rng.normal(0, 0.35, stations))
        offset = rng.normal(0, 0.02, stations)
        drift = np.zeros((days, stations))
        for today in range(1, days):
            drift[today] = 0.7 * drift[today - 1] + rng.normal(0, 0.7 * 0.035, stations)
        noise = rng.normal(0, 0.015, (days, stations))
        return cls(gain, offset, drift, noise, rng.random((days, stations)) < 0.58)

    def reading(self, moisture: Field, *, ideal: bool = False) -> Field:
        """What probes say where their cells hold `moisture` (day, station), m3 m-3; `ideal`: gain 1, no drift."""
        gain, drift = (1.0, 0.0) if ideal else (self.gain, self.drift)
        said = 0.11 + gain * (moisture - 0.11) + self.offset + drift * np.sqrt(moisture / 0.13) + self.noise
        return np.clip(said, 0.0, 0.5)
