"""The last release and this one on the same store: old code on new tables, new code on old ones, and both at once.

The last release is that of the last tag; while CHANGELOG.md names none, a commit stands in for it. Its wheels are built
from the repository's history and installed in an environment of their own. A clone without that history, or without its
tags, fails here and says how to get it: a test that did not run must not look like one that passed.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from protojobs_sqlalchemy import SQLAlchemyDriver
from protojobs_sqlalchemy.migrations import HEAD
from protojobs_sqlalchemy.tables.naming import VERSION_TABLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = "354105e0d1312a4e302b8c98b99b79dbba9eb61f"
"""The commit that stands in for the last release while nothing is tagged."""

PROGRAM = Path(__file__).with_name("release_program.py")
WHAT_WE_INSTALL = "protojobs[sql,postgresql,mysql,redis]"


@dataclass(frozen=True)
class Release:
    """One release in its own environment, on one store."""

    environment: Any  # conftest.Environment
    url: str
    folder: Path

    def __call__(self, *steps: str):
        """What each of these steps of release_program.py answers, all in one process."""
        ran = self.environment.run(self.environment.python, PROGRAM, self.url, *steps, cwd=self.folder)
        return json.loads(ran.splitlines()[-1])

    def migrate(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`protojobs migrate` of this release."""
        command = [str(self.environment.protojobs), "migrate", *words, "--url", self.url]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)

    @property
    def version(self) -> str:
        """The version of the tables that it works on."""
        words = "from protojobs_sqlalchemy.migrations import HEAD; print(HEAD)"
        return self.environment.run(self.environment.python, "-c", words, cwd=self.folder).strip()


def git(*words: str, root: Path = ROOT) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, timeout=60, check=False)


def last_release(root: Path = ROOT) -> str:
    tag = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^", root=root)
    if tag.returncode == 0:
        return tag.stdout.decode().strip()
    if earlier := releases_before(root):
        pytest.fail(
            f"CHANGELOG.md tells of the release {earlier[0]}, and this clone has no tag of it, so it cannot be tried"
            " beside this one. Get the tags: git fetch --tags (of a shallow clone: git fetch --unshallow --tags)",
            pytrace=False,
        )
    if git("cat-file", "-e", f"{STAND_IN}^{{commit}}", root=root).returncode:
        pytest.fail(
            f"The last release ({STAND_IN}) is not in this clone, so it cannot be tried beside this one. Get the"
            " history: git fetch --unshallow --tags",
            pytrace=False,
        )
    return STAND_IN


def releases_before(root: Path) -> list[str]:
    """The releases in CHANGELOG.md, newest first, without that of this tree, which gets its tag later."""
    own = tomllib.loads((root / "core" / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[?v?(\d[^\s\]]*)(.*)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    return [version for version, rest in headings if version != own and "unreleased" not in rest.lower()]


@pytest.fixture(scope="session")
def old_wheels(once) -> Path:
    """The wheels of the last release."""

    def build(folder: Path) -> None:
        source = folder / "source"
        archive = git("archive", last_release())
        assert archive.returncode == 0, archive.stderr
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(source, filter="data")
        for distribution in ("core", "drivers/sqlalchemy", "drivers/redis"):
            command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
            subprocess.run(command, cwd=source / distribution, check=True, capture_output=True, timeout=120)

    return once("wheels-of-the-last-release", build)


@pytest.fixture(scope="session")
def environments(once, new_environment, wheels: Path, old_wheels: Path):
    """The last release's, and this one's."""
    old, new = new_environment("last-release"), new_environment("this-release")

    def install(folder: Path) -> None:
        old.install(WHAT_WE_INSTALL, wheels=old_wheels)
        new.install(WHAT_WE_INSTALL, wheels=wheels)

    once("both-releases-installed", install)
    return old, new


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "valkey"])
def any_store_url(request: pytest.FixtureRequest, make_store_url: Callable[[str], str]) -> str:
    return make_store_url(request.param)


@pytest.fixture
def on(environments, tmp_path: Path) -> Callable[[str], tuple[Release, Release]]:
    """`on(url)`: the last release and this one on that store."""
    return lambda url: tuple(Release(environment, url, tmp_path) for environment in environments)


DONE = {"done": 3, "failed": 1}  # of what one `push` has left; the third is the schedule's


