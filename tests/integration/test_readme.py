"""Every command of README.md's first function and of docs/first-function.md runs as it stands there, in one shell, in
a fresh folder outside the repository, and shows what the page shows.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from documents import ROOT, blocks, expected, masked
from running_node import free_port

pytestmark = [pytest.mark.node, pytest.mark.slow]

LIMIT = 90
"""Seconds for one command."""

SOON = 20
"""Seconds until what a command looks at has come about: events take their time, and so does whoever reads the page."""

LOOKS = re.compile(r"fn (describe|list|logs|state|dlq list|dlq show|revisions)\b|curl -s ")
"""Commands that change nothing: they may be typed again."""

OWN = Path(sys.prefix) / "bin"

INSTALLED_BY_MAKE = Path(sys.prefix) == ROOT / ".venv"


class Terminal:
    """A program, and what it has said so far."""

    def __init__(self, command, *, cwd, environ):
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said = ""
        self._grown = threading.Condition()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self):
        for line in self.process.stdout:
            with self._grown:
                self.said += line
                self._grown.notify_all()

    def wait_for(self, match, limit, what):
        """The first true value of `match(said)`."""
        end = time.monotonic() + limit
        with self._grown:
            while not (found := match(self.said)):
                left = end - time.monotonic()
                assert left > 0, f"{what} did not come about within {limit} s; shown was:\n{self.said}"
                self._grown.wait(left)
            return found

    def close(self, number=None):
        """End it by a signal, or by the end of its input; its exit code."""
        if number is not None:
            self.process.send_signal(number)
        self.process.stdin.close()
        try:
            return self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self._reading.join(LIMIT)
            self.process.stdout.close()


class Reader:
    """Types a page's commands, one after the other."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "node"
        home = folder / "you"
        home.mkdir()
        self.port = free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FN_")}
        own = {"FN_DATA": str(self.data), "FN_PORT": str(self.port), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.environ = {**kept, **own, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "PATH": path(kept["PATH"])}
        self.places = {self.data: "/home/you/.local/share/fleetfn/nodes/default", home: "/home/you"}
        self.shell = Terminal(["bash", "--noprofile", "--norc"], cwd=ROOT, environ=self.environ)
        self.output = ""
        self.last = []
        self.shown_before = ""
        self.dev = None
        self.dev_read = 0
        self.home = home

    def read(self, found):
        for block in found:
            match block.language, block.note.split():
                case "sh", ["setup"]:
                    self.set_up(block)
                case "sh", ["dev"]:
                    self.begin_dev(block)
                case "sh", []:
                    self.output, self.last = "", []
                    self.type(block.text.splitlines())
                case "text", ["dev"]:
                    self.see_dev(block)
                case "text", []:
                    self.see(block)
                case _, ["in", name]:
                    assert block.text in Path(self.here, name).read_text("utf-8"), f"line {block.line}: not in {name}"
                case _:
                    raise AssertionError(f"line {block.line}: what is a block of {block.language} {block.note!r}?")

    def set_up(self, block):
        """Only where `make` has made the environment that runs this: elsewhere it would install another one."""
        if INSTALLED_BY_MAKE:
            self.type(block.text.splitlines())
        else:
            subprocess.run(["make", "-n", "setup"], cwd=ROOT, check=True, capture_output=True)
        self.run(f"cd {self.home}")

    def type(self, lines):
        for line in lines:
            self.note_last(line)
            status, said = self.run(line)
            end = time.monotonic() + SOON
            while status != 0 and LOOKS.match(line) and time.monotonic() < end:
                status, said = self.run(line)
            assert status == 0, f"{line}: exit code {status}\n{said}"
            self.output += said

    def note_last(self, line):
        """The commands at the end that only look may be typed again: what they show may take a moment."""
        if not LOOKS.match(line):
            self.last.clear()
        if not self.last:
            self.shown_before = self.output
        if LOOKS.match(line):
            self.last.append(line)

    def run(self, line):
        """Exit code and output of one line."""
        begin = len(self.shell.said)
        line = line.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        if self.dev is not None:
            line = re.sub(r"\bdev-[0-9a-f]{6}\b", re.search(r"\bdev-[0-9a-f]{6}\b", self.dev.said)[0], line)
        self.shell.process.stdin.write(f"eval {shlex.quote(line)} </dev/null; ended=$?; echo; echo END $ended\n")
        self.shell.process.stdin.flush()
        found = self.shell.wait_for(
            lambda said: re.compile(r"\nEND (\d+)\n").search(said, begin), LIMIT, f"the end of {line}"
        )
        return int(found[1]), self.shell.said[begin : found.start()]

    @property
    def here(self):
        return self.run("pwd")[1].strip()

    def see(self, block):
        """The output of the commands before it; those at their end that only look are typed until they show it."""
        pattern = re.compile(expected(block, self.places))
        end = time.monotonic() + SOON
        while not pattern.fullmatch(masked(self.output, self.places)):
            said = f"line {block.line} shows\n{block.text}\nand what came was\n{self.output}"
            assert self.last, said
            assert time.monotonic() < end, said
            again, self.last = self.last, []
            self.output = self.shown_before
            self.type(again)

    def begin_dev(self, block):
        """In another terminal, where the same environment is active."""
        environ = {**self.environ, "PATH": f"{OWN}{os.pathsep}{self.environ['PATH']}"}
        self.dev = Terminal([OWN / "fn", *shlex.split(block.text)[1:]], cwd=self.here, environ=environ)

    def see_dev(self, block):
        """What the other terminal shows after what was seen of it before."""
        pattern = re.compile(expected(block, self.places))

        def match(said):
            found = pattern.match(masked(said, self.places)[self.dev_read :])
            return found and found.end()

        self.dev_read += self.dev.wait_for(match, LIMIT, f"what line {block.line} shows")

    def close(self):
        self.run("fn down")
        self.shell.close()
        if self.dev is not None:
            assert self.dev.close(signal.SIGINT) == 0, self.dev.said


def path(inherited):
    """The environment's programs; those of one that `make` made come by `source .venv/bin/activate`."""
    others = [each for each in inherited.split(os.pathsep) if each != str(OWN)]
    return os.pathsep.join(others if INSTALLED_BY_MAKE else [str(OWN), *others])


@pytest.fixture
def reader(tmp_path):
    reader = Reader(tmp_path)
    yield reader
    reader.close()


def test_the_first_function_of_the_readme_runs_as_it_stands_there(reader):
    reader.read(blocks("README.md", section="A first function in five minutes"))


def test_the_first_function_runs_step_by_step_as_its_page_says(reader):
    reader.read(blocks("docs/first-function.md"))


@pytest.mark.parametrize("template", ["alert", "mqtt", "http", "cron"])
def test_the_commands_that_a_new_function_names_run(reader, template):
    """All but `fn dev`, which the page of the first function runs."""
    if INSTALLED_BY_MAKE:
        reader.type([f"source {OWN / 'activate'}"])
    reader.type([f"cd {reader.home}", f"fn new last-seen --template {template}", "cd last-seen"])
    page = Path(reader.here, "README.md").read_text("utf-8")
    commands = re.findall(r"^    (\S.*)$", page, re.MULTILINE)
    assert "fn deploy" in [command.partition("#")[0].strip() for command in commands]
    for command in commands:
        if not command.startswith("fn dev"):
            reader.type([command])
            assert '"error"' not in reader.output
