"""Runs an invented network of stations: a bucket of soil water a cell, a probe that is not its square kilometre.

Everything here is synthetic. Sizes, places and sample counts of the networks are those of the study's Table IV; all
values are invented. Two things make unseen places and unseen years hard, each for a stated reason:

- **site offset** (sd 0.057 m3 m-3, most of it inside a network): a probe's few cubic centimetres have their own
  texture, stones, roots and contact with the soil, so its level differs from its cell's, and no predictor tells how;
- **walk** (a step of 0.050 m3 m-3 a year): more than sensors drift; it stands for exchanged probes, other sets of
  probes in a cell, and changed cover, so a year is no sample of other years.

Without the first the spatial scenario is as easy as the dependent one, without the second the temporal one is.
Arrays are (cells,), (days, cells) or (samples,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from smgrid.grid import Grid
from smgrid.landscape import BANDS
from smgrid.sensors import radar

Field = NDArray[np.float64]
Index = NDArray[np.int64]

FIRST = np.datetime64("2016-01-01")
DAYS = 2192  # 2016-2021
SITE_OFFSET, GAIN = 0.057, 0.75  # sd of a probe's level against its cell's, m3 m-3; its median answer to changes
SMAP_OFFSET, SMAP_NOISE = 0.03, 0.02  # sd of SMAP's own bias at a site and of its daily noise, m3 m-3
DRIFT, WALK = 0.010, 0.050  # sd of a probe's monthly drift; step of its slow walk, m3 m-3 a year


class Network(NamedTuple):
    """Cells and samples as in Table IV; where, how wide (degrees), how many of the six years on air."""

    name: str
    cells: int
    samples: int
    latitude: float
    longitude: float
    extent: float
    years: float
    mountain: bool = False


NETWORKS = (
    Network("HOAL", 3, 1342, 48.2, 15.2, 0.1, 6),
    Network("AMMA-CATCH", 6, 547, 13, 2, 3, 6),
    Network("RISMA", 13, 2016, 49.8, -98, 1, 6),
    Network("MAQU", 39, 2531, 33.9, 101, 2, 6, mountain=True),
    Network("CTP_SMTMN", 1, 44, 31.5, 92, 0.1, 1, mountain=True),
    Network("TAHMO", 2, 288, 6, 1, 2, 3),
    Network("HOBE", 28, 9372, 55.9, 9.1, 0.4, 6),
    Network("FR_Aqui", 2, 214, 44.5, -0.7, 0.3, 2),
    Network("SMOSMANIA", 19, 13926, 43.7, 2, 2, 6),
    Network("TERENO", 5, 2645, 50.7, 6.3, 0.3, 6),
    Network("PERUGIA", 1, 63, 43.1, 12.3, 0.1, 1),
    Network("BIEBRZA_S-1", 2, 421, 53.6, 22.7, 0.1, 3),
    Network("RSMN", 18, 12564, 45.8, 25, 2.5, 6),
    Network("Ru_CFR", 2, 67, 55, 37, 1, 1),
    Network("REMEDHUS", 20, 13506, 41.3, -5.4, 0.3, 6),
    Network("SMN-SDR", 34, 1714, 42, 116, 0.5, 3),
    Network("WSMN", 2, 30, 52.4, -4, 0.3, 1),
    Network("SNOTEL", 372, 81992, 42, -112, 4.5, 6, mountain=True),
    Network("iRON", 9, 1172, 39.2, -106.9, 0.2, 6, mountain=True),
    Network("SOILSCAPE", 18, 1811, 37, -120, 1.5, 2),
    Network("ARM", 14, 3479, 36.6, -97.5, 0.8, 4),
    Network("PBO_H2O", 141, 6490, 39, -112, 6, 2),
    Network("USCRN", 91, 18459, 39, -98, 8, 6),
    Network("SCAN", 161, 32284, 38, -98, 8, 6),
    Network("AMERIFLUX", 4, 849, 40, -100, 6, 3),
    Network("OZNET", 14, 1492, -35, 146.1, 0.3, 6),
)
CELLS = sum(network.cells for network in NETWORKS)


# ---- cells


@dataclass(frozen=True, eq=False)
class Sites:
    """The cells: place, climate, soil, cover, and how each probe differs from its square kilometre."""

    network: Index
    row: Index
    col: Index
    latitude: Field
    longitude: Field
    years: Field
    wanted: Field  # samples
    wetness: Field  # of the climate, 0..1: rain over demand
    clay: Field
    sand: Field
    bulk_density: Field
    elevation: Field
    slope: Field
    aspect: Field
    greenness: Field  # mean NDVI
    crop: Field
    trees: Field
    roughness: Field  # cm
    wilting: Field
    porosity: Field
    tau: Field  # days of unit demand in which the soil dries by a factor e
    offset: Field
    gain: Field
    smap_offset: Field
    phase: Field  # of the rainy season
    bands: Field  # (6, cells)

    @classmethod
    def draw(cls, rng: Generator, cells: int) -> Sites:
        """Draw `cells` cells; a network shares part of its setting."""
        counts = _shares(cells)
        network = np.repeat(np.arange(len(NETWORKS)), counts)
        table = np.array([net[1:] for net in NETWORKS], "f8")
        many, samples, lat, lon, extent, years, mountain = table[network].T
        high, n = mountain > 0, network.size
        shared = rng.standard_normal((len(NETWORKS), 7))[network]

        def draw(k: int, within: float) -> Field:
            """Mean 0, sd 1, with the share `within` of the variance inside a network."""
            return np.sqrt(1 - within) * shared[:, k] + np.sqrt(within) * rng.standard_normal(n)

        def spread(sd: float) -> Field:
            return np.exp(sd * rng.standard_normal(n))

        lat, lon = lat + extent * rng.uniform(-1, 1, n), lon + 1.2 * extent * rng.uniform(-1, 1, n)
        row, col, lat, lon = _apart(lat, lon)
        wetness = np.clip(0.5 + 0.22 * draw(0, 0.35) + 0.12 * high, 0.08, 0.95)
        clay = np.clip(22 + 9 * draw(1, 0.6), 3, 60)
        green = np.clip(0.25 + 0.45 * wetness + 0.10 * draw(2, 0.7), 0.1, 0.8)
        comes_or_goes = rng.random(n) < 0.35
        soils = ((0.09, 0.6), (0.12, 0.5), (0.17, 0.7), (0.25, -0.1), (0.36, 0.5), (0.30, 0.8))  # bare, less when green
        return cls(
            network=network,
            row=row,
            col=col,
            latitude=lat,
            longitude=lon,
            years=np.where(comes_or_goes, np.minimum(years, rng.uniform(2, 5.5, n)), years),
            wanted=samples / many * np.exp(-0.045) * spread(0.3),
            wetness=wetness,
            clay=clay,
            sand=np.clip(85 - 1.6 * clay + 8 * rng.standard_normal(n), 5, 95),
            bulk_density=np.clip(1.4 - 0.15 * wetness + 0.08 * rng.standard_normal(n), 1, 1.8),
            elevation=np.clip(np.where(high, 2300, 350) + np.where(high, 500, 180) * draw(3, 0.7), 5, 5200),
            slope=np.clip(np.where(high, 9, 1.5) * spread(0.5), 0.1, 35),
            aspect=rng.uniform(0, 2 * np.pi, n),
            greenness=green,
            crop=np.clip(0.15 + 0.12 * draw(4, 0.7), 0, 0.4),
            trees=np.clip(0.10 + 0.5 * (green - 0.3) + 0.12 * rng.standard_normal(n), 0, 0.7),
            roughness=np.clip(1.2 * spread(0.3), 0.4, 3),
            wilting=0.02 + 0.0022 * clay,
            porosity=0.36 + 0.002 * clay + 0.08 * wetness + 0.02 * rng.standard_normal(n),
            tau=np.clip(5 + 0.10 * clay + 4 * wetness, 3, 16),
            offset=SITE_OFFSET * draw(5, 0.7),
            gain=GAIN * spread(0.35),
            smap_offset=SMAP_OFFSET * draw(6, 0.5),
            phase=rng.uniform(0, 2 * np.pi, n),
            bands=np.stack([bare * (1 - drop * green) * spread(0.15) for bare, drop in soils]),
        )


def _shares(cells: int) -> Index:
    """Cells of each network, in proportion to Table IV (largest remainders)."""
    exact = np.array([net.cells for net in NETWORKS]) * (cells / CELLS)
    counts = exact.astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: cells - counts.sum()]] += 1
    return counts


def _apart(lat: Field, lon: Field) -> tuple[Index, Index, Field, Field]:
    """Rows and columns of the 1-km cells, no two alike, and their centres."""
    grid = Grid.whole()
    row, col = (np.asarray(axis, np.int64) for axis in grid.index(lon, lat))
    taken: set[tuple[int, int]] = set()
    for k in range(row.size):
        while (int(row[k]), int(col[k])) in taken:
            col[k] += 1
        taken.add((int(row[k]), int(col[k])))
    lons, lats = grid.lonlat()
    return row, col, lats[row], lons[col]


# ---- weather and soil water


@dataclass(frozen=True, eq=False)
class Weather:
    """Daily fields (days, cells); cells of a network share most of their storms."""

    rain: Field  # mm
    warmth: Field  # degC
    summer: Field  # yearly wave, +1 in mid-summer
    wet_year: Field  # this year is not like the last

    @classmethod
    def draw(cls, rng: Generator, sites: Sites) -> Weather:
        """Six years of weather."""
        n, net = sites.network.size, sites.network
        day = np.arange(DAYS)[:, None]
        south = np.where(sites.latitude < 0, -1, 1)
        away = np.abs(sites.latitude)
        summer = south * np.cos(2 * np.pi * (day % 365.25 - 200) / 365.25)
        wet_year = rng.standard_normal((6, len(NETWORKS)))[_year()][:, net]
        storm = 0.8 * rng.standard_normal((DAYS, len(NETWORKS)))[:, net] + 0.6 * rng.standard_normal((DAYS, n))
        monsoon = 0.2 * np.cos(2 * np.pi * day / 365.25 + sites.phase)
        rain = 11 * np.maximum(storm + 0.9 * (sites.wetness - 0.5) - 1.05 + 0.18 * wet_year + monsoon, 0)
        spell = rng.standard_normal((DAYS, len(NETWORKS)))
        for today in range(1, DAYS):
            spell[today] = 0.85 * spell[today - 1] + 0.53 * spell[today]
        mean = 27 - 0.38 * away - 0.0045 * sites.elevation
        return cls(rain, mean + (4 + 0.17 * away) * summer + 3 * spell[:, net], summer, wet_year)

    def before(self, field: Field, day: Index, cell: Index) -> Field:
        """Mean of the seven days before, of those there are."""
        total = np.vstack([np.zeros((1, field.shape[1])), field.cumsum(0)])
        first = np.maximum(day - 7, 0)
        return (total[day, cell] - total[first, cell]) / np.maximum(day - first, 1)


def _year() -> Index:
    """Year of each day, 0 in 2016."""
    return (FIRST + np.arange(DAYS)).astype("M8[Y]").astype("i8") - 46


def soil_water(sites: Sites, weather: Weather) -> Field:
    """Soil moisture of every cell and day, m3 m-3: dries towards wilting by the demand of the air, fills by rain."""
    state, out = sites.wilting + 0.1, np.empty(weather.rain.shape)
    for today in range(DAYS):
        demand = np.clip(0.25 + 0.055 * weather.warmth[today], 0.1, 2.5)
        state = sites.wilting + (state - sites.wilting) * np.exp(-demand / sites.tau)
        state = sites.porosity - (sites.porosity - state) * np.exp(-weather.rain[today] / 25)
        out[today] = state
    return out


# ---- what is seen


def passes(rng: Generator, sites: Sites, weather: Weather) -> tuple[Index, Index]:
    """Days and cells in which Sentinel-1 passed over a working probe in unfrozen ground: the samples."""
    n = sites.network.size
    day = np.arange(DAYS)[:, None]
    begin = np.maximum(0, 6 - sites.years) * 365 * rng.uniform(0, 1, n)
    alive = (day > begin) & (day < begin + 366 * sites.years) & (weather.warmth > 1)
    share = sites.wanted / np.maximum(alive.sum(0), 1)
    every = np.array([12, 6, 3, 1])[np.searchsorted([0.06, 0.12, 0.25], share)]
    over = alive & (day % every == rng.integers(0, 12, n) % every)
    thin = np.minimum(1, sites.wanted / np.maximum(over.sum(0), 1))
    days, cells = np.nonzero(over & (rng.random(over.shape) < thin))
    return days, cells


def probe(rng: Generator, sites: Sites, water: Field, day: Index, cell: Index) -> Field:
    """What probes say, m3 m-3: another level and gain than their cell, a drift of months and a walk of years."""
    n = sites.network.size
    drift = rng.standard_normal((DAYS // 30 + 2, n))
    for month in range(1, len(drift)):
        drift[month] = 0.8 * drift[month - 1] + 0.6 * drift[month]
    walk = rng.standard_normal((6, n)).cumsum(0)
    walk -= walk.mean(0)
    mean = water.mean(0)
    said = (mean + sites.offset)[cell] + sites.gain[cell] * (water[day, cell] - mean[cell])
    said += DRIFT * drift[day // 30, cell] + WALK * walk[_year()[day], cell] + 0.012 * rng.standard_normal(day.size)
    return np.clip(said, 0.005, 0.6)


def look(rng: Generator, sites: Sites, weather: Weather, water: Field, day: Index, cell: Index) -> dict[str, Field]:
    """The stored predictors of the samples, in canonical units."""
    n, m = sites.network.size, day.size
    summer, green, noise = weather.summer[day, cell], sites.greenness[cell], rng.standard_normal((6, m))
    ndvi = green + 0.15 * summer * np.sign(green - 0.1) + 0.024 * weather.wet_year[day, cell]
    ndvi = np.clip(ndvi + 0.5 * sites.crop[cell] * np.maximum(summer, 0) + 0.03 * noise[0], 0.02, 0.92)
    plants = np.maximum(0.05, 1.9134 * ndvi**2 - 0.3215 * ndvi + 1.5 * (ndvi - 0.1))  # kg m-2
    other_orbit = np.where(rng.random(m) < 0.3, rng.uniform(-4, 4, n)[cell], 0)
    angle = np.clip(rng.uniform(30, 45, n)[cell] + other_orbit + 0.2 * noise[1], 29.1, 46)
    tillage = np.exp(0.25 * rng.standard_normal((DAYS // 91 + 1, n)))  # another each quarter
    vv, vh = radar(water[day, cell], plants, sites.trees[cell], sites.roughness[cell] * tillage[day // 91, cell], angle)
    tilt = (0.06 * sites.slope * np.cos(sites.aspect - 1.8))[cell]  # slopes that face the radar are bright
    footprint = np.mean([water[np.maximum(day - k, 0), cell] for k in (0, 1, 2)], axis=0)
    smap = 0.9 * footprint + 0.02 + sites.smap_offset[cell] + SMAP_NOISE * noise[4]
    told = {  # soil maps are wrong, each cell in its own way
        "sand": np.clip(sites.sand + 8 * rng.standard_normal(n), 2, 98),
        "clay": np.clip(sites.clay + 6 * rng.standard_normal(n), 2, 70),
        "bulk_density": sites.bulk_density,
        "elevation": sites.elevation,
        "slope": sites.slope,
        "aspect_sin": 0.3 * np.sin(sites.aspect),  # directions within a square kilometre cancel for the most part
        "aspect_cos": 0.3 * np.cos(sites.aspect),
    }
    bands = sites.bands[:, cell] * np.exp(0.03 * rng.standard_normal((len(BANDS), m)))
    return {
        "vv": vv + tilt + 0.4 * noise[2],
        "vh": vh + tilt + 0.4 * noise[3],
        "incidence_angle": angle,
        **{name: values[cell] for name, values in told.items()},
        "ndvi": ndvi,
        "air_temperature": weather.before(weather.warmth, day, cell),
        "precipitation": weather.before(weather.rain, day, cell) / 1000 * np.exp(0.25 * noise[5]),
        **dict(zip(BANDS, bands)),
        "smap": np.clip(smap, 0.02, 0.6),
    }
