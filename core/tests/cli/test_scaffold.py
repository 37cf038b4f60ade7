"""`protojobs drivers new NAME`: a package that a stranger can begin from, and that cannot go stale."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from protojobs.cli.development.driver_package import package_files
from protojobs.port.driver import PORT_VERSION, Store
from protojobs.port.records import Capabilities

VERBS = {name: verb for part in Store.__mro__ for name, verb in vars(part).items() if inspect.isfunction(verb)}
VERBS = {name: verb for name, verb in VERBS.items() if not name.startswith("_")}


@pytest.fixture
def driver_module(tmp_path: Path) -> ModuleType:
    """The generated driver.py, imported."""
    path = tmp_path / "driver.py"
    path.write_text(package_files("my-store")["src/protojobs_my_store/driver.py"])
    spec = importlib.util.spec_from_file_location("protojobs_my_store_driver", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestTheDriver:
    @pytest.mark.parametrize("name", VERBS)
    def test_every_verb_has_the_ports_signature_and_contract_and_is_not_written(self, driver_module, name: str) -> None:
        verb = getattr(driver_module.MyStoreDriver, name)
        assert inspect.signature(verb) == inspect.signature(VERBS[name])
        assert inspect.getdoc(verb) == inspect.getdoc(VERBS[name])
        driver = driver_module.MyStoreDriver("my-store:///x", time_offset=5)
        given = {
            name: None
            for name, parameter in inspect.signature(verb).parameters.items()
            if name != "self" and parameter.default is parameter.empty
        }
        with pytest.raises(NotImplementedError):
            verb(driver, **given)

    def test_every_name_of_its_signatures_is_imported_and_no_other(self, driver_module) -> None:
        for name in VERBS:
            assert inspect.get_annotations(getattr(driver_module.MyStoreDriver, name), eval_str=True)
        source = package_files("my-store")["src/protojobs_my_store/driver.py"]
        tree = ast.parse(source)
        imported = {
            alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module != "__future__"
            for alias in node.names
        }
        assert imported == imported & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    def test_it_claims_what_a_driver_claims_by_default_and_speaks_this_port(self, driver_module) -> None:
        assert driver_module.MyStoreDriver.capabilities == Capabilities()
        assert driver_module.MyStoreDriver.port_version == PORT_VERSION

    def test_its_port_version_does_not_follow_ours(self) -> None:
        source = package_files("my-store")["src/protojobs_my_store/driver.py"]
        assert "PORT_VERSION" not in source  # a driver speaks the version that its author has read


class TestThePackage:
    def test_its_entry_point_leads_to_the_driver(self) -> None:
        project = tomllib.loads(package_files("my-store")["pyproject.toml"])["project"]
        assert project["name"] == "protojobs-my-store"
        assert project["entry-points"]["protojobs.drivers"] == {"my-store": "protojobs_my_store:MyStoreDriver"}
        assert "class MyStoreDriver" in package_files("my-store")["src/protojobs_my_store/driver.py"]

    def test_every_python_file_compiles_and_fits_the_line(self) -> None:
        for path, text in package_files("a-long-name-for-a-store-of-many-jobs").items():
            if path.endswith(".py"):
                compile(text, path, "exec")
                assert all(len(line) <= 120 for line in text.splitlines()), path

    def test_the_conformance_test_is_short(self) -> None:
        tree = ast.parse(package_files("lmdb")["tests/test_conformance.py"])
        (suite,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
        assert (suite.end_lineno or 0) - suite.lineno + 1 <= 20

    def test_no_placeholder_is_left(self) -> None:
        assert [path for path, text in package_files("lmdb").items() if "$" in text] == []

    def test_whatever_the_driver_imports_is_a_dependency(self) -> None:
        assert any(line.startswith("msgspec") for line in dependencies(package_files("my-store")["pyproject.toml"]))

    def test_its_tests_close_every_driver_that_they_make(self, tmp_path: Path) -> None:
        (tmp_path / "protojobs_my_store.py").write_text(COUNTED)
        (tmp_path / "test_it.py").write_text(package_files("my-store")["tests/test_conformance.py"])
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "an_empty_store_has",
            "test_it.py",
        ]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "1 passed" in ran.stdout
        assert (tmp_path / "unclosed").read_text() == "0 of 2"


COUNTED = """
import atexit
from pathlib import Path
from protojobs_memory import MemoryDriver

