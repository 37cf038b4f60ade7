"""What people do with the dashboard, in a browser: by mouse, by keyboard, and without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING

from playwright.sync_api import BrowserContext, Locator, Page, expect

from protojobs.port.lifecycle import JobState

if TYPE_CHECKING:
    from conftest import Site

MANY = 700  # failed jobs: more than one chunk of an operation


def row(page: Page, testid: str, words: str) -> Locator:
    return page.get_by_test_id(testid).filter(has_text=words)


def test_search_tick_retry(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/jobs")
    page.get_by_test_id("q").fill("state:failed queue:emails")
    page.get_by_test_id("search-button").click()
    expect(page.get_by_test_id("job-row")).to_have_count(8)
    for at in (0, 1):
        page.get_by_test_id("job-row").nth(at).get_by_role("checkbox").check()
    expect(page.locator("#ticked-count")).to_have_text("2")
    expect(page.get_by_test_id("live")).to_have_text("Paused")  # no row moves under a hand that ticks
    page.get_by_test_id("ticked-retry").click()
    expect(page.get_by_test_id("notice")).to_contain_text("2")
    expect(page.get_by_test_id("job-row")).to_have_count(6)
    assert site.shop.queue.stats("emails").failed == 6


def test_a_query_that_cannot_be_read_says_what_was_meant(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/jobs")
    page.get_by_test_id("q").fill("stat:failed")
    page.get_by_test_id("search-button").click()
    expect(page.get_by_test_id("q-error")).to_contain_text('"state')
    expect(page.get_by_test_id("q")).to_have_value("stat:failed")


def test_all_that_match_are_retried_with_progress(site: Site, page: Page) -> None:
    queue = site.shop.queue
    template = queue.driver.failed(queue="emails", limit=1).jobs[0]
    queue.push_many([("shop.welcome", {"email": f"bad{at}@example.com"}) for at in range(MANY)])
    queue.work("emails", MANY)
    before = queue.stats("emails").failed
    assert before >= MANY
    page.goto(f"{site.url}/jobs?q=state:failed+queue:emails")
    page.get_by_test_id("all-retry").click()
    expect(page.get_by_test_id("confirm")).to_contain_text(f"{before:,}")
    page.get_by_test_id("confirm-button").click()
    expect(page).to_have_url(re.compile(r"/operations/"))
    expect(page.get_by_test_id("progress")).to_be_visible()
    expect(page.get_by_test_id("operation-state")).to_contain_text(re.compile("done", re.IGNORECASE))  # by itself
    assert queue.stats("emails").failed == 0
    assert queue.get(template.job_id).status is JobState.PENDING


def test_errors_of_one_cause_are_retried_together_and_run(site: Site, page: Page, mended: Event) -> None:
    page.goto(f"{site.url}/errors")
    expect(page.get_by_test_id("error-row")).to_have_count(2)
    mended.set()
    row(page, "error-row", "ConnectionError").get_by_role("button", name="Retry all").click()
    page.get_by_test_id("confirm-button").click()
    expect(page.get_by_test_id("operation-state")).to_contain_text(re.compile("done", re.IGNORECASE))
    with site.shop.working("emails"):
        page.goto(f"{site.url}/jobs?q=state:completed+queue:emails")
        expect(page.get_by_test_id("job-row")).to_have_count(38)  # 30, and these 8, without loading the page again
    page.goto(f"{site.url}/errors")
    expect(page.get_by_test_id("error-row")).to_have_count(1)


def test_a_queue_is_paused_and_resumed(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/queues")
    row(page, "queue-row", "reports").get_by_role("button", name="Pause").click()
    expect(row(page, "queue-row", "reports")).to_contain_text(re.compile("paused", re.IGNORECASE))
    assert site.shop.queue.driver.claim(site.shop.worker, ["reports"], slots=1, limit=1) == []
    row(page, "queue-row", "reports").get_by_role("button", name="Resume").click()
    expect(row(page, "queue-row", "reports")).to_contain_text(re.compile("active", re.IGNORECASE))
    assert len(site.shop.queue.driver.claim(site.shop.worker, ["reports"], slots=1, limit=1)) == 1


def test_a_queue_is_cleared_only_when_its_name_is_typed(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/queues")
    row(page, "queue-row", "reports").get_by_role("button", name="Clear").click()
    page.get_by_test_id("typed").fill("report")
    page.get_by_test_id("confirm-button").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert site.shop.queue.stats("reports").pending == 6
    page.get_by_test_id("typed").fill("reports")
    page.get_by_test_id("confirm-button").click()
    expect(page.get_by_test_id("notice")).to_be_visible()
    assert site.shop.queue.stats("reports").pending == 0


def test_a_schedule_is_run_now(site: Site, page: Page) -> None:
    before = site.shop.queue.stats("images").pending
    page.goto(f"{site.url}/schedules")
    row(page, "schedule-row", "new-images").get_by_role("button", name="Run now").click()
    expect(page.get_by_test_id("notice")).to_be_visible()
    assert site.shop.queue.stats("images").pending == before + 1


def test_a_failed_job_is_run_again_with_other_data(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/jobs?q=state:failed+queue:images")
    page.get_by_test_id("job-row").first.get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("shop.resize")
    expect(page.get_by_text("ValueError").first).to_be_visible()
    page.get_by_test_id("edit-data").fill('{"image": "1.png", "width": "wide"}')
    page.get_by_test_id("edit-button").click()
    expect(page.get_by_role("alert")).to_contain_text("width")  # it does not fit the job's own type
    expect(page.get_by_test_id("edit-data")).to_have_value(re.compile("wide"))  # what was typed is not lost
    page.get_by_test_id("edit-data").fill('{"image": "1.png", "width": 10}')
    page.get_by_test_id("edit-button").click()
    expect(page.get_by_test_id("notice")).to_be_visible()
    assert site.shop.queue.stats("images").failed == 3
    assert site.shop.queue.stats("images").pending == 1


def test_by_keyboard_alone(site: Site, page: Page) -> None:
    page.goto(site.url)
    page.keyboard.press("?")
    expect(page.get_by_test_id("help-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(r"/jobs$"))
    page.keyboard.press("/")
    page.keyboard.type("state:failed queue:images")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("job-row")).to_have_count(4)
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("#ticked-count")).to_have_text("2")
    for _ in range(40):  # on to the button, by Tab
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.testid") == "ticked-retry":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("notice")).to_contain_text("2")
    assert site.shop.queue.stats("images").failed == 2


def test_the_first_tab_skips_to_the_content(site: Site, page: Page) -> None:
    page.goto(site.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_without_javascript(site: Site, context: Callable[..., BrowserContext]) -> None:
    page = context(java_script_enabled=False).new_page()
    page.goto(f"{site.url}/jobs")
    page.get_by_test_id("q").fill("state:failed queue:emails")
    page.get_by_test_id("search-button").click()
    page.get_by_test_id("job-row").first.get_by_role("checkbox").check()
    page.get_by_test_id("ticked-retry").click()
    expect(page.get_by_test_id("notice")).to_be_visible()
    assert site.shop.queue.stats("emails").failed == 7
    page.get_by_test_id("all-retry").click()
    page.get_by_test_id("confirm-button").click()
    expect(page.get_by_test_id("progress")).to_be_visible()
    for _ in range(20):
        if "done" in page.get_by_test_id("operation-state").inner_text().lower():
            break
        page.reload()
    assert site.shop.queue.stats("emails").failed == 0
    page.goto(f"{site.url}/queues")
    row(page, "queue-row", "reports").get_by_role("button", name="Pause").click()
    expect(row(page, "queue-row", "reports")).to_contain_text(re.compile("paused", re.IGNORECASE))
    page.goto(f"{site.url}/schedules")
    row(page, "schedule-row", "new-images").get_by_role("button", name="Run now").click()
    expect(page.get_by_test_id("notice")).to_be_visible()


def test_a_page_follows_what_happens_and_keeps_what_was_ticked(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/jobs?q=queue:emails+state:ready")
    expect(page.get_by_test_id("job-row")).to_have_count(0)
    site.shop.queue.push("shop.welcome", {"email": "new@example.com"})
    expect(page.get_by_test_id("job-row")).to_have_count(1)  # by itself
    page.get_by_test_id("job-row").get_by_role("checkbox").check()
    site.shop.queue.push("shop.welcome", {"email": "newer@example.com"})
    page.wait_for_function("document.getElementById('live-words').textContent === 'Paused'")
    expect(page.get_by_test_id("job-row").get_by_role("checkbox")).to_be_checked()
    page.get_by_test_id("job-row").get_by_role("checkbox").uncheck()
    expect(page.get_by_test_id("job-row")).to_have_count(2)


def test_a_reader_finds_no_button(serve: Callable[..., Site], page: Page) -> None:
    site = serve(is_read_only=True)
    for address in site.pages().values():
        page.goto(f"{site.url}{address}")
        expect(page.locator("form[method=post]")).to_have_count(0)
