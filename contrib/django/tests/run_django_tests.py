"""Django's own tests of task backends, run against ours: `python contrib/django/tests/run_django_tests.py [CACHE]`.

It needs Django 6, and fetches the sdist of the installed version, which holds tests/tasks, by pip into the cache
folder. All of tests/tasks runs but the two files that are about Django's dummy and immediate backends. Where the tests
name the dummy backend they get ours: its class stands in its place before they are imported.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

DOWNLOAD_S = 300


def main() -> int:
    import django

    if django.VERSION < (6, 0):
        print(f"This is Django {django.__version__}; django.tasks came with 6.0.", file=sys.stderr)
        return 2
    cache = Path(sys.argv[1] if len(sys.argv) > 1 else Path.home() / ".cache" / "protojobs-django-tests")
    with tempfile.TemporaryDirectory() as folder:
        unpack(sdist(cache, django.__version__), Path(folder))
        return run(Path(folder))


def sdist(cache: Path, version: str) -> Path:
    """The sdist of this version, fetched if it is not there yet."""
    file = cache / f"django-{version}.tar.gz"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "django"]
        subprocess.run([*fetch, "--dest", cache, f"django=={version}"], check=True, timeout=DOWNLOAD_S)
    return file


def unpack(file: Path, folder: Path) -> None:
    """Put its tests/tasks into the folder, as the package `tasks`."""
    with tarfile.open(file) as tar:
        for member in tar.getmembers():
            _, _, path = member.name.partition("/tests/")
            if path.startswith("tasks/") and member.isfile():
                member.name = path
                tar.extract(member, folder, filter="data")


def run(folder: Path) -> int:
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "jobs.db")}},
        INSTALLED_APPS=["protojobs_django"],
        SECRET_KEY="only for these tests",
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command
    from django.tasks.backends import dummy

    from protojobs_django import queue
    from protojobs_django.backend import TaskBackend

    call_command("migrate", verbosity=0)

    class Cleared(TaskBackend):
        """Ours, with what the tests ask of the dummy backend beside a backend's own methods."""

        @property
        def results(self) -> list[object]:
            return [self.get_result(record.id) for record in queue.find().jobs]

        def clear(self) -> None:
            for info in queue.queues():
                queue.clear(info.name)

    dummy.DummyBackend = Cleared  # type: ignore[misc]
    sys.path.insert(0, str(folder))
    files = sorted(file.stem for file in (folder / "tasks").glob("test_*.py"))
    names = [f"tasks.{name}" for name in files if name not in ("test_dummy_backend", "test_immediate_backend")]
    result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromNames(names))
    print(f"{result.testsRun} of Django's tests ran from {', '.join(names)}, on Django {django.__version__}")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
