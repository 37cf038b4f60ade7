"""Every page, as a browser shows it: light and dark, wide and narrow, for readers of all kinds, and with evil data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import BrowserContext, Page, expect

if TYPE_CHECKING:
    from conftest import Site

NARROW = {"width": 390, "height": 844}
SHOWN = ("overview", "jobs", "job", "errors")  # in docs/how-to/dashboard.md
EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% include 'layout.html' %}",
    "\u202egnp.exe",
    "x\x1b[2J\x07",
    "w" * 10_000,
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_fit_to_be_read_in_any_way(
    site: Site, context: Callable[..., BrowserContext], axe: Callable[[Page], list[str]], scheme: str
) -> None:
    page = context(color_scheme=scheme).new_page()
    found: dict[str, list[str]] = {}
    for name, address in site.pages().items():
        page.goto(f"{site.url}{address}")
        expect(page.locator("h1")).to_have_count(1)
        if stumbled := axe(page):
            found[name] = stumbled
    assert found == {}


def test_dark_is_dark_and_a_choice_is_kept(site: Site, context: Callable[..., BrowserContext]) -> None:
    page = context(color_scheme="dark").new_page()
    page.goto(site.url)
    assert _lightness(page) < 64
    page.get_by_test_id("theme").click()  # light
    assert _lightness(page) > 192
    page.reload()
    assert _lightness(page) > 192


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_telephone(
    site: Site, context: Callable[..., BrowserContext], axe: Callable[[Page], list[str]], scheme: str
) -> None:
    page = context(viewport=NARROW, color_scheme=scheme, has_touch=True).new_page()
    for name, address in site.pages().items():
        page.goto(f"{site.url}{address}")
        wide = page.evaluate("document.scrollingElement.scrollWidth")
        assert wide <= NARROW["width"], f"{name} is {wide} pixels wide"
        assert axe(page) == [], name


def test_whatever_a_job_carries_is_text(site: Site, page: Page) -> None:
    queue = site.shop.queue
    page.on("dialog", lambda box: pytest.fail(f"a script has run: {box.message}"))
    for evil in EVIL:
        queue.push("shop.welcome", {"email": f"bad{evil}"})
    queue.push("shop.welcome", {"email": "bad<b>bold</b>"})
    queue.work("emails", 100)
    ids = [one.job_id for one in queue.failed_jobs("emails")]
    for address in (*site.pages().values(), *(f"/jobs/{one}" for one in ids)):
        page.goto(f"{site.url}{address}")
        assert page.locator("main script, main img, main svg[onload], main b").count() == 0, address


def test_pictures_for_the_docs(site: Site, context: Callable[..., BrowserContext], pictures: Path) -> None:
    addresses = site.pages()
    for scheme in ("light", "dark"):
        page = context(color_scheme=scheme, viewport={"width": 1200, "height": 800}).new_page()
        for name in SHOWN if scheme == "light" else ("overview",):
            page.goto(f"{site.url}{addresses[name]}")
            path = pictures / f"dashboard-{name}{'' if scheme == 'light' else '-dark'}.png"
            page.screenshot(path=path, animations="disabled")
            assert path.stat().st_size > 5_000


def _lightness(page: Page) -> float:
    """Of the page's ground, 0 to 255."""
    return page.evaluate(
        """() => {
            const numbers = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
            const rgb = numbers.slice(0, 3);
            return rgb.reduce((a, b) => a + b, 0) / 3;
        }"""
    )
