"""Debian packages, unpacked into folders without being installed: no root is needed and nothing of the machine changes.

The archive is the one that this machine's apt already uses.
"""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

TOOLS = ("apt-get", "apt-cache", "dpkg", "dpkg-deb")
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
# One-line and deb822 sources; the archive proper, not its security or snapshot neighbours.
ARCHIVE = re.compile(r"^ *(?:deb |URIs:).*?([a-z+]+://\S+/debian)/?(?:\s|$)", re.MULTILINE)


class Unavailable(Exception):
    """Something that the machine would be made of cannot be had here; the text says what and why."""


class Archive:
    """Some suites of Debian's archive, seen by an apt that keeps its state in ``folder``."""

    def __init__(self, folder: Path, suites: Iterable[str]) -> None:
        for tool in TOOLS:
            if shutil.which(tool) is None:
                raise Unavailable(f"no {tool} on this machine")
        self._folder = folder.resolve()
        for place in ("lists/partial", "cache/archives/partial"):
            (self._folder / place).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        uri = archive_uri()
        lines = (f"deb {uri} {suite} main\n" for suite in sorted(suites))
        (self._folder / "sources.list").write_text("".join(lines))
        self._run("apt-get", "update")

    def unpack(self, packages: Sequence[str], root: Path, *, suite: str, depends: bool = True) -> None:
        """Unpack packages of a suite into ``root``, with all that they depend on unless told otherwise."""
        archives = self._folder / "cache" / "archives"
        for old in archives.glob("*.deb"):
            old.unlink()
        if depends:
            self._run("apt-get", "-y", "-t", suite, "--no-install-recommends", "--download-only", "install", *packages)
        else:
            self._run("apt-get", "download", *(f"{package}/{suite}" for package in packages), cwd=archives)
        for archive in sorted(archives.glob("*.deb")):
            self._run("dpkg", "-x", str(archive), str(root))
            archive.unlink()

    def dependencies(self, package: str, suite: str) -> list[str]:
        """What the newest version of a package in a suite depends on directly."""
        text = self._run("apt-cache", "show", f"{package}/{suite}")
        found = re.search(r"^Depends: (.*)$", text, re.MULTILINE)
        return [name.split()[0] for name in found[1].split(",")] if found else []

    def _run(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        folder = self._folder
        private = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": getpass.getuser(),
            "Acquire::Languages": "none",
            "Acquire::http::Timeout": "60",
            "Debug::NoLocking": "1",
        }
        options = [f"-o{key}={value}" for key, value in private.items()] if tool.startswith("apt") else []
        done = subprocess.run([tool, *options, *arguments], cwd=cwd, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise Unavailable(f"{tool} {' '.join(arguments[:3])} failed: {''.join(reason)}")
        return done.stdout


def archive_uri() -> str:
    """The archive in the machine's apt sources. Raises Unavailable."""
    for path in _source_files():
        for uri in ARCHIVE.findall(path.read_text(errors="replace")):
            if "snapshot" not in uri and "security" not in uri:
                return str(uri)
    raise Unavailable("no Debian archive in apt's sources")


def _source_files() -> Iterator[Path]:
    for place in SOURCES:
        if place.is_dir():
            yield from sorted(path for path in place.iterdir() if path.suffix in (".list", ".sources"))
        elif place.exists():
            yield place
