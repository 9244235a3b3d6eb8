"""The HTML page that shows the figures. It needs no other file than those beside it."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

__all__ = ["figure", "page", "section", "table"]


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole page from HTML parts."""
    template = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), body="\n".join(parts))


def section(heading: str, *paragraphs: str) -> str:
    """Return a heading, unless it is empty, and paragraphs of plain text."""
    lines = [f"<h2>{escape(heading)}</h2>"] if heading else []
    return "\n".join(lines + [f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs])


def figure(file: str, caption: str) -> str:
    """Return an image that lies beside the page, with its caption."""
    return (
        f'<figure><a href="{quote(file)}"><img src="{quote(file)}" alt="{escape(caption)}"></a>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def table(heading: str, file: str, rows: Sequence[Iterable[object]], colours: Iterable[str]) -> str:
    """Return a table that is also in a CSV file, with a colour before each row after the first."""
    lines = []
    for colour, row in zip(["", *colours], rows, strict=True):
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        lines.append(f'<tr><td style="background:{colour}"></td>{cells}</tr>')
    link = f'<a href="{quote(file)}">{escape(file)}</a>'
    return "\n".join([f"<h3>{escape(heading)}</h3>", f"<p>As CSV: {link}</p>", "<table>", *lines, "</table>"])
