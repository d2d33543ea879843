"""Make the virtual environment: `python3 tools/environment.py EXTRAS`, which `make` calls.

Standard library only, and nothing newer than Python 3.6 before the version check, so that an old interpreter is told
what is wrong. A stamp in the environment names what it was made from; when nothing has changed this takes no time.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  that older interpreters get this far is the point
    sys.exit(
        "connect_trio needs Python 3.11 or newer, and %s is %d.%d: run it as `make PYTHON=python3.11 ...`"  # noqa: UP031
        % (sys.executable, sys.version_info[0], sys.version_info[1])
    )

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "connect-trio.stamp"
CONSTRAINTS = ROOT / "constraints.txt"

EXTRAS = {"run": "", "dev": "[dev,e2e]"}


def main() -> None:
    parser = argparse.ArgumentParser(description="make the virtual environment of the project")
    parser.add_argument("what", choices=[*EXTRAS, "upgrade"], help="for running, for development, or newer pins")
    what = parser.parse_args().what
    if what == "upgrade":
        upgrade()
    elif not is_current(what):
        create()
        install(VENV, EXTRAS[what], pinned=True)
        STAMP.write_text(f"{what} {fingerprint()}\n")


def fingerprint() -> str:
    """Everything that an environment is made from, as one hash: interpreter, place, dependencies, pins."""
    seed = f"{sys.version_info[:2]} {ROOT}".encode()
    return hashlib.sha256(seed + (ROOT / "pyproject.toml").read_bytes() + CONSTRAINTS.read_bytes()).hexdigest()


def is_current(what: str) -> bool:
    """Whether the environment is there, made from the present files, and has at least what is asked for."""
    if not (python_of(VENV).exists() and STAMP.exists()):
        return False
    made_for, _, made_from = STAMP.read_text().strip().partition(" ")
    return made_from == fingerprint() and made_for in (what, "dev")


def python_of(venv: Path) -> Path:
    return venv / "bin" / "python"


def create() -> None:
    """Make `.venv` unless there is one of this Python version."""
    STAMP.unlink(missing_ok=True)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if (VENV / "bin" / f"python{version}").exists() and python_of(VENV).exists():
        return
    say(f"making .venv with Python {version}")
    shutil.rmtree(VENV, ignore_errors=True)
    provide_ensurepip(version)
    run(sys.executable, "-m", "venv", str(VENV))


def provide_ensurepip(version: str) -> None:
    """Debian splits `venv` from Python: install that package if we may, else say which one it is."""
    if importlib.util.find_spec("ensurepip") is not None:
        return
    package = f"python{version}-venv"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"this Python cannot make virtual environments: install the package {package} and run make again")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", env=quiet)
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", package, env=quiet)


def install(venv: Path, extras: str, *, pinned: bool) -> None:
    """Install the project, editable. Without build isolation, so that its build tool is pinned like the rest."""
    say(f"installing connect_trio{extras} into {venv.name}")
    pip = [str(python_of(venv)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "8"]
    pins = ["--constraint", str(CONSTRAINTS)] if pinned else ["--upgrade"]
    run(*pip, *pins, "setuptools>=77")
    run(*pip, *pins, "--no-build-isolation", "--editable", f"{ROOT}{extras}")


def upgrade() -> None:
    """Write the newest versions that fit pyproject.toml into constraints.txt: plain `name==version` lines."""
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        run(sys.executable, "-m", "venv", str(venv))
        install(venv, EXTRAS["dev"], pinned=False)
        freeze = [str(python_of(venv)), "-m", "pip", "freeze", "--all", "--exclude-editable", "--exclude", "pip"]
        pins = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.splitlines()
    odd = [pin for pin in pins if "==" not in pin]
    if odd:
        sys.exit(f"not a plain version: {', '.join(odd)}")
    CONSTRAINTS.write_text("\n".join(sorted(pins, key=str.lower)) + "\n")
    say(f"{len(pins)} pins written to constraints.txt")


def run(*command: str, env: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(command, check=True, env=env, stdin=subprocess.DEVNULL, cwd=ROOT)
    except subprocess.CalledProcessError as exc:
        sys.exit(f"failed with code {exc.returncode}: {' '.join(command)}")


def say(text: str) -> None:
    print(f"[environment] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
