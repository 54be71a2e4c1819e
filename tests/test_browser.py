"""The three pages in Chromium: they load without a complaint, and the line shows what it should, on a phone too."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from derain.restore.gallery import Gallery
from tests.served import Served, served
from tests.test_report import built, project  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, ViewportSize

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = [
    "--no-sandbox",  # tests may run as root, and the pages are the project's own
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP: ViewportSize = {"width": 1200, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 780}
RAINY, DERAINED = 255, 100
"""The red of the pictures before and after; their green and blue are 0."""

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[dev]'")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield chromium
        chromium.close()


class Watched:
    """A page that remembers what went wrong with it."""

    def __init__(self, context: BrowserContext) -> None:
        self.complaints: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda message: self._note(message.type in {"error", "warning"}, message.text))
        self.page.on("pageerror", lambda error: self._note(True, str(error)))
        self.page.on("requestfailed", lambda request: self._note(True, f"{request.url[:80]}: {request.failure}"))

    def _note(self, bad: bool, text: str) -> None:
        if bad:
            self.complaints.append(text)


@pytest.fixture
def view(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page in a window of its own; whatever it complains of is the test's failure."""
    opened: list[tuple[BrowserContext, Watched]] = []

    def open_(url: str, size: ViewportSize = DESKTOP, **more: Any) -> Page:
        context = browser.new_context(viewport=size, **more)
        opened.append((context, Watched(context)))
        page = opened[-1][1].page
        page.goto(url)
        return page

    yield open_
    complaints = [complaint for _, watched in opened for complaint in watched.complaints]
    for context, _ in opened:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def demo() -> Iterator[Served]:
    with served() as running:
        yield running


def plain(red: int, height: int = 300, width: int = 400) -> np.ndarray:
    return np.full((height, width, 3), (red, 0, 0), np.uint8)


def png(red: int = RAINY, height: int = 300, width: int = 400) -> bytes:
    file = io.BytesIO()
    Image.fromarray(plain(red, height, width)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def report(project: Path) -> str:  # noqa: F811
    """The pipeline's report, whose first pictures are plain."""
    for name, red in {"rainy": RAINY, "task1": DERAINED}.items():
        (project / f"results/first/0-{name}.png").write_bytes(png(red))
    (project / "report.html").write_text(built())
    return (project / "report.html").as_uri()


@pytest.fixture
def gallery(tmp_path: Path) -> str:
    """The page of `derain run --report`, with pictures of three shapes and a failure."""
    pictures = Gallery()
    for name, shape in {"a.png": (300, 400), "tall.jpg": (900, 300), "x" * 80 + ".png": (20, 1600)}.items():
        pictures.add(name, plain(RAINY, *shape), plain(DERAINED, *shape), ["16-bit"])
    pictures.add_failure("broken.png", "broken.png is not a picture")
    (tmp_path / "gallery.html").write_text(pictures.html("Photographs"))
    return (tmp_path / "gallery.html").as_uri()


@pytest.fixture(params=["report", "gallery", "demo"])
def url(request: pytest.FixtureRequest) -> str:
    """Each of the three pages in turn."""
    place = request.getfixturevalue(request.param)
    return place if isinstance(place, str) else str(place.url)


def ready(page: Page) -> Locator:
    """The page's first slider, with its pictures shown."""
    if page.locator("#file").count():
        page.set_input_files("#file", files=[upload("rain.png", png())])
    slider = page.locator(".slider").first
    slider.locator("img.over").wait_for()
    slider.scroll_into_view_if_needed()
    return slider


def upload(name: str, content: bytes) -> Any:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def rainy_share(slider: Locator) -> float:
    """The share of the slider's width that shows the rainy picture, in a row above its handle and labels.

    Fails unless all that is rainy lies left of all that is derained.
    """
    shot = np.asarray(Image.open(io.BytesIO(slider.screenshot())).convert("RGB")).astype(int)
    row = shot[len(shot) // 8]
    reddish = row[:, 1] < 30  # neither the line nor its shadow on the paper
    rainy, derained = np.flatnonzero(reddish & (row[:, 0] > 240)), np.flatnonzero(reddish & (row[:, 0] < 150))
    assert len(rainy) + len(derained) > 0.85 * len(row)
    assert not len(rainy) or not len(derained) or rainy.max() < derained.min()
    return len(rainy) / len(row)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
class TestSlider:
    def test_it_moves_by_mouse_and_shows_each_picture_on_its_side(
        self, url: str, size: dict[str, int], view: Callable[..., Page]
    ) -> None:
        page = view(url, size)
        slider = ready(page)
        assert rainy_share(slider) == pytest.approx(0.5, abs=0.05)
        box = slider.bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
        page.mouse.down()
        for share in (0.6, 0.75, 0.9):
            page.mouse.move(box["x"] + share * box["width"], box["y"] + 25)
            assert rainy_share(slider) == pytest.approx(share, abs=0.03)
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 60)
        page.mouse.up()
        page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 60)
        assert rainy_share(slider) == pytest.approx(0.2, abs=0.03)

    def test_it_moves_by_keyboard_and_says_where_it_is(
        self, url: str, size: dict[str, int], view: Callable[..., Page]
    ) -> None:
        page = view(url, size)
        slider = ready(page)
        line = slider.get_by_role("slider", name="percent of it rainy")
        line.focus()
        for _ in range(20):
            page.keyboard.press("ArrowRight")
        assert rainy_share(slider) == pytest.approx(0.7, abs=0.03)
        assert line.get_attribute("aria-valuetext") == "70 percent rainy"
        page.keyboard.press("ArrowLeft")
        assert line.get_attribute("aria-valuetext") == "69 percent rainy"
        page.keyboard.press("Home")
        assert rainy_share(slider) == 0
        page.keyboard.press("End")
        assert rainy_share(slider) > 0.97

    def test_the_page_is_no_wider_than_the_window(
        self, url: str, size: dict[str, int], view: Callable[..., Page]
    ) -> None:
        page = view(url, size)
        ready(page)
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        box = page.locator(".slider").first.bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]
        assert box["height"] <= size["height"]


