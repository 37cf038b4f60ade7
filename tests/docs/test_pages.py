"""Every example in README and docs works: pages are run from top to bottom, each in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import all_pages, blocks_of, name_of
from running import RUN, complaint_about, is_run

NOT_RUN = {"text", "mermaid"}  # what cannot be run here, and the diagram, which has a test of its own
WITH_EXAMPLES = [page for page in all_pages() if any(map(is_run, blocks_of(page)))]


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_each_block_is_run_or_says_that_it_is_only_text(page: Path) -> None:
    strange = [f"line {block.line}: {block.info!r}" for block in blocks_of(page) if block.language not in RUN | NOT_RUN]
    assert strange == []


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_a_page_does_what_it_shows(page: Path, tmp_path: Path) -> None:
    if complaint := complaint_about(name_of(page), blocks_of(page), tmp_path):
        pytest.fail(complaint, pytrace=False)
