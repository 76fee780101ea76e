"""Parts of a printed page: headings, paragraphs, lists and grids, for the terminal, Markdown and LaTeX."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

_READABLE = 110  # columns of a paragraph, however wide the terminal
_GAP = 2
_NAMES = (1000, 36, 26, 18)  # widths that names may be folded to, tried in this order
_TONES = {"better": "green", "worse": "red", "equal": "cyan", "open": "yellow", "quiet": "dim", "": ""}
_HOSTILE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "▲": r"$\uparrow$", "▼": r"$\downarrow$", "≈": r"$\approx$", "·": r"$\cdot$",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a table is shown.

    Attributes
    ----------
    format : str
        ``text``, ``markdown``, ``latex``, ``csv`` or ``json``.
    width : int
        Columns of the terminal; grids fit it.
    colour : bool
        Whether it takes colours and links (a terminal, no ``NO_COLOR``).
    verbose : bool
        Show the workings too.
    costs : tuple of str
        Columns of cost, see :data:`.COSTS`.
    prices : mapping
        Prices of language models, see :func:`.price_table`.
    """

    format: str = "text"
    width: int = 120
    colour: bool = False
    verbose: bool = False
    costs: tuple[str, ...] = ("training",)
    prices: dict[str, Any] = field(default_factory=dict)


LOOK = Look()
"""As in a file."""


@dataclass(frozen=True)
class Cell:
    """A cell of a grid.

    Attributes
    ----------
    text : str
        What it says.
    bold : bool
        Whether it is the best value.
    below : str
        What follows the text, and stands below it where the line is too narrow.
    mark : str
        A sign behind it.
    tone : str
        ``better``, ``worse``, ``equal``, ``open`` or ``quiet`` colours the sign, or the cell where it has none.
    link : str
        Address behind the text, where a terminal takes links.
    """

    text: str
    bold: bool = False
    below: str = ""
    mark: str = ""
    tone: str = ""
    link: str = ""

    @property
    def line(self) -> str:
        """All of it on one line."""
        return " ".join(filter(None, (self.text.strip(), self.below, self.mark.strip())))


