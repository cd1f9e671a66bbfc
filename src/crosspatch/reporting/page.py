"""A report as one page: what a section may consist of, and how it becomes HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import jinja2
from markupsafe import Markup

from crosspatch.drawing.style import NARROW, WIDE, save_figure
from crosspatch.errors import CrosspatchError
from crosspatch.reporting.numbers import Content, refuse_bare
from crosspatch.telling import Progress
from crosspatch.writing import make_folder, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

#: The largest page, bytes.
MOST_BYTES = 5_000_000

# A drawing of more bytes than this goes into the page as points, not as lines.
_MOST_LINES = 60_000
# Points of an inch, as it is saved and in the page.
_PRINT, _SCREEN = 300, 150
# What figures are made smaller by, one after the other, until the page is small enough.
_SCALES = (1.0, 0.7, 0.5)


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: Content
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `style` is ``plain``, ``verdict`` or ``warning``."""

    text: Content
    style: str = "plain"
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Points:
    """A list."""

    items: Sequence[Content]
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Commands:
    """Lines to be typed into a terminal."""

    lines: Sequence[str]
    kind: ClassVar[str] = "commands"


@dataclass(frozen=True)
class TableBlock:
    """A table."""

    caption: Content
    header: Sequence[Content]
    rows: Sequence[Sequence[Content]]  # Names, and numbers as references
    #: How many columns, from the left, are text; the others are numbers and stand to the right.
    texts: int = 1
    last_text: bool = False  # whether the last column is text too, and long
    #: Whether it is shown only when the reader opens it; the caption is what to click on.
    folded: bool = False
    #: What stands under each row, in the table's whole width; empty where nothing does.
    notes: Sequence[Content] = ()
    kind: ClassVar[str] = "table"

    def look(self, column: int) -> str:
        """Class of a column: ``name``, ``number``, or ``prose``, which may be broken."""
        if self.last_text and column == len(self.header) - 1:
            return "prose"
        return "name" if column < self.texts else "number"


@dataclass(frozen=True)
class Picture:
    """A figure."""

    name: str  # of its files, without ending; unlike all others of a report
    draw: Callable[[float], Figure]  # takes a width in inches
    alt: str  # what it shows and what is to be seen in it, for those who do not see it
    caption: Content
    #: Whether it is slow to draw and full of lines: then it is drawn once, as points, and on a
    #: narrow screen the reader moves it from side to side.
    large: bool = False
    kind: ClassVar[str] = "picture"


Block = Heading | Paragraph | Points | Commands | TableBlock | Picture


@dataclass(frozen=True)
class Section:
    """A part of the page with a title."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class _Drawn:
    """A figure in one width, as lines and as points; without lines the page has its points."""

    svg: bytes | None
    image: Callable[[], Image]
    width: int  # CSS pixels
    height: int

    def shown(self, scale: float) -> dict[str, str | tuple[str, str]]:
        """What the page has of it: the figure itself, and its size."""
        return {"uri": self.uri(scale), "size": (str(self.width), str(self.height))}

    def uri(self, scale: float) -> str:
        """It in the page itself: lines where they are few, else 256 colours of points."""
        if self.svg is not None and len(self.svg) <= _MOST_LINES * scale**2:
            return _data_uri(self.svg, "svg+xml")
        from PIL.Image import Dither, Quantize, Resampling

        image = self.image()
        if scale < 1:
            size = round(image.width * scale), round(image.height * scale)
            image = image.resize(size, Resampling.LANCZOS)
        few = image.quantize(256, Quantize.MEDIANCUT, dither=Dither.NONE)
        stream = io.BytesIO()
        few.save(stream, format="png", optimize=True)
        return _data_uri(stream.getvalue(), "png")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def write_page(
    out: Path,
    title: str,
    sections: Sequence[Section],
    *,
    banner: str = "",
    beside: bool = True,
    again: int | None = None,
    most_bytes: int | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write a page, and its figures to a folder ``<stem>_figures`` beside it.

    Sections without blocks are left out; the banner is a warning above everything. Figures are in
    the page in any case, `beside` is whether they are files too, and they are made coarser until
    the page has no more than `most_bytes`, or `MOST_BYTES`. A browser loads it `again` after so
    many seconds, if any. Gives back what was written, the page
    first; raises a CrosspatchError if it cannot be.
    """
    if out.is_dir():
        raise CrosspatchError(
            f"{out} is a folder; give the report a file name, such as report.html"
        )
    sections = [section for section in sections if section.blocks]
    pictures = [b for section in sections for b in section.blocks if isinstance(b, Picture)]
    folder = out.with_name(f"{out.stem}_figures") if beside and pictures else out.parent
    make_folder(folder, CrosspatchError)
    tell = progress or (lambda done, total: None)
    drawn: dict[str, dict[str, _Drawn]] = {}
    written: list[Path] = []
    for done, picture in enumerate(pictures):
        tell(done, len(pictures))
        files_of = [folder / f"{picture.name}.{ending}" for ending in ("png", "svg")] * beside
        drawn[picture.name] = _drawn(picture, files_of)
        written += files_of
    html = _page(title, sections, banner, drawn, again, most_bytes or MOST_BYTES)
    with replacing(out, CrosspatchError) as temporary:
        temporary.write_text(html, encoding="utf-8")
    tell(len(pictures), len(pictures))
    return [out, *written]


