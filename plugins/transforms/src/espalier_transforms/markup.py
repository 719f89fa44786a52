"""Text without its HTML: known tags out, blocks apart, entities read; what only looks like a tag stays."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

# fmt: off
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header",
    "hr", "html", "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tbody",
    "tfoot", "thead", "title", "tr", "ul",
))
_INLINE = frozenset((
    "a", "abbr", "acronym", "b", "base", "bdi", "bdo", "big", "button", "center", "cite", "code", "col", "colgroup",
    "data", "datalist", "del", "dfn", "dir", "embed", "em", "font", "frame", "frameset", "i", "iframe", "img",
    "input", "ins", "kbd", "label", "link", "map", "mark", "meta", "meter", "nobr", "object", "optgroup", "output",
    "param", "picture", "progress", "q", "rp", "rt", "ruby", "s", "samp", "select", "small", "source", "span",
    "strike", "strong", "sub", "sup", "svg", "textarea", "time", "track", "tt", "u", "var", "video", "audio", "wbr",
))
# fmt: on
_CELLS = frozenset(("td", "th"))
_TAGS = _BLOCKS | _CELLS | _INLINE
# Only what is closed is silent: in "I put <script> on my page and ..." the words after it are the writer's.
_CLOSED_SILENT = re.compile(r"<(script|style|noscript|template)\b[^<>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_OPEN_SILENT = re.compile(r"</?(?:script|style|noscript|template)\b[^<>]*>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")
# The parser reads `&copy=2` in a link as a sign. Ampersands are hidden from it; controls are gone by then.
_HIDDEN = "\x00"


def without_markup(text: str) -> str:
    """Returns a text without HTML tags, comments, scripts and styles, and with its entities as characters.

    `a < b`, `<3` and `<EMAIL>` stay, because only names of HTML elements are tags.
    """
    if "<" in text:
        text = _OPEN_SILENT.sub("", _CLOSED_SILENT.sub(" ", text))
    if "<" in text:
        parser = _Parser()
        parser.feed(text.replace("&", _HIDDEN))
        parser.close()
        text = "".join(parser.pieces).replace(_HIDDEN, "&")
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pieces.append(_gap(tag) if tag in _TAGS else self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        self.pieces.append(_gap(tag) if tag in _TAGS else f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)


def _gap(tag: str) -> str:
    return "\n" if tag in _BLOCKS else " " if tag in _CELLS else ""
