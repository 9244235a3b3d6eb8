"""The HTML page that shows the figures. It needs no other file than those beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

__all__ = ["figure", "page", "section", "table"]

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 1500px; margin: 2rem auto; padding: 0 1rem; }}
p {{ max-width: 75ch; }}
img {{ max-width: 100%; }}
th, td {{ padding: 0.2rem 0.7rem; text-align: left; border-bottom: 1px solid #8884; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole page from HTML parts."""
    return _PAGE.format(title=escape(title), body="\n".join(parts))


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


def table(heading: str, file: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table with a colour before each row.

    Args:
        heading: Text above the table.
        file: CSV file beside the page with the same content.
        columns: Column headings.
        rows: Hexadecimal colour and cells of each row.
    """
    head = "".join(f"<th>{escape(column)}</th>" for column in ["", *columns])
    body = "\n".join(
        f'<tr><td style="background:{colour}"></td>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for colour, cells in rows
    )
    link = f'<a href="{quote(file)}">{escape(file)}</a>'
    return f"<h3>{escape(heading)}</h3>\n<p>As CSV: {link}</p>\n<table>\n<tr>{head}</tr>\n{body}\n</table>"