class Page:
    """How the parts of a page look: text that fits a terminal, Markdown, or LaTeX."""

    def __init__(self, look: Look) -> None:
        self.look, self.format = look, look.format
        self._escaped = {"markdown": _for_markdown, "latex": _for_latex}.get(look.format, clean)

    def title(self, text: str) -> str:
        """The page's first line."""
        shown = {"markdown": f"## {self._escaped(text)}\n", "latex": f"\\section*{{{self._escaped(text)}}}"}
        return shown.get(self.format) or self._strong(clean(text))

    def heading(self, title: str, reason: str = "") -> str:
        """A part's name, and what it holds."""
        name, about = self._escaped(title), self._escaped(reason)
        if self.format == "markdown":
            return f"\n**{name}**" + (f": {about}\n" if about else "\n")
        if self.format == "latex":
            return f"\n\\paragraph{{{name}}} {about}"
        return f"\n{self._strong(name)}" + (f"\n{self.text(reason)}" if reason else "")

    def text(self, text: str) -> str:
        """A paragraph."""
        return self._escaped(text) if self.format != "text" else self._filled(text)

    def lines(self, lines: Sequence[str]) -> str:
        """A list."""
        if self.format == "markdown":
            return "\n" + "\n".join(f"- {self._escaped(line)}" for line in lines)
        if self.format == "latex":
            items = [f"\\item {self._escaped(line)}" for line in lines]
            return "\n".join(["\\begin{itemize}", *items, "\\end{itemize}"]) if items else ""
        return "\n" * bool(lines) + "\n".join(self._filled(line, "    ") for line in lines)

    def grid(self, rows: Sequence[Sequence[Cell]], least: Sequence[int] = ()) -> str:
        """A table; the first row is its head.

        Parameters
        ----------
        rows : sequence of sequence of Cell
            Of equal length.
        least : sequence of int
            Columns that may be left out where a terminal is too narrow, the least important one first.
        """
        if self.format == "text":
            return self._fitted(rows, list(least))
        from tabulate import tabulate

        head, *body = [[self._marked_up(cell) for cell in row] for row in rows]
        align = ("left", *["right"] * (len(head) - 1))
        if self.format == "markdown":
            return tabulate(body, head, tablefmt="pipe", colalign=align, disable_numparse=True)
        lines = [f"{' & '.join(row)} \\\\" for row in body]
        shape = "l" + "r" * (len(head) - 1)
        top = [f"\\begin{{tabular}}{{{shape}}}", "\\toprule", f"{' & '.join(head)} \\\\", "\\midrule"]
        return "\n".join([*top, *lines, "\\bottomrule", "\\end{tabular}"])

    def across(self, rows: Sequence[Sequence[Cell]], most: int = 6) -> str:
        """A table whose columns are alike: several tables of at most so many of them, and of no more than fit."""
        while True:
            starts = range(1, len(rows[0]), most)
            parts = [[[row[0], *row[start : start + most]] for row in rows] for start in starts]
            parts = [[row for row in part if any(cell.text for cell in row[1:])] for part in parts]
            fit = all(_total(_widths(part, True, _NAMES[1])) <= self.look.width for part in parts)
            if fit or most == 1 or self.format != "text":
                return "\n\n".join(self.grid(part) for part in parts)
            most -= 1

    def _marked_up(self, cell: Cell) -> str:
        text = self._escaped(cell.line)
        strong = "**{}**" if self.format == "markdown" else "\\textbf{{{}}}"
        return strong.format(text) if cell.bold else text

    def _fitted(self, rows: Sequence[Sequence[Cell]], least: list[int]) -> str:
        """The grid in the terminal's width: on one line, then folded, then without the least important columns."""
        everything = list(range(len(rows[0])))
        for gone in range(len(least) + 1):
            columns = [column for column in everything if column not in least[:gone]]
            kept = [[row[column] for column in columns] for row in rows]
            for folded, most in product((False, True), _NAMES):
                widths = _widths(kept, folded, most)
                if _total(widths) <= self.look.width or (gone == len(least) and folded and most == _NAMES[-1]):
                    return self._drawn(kept, widths, folded) + self._left_out(rows, least[:gone])
        raise AssertionError("the narrowest grid is taken as it is")

    def _left_out(self, rows: Sequence[Sequence[Cell]], gone: Sequence[int]) -> str:
        if not gone:
            return ""
        names = ", ".join(rows[0][column].text for column in sorted(gone))
        wide = min(_total(_widths(rows, True, most)) for most in _NAMES)
        return "\n" + self._filled(f"(too narrow for {names}: {wide} columns or --format json show them)")

    def _drawn(self, rows: Sequence[Sequence[Cell]], widths: Sequence[int], folded: bool) -> str:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
        marked = [any(row[column].mark for row in rows) for column in range(len(widths))]
        for column, width in enumerate(widths):
            head = clean(rows[0][column].text) + "  " * (marked[column] and not folded and column > 0)
            table.add_column(head, width=width, justify="right" if column else "left", overflow="fold")
        for row in rows[1:]:
            table.add_row(*(self._rich(cell, folded, mark) for cell, mark in zip(row, marked, strict=True)))
        return self._printed(table, _total(widths))

    def _rich(self, cell: Cell, folded: bool, marked: bool) -> Any:
        from rich.text import Text

        whole = " ".join(filter(None, ("bold" if cell.bold else "", "" if cell.mark else _TONES[cell.tone])))
        link = f" link {cell.link}" if cell.link else ""
        found = Text(clean(cell.text), style=f"{whole}{link}".strip())
        if cell.below and not folded:
            found.append(f" {clean(cell.below)}", style=whole)
        if marked:
            found.append(f" {cell.mark or ' '}", style=f"{whole} {_TONES[cell.tone]}".strip())
        if cell.below and folded:
            found.append(f"\n{clean(cell.below)}{'  ' * marked}", style=whole)
        return found

    def _printed(self, what: Any, width: int) -> str:
        from io import StringIO

        from rich.console import Console

        file = StringIO()
        colours: Any = "standard" if self.look.colour else None
        console = Console(
            file=file, width=width, force_terminal=self.look.colour, color_system=colours, markup=False, emoji=False,
            highlight=False, legacy_windows=False, no_color=not self.look.colour, _environ={},
        )  # fmt: skip
        console.print(what)
        return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))

    def _strong(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self.look.colour else text

    def _filled(self, text: str, indent: str = "") -> str:
        width = min(self.look.width, _READABLE)
        return textwrap.fill(
            clean(text), width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
        )


def _widths(rows: Sequence[Sequence[Cell]], folded: bool, most: int) -> list[int]:
    """Width of each column; names, in the first, are folded where they are wider than ``most``."""
    from rich.cells import cell_len

    widths = []
    for column in range(len(rows[0])):
        cells = [row[column] for row in rows]
        mark = 2 * any(cell.mark for cell in cells)
        head = clean(cells[0].text)
        found = [max(map(cell_len, head.split()), default=0) if folded and column else cell_len(head) + mark]
        for cell in cells[1:]:
            text, below = cell_len(clean(cell.text)), cell_len(clean(cell.below))
            found.append(mark + (max(text, below) if folded else text + below + bool(below)))
        widths.append(min(max(found), most) if column == 0 else max(found))
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def clean(text: str) -> str:
    """Text without signs that steer a terminal or turn the direction of writing: names from data may hold some."""
    return _HOSTILE.sub(lambda sign: " " if sign[0] == "\t" else f"\\x{ord(sign[0]):02x}", text)


def _for_markdown(text: str) -> str:
    """Text that Markdown shows as it is: names from data must not become markup."""
    text = clean(text)
    for sign in "\\`*_|<>":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return text


def _for_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in clean(text))
