"""Runs the ground, the weather and the soil water of an invented Yanco, day by day.

Everything here is synthetic. One daily run from 2015 to 2021 serves the four flight days of the maps and the series of
the stations alike, so a model meets on the map what a real one meets: the same physics, other places, another year.

Fields are arrays (rows, columns) over the window `YANCO` and a halo of five 9-km cells, wide enough for the footprint
of SMAP. Days are counted from 2015-01-01. The levels (how wet, how dry, how fast it dries, how noisy) were read off
OzNet and SMAP series of the region, then moved so that the flight days look as published; none of those data is here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from smgrid.grid import YANCO, Grid

Field = NDArray[np.float64]
Mask = NDArray[np.bool_]

HALO = 45  # cells; a multiple of 9, though blocks are counted on the globe in any case
EXTENT = Grid(1, YANCO.row - HALO, YANCO.col - HALO, YANCO.ny + 2 * HALO, YANCO.nx + 2 * HALO)
WINDOW = np.s_[HALO : HALO + YANCO.ny, HALO : HALO + YANCO.nx]
ROW, COL = np.mgrid[: EXTENT.ny, : EXTENT.nx] - float(HALO)  # (0, 0) is the north-west cell of YANCO
ROW_KM, COL_KM = 1.058, 0.947  # ground size of a cell at 35 S: equal-area cells are not square

BANDS = ("b2", "b3", "b4", "b8", "b11", "b12")

# Convective cells of 16 May 2015: row, column, radius in km, rain in mm. The first two leave the wet patches in the
# south-west.
STORMS = ((60, 14, 7.0, 32.0), (72, 30, 6.0, 30.0), (18, 52, 7.0, 22.0))


@lru_cache
def day_number(date: str) -> int:
    """Days from 2015-01-01 to an ISO date."""
    return int((np.datetime64(date) - np.datetime64("2015-01-01")).astype(int))


def day_date(day: int) -> np.datetime64:
    """The UTC day of a day number."""
    return np.datetime64("2015-01-01", "ns") + np.timedelta64(day, "D")


def season(day: int, peak: int = 15) -> float:
    """Yearly wave, +1 on day `peak` of the year (by default mid-January, the southern summer), -1 half a year later."""
    return float(np.cos(2 * np.pi * (day % 365.25 - peak) / 365.25))


# ---- random fields


@lru_cache(maxsize=32)
def _transfer(km: float) -> Field:
    """Fourier transform of a Gaussian of standard deviation `km` on the ground."""
    fy, fx = np.fft.fftfreq(EXTENT.ny, ROW_KM)[:, None], np.fft.rfftfreq(EXTENT.nx, COL_KM)
    return np.exp(-2 * (np.pi * km) ** 2 * (fy**2 + fx**2))


def smooth(field: Field, km: float) -> Field:
    """Gaussian filter of standard deviation `km` on the ground; the halo's far edges meet."""
    return np.fft.irfft2(np.fft.rfft2(field) * _transfer(km), EXTENT.shape)


def texture(rng: Generator, km: float) -> Field:
    """A Gaussian random field of mean 0 and sd 1, its correlation length about 1.4 `km`."""
    field = smooth(rng.standard_normal(EXTENT.shape), km)
    return (field - field.mean()) / field.std()


# ---- the ground