def _drawn(picture: Picture, beside: Sequence[Path]) -> dict[str, _Drawn]:
    """A figure in each width it is needed in; as files too, if there are to be any."""
    both = {"wide": _saved(picture, *beside) if beside else _unsaved(picture, WIDE)}
    if not picture.large:
        both["narrow"] = _unsaved(picture, NARROW)
    return both


def _placed(picture: Picture, width: float) -> Figure:
    figure = picture.draw(width)
    figure.draw_without_rendering()
    # Placed once; saving it in several formats need not place everything again.
    figure.set_layout_engine("none")
    return figure


def _saved(picture: Picture, png: Path, svg: Path) -> _Drawn:
    """Write the files of a figure, and take from them what goes into the page."""
    from PIL.Image import Resampling
    from PIL.Image import open as open_image

    figure = _placed(picture, WIDE)
    save_figure(figure, png, dpi=_PRINT)
    save_figure(figure, svg, dpi=_PRINT)

    def image() -> Image:
        with open_image(png) as saved:
            smaller = saved.width * _SCREEN // _PRINT, saved.height * _SCREEN // _PRINT
            return saved.convert("RGB").resize(smaller, Resampling.LANCZOS)

    return _Drawn(None if picture.large else svg.read_bytes(), image, *_pixels(figure))


def _unsaved(picture: Picture, width: float) -> _Drawn:
    """A figure that goes into the page only."""
    from matplotlib import rc_context
    from PIL.Image import open as open_image

    figure = _placed(picture, width)

    @cache
    def image() -> Image:
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=_SCREEN)
        return open_image(png).convert("RGB")

    if picture.large:
        # Drawn now, while the reader is told how far it is, and the figure need not be kept.
        drawn = image()
        return _Drawn(None, lambda: drawn, *_pixels(figure))
    svg = io.BytesIO()
    with rc_context({"svg.hashsalt": "crosspatch"}):
        figure.savefig(svg, format="svg", metadata={"Date": None}, dpi=_SCREEN)
    return _Drawn(svg.getvalue(), image, *_pixels(figure))


def _pixels(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches()
    return round(96 * width), round(96 * height)


def _page(
    title: str,
    sections: Sequence[Section],
    banner: str,
    drawn: Mapping[str, Mapping[str, _Drawn]],
    again: int | None,
    most_bytes: int,
) -> str:
    """The page, its figures as coarse as they must be."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("crosspatch.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=refuse_bare,  # no number that does not say where it is from
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html")
    css = (files("crosspatch.reporting") / "templates" / "report.css").read_text("utf-8")
    style = Markup(css)  # noqa: S704, our own file
    for scale in _SCALES:
        figures = {
            name: {"number": str(number)} | {width: one.shown(scale) for width, one in both.items()}
            for number, (name, both) in enumerate(drawn.items(), 1)
        }
        html = template.render(
            title=title,
            sections=sections,
            banner=banner,
            figures=figures,
            style=style,
            again="" if again is None else str(again),
        )
        if len(html.encode()) <= most_bytes:
            break
    return html
