"""What is in the wheels, and that the distributions agree with each other."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = {
    p.parent.relative_to(ROOT).as_posix(): tomllib.loads(p.read_text())["project"]
    for pattern in ("core", "drivers/*", "contrib/*")
    for p in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))
}
NAMES = {folder: project["name"] for folder, project in PROJECTS.items()}


def content(wheels: Path, name: str) -> list[str]:
    module = name.replace("-", "_")
    (wheel,) = wheels.glob(f"{module}-[0-9]*.whl")
    with zipfile.ZipFile(wheel) as file:
        return file.namelist()


@pytest.mark.parametrize("name", NAMES.values())
def test_each_wheel_holds_its_package_typed_and_licensed_and_nothing_else(wheels: Path, name: str) -> None:
    module = name.replace("-", "_")
    files = content(wheels, name)
    assert f"{module}/__init__.py" in files
    assert f"{module}/py.typed" in files
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in files)
    assert {file.partition("/")[0] for file in files} <= {module, f"{module}-{PROJECTS['core']['version']}.dist-info"}
    assert not [file for file in files if "/tests/" in file or file.endswith((".db", ".pyc"))]


@pytest.mark.parametrize("folder", PROJECTS)
def test_every_source_file_is_in_the_wheel(wheels: Path, folder: str) -> None:
    source = ROOT / folder / "src"
    present = {file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file()}
    wanted = {file for file in present if not file.endswith(".pyc")}
    assert wanted <= set(content(wheels, NAMES[folder]))


def test_the_migrations_are_in_the_wheel_of_the_sql_driver(wheels: Path) -> None:
    files = content(wheels, "protojobs-sqlalchemy")
    assert "protojobs_sqlalchemy/migrations/env.py" in files
    assert [file for file in files if re.fullmatch(r"protojobs_sqlalchemy/migrations/versions/\w+\.py", file)]


@pytest.mark.parametrize("folder", PROJECTS)
def test_all_distributions_have_one_version_and_the_same_licence(folder: str) -> None:
    assert PROJECTS[folder]["version"] == PROJECTS["core"]["version"]
    assert (ROOT / folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert PROJECTS[folder]["requires-python"] == ">=3.11"


def test_what_names_a_sibling_names_its_exact_version() -> None:
    for folder, project in PROJECTS.items():
        extras = [r for needs in project.get("optional-dependencies", {}).values() for r in needs]
        for requirement in project["dependencies"] + extras:
            sibling = re.match(r"[\w-]+", requirement)
            if sibling and sibling[0] in NAMES.values() and not requirement.startswith("protojobs["):
                assert requirement.endswith(f"=={PROJECTS['core']['version']}"), f"{folder}: {requirement}"


def test_the_extra_all_brings_every_other_extra() -> None:
    extras = PROJECTS["core"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.findall(r"[\w-]+", everything.partition("[")[2]))
    alike = {name for name, needs in extras.items() if any(needs == extras[other] for other in named)}
    assert set(extras) - {"all"} == named | alike


def test_an_environment_made_by_hand_holds_every_distribution() -> None:
    listed = re.findall(r"^-e \./(\S+)$", (ROOT / "requirements/dev.txt").read_text(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(PROJECTS)


def test_every_requirement_of_ours_is_pinned() -> None:
    pins = {
        re.match(r"[\w.-]+", line)[0].lower()
        for line in (ROOT / "requirements/pins.txt").read_text().splitlines()
        if line
    }
    for folder, project in PROJECTS.items():
        extras = [r for needs in project.get("optional-dependencies", {}).values() for r in needs]
        for requirement in project["dependencies"] + extras:
            name = re.match(r"[\w.-]+", requirement)[0].lower()
            assert name in pins or name in NAMES.values(), f"{folder} needs {name}: python3 dev.py pins"
