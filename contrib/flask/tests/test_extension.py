"""The extension: its queue, the application context of each job, and `flask protojobs`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, current_app, g

from protojobs import JobQueue, job
from protojobs.errors import ConfigurationError
from protojobs.jobs.definition import REGISTRY
from protojobs.testing import TestQueue
from protojobs_flask import AppContexts, ProtoJobs

HERE = Path(__file__).parent
COMMAND_MAX_S = 120


@pytest.fixture(autouse=True)
def _jobs_of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_by_name", {})


@pytest.fixture
def app() -> Flask:
    app = Flask("shop")
    app.config.update(PROTOJOBS_URL="memory://", PROTOJOBS_PUSH_TIMEOUT=2, GREETING="hello")
    return app


class TestTheQueue:
    def test_is_configured_by_the_application(self, app: Flask) -> None:
        jobs = ProtoJobs(app)
        with app.app_context():
            assert jobs.queue.settings.push_timeout == 2
            assert jobs.queue is jobs.queue

    def test_is_that_of_the_current_application(self, app: Flask) -> None:
        other, jobs = Flask("other"), ProtoJobs()
        other.config["PROTOJOBS_URL"] = "memory://"
        jobs.init_app(app)
        jobs.init_app(other)
        with app.app_context():
            first = jobs.queue
        with other.app_context():
            assert jobs.queue is not first

    def test_is_not_to_be_had_outside_of_an_application(self, app: Flask) -> None:
        jobs = ProtoJobs(app)
        with pytest.raises(ConfigurationError, match=r"There is no current Flask application\. Ask for the queue in a"):
            _ = jobs.queue
        with (
            Flask("bare").app_context(),
            pytest.raises(ConfigurationError, match="bare has no queue. Call ProtoJobs"),
        ):
            _ = jobs.queue

    def test_a_misspelt_setting_is_refused_at_the_start(self, app: Flask) -> None:
        app.config["PROTOJOBS_CONCURENCY"] = 3
        with pytest.raises(ConfigurationError, match='unknown setting "concurency"'):
            ProtoJobs(app)

    def test_plugins_of_the_settings_are_kept(self, app: Flask) -> None:
        app.config["PROTOJOBS_PLUGINS"] = ("shop.plugin",)
        jobs = ProtoJobs(app)
        with app.app_context():
            assert jobs.queue.settings.plugins == ("shop.plugin", "protojobs_flask.contexts:AppContexts")


def worked(queue: JobQueue) -> int:
    queue.driver.setup()
    try:
        return queue.work("default", 10, concurrency=1).done
    finally:
        queue.close()


class TestTheContextOfAJob:
    def test_is_its_own_and_is_torn_down(self, app: Flask) -> None:
        seen: list[object] = []
        app.teardown_appcontext(lambda _error: seen.append("torn down"))
        jobs = ProtoJobs(app)

        @job(name="greet")
        def greet() -> None:
            seen.append((current_app.config["GREETING"], "mark" in g))
            g.mark = True
            jobs.queue.push(wave)

        @job(name="wave")
        async def wave() -> None:
            seen.append((current_app.name, "mark" in g))
            g.mark = True

        with app.app_context():
            queue = jobs.queue
        queue.push(greet)
        assert worked(queue) == 2
        assert seen.count("torn down") >= 2
        assert [what for what in seen if what != "torn down"] == [("hello", False), ("shop", False)]

    def test_is_there_in_a_drained_queue_too(self, app: Flask) -> None:
        seen: list[str] = []

        @job(name="greet")
        def greet() -> None:
            seen.append(current_app.config["GREETING"])

        queue = TestQueue(plugins=[("flask", AppContexts(app))])
        queue.push(greet)
        queue.drain()
        assert seen == ["hello"]


APPLICATION = """
import os
from flask import Flask, current_app
from protojobs import job
from protojobs_flask import ProtoJobs

jobs = ProtoJobs()

@job(name="greet", queue="greetings")
def greet(name: str) -> None:
    print(current_app.config["GREETING"], name, flush=True)

@job(name="apart", queue="greetings", executor="process")
def apart() -> None:
    print("apart:", current_app.config["GREETING"], os.getppid() != int(os.environ["TEST_PARENT"]), flush=True)

def create_app():
    app = Flask("shop")
    app.config.update(PROTOJOBS_URL=os.environ["TEST_URL"], GREETING="hello")
    jobs.init_app(app)
    return app
"""


@pytest.mark.timeout(500)  # programs that start, on a machine that may be busy
class TestTheCommand:
    @pytest.fixture
    def flask(self, tmp_path: Path, sqlite_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
        """`flask --app shop ...` in a folder with that application."""
        (tmp_path / "shop.py").write_text(APPLICATION)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PROTOJOBS_", "FLASK_"))}

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "flask", "--app", "shop", "protojobs", *arguments],
                cwd=tmp_path,
                env={**kept, "TEST_URL": sqlite_url, "TEST_PARENT": str(os.getpid())},
                capture_output=True,
                text=True,
                timeout=COMMAND_MAX_S,
            )

        return run

    def test_works_with_the_settings_and_the_jobs_of_the_application(
        self, flask: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        assert "ready" in flask("migrate").stderr
        assert flask("push", "greet", '{"name": "Jo"}').returncode == 0
        assert flask("push", "apart", "{}").returncode == 0
        ran = flask("worker", "greetings", "--stop-when-empty", "--processes", "1")
        assert ran.returncode == 0, ran.stderr
        assert "hello Jo" in ran.stdout
        assert "apart: hello True" in ran.stdout
        assert "2 done, 0 failed" in ran.stderr

    def test_says_what_is_wrong_and_ends_with_the_exit_codes_of_protojobs(
        self, flask: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        flask("migrate")
        assert flask("push", "great", "{}").returncode == 3
        assert "worker" in flask("--help").stdout
