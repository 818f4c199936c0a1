"""The rules themselves: each finds the page that breaks it, and none finds fault with a plain good page."""

import base64
import contextlib
import io

import pytest

from browser.screens import Screen, broken_links, opened
from fedlas.plots import LIGHT, new_axes
from fedlas.present import page as pages

pytestmark = pytest.mark.system

STYLE = """:root { color-scheme: light; } body { background: #fff; color: #222; font: 16px sans-serif; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; } body { background: #111; color: #eee; }
}"""
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
GOOD = """<h1>A page</h1><p>Text with a <a href="#more">link</a>.</p><h2 id="more">More</h2>
<table><thead><tr><th scope="col">a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"""
WIDE = "<table><tr><th scope='row' style='position: sticky; left: 0; min-width: {}px'>a</th><td>{}</td></tr></table>"
FAR = "<i style='padding-left: 400px'>w</i>"
PHONE, DESK, NIGHT = Screen("light", 390), Screen("light", 1280), Screen("dark", 1280)


def page(body=GOOD, *, style="", head="<title>t</title>", lang="lang='en'"):
    viewport = "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    return (
        f"<!doctype html><html {lang}><head><meta charset='utf-8'>{viewport}{head}<style>{STYLE}{style}</style></head>"
        f"<body>{body}</body></html>"
    )


def figure(*, at=(0.5, 0.5), size=9, color=None, text="label", background=None, ticks=8):
    """A plot as the pages of the documentation hold them, an image, with one more text in it."""
    axes = plot()
    axes.figure.set_layout_engine("none")
    if background is not None:
        axes.figure.set_facecolor(background)
    axes.tick_params(colors=LIGHT.ink, labelsize=ticks)
    axes.text(*at, text, fontsize=size, color=color or LIGHT.ink)
    file = io.BytesIO()
    axes.figure.savefig(file, format="svg")
    source = f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f"<figure><img src='{source}' alt='A plot' style='width: 340px'></figure>"


def plot():
    axes = new_axes(LIGHT, size=(3.4, 2.6))
    axes.set_facecolor("none")
    axes.tick_params(colors=LIGHT.ink)
    return axes


def inline(**settings):
    """A plot as reports hold them: inline, with the colors of the page."""
    axes = plot()
    axes.text(0.5, 0.5, "label", **{"fontsize": 9, "color": LIGHT.ink, **settings})
    return f"<figure style='width: 340px'>{pages.to_inline_svg(axes, 'A plot')}</figure>"


@pytest.fixture(scope="module")
def look(browser, tmp_path_factory):
    """What is wrong with a page, given as text. One window a screen shows them all, one after the other."""
    path = tmp_path_factory.mktemp("bad") / "page.html"
    path.write_text(page(), encoding="utf-8")
    with contextlib.ExitStack() as stack:
        windows = {
            s: stack.enter_context(opened(browser, path.as_uri(), s)) for s in (PHONE, DESK, NIGHT)
        }

        def faults(html, screen=DESK, *, printed=False):
            path.write_text(html, encoding="utf-8")
            if printed:  # this window stays as wide as paper
                with opened(browser, path.as_uri(), screen) as there:
                    return there.audit(printed=True)
            windows[screen].faults.clear()
            windows[screen].page.goto(path.as_uri())
            return windows[screen].audit()

        yield faults


@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize("screen", [PHONE, DESK, NIGHT], ids=str)
def test_a_good_page_passes(look, screen, printed):
    assert look(page(), screen, printed=printed) == []


@pytest.mark.parametrize("background", [None, "none"], ids=["opaque", "clear"])
def test_a_good_figure_passes(look, background):
    assert look(page(GOOD + figure(background=background)), PHONE) == []


INK = ":root { --ink: #222; --muted: #555; --background: #fff; }"
NIGHT_INK = ":root { --ink: #eee; --muted: #aaa; --background: #111; }"
DARK_INK = f"@media screen and (prefers-color-scheme: dark) {{ {NIGHT_INK} }}"


