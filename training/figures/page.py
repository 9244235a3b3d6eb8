"""The page that shows the pictures: one HTML file without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

__all__ = ["figure", "names_table", "page", "section"]

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --quiet: light-dark(#5c5f66, #a6a9b0); }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 2rem auto; padding: 0 1.2rem; }}
h1 {{ margin-bottom: 0; }} h2 {{ margin-top: 3rem; border-bottom: 1px solid var(--line); }}
p, figcaption {{ max-width: 75ch; }} figcaption, .quiet {{ color: var(--quiet); }}
figure {{ margin: 1rem 0 2rem; }}
img {{ max-width: 100%; height: auto; background: white; border: 1px solid var(--line); border-radius: 6px; }}
.scroll {{ max-height: 36rem; overflow: auto; border: 1px solid var(--line); border-radius: 6px; }}
table {{ border-collapse: collapse; width: 100%; font-size: 0.9rem; }}
th {{ position: sticky; top: 0; background: Canvas; text-align: left; box-shadow: 0 1px var(--line); }}
th, td {{ padding: 0.25rem 0.7rem; vertical-align: top; }} td {{ border-top: 1px solid var(--line); }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.chip {{ display: inline-block; width: 0.9em; height: 0.9em; border-radius: 2px; vertical-align: -0.1em; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: Text.
        parts: HTML, from the functions here.
    """
    return _PAGE.format(title=escape(title), body="\n".join(parts))


def section(heading: str, *paragraphs: str) -> str:
    """A heading with text under it; both plain text."""
    text = "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)
    return f"<h2>{escape(heading)}</h2>\n{text}" if heading else text


def figure(file: str, size: tuple[int, int], alt: str, caption: str) -> str:
    """A picture that lies beside the page.

    Args:
        file: Its name.
        size: Its (W, H) in pixels.
        alt: What it shows, for those who do not see it.
        caption: Text under it.
    """
    image = f'<img src="{quote(file)}" width="{size[0]}" height="{size[1]}" alt="{escape(alt)}">'
    return f'<figure><a href="{quote(file)}">{image}</a><figcaption>{escape(caption)}</figcaption></figure>'


def names_table(
    title: str, file: str, headings: Sequence[str], rows: Sequence[tuple[Sequence[int], Sequence[str]]]
) -> str:
    """A table of clusters.

    Args:
        title: Over it.
        file: The same as a file beside the page.
        headings: Of the columns; the first is the cluster, the last are its names and what it began as, those
            between are numbers.
        rows: Of each cluster its RGB colour and the cells.
    """
    numbers = range(1, len(headings) - 2)

    def cells(tag: str, values: Sequence[str], chip: str = "") -> str:
        marked = (
            f"<{tag}{' class=number' if i in numbers else ''}>{chip if i == 0 else ''}{escape(value)}</{tag}>"
            for i, value in enumerate(values)
        )
        return f"<tr>{''.join(marked)}</tr>"

    body = "\n".join(
        cells(
            "td", values, '<span class="chip" style="background:#{:02x}{:02x}{:02x}"></span> '.format(*colour)
        )
        for colour, values in rows
    )
    link = f'<a href="{quote(file)}">{escape(file)}</a>'
    return (
        f'<h3>{escape(title)}</h3>\n<p class="quiet">The same as a file: {link}</p>\n'
        f'<div class="scroll"><table>\n<thead>{cells("th", headings)}</thead>\n<tbody>\n{body}\n</tbody>\n'
        "</table></div>"
    )
