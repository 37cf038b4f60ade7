"""The runner of pages notices when a page says what is not so."""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path

from pages import blocks_of
from running import complaint_about

PREPARED = """```python title="shop.py"
from protojobs import job

@job(name="math.add")
def add(a: int, b: int) -> int:
    return a + b
```

```console
$ export PROTOJOBS_URL=sqlite:///jobs.db PROTOJOBS_APP=shop
$ protojobs migrate
revision
0001 up
0002 up
0003 up
0004 up
0005 up
0006 up
0007 up
sqlite:///jobs.db: ready.
$ protojobs push math.add '{"a": 1, "b": 2}'
01a20dda-e010-7472-a530-157e4f4077e8
```

"""

TRUE = {
    "output": "```python\nprint(1 + 1)\n```\n\n```text output\n2\n```\n",
    "an id": "```console\n$ protojobs jobs show 01a20dda-e010-7472-a530-157e4f4077e8\nid 01a20dda-e010-7472-a530-"
    "157e4f4077e8\n...\n```\n",
    "an exit code": "```console\n$ protojobs jobs show nothing\n...\n$ echo $?\n3\n```\n",
    "Ctrl-C": "```console\n$ protojobs worker nowhere\n...\n^C\n...\nworker ended, since it was told to stop: "
    "0 done, 0 failed\n```\n",
    "settings": '```toml\nurl = "memory://"\n```\n',
    "a script": '```python title="a.py"\nprint(__name__)\n```\n\n```console\n$ python3 a.py\n__main__\n```\n',
}

FALSE = {
    "an exception": "```python\nraise ValueError\n```\n",
    "other output": "```python\nprint(1 + 1)\n```\n\n```text output\n3\n```\n",
    "more output": "```python\nprint(1)\nprint(2)\n```\n\n```text output\n1\n```\n",
    "other output of a command": "```console\n$ protojobs stats\nThere are no jobs.\n```\n",
    "silence of a command": "```console\n$ protojobs stats\n```\n",
    "an exit code that is not told": "```console\n$ protojobs jobs show nothing\n...\n```\n",
    "another exit code": "```console\n$ protojobs jobs show nothing\n...\n$ echo $?\n4\n```\n",
    "an unknown command": "```console\n$ make coffee\n```\n",
    "an unknown option": "```console\n$ protojobs stats --colour\n...\n```\n",
    "an unknown setting": '```toml\nuri = "memory://"\n```\n',
    "an unfit setting": '```toml\ntimeout = "long"\n```\n',
    "a file that does not compile": '```python title="b.py"\ndef f(:\n```\n',
}


def test_what_is_so_passes(tmp_path: Path) -> None:
    assert _complaints("\n".join([PREPARED, *TRUE.values()]), tmp_path) == ""


def test_what_is_not_so_is_told_with_its_place(tmp_path: Path) -> None:
    parts = [PREPARED, *FALSE.values()]
    told = re.findall(r"^page\.md, line (\d+): ", _complaints("\n".join(parts), tmp_path), re.MULTILINE)
    ends = list(accumulate(part.count("\n") + 1 for part in parts))
    wrong = [sum(end < int(line) for end in ends) for line in told]  # the place of the part that each line is in
    assert [list(FALSE)[place - 1] for place in wrong if place] == list(FALSE)
    assert 0 not in wrong


def _complaints(text: str, folder: Path) -> str:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    (folder / "reader").mkdir()
    return complaint_about("page.md", blocks_of(page), folder / "reader")