@pytest.mark.parametrize("screen", [PHONE, DESK, NIGHT], ids=str)
def test_a_good_inline_figure_passes_in_both_themes(look, screen):
    assert look(page(GOOD + inline(), style=INK + DARK_INK), screen) == []


def test_an_inline_figure_of_the_other_theme_is_found(look):
    found = look(page(GOOD + inline(), style=INK), NIGHT)
    assert {fault.split(":")[0] for fault in found} >= {"contrast"}


BAD = [
    ("contrast", GOOD + "<p style='color: #999'>pale</p>", DESK),
    ("contrast", GOOD + "<div style='opacity: .4'><p>faded</p></div>", DESK),
    ("contrast", GOOD + "<p style='color: #222'>dark on dark</p>", NIGHT),
    ("contrast", GOOD + "<p><span style='background: rgb(0 0 0 / 50%)'>behind glass</span></p>", DESK),
    ("contrast", GOOD + "<p style='background: linear-gradient(red, blue)'>on a picture</p>", DESK),
    ("contrast", GOOD + "<svg aria-label='d' width='90' height='40'><text y='20' fill='#bbb'>drawn</text></svg>", DESK),
    ("contrast", GOOD + figure(color="#bbbbbb"), DESK),
    ("contrast", GOOD + inline(color="#bbbbbb"), DESK),
    ("small", GOOD + inline(fontsize=5), PHONE),
    ("theme", GOOD + "<div style='background: #fff; color: #000; height: 200px'>lamp</div>", NIGHT),
    ("theme", GOOD + figure(color="#000000"), NIGHT),
    ("small", GOOD + "<p style='font-size: 10px'>tiny</p>", PHONE),
    ("small", GOOD + "<svg aria-label='d' width='90' viewBox='0 0 180 80'><text y='20'>half</text></svg>", PHONE),
    ("small", GOOD + figure(ticks=5), DESK),
    ("sideways", GOOD + "<div style='width: 500px; height: 9px'></div>", PHONE),
    ("clipped", GOOD + "<p style='white-space: nowrap; overflow: hidden; width: 90px'>more than fits in</p>", DESK),
    ("clipped", GOOD + "<p style='height: 10px; overflow: hidden'>cut<br>below</p>", DESK),
    ("clipped", GOOD + "<p style='position: absolute; left: -40px'>left of the page</p>", DESK),
    ("clipped", GOOD + figure(at=(0.9, 0.5), text="a label too long for its place"), DESK),
    ("empty", GOOD + f"<img src='{PIXEL}' alt='x' style='width: 0'>", DESK),
    ("empty", GOOD + "<p style='font-size: 0'>nothing</p>", DESK),
    ("scroller", GOOD + f"<div tabindex='-1' style='overflow-x: auto'>{WIDE.format(9, 'w' * 300)}</div>", DESK),
    ("scroller", GOOD + f"<div tabindex='0' style='overflow-x: auto'>{WIDE.format(9, FAR)}</div>", PHONE),
    ("scroller", GOOD + f"<div tabindex='0' style='overflow-x: auto'>{WIDE.format(250, 'w' * 99)}</div>", PHONE),
    ("scroller", GOOD + "<pre tabindex='0' style='overflow-x: auto; width: 90px'>a long line of code</pre>", DESK),
    ("overlap", GOOD + "<p>one line</p><p style='margin-top: -30px'>on another</p>", DESK),
    ("overlap", GOOD + figure(at=(0.0, -0.09), text="over the ticks"), DESK),
    ("headings", "<p>no heading</p>", DESK),
    ("headings", GOOD + "<h1>second</h1>", DESK),
    ("headings", GOOD + "<h4>two steps down</h4>", DESK),
    ("image", GOOD + "<img src='data:image/png;base64,AAAA' alt='broken' style='width: 9px; height: 9px'>", DESK),
    ("image", GOOD + f"<figure><img src='{PIXEL}' alt='a'><img src='{PIXEL}' alt='b'></figure>", DESK),
    ("image", GOOD + f"<figure><img src='{PIXEL}' alt='a' hidden></figure>", DESK),
    ("alt", GOOD + f"<img src='{PIXEL}'>", DESK),
    ("alt", GOOD + "<svg width='9' height='9'><path d='M0 0h9v9z'/></svg>", DESK),
    ("table", GOOD + "<table><tr><td>1</td></tr></table>", DESK),
    ("table", GOOD + "<table><thead><tr><th></th><th>a</th></tr></thead></table>", DESK),
    ("table", GOOD + "<table><tr><th>row or column?</th><td>1</td></tr></table>", DESK),
    ("names", GOOD + "<h2 id='more'>Again</h2>", DESK),
    ("names", GOOD + "<h2 id='a name'>Again</h2>", DESK),
    ("names", GOOD + "<p><a href='#more' style='display: block; height: 9px'></a></p>", DESK),
    ("names", GOOD + "<section aria-labelledby='gone'><p>Text</p></section>", DESK),
    ("markup", GOOD + "<p>The ``k``-th of :func:`these`</p>", DESK),
    ("outside", GOOD + "<script>new Image().src = 'https://example.org/counter.gif'</script>", DESK),
    ("console", GOOD + "<script>console.error('no')</script>", DESK),
    ("error", GOOD + "<script>missing()</script>", DESK),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "body", "screen"), BAD, ids=[f"{i}-{rule}" for i, (rule, *_) in enumerate(BAD)]
)
def test_a_bad_page_is_found(look, rule, body, screen):
    found = look(page(body), screen)
    # a refused request is an error of the console, too
    also = {"outside": "console", "theme": "contrast"}.get(rule)
    assert {fault.split(":")[0] for fault in found} - {also} == {rule}, found