@dataclass(frozen=True, eq=False)
class Ground:
    """What does not change from day to day; fields over the window and its halo."""

    forest: Mask
    irrigated: Mask
    crop: Field  # share of winter crop in a cell, the rest is pasture; 0 in forest and on irrigated farms
    trees: Field  # share of scattered trees outside the forest
    sand: Field  # %
    clay: Field  # %
    bulk_density: Field  # g cm-3
    elevation: Field  # m
    slope: Field  # degree
    aspect_sin: Field  # mean over the 30-m pixels of a cell; near 0 where the ground is flat
    aspect_cos: Field
    wilting: Field  # m3 m-3, what drying leaves
    porosity: Field  # m3 m-3, what rain fills
    drying_time: Field  # days at unit demand
    bands: dict[str, Field]  # surface reflectance

    @classmethod
    def draw(cls, rng: Generator) -> Ground:
        """Cover first; soil, terrain and reflectance follow it."""
        forest = _river_forest(rng)
        irrigated = _farms(rng, forest)
        soil = 0.75 * texture(rng, 8) + 0.65 * texture(rng, 1.5)
        clay = np.clip(30 + 8 * soil + 5 * irrigated, 12, 55)
        sand = np.clip(75 - 1.1 * clay + 4 * texture(rng, 2), 15, 75)
        crop = (0.5 + 0.5 * np.tanh(1.5 * texture(rng, 2.5))) * ~forest * ~irrigated
        return cls(
            forest=forest,
            irrigated=irrigated,
            crop=crop,
            trees=np.clip(0.25 + 0.10 * texture(rng, 1.5) - 0.15 * irrigated, 0.05, 0.6) * ~forest,
            sand=sand,
            clay=clay,
            bulk_density=1.45 - 0.005 * (clay - 30) + 0.03 * texture(rng, 2),
            elevation=135 + 0.25 * COL - 0.05 * ROW + 4 * texture(rng, 6),
            slope=np.exp(-0.4 + 0.35 * texture(rng, 1.5)),
            aspect_sin=0.15 * rng.standard_normal(EXTENT.shape),
            aspect_cos=0.15 * rng.standard_normal(EXTENT.shape),
            wilting=0.005 + 0.0009 * clay,
            porosity=0.40 + 0.0012 * clay - 0.02 * forest,
            drying_time=_drying_time(rng, clay, forest),
            bands=_reflectance(rng, forest, irrigated),
        )


def _river_forest(rng: Generator) -> Mask:
    """A strip along a meandering river from west to east, and blocks near it."""
    away = np.abs(ROW - (42 + 9 * np.sin(COL / 11) + 4 * np.sin(COL / 4.3 + 1)))
    return (away < 1.6) | ((texture(rng, 3) > 1.7) & (away < 16))


def _farms(rng: Generator, forest: Mask) -> Mask:
    """Seventy irrigated farms of 2-4 km, in the north-west and the centre."""
    farms = np.zeros(EXTENT.shape, bool)
    for _ in range(70):
        row, col = rng.normal(24, 15), rng.normal(28, 16)
        farms |= (np.abs(ROW - row) < rng.uniform(1, 2)) & (np.abs(COL - col) < rng.uniform(1, 2))
    return farms & ~forest


def _drying_time(rng: Generator, clay: Field, forest: Mask) -> Field:
    """Days in which the soil loses 63 % of its drainable water at unit demand: longer in clay, uneven at 2 and 9 km."""
    days = 7.5 + 0.10 * (clay - 30) + 1.5 * texture(rng, 2.5) + 1.5 * texture(rng, 9) - 1.0 * forest
    return np.clip(days, 4, 13)


def _reflectance(rng: Generator, forest: Mask, irrigated: Mask) -> dict[str, Field]:
    """One-year median reflectance: a level, a texture, and how much darker green cover is."""
    levels = {
        "b2": (0.06, 0.012, 0.025),
        "b3": (0.09, 0.014, 0.03),
        "b4": (0.12, 0.02, 0.05),
        "b8": (0.25, 0.02, 0.0),
        "b11": (0.30, 0.03, 0.10),
        "b12": (0.22, 0.03, 0.11),
    }
    return {
        band: level + spread * (0.5 * texture(rng, 2) + 0.3 * texture(rng, 8)) - darker * (forest + 0.4 * irrigated)
        for band, (level, spread, darker) in levels.items()
    }


# ---- the weather and the soil water


@dataclass(frozen=True, eq=False)
class State:
    """What one day left behind; fields over the window and its halo."""

    soil_moisture: Field  # m3 m-3 in the upper 5 cm
    precipitation: Field  # m d-1, mean of the seven days before
    air_temperature: Field  # degC, mean of the seven days before
    greenness: Field  # m3 m-3, mean soil moisture of some six weeks: what pasture grows on