def take_turns(first: Release, second: Release) -> None:
    """Each works what the other has pushed, fires its schedule, sees its jobs and retries its failure."""
    first("push:ours")
    fired, done, seen, after_retry, _ = second("fire", "work", "status", "retry", "push:theirs")
    assert (fired, done, after_retry) == (1, DONE, "cancelled")
    assert seen["failures"][-1] == "release.break"
    assert "every-day-ours" in seen["schedules"]
    completed = seen["completed"]
    fired, done, seen, after_retry = first("fire", "work", "status", "retry")
    assert (fired, done, after_retry) == (1, {"done": 3, "failed": 2}, "cancelled")  # the other's retry as well
    assert seen["completed"] == completed + 3
    assert {"every-day-ours", "every-day-theirs"} <= set(seen["schedules"])
    assert seen["queues"] == ["released"]
    done, ended = second("work", "status")
    assert done == {"done": 0, "failed": 1}
    assert ended == seen


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., Path]:
    """`repository(changelog, version, tag=...)`: one of two commits, the first of which may have a tag."""

    def make(changelog: str, version: str, *, tag: str | None = None) -> Path:
        root = tmp_path / "repository"
        (root / "core").mkdir(parents=True)
        (root / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog}\n")
        (root / "core" / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
        commit = ["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "step"]
        for words in (["init", "-q"], commit, *([["tag", tag]] if tag else []), commit):
            done = git(*words, root=root)
            assert done.returncode == 0, done.stderr
        return root

    return make


RELEASED = "## 0.2.0 (unreleased)\n\n## 0.1.0 (2027-01-31)"


def test_the_last_tag_is_the_last_release(repository) -> None:
    assert last_release(repository(RELEASED, "0.2.0", tag="v0.1.0")) == "v0.1.0"


@pytest.mark.parametrize("changelog", [RELEASED, "## [0.2.0] - Unreleased\n\n## [0.1.0] - 2027-01-31"])
def test_a_clone_without_the_tag_of_a_release_is_told_to_fetch_it(repository, changelog: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"release 0\.1\.0, and .*git fetch --tags"):
        last_release(repository(changelog, "0.2.0"))


@pytest.mark.parametrize("changelog", ["## 0.1.0 (unreleased)", "## 0.1.0 (2027-01-31)"])
def test_a_commit_stands_in_while_nothing_was_released(repository, changelog: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=rf"{STAND_IN}.*--unshallow"):  # which is not in that repository
        last_release(repository(changelog, "0.1.0"))


def test_each_release_works_what_the_other_has_pushed(on, any_store_url: str) -> None:
    """On the tables, or the layout, of this release: as while a deployment rolls out, and after a rollback."""
    old, new = on(any_store_url)
    new("setup")
    take_turns(old, new)


def test_the_last_release_s_jobs_go_through_an_upgrade_and_a_rollback(on, any_store_url: str) -> None:
    old, new = on(any_store_url)
    old("setup", "push:before")
    assert new.migrate().returncode == 0
    assert new("fire", "work", "push:after") == [1, DONE, 5]
    assert old.migrate().returncode == 0  # a deploy script of the old release: it changes nothing
    assert old("fire", "work") == [1, DONE]


def test_the_last_release_goes_on_with_jobs_that_have_results(on, make_store_url: Callable[[str], str]) -> None:
    """On Valkey, where a row says that there is one: it is read, shown and deleted as any other."""
    old, new = on(make_store_url("valkey"))
    _, kept = new("setup", "keep")
    before, done, after = old("status", "work", "status")
    assert (before["completed"], before["pending"], done) == (1, 1, {"done": 1, "failed": 0})
    assert (after["completed"], after["pending"]) == (2, 0)
    assert new(f"results:{kept}") == [{kept: '"kept"'}]
    assert old("clear") == [0]
    assert new(f"results:{kept}") == [{}]


def test_this_release_asks_for_its_migration_first(on, store_url: str) -> None:
    old, new = on(store_url)
    old("setup", "push:before")
    if old.version != HEAD:
        (refusal,) = new("push:early")
        assert "protojobs migrate" in refusal["SchemaOutdated"]
        assert new.migrate("--check").returncode == 8
        assert old("status")[0]["pending"] == 4
        assert new.migrate().returncode == 0
    assert new.migrate("--check").returncode == 0
    assert new("fire", "work") == [1, DONE]


def test_the_last_release_works_on_tables_of_one_to_come_that_says_so(on, store_url: str) -> None:
    """The steps of this release are tried above; this is the rule itself, by a step that will always be newer."""
    old, new = on(store_url)
    new("setup")
    change(store_url, "ALTER TABLE jobs ADD COLUMN colour varchar(8)")
    change(store_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999', readable_from = '{old.version}'")
    assert old.migrate().returncode == 0
    assert new.migrate("--check").returncode == 0
    take_turns(old, new)
    change(store_url, f"UPDATE {VERSION_TABLE} SET readable_from = '9998'")
    for release in (old, new):
        (refusal,) = release("push:late")
        assert "9999, which is newer than this release" in refusal["SchemaOutdated"]


def test_the_tables_go_back_to_the_last_release_and_forward_again(on, store_url: str) -> None:
    old, new = on(store_url)
    new("setup", "push:newer")
    assert new.migrate("--to", old.version).returncode == 0
    assert old("fire", "work", "push:older") == [1, DONE, 5]
    assert new.migrate().returncode == 0
    assert new("fire", "work") == [1, DONE]


def change(url: str, statement: str) -> None:
    with closing(SQLAlchemyDriver(url)) as driver, driver.engine.begin() as conn:
        conn.execute(sa.text(statement))