@pytest.mark.parametrize(
    ("html", "rule"),
    [
        (page(lang=""), "head"),
        (page(head=""), "head"),
        (page().replace("viewport", "view"), "head"),
    ],
    ids=["lang", "title", "viewport"],
)
def test_a_bad_head_is_found(look, html, rule):
    assert {fault.split(":")[0] for fault in look(html)} == {rule}


@pytest.mark.parametrize(
    ("style", "rules"),
    [
        ("@media print { p { color: #bbb; } }", {"contrast", "print"}),
        ("@media print { p, a { color: #fff; background: #000; } }", {"print"}),
        (
            "@media (prefers-color-scheme: dark) { body, a { background: #111; color: #eee; } }",
            {"print", "theme"},
        ),
        ("@media print { p { width: 900px; } }", {"sideways"}),
    ],
    ids=["pale", "white on black", "dark", "wide"],
)
def test_a_bad_print_is_found(look, style, rules):
    assert look(page(style=style), NIGHT) == []
    assert {fault.split(":")[0] for fault in look(page(style=style), NIGHT, printed=True)} == rules


def test_broken_links_are_found(browser, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    for place in (inside / "there.csv", tmp_path / "outside.csv"):
        place.write_text("1")
    good = ["there.csv", "#more", "https://example.org/", "page.html#more"]
    bad = ["gone.csv", "#gone", "../outside.csv", "javascript:void(0)"]
    links = "".join(f"<p><a href='{href}'>{href}</a></p>" for href in good + bad)
    (inside / "page.html").write_text(page(GOOD + links))
    with opened(browser, (inside / "page.html").as_uri(), DESK) as there:
        found = broken_links(there.page, inside)
    assert [href.rsplit("/", 1)[-1] for href in found] == [
        "gone.csv",
        "page.html#gone",
        "outside.csv",
        bad[-1],
    ]


def test_a_folded_part_that_stays_shut_is_found(browser, tmp_path):
    stuck = "<details><summary onclick='event.preventDefault()'>More</summary><p>Text</p></details>"
    (tmp_path / "page.html").write_text(page(GOOD + stuck))
    address = (tmp_path / "page.html").as_uri()
    with opened(browser, address, DESK) as there, pytest.raises(AssertionError, match="stays shut"):
        there.open_all()
