"""The page itself, and the policy that lets the browser run nothing but it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from derain.data.pictures import SUFFIXES
from derain.demo.answer import MOST_BYTES, MOST_PIXELS, TOO_LARGE
from derain.demo.weights import Choice
from derain.web.markup import Markup, asset, document, element
from derain.web.slider import slider

PACKAGE = "derain.demo"


def build(choices: Sequence[Choice]) -> str:
    """The page that offers these weights."""
    main = element("main", _header(), _form(choices), _status(), _result())
    return document("derain", main, [asset("demo.css", PACKAGE)], [asset("demo.js", PACKAGE)])


def policy(page: str) -> str:
    """The Content-Security-Policy of a page: only its own style and script, known by their hashes, ever apply."""
    hashes = {
        tag: " ".join(f"'sha256-{_sha256(text)}'" for text in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL))
        for tag in ("style", "script")
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; img-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _header() -> Markup:
    return element(
        "header",
        element("p", "Continual de-raining", class_="eyebrow"),
        element("h1", "Take the rain off a picture"),
        element("p", "This page needs JavaScript. Without it: derain run.", id="unscripted", class_="error"),
    )


def _form(choices: Sequence[Choice]) -> Markup:
    stems = [choice.path.stem for choice in choices]
    options = [
        element(
            "option",
            choice.path.stem if stems.count(choice.path.stem) == 1 else str(choice.path),
            value=index,
            data_about=choice.about,
        )
        for index, choice in enumerate(choices)
    ]
    suffixes = ",".join(sorted(SUFFIXES))
    return element(
        "form",
        element(
            "div",
            element("label", "Weights", for_="weights"),
            element("select", *options, id="weights", aria_describedby="about"),
            element("span", choices[0].about, id="about", class_="note"),
            class_="weights",
        ),
        element(
            "input",
            type="file",
            id="file",
            accept=f"image/*,{suffixes}",
            data_most_bytes=MOST_BYTES,
            data_too_large=TOO_LARGE,
        ),
        element(
            "label",
            element("b", "Choose a picture"),
            element("span", "or drop it anywhere here, or paste it"),
            element(
                "small",
                f"PNG, JPEG, WebP, TIFF or BMP, up to {MOST_PIXELS // 10**6} megapixels and {MOST_BYTES // 2**20} MiB. "
                "It stays on this computer.",
            ),
            for_="file",
            class_="drop",
        ),
        autocomplete="off",
    )


def _status() -> Markup:
    return element(
        "div",
        element("p", id="doing", role="status"),
        element("progress", id="progress", aria_labelledby="doing", hidden="hidden"),
        element("p", id="error", class_="error", role="alert", hidden="hidden"),
        class_="status",
    )


def _result() -> Markup:
    return element(
        "section",
        element("h2", element("span", id="name"), element("small", id="size")),
        slider("The picture"),
        element("p", element("a", "Download", id="download", class_="button"), element("small", id="facts")),
        id="result",
        hidden="hidden",
    )
