"""Parts of a printed page: headings, paragraphs, lists and grids, for the terminal and for Markdown."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

_WIDTH = 110


@dataclass(frozen=True)
class Cell:
    """A cell of a grid; ``bold`` marks the best value."""

    text: str
    bold: bool = False


class Page:
    """How the parts of a page look: aligned text, or Markdown.

    Parameters
    ----------
    markdown : bool
        Write Markdown.
    colour : bool
        Mark what is strong by an escape sequence (a terminal).
    """

    def __init__(self, markdown: bool, colour: bool) -> None:
        self.markdown, self.colour = markdown, colour and not markdown

    def title(self, text: str) -> str:
        """The page's first line."""
        return f"## {_escaped(text)}\n" if self.markdown else self._strong(text)

    def heading(self, title: str, reason: str) -> str:
        """A part's name, and what it holds."""
        if self.markdown:
            return f"\n**{_escaped(title)}**: {_escaped(reason)}\n"
        return f"\n{self._strong(title)}\n{self.text(reason)}"

    def text(self, text: str) -> str:
        """A paragraph."""
        return f"{_escaped(text)}" if self.markdown else _filled(text)

    def lines(self, lines: list[str]) -> str:
        """A list."""
        if self.markdown:
            return "\n" + "\n".join(f"- {_escaped(line)}" for line in lines)
        return "\n" * bool(lines) + "\n".join(_filled(line, "    ") for line in lines)

    def grid(self, rows: list[list[Cell]]) -> str:
        """A table; the first row is its head."""
        if self.markdown:
            body = ["| " + " | ".join(self._markdown_cell(cell) for cell in row) + " |" for row in rows]
            rule = "|" + "|".join(["---"] + ["---:"] * (len(rows[0]) - 1)) + "|"
            return "\n".join([body[0], rule, *body[1:]])
        widths = [max(len(row[column].text) for row in rows) for column in range(len(rows[0]))]
        lines = []
        for row in rows:
            padded = [
                cell.text.ljust(width) if column == 0 else cell.text.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            shown = [self._strong(text) if cell.bold else text for text, cell in zip(padded, row, strict=True)]
            lines.append("  ".join(shown).rstrip())
        return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])

    def _markdown_cell(self, cell: Cell) -> str:
        text = _escaped(cell.text.strip())
        return f"**{text}**" if cell.bold else text

    def _strong(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self.colour else text


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: names from data must not become markup."""
    for sign in "\\`*_|<>":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return text
