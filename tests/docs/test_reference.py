"""What the pages say of the code is compared with the code, and what they say of each other with each other."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from graphlib import CycleError
from pathlib import Path
from pkgutil import resolve_name
from urllib.parse import urlparse

import click
import msgspec
import pytest
from pages import DOCS, ROOT, all_pages, anchors_of, blocks_of, links_of, name_of, prose_of, table_after

from architecture.rules import DRIVER_MAY_USE
from protojobs import events
from protojobs.cli.command_table import BUILT_IN, CommandTable
from protojobs.cli.entry import root
from protojobs.cli.exits import MEANINGS
from protojobs.config import Settings
from protojobs.hooks import HookSpecs
from protojobs.port.administration import Administers, Inspects
from protojobs.port.diagnosis import Diagnoses
from protojobs.port.driver import Driver
from protojobs.port.lifecycle import JobState, Verb
from protojobs.port.observing import Observes
from protojobs.port.records import Capabilities
from protojobs.port.schedules import Schedules
from protojobs.port.transactions import (
    Begins,
    HasCurrentTransaction,
    InOneTransaction,
    SupportsAsyncTransaction,
    SupportsTransaction,
)

sys.path.insert(0, str(DOCS))
from draw import reduced, with_states, with_wings

CONFIGURATION = DOCS / "how-to" / "configuration.md"
COMMAND_LINE = DOCS / "how-to" / "command-line.md"
EVENTS = DOCS / "how-to" / "events.md"
PLUGINS = DOCS / "how-to" / "plugins.md"
LIFECYCLE = DOCS / "reference" / "lifecycle.md"
CONTRACT = DOCS / "reference" / "driver-contract.md"
ARCHITECTURE = DOCS / "architecture.md"
DECISIONS = DOCS / "decisions"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
DJANGO = "contrib/django/src/protojobs_django"
LOGGERS = {f"protojobs.{name}" for name in ("worker", "job", "scheduler", "cli", "audit")}
ENTRY_POINT_GROUPS = {"protojobs.drivers", "protojobs.plugins", "protojobs.commands"}
FILES = {"protojobs.toml", "protojobs.conf"}
SPAN_ATTRIBUTES = {"protojobs.job.name", "protojobs.attempt"}
DJANGO_CHECKS = set(re.findall(r'id="(protojobs\.[EW]\d+)"', (ROOT / DJANGO / "checks.py").read_text()))
PARTS = ["Context", "Choice", "What we gave up", "What would change our mind"]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("page", all_pages(), ids=name_of)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    lost: list[str] = []
    for link in links_of(page):
        parts = urlparse(link)
        if parts.scheme:
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        if not target.exists() or (parts.fragment and parts.fragment not in anchors_of(target)):
            lost.append(link)
    assert lost == []


def test_every_name_below_protojobs_that_a_page_mentions_exists() -> None:
    pages = [page for page in all_pages() if page.parent != DECISIONS]  # decisions are history
    named = {(name_of(page), name) for page in pages for name in re.findall(r"`(protojobs(?:\.\w+)+)`", prose_of(page))}
    others = LOGGERS | ENTRY_POINT_GROUPS | FILES | SPAN_ATTRIBUTES | DJANGO_CHECKS
    named -= {(page, name) for page, name in named if name in others}
    assert named
    assert sorted((page, name) for page, name in named if not _can_be_had(name)) == []


def _can_be_had(dotted: str) -> bool:
    try:
        resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


def test_every_page_of_the_docs_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        ahead += [(page.parent / urlparse(link).path).resolve() for link in links_of(page) if not urlparse(link).scheme]
    assert [name_of(page) for page in all_pages() if page not in seen] == []


def test_the_table_of_settings_is_that_of_the_code() -> None:
    told = [(quoted(key)[0], default) for key, default, _ in table_after(CONFIGURATION, "Every setting")]
    known = [(field.name, _default(getattr(Settings(), field.name))) for field in msgspec.structs.fields(Settings)]
    assert told == known


def test_every_setting_is_explained() -> None:
    assert [key for key, _, meaning in table_after(CONFIGURATION, "Every setting") if len(meaning.split()) < 4] == []


def _default(value: object) -> str:
    return "none" if value is None or value == () else f"`{msgspec.json.encode(value).decode()}`"


def test_the_table_of_events_is_that_of_the_code() -> None:
    common = set(events.JobEvent.__struct_fields__)
    told = {name: quoted(fields) for names, _, fields in table_after(EVENTS, "The events") for name in quoted(names)}
    known = {
        name: [field for field in kind.__struct_fields__ if field not in common or not name.startswith("job.")]
        for name, kind in events.EVENTS.items()
    }
    assert told == known


def test_every_hook_that_is_no_event_is_in_the_table_of_hooks() -> None:
    told = {
        name.split("(")[0]
        for row in table_after(PLUGINS, "Three kinds of hook, and how they fail")
        for name in quoted(row[1])
    }
    of_events = {f"protojobs_{name.replace('.', '_')}" for name in events.EVENTS}
    known = {name for name in dir(HookSpecs) if name.startswith("protojobs_")}
    assert told - of_events == known - of_events
    assert told <= known


def test_every_command_that_is_mentioned_exists() -> None:
    unknown: list[str] = []
    for page in all_pages():
        shown = "\n".join(block.text for block in blocks_of(page) if block.language in ("console", "text"))
        mentioned = re.findall(r"`protojobs ([a-z][^`]*)`", prose_of(page))
        mentioned += re.findall(r"^(?:\$ |python3 dev.py run )?protojobs ([a-z].*)$", shown, re.MULTILINE)
        unknown += [f"{name_of(page)}: protojobs {words}" for words in mentioned if not _is_command(words.split())]
    assert unknown == []


def _is_command(words: list[str]) -> bool:
    assert isinstance(root, CommandTable)
    context = click.Context(root)
    command = root.get_command(context, words[0])
    if not isinstance(command, click.Group):
        return command is not None
    return len(words) == 1 or command.get_command(context, words[1]) is not None


def test_every_command_has_its_section() -> None:
    titles = re.findall(r"^## (.+)$", prose_of(COMMAND_LINE), re.MULTILINE)
    named = {name for title in titles for name in title.split(" and ")}
    assert named >= {*BUILT_IN, "demo"}


def test_the_exit_codes_are_those_of_the_code() -> None:
    told = {int(code): meaning for code, meaning in table_after(COMMAND_LINE, "Exit codes")}
    assert told == {code.value: meaning for code, meaning in MEANINGS.items()}


@pytest.mark.parametrize(
    ("page", "drawn"), [(LIFECYCLE, with_states), (ARCHITECTURE, with_wings)], ids=["states", "wings"]
)
def test_what_is_drawn_from_the_code_is_up_to_date(page: Path, drawn: Callable[[str], str]) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == drawn(text), "draw it again: python3 dev.py run python docs/draw.py"


def test_the_picture_refuses_a_circle() -> None:
    with pytest.raises(CycleError):
        reduced({"queue": {"worker"}, "worker": {"queue"}})
    assert reduced({"cli": {"queue", "port"}, "queue": {"port"}, "port": set()})["cli"] == {"queue"}


def test_what_the_architecture_page_names_stands_in_the_file_that_it_links_to() -> None:
    named = re.findall(r"\[`([A-Za-z_][\w.]*)`\]\(([^)]+\.py)\)", prose_of(ARCHITECTURE))
    lost = [f"{name}: {link}" for name, link in named if not name.endswith(".py") and not _defines(DOCS / link, name)]
    assert named
    assert lost == []


def _defines(file: Path, name: str) -> bool:
    """Whether the file has a class, function or constant of that name; `A.b` is a `b` in the class `A`."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for part in name.split("."):
        inside: list[ast.stmt] | None = None
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == part:
                inside = node.body
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id == part for target in targets):
                    inside = []
        if inside is None:
            return False
        body = inside
    return True