made = closed = 0

class MyStoreDriver(MemoryDriver):
    def __init__(self, url, **options):
        global made
        made += 1
        super().__init__("memory://counted", **options)

    def close(self):
        global closed
        closed += 1

atexit.register(lambda: Path("unclosed").write_text(f"{made - closed} of {made}"))
"""


def dependencies(project: str) -> list[str]:
    return tomllib.loads(project)["project"]["dependencies"]


class TestTheCommand:
    def test_it_writes_the_files_and_prints_where_they_are(self, type_, folder: Path) -> None:
        typed = type_("drivers", "new", "lmdb2")
        assert typed.code == 0
        files = [line[0] for line in typed.lines]
        assert files == [f"protojobs-lmdb2/{path}" for path in package_files("lmdb2")]
        assert all(
            (folder / file).read_text() == text
            for file, text in zip(files, package_files("lmdb2").values(), strict=True)
        )
        assert "Next: cd protojobs-lmdb2 && pip install -e '.[testing]' && pytest" in typed.err

    def test_json_lists_the_files(self, type_) -> None:
        document = type_("drivers", "new", "lmdb2", "--json").document
        assert document["schema"] == "protojobs/drivers.new@1"
        assert {"file": "protojobs-lmdb2/pyproject.toml"} in document["items"]

    def test_another_folder_can_be_given_and_is_made(self, type_, folder: Path) -> None:
        assert type_("drivers", "new", "lmdb2", "--folder", "work/drivers").code == 0
        assert (folder / "work/drivers/protojobs-lmdb2/README.md").exists()

    def test_what_is_there_is_not_overwritten(self, type_, folder: Path) -> None:
        (folder / "protojobs-lmdb2").mkdir()
        typed = type_("drivers", "new", "lmdb2")
        assert (typed.code, typed.out) == (4, "")
        assert "is there already" in typed.err
        assert list((folder / "protojobs-lmdb2").iterdir()) == []

    @pytest.mark.parametrize("name", ["Lmdb", "my_store", "9p", "-x", "a--b", "../x", "a b", "", "é", "x" * 41])
    def test_a_name_that_is_no_scheme_is_refused(self, type_, folder: Path, name: str) -> None:
        before = list(folder.iterdir())
        typed = type_("drivers", "new", "--", name)
        assert (typed.code, typed.out) == (2, "")
        assert "scheme" in typed.err
        assert list(folder.iterdir()) == before

    @pytest.mark.parametrize(("name", "owner"), [("memory", "protojobs-memory"), ("sqlalchemy", "protojobs itself")])
    def test_a_name_that_is_taken_is_refused(self, type_, name: str, owner: str) -> None:
        typed = type_("drivers", "new", name)
        assert (typed.code, typed.out) == (4, "")
        assert f'"{name}" is taken by {owner}.' in typed.err

    def test_a_folder_that_cannot_be_written_is_named(self, type_, folder: Path) -> None:
        (folder / "file").write_text("")
        typed = type_("drivers", "new", "lmdb2", "--folder", "file/inside")
        assert (typed.code, typed.out) == (2, "")
        assert "cannot be written" in typed.err


class TestTheListStaysWhatItWas:
    def test_alone_and_with_list_it_says_the_same(self, type_) -> None:
        assert type_("drivers").out == type_("drivers", "list").out != ""
        assert type_("drivers", "--json").document == type_("drivers", "list", "--json").document

    def test_listing_loads_no_driver(self) -> None:
        code = """
import sys
from protojobs.cli import main
try:
    main(["drivers"])
finally:
    print(sorted(name for name in sys.modules if name.startswith("protojobs_")), file=sys.stderr)
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
        assert "protojobs-redis" in ran.stdout
        assert ran.stderr == "[]\n"
