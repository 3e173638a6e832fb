"""Plots as inline SVG: drawn by matplotlib, coloured by the page's style sheet."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from textadv.card.escape import visible
from textadv.errors import ResourceError
from textadv.metrics import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MARKERS", "Line", "legend", "line_plot", "scatter_plot"]

# The style sheet gives each of these a shade for light and one for dark.
COLOURS = ("#1f6f8b", "#b4532a", "#5a7d2a", "#7a4b9a", "#a8801a", "#3f5b8a", "#8a3b57", "#4d6b66")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LETTER_PLACES = ((7, 7), (-14, 7), (7, -15), (-14, -15))
INK, FAINT = "#222222", "#dddddd"
DASHES = ("-", "--", "-.", ":")

_STROKES = ("", "6 3", "6 3 2 3", "2 3")
_SHAPES = {
    "o": '<circle cx="16" cy="6" r="3.5" fill="{c}"/>',
    "s": '<path d="M12.5 2.5h7v7h-7z" fill="{c}"/>',
    "^": '<path d="M16 2l4 7.5h-8z" fill="{c}"/>',
    "D": '<path d="M16 1.5l4.5 4.5-4.5 4.5-4.5-4.5z" fill="{c}"/>',
    "v": '<path d="M16 10l4-7.5h-8z" fill="{c}"/>',
    "P": '<path d="M14.5 2h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z" fill="{c}"/>',
    "X": '<path d="M12.5 2.5l7 7m0-7l-7 7" stroke="{c}" stroke-width="2.6" fill="none"/>',
    "*": '<path d="M16 1.5l1.3 3.2 3.4.2-2.6 2.2.8 3.4-2.9-1.8-2.9 1.8.8-3.4-2.6-2.2 3.4-.2z" '
    'fill="{c}"/>',
}

_SVG = "http://www.w3.org/2000/svg"
_FONT_SIZE = re.compile(r"([\d.]+)px")

Line = Sequence[tuple[float, int, int]]
"""Points: a place on the horizontal axis, and examples that stand of how many."""


def line_plot(
    lines: Sequence[Line],
    *,
    label: str,
    xlabel: str,
    prefix: str,
    logarithmic: bool = False,
    steps: bool = False,
) -> str:
    """Return accuracy against something, one line each with its 95 % band, as inline SVG.

    Args:
        lines: One per model or attack, in the order of `COLOURS` and `MARKERS`.
        label: What a screen reader says.
        xlabel: Of the horizontal axis.
        prefix: Makes ids unique in the page.
        logarithmic: Scale of the horizontal axis.
        steps: Whether a value holds until the next one.
    """
    figure, axes = _figure()
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        places = [place for place, _, _ in line]
        intervals = [wilson_interval(k, n) for _, k, n in line]
        kind: Any = "post" if steps else None
        axes.fill_between(
            places,
            [100 * low for low, _ in intervals],
            [100 * high for _, high in intervals],
            color=colour,
            alpha=0.12,
            linewidth=0,
            step=kind,
        )
        axes.plot(
            places,
            [100 * k / max(n, 1) for _, k, n in line],
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            markersize=3.2 if steps else 4.5,
            linewidth=1.6,
            linestyle=DASHES[number % len(DASHES)],
            drawstyle="steps-post" if steps else "default",
        )
    if logarithmic:
        axes.set_xscale("log")
        from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 3)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set(ylim=(-2, 102), xlabel=xlabel, ylabel="accuracy, %")
    return _inline(figure, prefix, label)


def scatter_plot(
    points: Sequence[tuple[tuple[int, int], tuple[int, int]]],
    *,
    label: str,
    xlabel: str,
    ylabel: str,
    prefix: str,
) -> str:
    """Return one shape with 95 % intervals per pair of shares `(k, n)`, as inline SVG."""
    figure, axes = _figure()
    for number, (first, second) in enumerate(points):
        colour = COLOURS[number % len(COLOURS)]
        across, up = (100 * k / max(n, 1) for k, n in (first, second))
        spans = []
        for k, n in (first, second):
            low, high = wilson_interval(k, n)
            value = k / max(n, 1)
            spans.append([[100 * max(value - low, 0)], [100 * max(high - value, 0)]])
        axes.errorbar(
            across,
            up,
            xerr=spans[0],
            yerr=spans[1],
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            markersize=7,
            elinewidth=1.1,
            capsize=3,
        )
        axes.annotate(
            chr(ord("A") + number % 26),
            (across, up),
            xytext=LETTER_PLACES[number % len(LETTER_PLACES)],
            textcoords="offset points",
            color=INK,
            fontsize=11,
        )
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(0.15)
    return _inline(figure, prefix, label)


def legend(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return name, colour, dashes and marker of each line of a plot, for the page to draw."""
    from markupsafe import Markup

    found = []
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        shape = _SHAPES[MARKERS[number % len(MARKERS)]].format(c=colour)
        dash = _STROKES[number % len(_STROKES)]
        row = {"name": visible(name), "colour": colour, "dash": dash, "shape": Markup(shape)}
        found.append(row)
    return found


def _figure() -> tuple[Figure, Axes]:
    if importlib.util.find_spec("matplotlib") is None:
        raise ResourceError(
            "report", got="no matplotlib", expected="it", fix="pip install 'textadv[report]'"
        )
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.5), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelcolor=INK, labelsize=10)
    axes.xaxis.label.set(color=INK, fontsize=10.5)
    axes.yaxis.label.set(color=INK, fontsize=10.5)
    axes.yaxis.labelpad = 8
    axes.grid(True, color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _inline(figure: Figure, prefix: str, label: str) -> str:
    """Return the figure as SVG without style sheets, so that a strict page can hold it."""
    import matplotlib

    settings = {"svg.fonttype": "none", "svg.hashsalt": prefix, "text.parse_math": False}
    target = io.StringIO()
    with matplotlib.rc_context(settings):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(target.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)
    for element in root.iter():
        _plain(element, prefix)
    width, height = (root.attrib.pop(side).removesuffix("pt") for side in ("width", "height"))
    root.attrib.pop("version", None)
    root.attrib |= {
        "class": "plot",
        "role": "img",
        "aria-label": label,
        "viewBox": f"0 0 {width} {height}",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _plain(element: ElementTree.Element, prefix: str) -> None:
    """Turn a style attribute into attributes, and make ids the page's own."""
    for entry in filter(None, element.attrib.pop("style", "").split(";")):
        name, _, value = (part.strip() for part in entry.partition(":"))
        if name == "font":
            size = _FONT_SIZE.search(value)
            element.set("font-size", size.group(1) if size else "10")
        else:
            element.set(name, value)
    for name, value in list(element.attrib.items()):
        if name == "id":
            element.set("id", f"{prefix}-{value}")
        elif value.startswith("url(#"):
            element.set(name, f"url(#{prefix}-{value[5:]}")
        elif name.endswith("}href"):
            del element.attrib[name]
            element.set("href", f"#{prefix}-{value.removeprefix('#')}")