def test_every_state_and_every_verb_is_explained() -> None:
    states = [quoted(row[0])[0] for row in table_after(LIFECYCLE, "States")]
    assert states == [state.value for state in JobState]
    verbs = {verb for row in table_after(LIFECYCLE, "Moves") for verb in row[0].split(", ")}
    assert verbs == {"push", *(verb.value for verb in Verb)}


def test_the_contract_names_every_verb_of_the_port() -> None:
    told = {quoted(name)[0]: quoted(verbs) for name, verbs, _ in table_after(CONTRACT, "The shape")}
    protocols = (
        *(Driver, Inspects, Administers, Schedules, Observes, Diagnoses),
        *(SupportsTransaction, HasCurrentTransaction, Begins, SupportsAsyncTransaction, InOneTransaction),
    )
    assert {name: sorted(verbs) for name, verbs in told.items()} == {p.__name__: _verbs(p) for p in protocols}


def _verbs(protocol: type) -> list[str]:
    return sorted(name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_"))


def test_the_contract_names_every_capability() -> None:
    told = [name for row in table_after(CONTRACT, "Capabilities") for name in quoted(row[0])]
    assert sorted(told) == sorted(Capabilities.__struct_fields__)


def test_the_contract_says_what_a_driver_may_import() -> None:
    (sentence,) = re.findall(r"Of core, import (.*?), and\s+nothing else", prose_of(CONTRACT), re.DOTALL)
    assert {name.removeprefix("protojobs.") for name in quoted(sentence)} == DRIVER_MAY_USE


def test_the_glossary_is_in_alphabetical_order() -> None:
    terms = [term for term, _ in table_after(DOCS / "reference" / "glossary.md", "Glossary")]
    assert terms == sorted(set(terms), key=lambda term: term.replace("_", " ").lower())


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_decision_record_is_complete(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    number = record.name.partition("-")[0]
    assert text.startswith(f"# {number}: ")
    assert re.search(r"^Status: (proposed|accepted|overturned)", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", prose_of(record), re.MULTILINE) == PARTS
    assert all(part.strip() for part in re.split(r"^## .+$", text, flags=re.MULTILINE))
    assert len(text.splitlines()) <= 90, "a decision is one page"


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    assert [int(record.name[:4]) for record in RECORDS] == list(range(len(RECORDS)))
    listed = [link for link in links_of(DECISIONS / "README.md") if link != "0000-template.md"]
    assert listed == [record.name for record in RECORDS[1:]]


def test_code_refers_to_decisions_that_exist() -> None:
    known = {record.name[:4] for record in RECORDS}
    folders = (ROOT / "core", ROOT / "drivers", ROOT / "contrib")
    sources = [source for folder in folders for source in folder.glob("**/src/**/*.py")] + list(
        ROOT.glob("core/src/**/*.py")
    )
    meant = {n for source in sources for n in re.findall(r"docs/decisions/(\d{4})", source.read_text(encoding="utf-8"))}
    assert meant
    assert meant <= known