def run(rng: Generator, ground: Ground, days: Collection[int]) -> Iterator[tuple[int, State]]:
    """Run soil water from 2015-01-01 on, and give the state on each of `days`, in order of time.

    Drying takes the moisture towards the wilting point, `exp(-demand / drying_time)` a day; rain of P mm closes a share
    `1 - exp(-P / 22)` of the gap to the porosity. Wet days follow a two-state Markov chain with exponential amounts.

    References
    ----------
    Richardson (1981), Water Resour. Res. 17, 182-190, doi:10.1029/WR017i001p00182 (chain of wet and dry days).
    """
    moisture, greenness = np.full(EXTENT.shape, 0.12), np.full(EXTENT.shape, 0.12)
    rains = deque([np.zeros(EXTENT.shape)] * 7, maxlen=7)
    temperatures = deque([25.0] * 7, maxlen=7)
    spell, wet = 0.0, False  # degC above the season; whether it rained yesterday
    for day in range(max(days) + 1):
        spell = 0.8 * spell + rng.normal(0, 1.5)
        wet = rng.random() < (0.42 if wet else 0.15 - 0.04 * season(day))
        rain = _rain(rng, day, wet)
        moisture = ground.wilting + (moisture - ground.wilting) * np.exp(-_demand(day, spell) / ground.drying_time)
        if rain is not None:
            moisture = ground.porosity - (ground.porosity - moisture) * np.exp(-rain / 22)
        moisture = _irrigate(rng, ground, day, moisture)
        greenness = greenness + (moisture - greenness) / 45
        if day in days:
            warmth = np.mean(temperatures) + 0.01 * ROW
            yield day, State(moisture, sum(rains, np.zeros(EXTENT.shape)) / 7000, warmth, greenness)
        rains.append(np.zeros(EXTENT.shape) if rain is None else rain)
        temperatures.append(16.5 + 8.5 * season(day) + spell)


def _demand(day: int, spell: float) -> float:
    """Evaporative demand: 1 on average, more in summer and in warm spells."""
    demand = float((1 + 0.60 * season(day)) * np.exp(0.06 * spell))
    if day_number("2015-09-05") <= day < day_number("2015-09-15"):  # cool and waterlogged
        return 0.40 * demand
    if day_number("2015-09-15") <= day <= day_number("2015-09-26"):  # warm and windy
        return 2.2 * demand
    return demand


def _rain(rng: Generator, day: int, wet: bool) -> Field | None:
    """Rain of one day in mm, None if it stays dry. 2015 has its own story around the flights; other days are drawn."""
    if day_number("2015-04-18") <= day < day_number("2015-05-16"):
        return None
    if day == day_number("2015-05-16"):  # a front, and convective cells in it
        front = 5 + 1.5 * texture(rng, 12)
        return front + sum(mm * np.exp(-((distance_km(row, col) / radius) ** 2)) for row, col, radius, mm in STORMS)
    if day_number("2015-09-01") <= day <= day_number("2015-09-08"):
        return 9 * np.exp(0.35 * texture(rng, 14)) * np.exp(0.25 * texture(rng, 4))
    dry = day == day_number("2015-05-17") or day_number("2015-09-09") <= day <= day_number("2015-09-26")
    if dry or not wet:
        return None
    amount = rng.exponential(5.5)
    return amount * np.exp(0.45 * texture(rng, 14) - 0.1) * np.maximum(0, 1 + 0.4 * texture(rng, 5))


def _irrigate(rng: Generator, ground: Ground, day: int, moisture: Field) -> Field:
    """Farms water in turns, rarely in winter; most of them on 24 September 2015."""
    if rng.random() < 0.12 * (0.3 + max(0, season(day) + 0.6)):
        moisture = np.where(ground.irrigated & (texture(rng, 2.5) > 0.3), np.maximum(moisture, 0.33), moisture)
    if day == day_number("2015-09-24"):
        moisture = np.where(ground.irrigated & (texture(rng, 2.5) > -0.5), np.maximum(moisture, 0.36), moisture)
    return moisture


def distance_km(row: float, col: float) -> Field:
    """Ground distance of every cell from a cell of the window, km."""
    return np.hypot((ROW - row) * ROW_KM, (COL - col) * COL_KM)
