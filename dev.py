#!/usr/bin/env python3
"""Everything a fresh clone needs, with git, Python 3.11 or newer and pip:

  python3 dev.py demo     the demo, live in this terminal
  python3 dev.py test     the tests, on real servers, in less than ten minutes (further arguments go to pytest)
  python3 dev.py test-slow
                          those that take longer: drivers on a cluster and on an application's engine, the kit against
                          planted drivers, the tutorial step by step
  python3 dev.py test-browser
                          the dashboard in a real browser: every page, with and without JavaScript, by keyboard
  python3 dev.py check    format, lint, types, import arrows: what CI runs beside the tests
  python3 dev.py mutants  plant faults in the drivers, and see the conformance kit catch each of them
  python3 dev.py faults   kills, freezes, outages and torn networks on real stores, judged by a checker; see `faults -h`
  python3 dev.py soak     half an hour (--minutes 30) of mixed jobs, kills and restarts on all stores at once: nothing
                          is lost, and memory, threads, descriptors and connections stay level
  python3 dev.py bench    speed on each store, beside a loop written by hand on its bare client; see `bench -h`
  python3 dev.py scale    what a turn touches with a thousand jobs in the store, and with a million; see `scale -h`
  python3 dev.py conformance-page
                          the conformance kit on every driver with its real server, and docs/reference/conformance.md
  python3 dev.py build    every distribution's wheel and sdist, into dist/
  python3 dev.py setup    only the environment, with what `check` needs as well
  python3 dev.py run ...  a command with the environment's programs first on PATH
  python3 dev.py pins     compile requirements/*.in anew (needs uv; newest versions with --upgrade)
  python3 dev.py help     this text

The first command makes the environment in .venv (elsewhere with PROTOJOBS_VENV), by uv if it is on PATH, else by pip.
Standard library only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("PROTOJOBS_VENV") or ROOT / ".venv").absolute()
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
REQUIREMENTS = ROOT / "requirements"
PINS, DEV, LINT, BROWSER = (REQUIREMENTS / name for name in ("pins.txt", "dev.txt", "lint.txt", "browser.txt"))

# Addresses in a committed file that would tie a clone to one registry: index roots and their file stores. The class
# `[/]` keeps this very line from matching itself. A port or a local name (localhost, an address) is as bad.
REGISTRY_HOST = r"https?:[/][/][^ \"'<>)]*[/](simple|packages)[/]|--(extra-)?index-url|--find-links[ =](https?:|[/])"


def main() -> int:
    command, *rest = sys.argv[1:] or ["help"]
    commands = {"demo": demo, "test": test, "check": check, "build": build, "setup": setup, "run": run_in, "pins": pins}
    commands |= {
        "mutants": mutants,
        "faults": faults,
        "soak": soak,
        "bench": bench,
        "scale": scale,
        "conformance-page": conformance_page,
        "test-browser": test_browser,
        "test-slow": test_slow,
    }
    if command in ("help", "-h", "--help"):
        print(__doc__.strip())
        return 0
    if command not in commands:
        print(f'dev.py: unknown command "{command}"\n\n{__doc__.strip()}', file=sys.stderr)
        return 2
    os.chdir(ROOT)
    for name in ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS"):  # pip trusts the system's certificates; so does uv then
        os.environ.setdefault(name, "1")
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):  # hundreds of processes would compile everything anew
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(VENV / "pycache"))
    return commands[command](rest)


# ------------------------------------------------------------------------------------------------ the commands


def demo(rest: list[str]) -> int:
    ensure_environment()
    return call(BIN / "protojobs", "demo", *rest)


def test(rest: list[str]) -> int:
    ensure_environment()
    # `-n` of our own, unless the caller chose: a debugger wants `-n 0`. Two for each core, since many tests wait: for a
    # lease to end, for an outage to be over.
    chosen = any(a.startswith(("-n", "--numprocesses", "--pdb")) for a in rest)
    workers = [] if chosen else ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal"]
    # The rest are lines of their own in CI: `dev.py test-slow`, and `dev.py faults --short`, minutes of real faults.
    marks = [] if any(a == "-m" or a.endswith(".py") or "::" in a for a in rest) else ["-m", "not faults and not slow"]
    return call(PYTHON, "-m", "pytest", *workers, *marks, *rest)


def test_slow(rest: list[str]) -> int:
    return test(["-m", "slow and not faults", *rest])


def test_browser(rest: list[str]) -> int:
    """The dashboard in a real browser. Installs what it needs: two packages, and Chromium where there is none."""
    ensure_environment()
    stamp = VENV / ".protojobs-stamp-browser"
    if not stamp.exists() or stamp.read_text() != digest([BROWSER]):
        step("what drives a browser", *install(), "-r", BROWSER)
        stamp.write_text(digest([BROWSER]))
    os.environ["PROTOJOBS_CHROMIUM"] = chromium()
    return call(PYTHON, "-m", "pytest", ROOT / "contrib" / "dashboard" / "tests" / "browser", *rest)


def check(rest: list[str]) -> int:
    """All steps run, even after one failed, so that one look shows all there is to mend."""
    ensure_environment()
    ensure_lint()
    sources = [str(d / "src") for d in distributions()]
    steps = {
        "format": lambda: call(BIN / "ruff", "format", "--check", "--quiet", "--diff", "."),
        "lint": lambda: call(BIN / "ruff", "check", "--quiet", "."),
        "pyright": lambda: call(BIN / "pyright", "--project", ROOT, "--pythonpath", PYTHON, quiet_success=True),
        "mypy": lambda: call(PYTHON, "-m", "mypy", "--strict", *sources, quiet_success=True),
        "imports": lambda: call(BIN / "lint-imports", quiet_success=True),
        "contracts": lambda: call(
            PYTHON, "-m", "pytest", "-q", "tests/architecture/check_contracts.py", quiet_success=True
        ),
        "mistakes": lambda: call(PYTHON, "-m", "pytest", "-q", "tests/types/check_types.py", quiet_success=True),
        "hosts": no_registry_host,
    }
    unknown = set(rest) - set(steps)
    if unknown:
        print(f"dev.py check: no step {', '.join(sorted(unknown))}; the steps are {', '.join(steps)}", file=sys.stderr)
        return 2
    failed = []
    for name, step in steps.items():
        if rest and name not in rest:
            continue
        started = time.monotonic()
        ok = step() == 0
        say(f"{name:9} {'ok' if ok else 'FAILED':6} {time.monotonic() - started:5.1f} s")
        if not ok:
            failed.append(name)
    say(f"check: {', '.join(failed)} FAILED" if failed else "check: all passed")
    return 1 if failed else 0


def mutants(rest: list[str]) -> int:
    ensure_environment()
    return call(PYTHON, "tests/mutants/run.py", *rest)


def faults(rest: list[str]) -> int:
    ensure_environment()
    return call(PYTHON, "tests/faults/run.py", *rest)


def soak(rest: list[str]) -> int:
    return faults(["--scenario", "soak", "--at-once", *rest])


def bench(rest: list[str]) -> int:
    ensure_environment()
    return call(PYTHON, "benchmarks/run.py", *rest)


def scale(rest: list[str]) -> int:
    ensure_environment()
    return call(PYTHON, "benchmarks/scale.py", *rest)


def conformance_page(rest: list[str]) -> int:
    ensure_environment()
    return call(PYTHON, "tests/conformance/page.py", *rest)


def build(rest: list[str]) -> int:
    """Wheels and sdists by the pinned hatchling of the environment, without isolation: no network."""
    ensure_environment()
    out = ROOT / "dist"
    shutil.rmtree(out, ignore_errors=True)
    for folder in distributions():
        if call(PYTHON, "-m", "hatchling", "build", "-d", out, *rest, cwd=folder, quiet_success=True):
            return 1
    for file in sorted(out.iterdir()):
        say(f"{file.stat().st_size / 1024:7.1f} KiB  {file.name}")
    return 0


def setup(rest: list[str]) -> int:
    ensure_environment()
    ensure_lint()
    say(f"the environment is {VENV}")
    return 0


def run_in(rest: list[str]) -> int:
    ensure_environment()
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    return call(*(rest or [PYTHON]))


def pins(rest: list[str]) -> int:
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("dev.py pins: uv is not on PATH. Install it (for example by `pipx install uv`) and try again.")
    for source in ("dev", "lint", "browser"):
        target = {"dev": PINS, "lint": LINT, "browser": BROWSER}[source]
        options = ["--universal", "--python-version", "3.11", "--no-header", "--no-annotate", "--quiet", *rest]
        if call(uv, "pip", "compile", *options, REQUIREMENTS / f"{source}.in", "-o", target, quiet_success=True):
            return 1
        say(f"wrote {target.relative_to(ROOT)}")
    return no_registry_host()


# ------------------------------------------------------------------------------------------------ the environment


def ensure_environment() -> None:
    """Make or refresh the environment when what it is made of has changed; else cost a few milliseconds."""
    if sys.version_info < (3, 11):
        raise SystemExit(f"protojobs needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}.")
    stamp = VENV / ".protojobs-stamp"
    wanted = digest([PINS, DEV, *(d / "pyproject.toml" for d in distributions())])
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    started = time.monotonic()
    say(f"setting up {VENV} with Python {sys.version.split()[0]}, once; one or two minutes with an empty cache")
    make_venv()
    # Two steps: with our build backend pinned and installed first, the editables need no isolated build each, and
    # with --no-deps nothing that is not in pins.txt can slip in. `pip check` below says if a pin is missing.
    step("third-party packages, as pinned", *install(), "-r", PINS)
    editables = [part for d in distributions() for part in ("-e", str(d))]
    step("our own distributions, editable", *install(), "--no-deps", "--no-build-isolation", *editables)
    step("that all fits together", *checker(), hint="Add what is missing to requirements/dev.in: python3 dev.py pins.")
    stamp.write_text(wanted)
    say(f"ready in {time.monotonic() - started:.1f} s")


def ensure_lint() -> None:
    stamp = VENV / ".protojobs-stamp-lint"
    wanted = digest([LINT])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    step("linters and type checkers", *install(), "-r", LINT)
    stamp.write_text(wanted)


def chromium() -> str:
    """The browser: that of PROTOJOBS_CHROMIUM, else one on the machine, else Debian's, which is installed now."""
    found = os.environ.get("PROTOJOBS_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        step("the list of Debian's packages", "apt-get", "update", "-qq")
        packages = ("chromium", "fonts-dejavu-core")  # without a font a page has no width to be judged by
        step("Debian's Chromium", "apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
        found = shutil.which("chromium")
    if found is None:
        raise SystemExit("dev.py test-browser: no browser. Install Chromium, or name one in PROTOJOBS_CHROMIUM.")
    return found


def make_venv() -> None:
    for stamp in VENV.glob(".protojobs-stamp*"):
        stamp.unlink()
    if shutil.which("uv"):
        keep = ["--allow-existing"] if usable_venv() else ["--clear"]
        step("an environment, by uv", "uv", "venv", "--quiet", "--python", sys.executable, *keep, VENV)
    elif usable_venv() and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        say("  the environment is there; bringing it up to date")
    elif importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        step("an environment", sys.executable, "-m", "venv", "--clear", VENV)
    else:
        # Debian's python3 without python3-venv: no ensurepip. The pip on the machine fills the environment, which the
        # "externally managed" mark does not forbid, for it installs into another Python.
        step("an environment without pip", sys.executable, "-m", "venv", "--clear", "--without-pip", VENV)
        hint = "This Python has neither ensurepip nor pip: install python3-venv or python3-pip, or put uv on PATH."
        step("pip", sys.executable, "-m", "pip", "-q", "--python", PYTHON, "install", "pip", hint=hint)


def usable_venv() -> bool:
    """Whether the folder holds an environment of this very Python; else it is made anew."""
    config = VENV / "pyvenv.cfg"
    if not (config.exists() and PYTHON.exists()):
        return False
    command = [PYTHON, "-c", "import sys; print(sys.version)"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() == sys.version.strip()


def install() -> list[str]:
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(PYTHON)]
    return [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def checker() -> list[str]:
    if uv := shutil.which("uv"):
        return [uv, "pip", "check", "--quiet", "--python", str(PYTHON)]
    return [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "check"]


def distributions() -> list[Path]:
    """The folders of our distributions, core first: each holds a pyproject.toml."""
    found = [ROOT / "core", *sorted(ROOT.glob("drivers/*")), *sorted(ROOT.glob("contrib/*"))]
    return [folder for folder in found if (folder / "pyproject.toml").exists()]


def digest(files: list[Path]) -> str:
    total = hashlib.sha256(f"{sys.version}\n{ROOT}\n".encode())
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()


# ------------------------------------------------------------------------------------------------ small things


def no_registry_host() -> int:
    """Fail when a text file of the checkout, committed or about to be, names a package index."""
    found = subprocess.run(
        ["git", "grep", "--untracked", "-nIE", REGISTRY_HOST], cwd=ROOT, capture_output=True, text=True
    )
    if found.returncode == 1:
        return 0
    print(found.stdout + found.stderr, end="", file=sys.stderr)
    print("A clone must work with any package index: take the lines above out.", file=sys.stderr)
    return 1


def step(what: str, *command: object, hint: str = "") -> None:
    """A step of the set-up: a line while it runs, its output only if it fails."""
    started = time.monotonic()
    say(f"  {what} ...")
    ran = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if ran.returncode == 0:
        say(f"  {what}: {time.monotonic() - started:.1f} s")
        return
    lines = (ran.stdout + ran.stderr).strip().splitlines()[-25:]
    shown = re.sub(r"(https?://)[^/@\s]+@", r"\1***@", "\n".join(lines))
    message = f"\ndev.py: set-up failed at: {what}\n  {' '.join(str(part) for part in command)}\n{shown}\n{hint}"
    raise SystemExit(message.rstrip() + "\nRun the same command again when that is mended; nothing is half done.")


def call(*command: object, cwd: Path = ROOT, quiet_success: bool = False) -> int:
    """Run a program; with `quiet_success` its output is shown only if it fails."""
    words = [str(part) for part in command]
    try:
        if not quiet_success:
            return subprocess.run(words, cwd=cwd).returncode
        ran = subprocess.run(words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        print(f"dev.py: {words[0]} is not there; remove {VENV} and try again.", file=sys.stderr)
        return 127
    if ran.returncode:
        print(ran.stdout, end="", flush=True)
    return ran.returncode


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
