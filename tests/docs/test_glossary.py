"""The glossary holds every word that a file of core or of a driver bears, and no word twice."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pages import DOCS, ROOT, table_after

GLOSSARY = DOCS / "reference" / "glossary.md"

# Folders whose files are named for things that have a page of their own: commands, concerns of the kit, revisions.
EXPLAINED_ELSEWHERE = (("cli", "commands"), ("testing", "conformance"), ("migrations", "versions"))


def test_it_holds_every_word_that_a_file_bears() -> None:
    borne = words_of_files()
    missing = {word: where for word, where in borne.items() if word not in terms() | file_words().keys()}
    assert missing == {}, "explain these words in docs/reference/glossary.md"


def test_each_word_in_its_second_table_is_borne_by_a_file() -> None:
    assert sorted(file_words().keys() - words_of_files().keys()) == []


def test_no_word_is_explained_twice() -> None:
    assert [word for word, times in file_words().items() if times > 1] == []
    assert sorted(file_words().keys() & {term for term, _ in table_after(GLOSSARY, "Glossary")}) == []


def test_the_words_are_in_alphabetical_order() -> None:
    words = [words for words, _ in table_after(GLOSSARY, "Words in file names")]
    assert words == sorted(words)


def words_of_files() -> dict[str, str]:
    """Each word of a name of a folder or file -> one that bears it."""
    borne: dict[str, str] = {}
    packages = [part.parent for part in ROOT.glob("core/src/*/__init__.py")]
    packages += [part.parent for part in ROOT.glob("drivers/*/src/*/__init__.py")]
    for package in packages:
        for file in package.rglob("*.py"):
            for name in _names(file.relative_to(package)):
                for word in name.split("_"):
                    borne.setdefault(word, file.relative_to(ROOT).as_posix())
    return borne


def _names(file: Path) -> list[str]:
    folders = list(file.parts[:-1])
    if file.stem.startswith("__") or file.parts[:2] in EXPLAINED_ELSEWHERE:
        return folders
    return [*folders, file.stem]


def terms() -> set[str]:
    """The words of the first table, in the singular and the plural."""
    words = {word for term, _ in table_after(GLOSSARY, "Glossary") for word in re.split(r"[ _-]", term)}
    return words | {f"{word}s" for word in words}


def file_words() -> Counter[str]:
    return Counter(word for words, _ in table_after(GLOSSARY, "Words in file names") for word in words.split(", "))
