"""The README's quicker start: bytecode is used, and nothing else is run.

Its lines are run as they stand, under each interpreter, in folders that are
full of modules that would tell if they were imported.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from conftest import SCRIPT, environment
from kept import IMAGE, install

TRAP = "open({!r}, 'a').write(__name__ + ' ')\n"
TRAPS = ("json", "argparse", "re", "sitecustomize", "compileall", "struct",
         "py_compile", "http", "xeroctl")
LIMIT_S = 20


class Place:
    """Folders to work in, and what was imported from them."""

    def __init__(self, folder):
        self.home, self.hostile = str(folder / "home"), str(folder / "job")
        self.mark = str(folder / "imported")
        self.lay_traps(self.hostile)

    def lay_traps(self, folder):
        os.makedirs(folder, exist_ok=True)
        for name in TRAPS:
            with open(os.path.join(folder, name + ".py"), "w") as target:
                target.write(TRAP.format(self.mark))

    def run(self, *command):
        """Run a command among the traps; return what it prints."""
        return subprocess.run(
            command, cwd=self.hostile, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=LIMIT_S,
            env=environment(HOME=self.home, PYTHONPATH=self.hostile,
                            PATH=os.defpath)).stdout.decode()

    def caught(self):
        return os.path.exists(self.mark)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def kept(place, python):
    """The command, put there from a checkout that has traps in it, too."""
    checkout = place.home + "/checkout"
    place.lay_traps(checkout)
    shutil.copy(SCRIPT, checkout)
    command = install(place.home, python, checkout)
    assert not place.caught()
    place.lay_traps(os.path.dirname(command))
    return command


def files_of(home):
    """{name: when it was written} of the folder of the module."""
    found = (os.path.join(folder, name) for folder, _, names in os.walk(
        os.path.join(home, ".local", "lib", "xeroctl")) for name in names)
    return {path: os.stat(path).st_mtime_ns for path in found}


def make_unreadable(path):
    """Make a source one that cannot be compiled, and looks unchanged."""
    before = os.stat(path)
    with open(path, "r+b") as target:
        target.write(b"(" * 99)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_launcher_runs_kept_bytecode_and_nothing_beside_it(place, kept):
    source, = [path for path in files_of(place.home) if path[-3:] == ".py"]
    make_unreadable(source)  # so that what is compiled fails
    before = files_of(place.home)
    assert len(before) == 2
    assert place.run(kept, "--version").startswith("xeroctl 1.")
    assert "no base URL" in place.run(kept, "chat", "--endpoint", "demo",
                                      "-m", "Hello")
    assert "usage: xeroctl" in place.run(kept, "--help")
    assert files_of(place.home) == before and not place.caught()


def test_the_traps_catch_a_module_that_is_run_from_a_shell(place):
    place.run(sys.executable, "-m", "xeroctl", "--version")
    assert place.caught()


def test_without_bytecode_and_a_place_for_it_it_runs_as_well(place, kept):
    source, = [path for path in files_of(place.home) if path[-3:] == ".py"]
    kept_in = os.path.join(os.path.dirname(source), "__pycache__")
    shutil.rmtree(kept_in)
    open(kept_in, "w").close()  # as read-only is for the tests of root, too
    assert place.run(kept, "--version").startswith("xeroctl 1.")


def test_the_launcher_makes_a_call(place, kept, router):
    shown = subprocess.run(
        [kept, "chat", "--endpoint", "demo", "-m", "Hello"],
        cwd=place.hostile, stdout=subprocess.PIPE, timeout=LIMIT_S,
        env=environment(router, PYTHONPATH=place.hostile))
    assert shown.returncode == 0 and shown.stdout.startswith(b"Hello!")
    assert not place.caught()


def test_the_image_is_made_and_runs_likewise(place, python):
    root = place.home + "/root"
    entry = None
    for line in IMAGE.splitlines()[1:]:
        word, _, rest = line.replace("/opt", root).partition(" ")
        if word == "COPY":
            name, folder = rest.split()
            os.makedirs(folder)
            shutil.copy(SCRIPT, folder)
            assert name == os.path.basename(SCRIPT)
        elif word == "RUN":
            place.run(python, *shlex.split(rest)[1:])
        else:
            entry = [python] + json.loads(rest)[1:]
    pyc, = os.listdir(root + "/xeroctl/__pycache__")
    make_unreadable(root + "/xeroctl/xeroctl.py")
    assert place.run(*entry, "--version").startswith("xeroctl 1."), pyc
    assert "no verb 'bogus'" in place.run(*entry, "config", "bogus")
    assert not place.caught()
