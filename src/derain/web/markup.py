"""HTML and SVG from nested elements, in which every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources
from string import Template

_VOID = frozenset({"br", "col", "img", "input"})


class Markup(str):
    """Text that is markup already; any other text is escaped when it becomes part of an element."""

    __slots__ = ()


def element(name: str, *content: str | None, **attributes: str | float | None) -> Markup:
    """An element with its content, texts escaped; None leaves out a part or an attribute.

    Attributes whose names Python cannot spell end or join with an underscore: `class_`, `aria_label`.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(content)}</{name}>")


def join(parts: Iterable[str | None], between: str = "") -> Markup:
    """The parts one after another, texts escaped; `between` is markup."""
    return Markup(between.join(_escaped(part) for part in parts if part is not None))


def _escaped(part: str) -> str:
    return part if isinstance(part, Markup) else escape(part)


def scrolling(table: Markup, label: str) -> Markup:
    """A table that scrolls sideways on a narrow screen, by keyboard too."""
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def document(title: str, main: Markup, style: Iterable[str], script: Iterable[str] = ()) -> str:
    """A whole page that needs nothing beside it: the house's style, the slider's script, and the page's own.

    `style` and `script` are texts of CSS and JavaScript, as they are.
    """
    return Template(asset("template.html")).substitute(
        title=join([title]),
        main=main,
        style="\n".join([asset("house.css"), asset("slider.css"), *style]),
        script="\n".join([asset("slider.js"), *script]),
    )


def asset(name: str, package: str = "derain.web") -> str:
    """The text of a file that lies in the package: a template, a style, a script."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
