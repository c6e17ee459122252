"""The report in a real browser: it reads right, works by mouse and keyboard, and runs nothing but itself."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from browser import Browser, Tab, find

from smgrid import coarse, report
from smgrid.grid import Grid
from smgrid.verdict import judge

GRID = Grid(1, 11466, 31401, 45, 36)
DAYS = np.array(["2015-05-05", "2015-09-15"], "M8[ns]")
EVIL = '</script><script>window.pwned=1</script><img src=x onerror="pwned=1">'
QUOTES = "\" onmouseover=\"pwned=1\" ' autofocus onfocus='pwned=1' $\\frac$ \u202e\x00\ud800"
LINK = "javascript:pwned=1//http://203.0.113.1/x.png"


def field(values, name="soil_moisture", **attrs):
    return xr.DataArray(values.astype("f4"), {**GRID.coords(), "time": DAYS}, ("time", "y", "x"), name,
                        {"units": "m3 m-3", "source": "synthetic", **attrs})  # fmt: skip


@pytest.fixture(scope="module")
def verdict():
    rng = np.random.default_rng(0)
    cells = GRID.coarsen(9)
    smap = xr.DataArray(rng.normal(0.2, 0.04, (2, *cells.shape)).astype("f4"), {**cells.coords(), "time": DAYS},
                        ("time", "y", "x"), EVIL, {"units": "m3 m-3", "comment": EVIL})  # fmt: skip
    truth = 0.2 + 0.1 * np.sin(np.arange(36) / 4) * np.cos(np.arange(45) / 5)[:, None] * [[[1]], [[0.7]]]
    reference = field(truth + rng.normal(0, 0.01, truth.shape), title=EVIL)
    blocky = field(0.4 * truth + 0.6 * coarse.blocks(smap, GRID).values + rng.normal(0, 0.01, truth.shape))
    blocky[0, 3:6, 4] = np.nan
    maps = {EVIL: blocky.assign_attrs({EVIL: QUOTES}), QUOTES: field(truth, history=LINK), LINK: field(truth + 0.01)}
    return judge(maps, reference, coarse=smap)


@pytest.fixture(scope="module")
def page(verdict):
    return report.page(verdict, EVIL)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find() is None:
        pytest.skip("there is no Chromium to open the page with: apt-get install chromium")
    started = Browser(tmp_path_factory.mktemp("browser"))
    try:
        started.call("Browser.getVersion")
    except (AssertionError, OSError) as error:
        started.close()
        pytest.skip(f"there is a Chromium, but it does not start here: {error}")
    yield started
    started.close()


@pytest.fixture
def opened(browser, page, tmp_path):
    """Open the page, or another one; every tab is watched, and closed at the end."""
    tabs = []

    def open_page(text=page, **options):
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        tabs.append(Tab(browser, (tmp_path / "page.html").as_uri(), **options))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        tab.close()


def box(tab, element):
    tab.run(f"document.getElementById('{element}').scrollIntoView({{block: 'center'}})")
    return json.loads(tab.run(f"JSON.stringify(document.getElementById('{element}').getBoundingClientRect())"))


def point(tab, row, col, **more):
    at = box(tab, "canvas")
    x, y = at["x"] + 1 + (at["width"] - 2) * (col + 0.5) / 36, at["y"] + 1 + (at["height"] - 2) * (row + 0.5) / 45
    tab.mouse(more.pop("kind", "Moved"), x, y, **more)


def reading(tab):
    return tab.run("document.getElementById('reading').textContent")


def colour(tab, row, col):
    """Colour on the canvas in the middle of a cell."""
    at = f"[({col} + .5) * c.width / 36, ({row} + .5) * c.height / 45].map(Math.round)"
    found = tab.run(f"(() => {{ const c = document.getElementById('canvas'); const [x, y] = {at};"
                    " return Array.from(c.getContext('2d').getImageData(x, y, 1, 1).data) })()")  # fmt: skip
    return tuple(found[:3])


def choose(tab, element, value):
    tab.run(
        f"(e => {{ e.value = '{value}'; e.dispatchEvent(new Event('change')) }})(document.getElementById('{element}'))"
    )


# ---- nothing runs but the page's own script


def test_hostile_names_are_text_and_nothing_else(opened, verdict):
    tab = opened()
    point(tab, 10, 10)
    for layer in range(4):
        choose(tab, "left", layer)
    assert tab.run("typeof window.pwned") == "undefined"
    assert tab.requests() == [] and tab.complaints() == []
    shown = tab.run("Array.from(document.getElementById('left').options, o => o.textContent)")
    assert shown[0] == "reference" and shown[1] == EVIL and shown[3] == LINK
    assert tab.run("document.title") == EVIL and tab.run("document.querySelector('h1').textContent") == EVIL
    assert tab.run("document.scripts.length") == 2  # data and code
    assert tab.run("Array.from(document.images, i => i.naturalWidth > 0).every(Boolean)")


def test_the_policy_stops_what_escaping_would_let_through(opened, page):
    """The same watch sees a page whose escaping failed; the policy alone keeps it still."""
    smuggled = (
        "<script>window.pwned=1</script><img src='http://203.0.113.1/x.png' onerror='window.pwned=2'>"
        "<style>body{display:none}</style><iframe src='https://203.0.113.1/'></iframe>"
    )
    tab = opened(page.replace("</main>", smuggled + "</main>"))
    assert tab.run("typeof window.pwned") == "undefined"
    assert tab.run("getComputedStyle(document.body).display") == "block"
    said = " ".join(entry["entry"]["text"] for entry in tab.complaints() if "entry" in entry)
    assert {"script-src", "img-src", "style-src"} <= set(re.findall(r"\w+-src", said))


class Parts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_holds_no_address_handler_or_style_of_its_own(page):
    parts = Parts()
    parts.feed(page)
    for tag, attrs in parts.tags:
        assert tag not in ("iframe", "object", "embed", "base", "svg"), tag
        assert not [name for name in attrs if name.startswith("on") or name == "style"], (tag, attrs)
        for name in ("href", "src", "action", "srcset", "formaction"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:image/png;base64,", "data:image/svg+xml;base64,")) or value == "data:,"
    assert [tag for tag, _ in parts.tags].count("script") == 2
    policy = next(attrs["content"] for tag, attrs in parts.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy


def test_same_verdict_same_page(verdict, page):
    assert report.page(verdict, EVIL) == page
    assert len(page) < 5_000_000 and "\ud800" not in page and "\x00" not in page


@pytest.mark.parametrize("held, step, days", [(10**6, 1, 2), (3000, 2, 1), (13_000, 1, 2)])
def test_the_map_to_read_holds_values_of_true_cells(verdict, monkeypatch, held, step, days):
    monkeypatch.setattr(report, "HELD", held)
    monkeypatch.setattr(report, "_figures", lambda verdict: [])
    made = report.page(verdict)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', made, re.S)[1])
    assert data["grid"]["step"] == step and len(data["days"]) == days
    shape = len(data["layers"]), days, data["grid"]["ny"], data["grid"]["nx"]
    codes = np.frombuffer(base64.b64decode(data["values"]), "<u2").reshape(shape)
    values = np.where(codes == 65535, np.nan, data["offset"] + data["scale"] * codes)
    expected = np.stack([f[:days, ::step, ::step] for f in (verdict.reference, *verdict.maps.values())])
    np.testing.assert_allclose(values, expected, atol=5.1e-6)
    lon, lat = GRID.lonlat()
    np.testing.assert_allclose([data["lon"][-1], data["lat"][-1]], [lon[::step][-1], lat[::step][-1]], atol=1e-6)
    assert (f"One row and column in {step} is" in made) == (step > 1) and ("of 2 days are in this map" in made) == (
        days < 2
    )


# ---- the map is read and moved


@pytest.mark.parametrize("day, row, col", [(0, 0, 0), (0, 10, 20), (1, 44, 35), (0, 4, 4)])
def test_pointing_reads_the_cell(opened, verdict, day, row, col):
    tab = opened()
    choose(tab, "day", day)
    point(tab, row, col)
    said = reading(tab)
    lon, lat = GRID.lonlat()
    assert said.startswith(f"{-lat[row]:.4f}°S, {lon[col]:.4f}°E (row {11466 + row}, column {31401 + col})")
    value, reference = (float(f[day, row, col]) for f in (verdict.maps[EVIL], verdict.reference))
    if np.isnan(value):
        assert f"{EVIL}: missing\nreference: " in said and "left less right: n/a" in said
        return
    found = [float(number) for number in re.findall(r": (\d\.\d{4})", said)]
    np.testing.assert_allclose(found, [value, reference], atol=6e-5)
    difference = float(re.search(r"left less right: ([+−]?\d\.\d{4})", said)[1].replace("−", "-"))
    assert difference == pytest.approx(value - reference, abs=6e-5)


def test_arrow_keys_read_cells_too(opened):
    tab = opened()
    point(tab, 20, 10)
    tab.run("document.getElementById('canvas').focus()")
    tab.key("ArrowDown")
    tab.key("ArrowRight")
    assert f"(row {11466 + 21}, column {31401 + 11})" in reading(tab)
    tab.key("ArrowUp", shift=True)
    tab.key("ArrowLeft", shift=True)
    assert f"(row {11466 + 12}, column {31401 + 2})" in reading(tab)
    for _ in range(5):
        tab.key("ArrowLeft")
    assert "column 31401)" in reading(tab)  # the border holds
    assert tab.run("document.activeElement.id") == "canvas"


def test_the_divider_uncovers_one_map_and_covers_the_other(opened):
    tab = opened()
    tab.run("document.getElementById('edges').click()")  # lines would lie on the colours
    alone = {}
    for layer in (0, 1):
        choose(tab, "left", layer)
        choose(tab, "right", layer)
        alone[layer] = colour(tab, 20, 8), colour(tab, 20, 27)
    assert alone[0] != alone[1]
    choose(tab, "left", 1)
    choose(tab, "right", 0)
    assert colour(tab, 20, 8) == alone[1][0] and colour(tab, 20, 27) == alone[0][1]
    tab.run("document.getElementById('divider').focus()")
    tab.key("ArrowRight")
    assert tab.run("document.getElementById('divider').value") == "501"
    tab.key("End")
    assert colour(tab, 20, 8) == alone[1][0] and colour(tab, 20, 27) == alone[1][1]
    point(tab, 20, 1, kind="Pressed", button="left", buttons=1, clickCount=1)
    point(tab, 20, 1, kind="Released", button="left", clickCount=1)
    assert colour(tab, 20, 8) == alone[0][0] and colour(tab, 20, 27) == alone[0][1]


def test_borders_that_stand_out_are_drawn_on_request(opened, verdict):
    tab = opened()
    assert (verdict.edges[EVIL].q_value < 0.05).any()
    tab.run("document.getElementById('divider').value = 1000;"
            "document.getElementById('divider').dispatchEvent(new Event('input'))")  # fmt: skip
    count = """(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.reduce((n, v, k, a) =>
        n + (k % 4 == 0 && v == 0xc2 && a[k + 1] == 0x18 && a[k + 2] == 0x5b), 0))(document.getElementById('canvas'))"""
    assert tab.run(count) > 500
    tab.run("document.getElementById('edges').click()")
    assert tab.run(count) == 0


# ---- it reads well everywhere


@pytest.mark.parametrize("width, dark", [(360, True), (1300, False)])
def test_it_fits_the_window_and_the_light(opened, width, dark):
    tab = opened(width=width, dark=dark)
    assert tab.run("document.documentElement.scrollWidth") <= width
    paper = [int(v) for v in re.findall(r"\d+", tab.run("getComputedStyle(document.body).backgroundColor"))[:3]]
    ink = [int(v) for v in re.findall(r"\d+", tab.run("getComputedStyle(document.body).color"))[:3]]
    assert (max(paper) < 60 and min(ink) > 200) if dark else (min(paper) > 200 and max(ink) < 60)


def test_on_paper_the_handles_are_gone(opened):
    tab = opened(dark=True)
    tab.media(dark=True, kind="print")
    assert tab.run("getComputedStyle(document.querySelector('.controls')).display") == "none"
    assert tab.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert tab.run("document.getElementById('canvas').offsetWidth") > 200


def test_everything_has_a_name_for_those_who_do_not_see_it(opened):
    tab = opened()
    assert tab.run("Array.from(document.images).every(i => i.alt.length > 20)")
    assert tab.run("Array.from(document.querySelectorAll('select, input')).every(e => e.labels.length)")
    assert tab.run("document.documentElement.lang") == "en"
    assert tab.run("document.querySelectorAll('h1').length") == 1
    assert tab.run(
        "Array.from(document.querySelectorAll('a')).every(a => document.querySelector(a.getAttribute('href')))"
    )


def test_synthetic_is_said(opened):
    assert opened().run("document.querySelector('.synthetic').textContent").startswith("Synthetic:")


# ---- the file


def test_a_page_is_whole_or_not_there(tmp_path, monkeypatch):
    assert report.save("<!doctype html>", tmp_path / "a.html").read_text() == "<!doctype html>"
    with pytest.raises(UnicodeEncodeError):
        report.save("\ud800", tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text() == "<!doctype html>" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "path, message", [("a.pdf", r"ends in \.html, not '\.pdf'"), ("nowhere/a.html", "no folder .*nowhere")]
)
def test_a_path_that_cannot_be_is_known_before_anything_is_read(tmp_path, path, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        report.write(tmp_path / path, None, None)