def test_it_moves_by_touch(url: str, view: Callable[..., Page]) -> None:
    page = view(url, PHONE, has_touch=True, is_mobile=True)
    slider = ready(page)
    box = slider.bounding_box()
    assert box
    touch = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.5), ("touchMove", 0.6), ("touchMove", 0.8), ("touchEnd", None)):
        points = [] if share is None else [{"x": box["x"] + share * box["width"], "y": box["y"] + 30}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert rainy_share(slider) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("name", ["report", "gallery"])
def test_without_javascript_both_pictures_are_there(
    name: str, request: pytest.FixtureRequest, view: Callable[..., Page]
) -> None:
    page = view(request.getfixturevalue(name), java_script_enabled=False)
    assert not page.locator(".slider").first.is_visible()
    for what in ("rainy", "de-rained" if name == "gallery" else "last task: second"):
        assert page.locator(f"figure:has(figcaption:has-text('{what}')) img").first.is_visible()


def test_the_demo_without_javascript_says_so(demo: Served, view: Callable[..., Page]) -> None:
    page = view(demo.url, java_script_enabled=False)
    assert page.get_by_text("This page needs JavaScript").is_visible()


def test_pages_are_dark_where_the_reader_wants_it(url: str, view: Callable[..., Page]) -> None:
    paper = [
        page.evaluate("getComputedStyle(document.body).backgroundColor")
        for page in (view(url, color_scheme=scheme) for scheme in ("light", "dark"))
    ]
    assert paper == ["rgb(255, 255, 255)", "rgb(20, 24, 27)"]


class TestDemo:
    def test_a_chosen_picture_is_derained_and_downloaded_at_full_size(
        self, demo: Served, view: Callable[..., Page], tmp_path: Path
    ) -> None:
        page = view(demo.url)
        with page.expect_file_chooser() as choosing:
            page.get_by_text("Choose a picture").click()
        choosing.value.set_files([upload("my rain.one.png", png(height=30, width=4000))])
        page.locator("#result").wait_for()
        assert page.locator("#result h2").inner_text() == "my rain.one.png4000 × 30"
        with page.expect_download() as downloading:
            page.get_by_role("link", name="Download").click()
        assert downloading.value.suggested_filename == "my rain.one_derained.png"
        downloading.value.save_as(tmp_path / "result.png")
        assert np.array_equal(np.asarray(Image.open(tmp_path / "result.png")), plain(RAINY, 30, 4000) // 2)

    @pytest.mark.parametrize("how", ["drop", "paste"])
    def test_a_picture_is_dropped_or_pasted(self, how: str, demo: Served, view: Callable[..., Page]) -> None:
        page = view(demo.url)
        hand_over(page, how, "dropped.png", png())
        assert rainy_share(ready_result(page)) == pytest.approx(0.5, abs=0.05)
        assert "dropped.png" in page.locator("#result h2").inner_text()

    def test_what_is_no_picture_gives_a_message_and_the_next_one_works(
        self, demo: Served, view: Callable[..., Page]
    ) -> None:
        page = view(demo.url)
        hand_over(page, "drop", "<i>page.png", b"<html><body>not a picture</body></html>")
        message = page.get_by_role("alert")
        message.wait_for()
        assert message.inner_text().startswith("<i>page.png: This file is not a picture")
        assert not page.locator("#result").is_visible()
        assert not page.locator("#progress").is_visible()
        hand_over(page, "drop", "good.png", png())
        ready_result(page)
        assert not message.is_visible()

    def test_a_file_that_is_too_large_is_not_even_sent(self, demo: Served, view: Callable[..., Page]) -> None:
        page = view(demo.url)
        page.evaluate("document.getElementById('file').dataset.mostBytes = 100")
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url))
        hand_over(page, "drop", "large.png", png())
        page.get_by_role("alert").wait_for()
        assert "larger than 64 MiB" in page.get_by_role("alert").inner_text()
        assert sent == []

    def test_several_pictures_at_once_are_refused(self, demo: Served, view: Callable[..., Page]) -> None:
        page = view(demo.url)
        hand_over(page, "drop", "rain.png", png(), count=2)
        assert "One picture at a time" in page.get_by_role("alert").inner_text()

    def test_other_weights_derain_the_same_picture_again(self, demo: Served, view: Callable[..., Page]) -> None:
        page = view(demo.url)
        choice = page.get_by_label("Weights")
        assert choice.locator("option").all_inner_texts() == ["by2", "by4"]
        assert page.locator("#about").inner_text() == "halves <b>"
        hand_over(page, "drop", "rain.png", png())
        ready_result(page)
        assert "by2" in page.locator("#facts").inner_text()
        with page.expect_response("**/derain?weights=1"):
            choice.select_option("by4")
        page.locator("#facts:has-text('by4')").wait_for()
        assert page.locator("#about").inner_text() == "quarters"
        shot = np.asarray(Image.open(io.BytesIO(page.locator(".slider").screenshot())).convert("RGB"))
        assert shot[len(shot) // 8, -20, 0] == pytest.approx(RAINY // 4, abs=3)

    def test_a_working_page_says_so_and_shows_the_last_picture_asked_for(self, browser: Browser) -> None:
        with served() as demo:
            demo.networks["by2"].allowed.clear()
            watched = Watched(browser.new_context())
            page = watched.page
            page.goto(demo.url)
            hand_over(page, "drop", "first.png", png())
            page.get_by_text("Taking the rain off first.png").wait_for()
            assert page.get_by_role("progressbar").is_visible()
            hand_over(page, "drop", "second.png", png(200))
            page.get_by_text("Waiting for another picture").wait_for()
            demo.networks["by2"].allowed.set()
            ready_result(page)
            assert "second.png" in page.locator("#result h2").inner_text()
            assert [complaint.rpartition(": ")[2] for complaint in watched.complaints] == ["net::ERR_ABORTED"]
            page.context.close()

    def test_a_server_that_has_ended_gives_a_message(self, browser: Browser) -> None:
        context = browser.new_context()
        with served() as demo:
            page = Watched(context).page
            page.goto(demo.url)
        hand_over(page, "drop", "rain.png", png())
        page.get_by_role("alert").wait_for()
        assert "Is derain demo still running?" in page.get_by_role("alert").inner_text()
        context.close()


def hand_over(page: Page, how: str, name: str, content: bytes, count: int = 1) -> None:
    """Drops a file on the page, or pastes it."""
    page.evaluate(
        """([how, name, content, count]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            for (let k = 0; k < count; k++) carried.items.add(new File([bytes], name));
            const event = how === "drop"
                ? new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: carried, bubbles: true });
            document.querySelector("main").dispatchEvent(event);
        }""",
        [how, name, base64.b64encode(content).decode(), count],
    )


def ready_result(page: Page) -> Locator:
    page.locator("#result .slider img.over").wait_for()
    slider = page.locator("#result .slider")
    slider.scroll_into_view_if_needed()
    return slider
