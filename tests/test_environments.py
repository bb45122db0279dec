"""The same program wherever it is copied to: hosts, roots, Pythons, ways in.

Each place is seen by a tour of commands, each a process: what is done there,
what is shown, and one way to fail.  The plain command takes one step of the
tour in each place, under the oldest interpreter; --full takes all of them
under each interpreter, and some in each place.  What a machine cannot make is
skipped, by its name.
"""

import glob
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

import xeroctl
from conftest import (INTERPRETERS, IS_FULL, ROOT, SCRIPT, STARTED, Result,
                      at_both_ends, costly, environment, from_system,
                      version_of)
from test_session import Desk

pytestmark = pytest.mark.skipif(os.name != "posix",
                                reason="roots and descriptors of POSIX")

LIMIT_S = 30
WORDS = "日本 é"
CHAT = ["chat", "--endpoint", "demo", "-m", WORDS]
STREAM = CHAT + ["--stream"]
SESSION = ["chat", "--endpoint", "demo", "--interactive"]
ANSWER = (f'Hello! You said: "{WORDS}". I am the demo endpoint of the'
          " reference router; I repeat what I am told.\n")
KEPT = b"one\r\n\x00\xff\n"
KEY = "xero_kept_abcdefghijklmnop"
CONFIG = (f'current = "kept"\n[deployment.kept]\napi_key = "{KEY}"\n'
          'base_url = "https://kept.example/p/v1"\n')
LINE = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "demo", "max_tokens": 8,
                 "messages": [{"role": "user", "content": WORDS}]}}
BEATEN = ("kept gives way to XEROTIER_BASE_URL and XEROTIER_API_KEY:"
          ".*\n")
TELLS_TRACE = re.compile("Traceback|internal error|Exception ignored|"
                         r"ResourceWarning|\.py:\d", re.I)


# == the tour

# A step of the tour: {id} in the words is the file that is kept there.
Step = namedtuple("Step", "words status stdout stderr")

# What is shown, as a regular expression for the whole of the stream.
TOUR = {
    "stream": Step(STREAM, 0, re.escape(ANSWER), r"-- \d+ tokens in .*\n"),
    "version": Step(["--version"], 0,
                    re.escape(f"xeroctl {xeroctl.__version__}\n"), ""),
    "help": Step(["help"], 0, r"usage: xeroctl (.|\n)+", ""),
    "chat": Step(CHAT, 0, re.escape(ANSWER), ""),
    "json": Step(CHAT + ["-o", "json"], 0,
                 r"\{\n(.|\n)*日本(.|\n)*\n\}\n", ""),
    "add": Step(["config", "add", "new", "--base-url",
                 "https://new.example/p/v1", "--api-key", KEY + "2"], 0,
                "added new\n", r"(warning: .*\n(  .*\n)*)?"),
    "list": Step(["config", "list"], 0,
                 r"(.|\n)*kept +yes +https://kept(.|\n)*", BEATEN),
    "show": Step(["config", "show", "kept"], 0,
                 r"(.|\n)*https://kept\.example/p/v1\n(.|\n)*", BEATEN),
    "check": Step(["batches", "check", "lines.jsonl"], 0,
                  r"File: +lines\.jsonl\nLines: +1\n(.|\n)*", ""),
    "upload": Step(["files", "--upload", "kept.bin", "-o", "id"], 0,
                   r"file-\w+\n", ""),
    "download": Step(["files", "{id}", "--download", "got.bin"], 0,
                     r"(.|\n)*", r"(.|\n)*"),
    "missing": Step(["chat", "--endpoint", "nope", "-m", "x"], 4, "",
                    r"error: HTTP 404 Endpoint 'nope' (.|\n)*"),
    "usage": Step(["chatt"], 2, "", r"error: unknown command 'chatt'\n.*\n"),
    "local": Step(["batches", "check", "no.jsonl"], 2, "",
                  r"error: .*no\.jsonl.*\n"),
    "deaf": Step(CHAT + ["--base-url", "http://127.0.0.1:1/p/v1",
                         "--retries", "0"], 5, "",
                 r"error: connect: 127\.0\.0\.1:1: .*\n  hint: .*\n"),
}


def some(number, count=4):
    """The steps to take in a place: one, --full more, never the same."""
    names = list(TOUR) * 3
    first = number * 4 % len(TOUR)
    return names[first:first + (count if IS_FULL else 1)]


@pytest.fixture
def place(tmp_path):
    """A folder with a config, a batch file and a file to send."""
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "config.toml").write_text(CONFIG)
    (folder / "config.toml").chmod(0o600)
    (folder / "lines.jsonl").write_text(json.dumps(LINE) + "\n")
    (folder / "kept.bin").write_bytes(KEPT)
    return folder


@pytest.fixture
def go(router, place):
    """go(command, words, **environ): a process in the place; its Result."""
    def runner(command, words, cwd=None, preexec_fn=None, **environ):
        environ.setdefault("XEROTIER_CONFIG", "config.toml")
        process = subprocess.Popen(
            list(command) + list(map(from_system, words)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd or str(place), start_new_session=True,
            preexec_fn=preexec_fn, env=environment(router, **environ))
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        return Result(stdout.decode("utf-8"), stderr.decode("utf-8"),
                      process.returncode)
    return runner


def content(path):
    with open(str(path), "rb") as source:
        return source.read()


def check_done(name, shown, router, place):
    """What the router and the folder say of a step that went well."""
    if name in ("stream", "chat", "json"):
        asked = router.requests[-1].json
        assert asked["messages"] == [{"role": "user", "content": WORDS}]
        assert asked["stream"] == (name == "stream")
    if name == "json" and shown:
        assert json.loads(shown)["object"] == "chat.completion"
    elif name == "add":
        config = place / "config.toml"
        assert config.stat().st_mode & 0o777 == 0o600
        assert config.read_text().startswith(CONFIG)
        assert "[deployment.new]" in config.read_text()
    elif name == "upload":
        assert KEPT in router.requests[-1].body
    elif name == "download":
        assert content(place / "got.bin") == KEPT


@pytest.fixture
def tour(go, run, router, place):
    """Take steps of the tour, with a command; other says what differs."""
    def taker(names, command, other=(), inside="", **options):
        kept = run("files", "--upload", str(place / "kept.bin"), "-o", "id")
        for name in names:
            step = dict(other).get(name, TOUR[name])
            words = [word.format(id=kept.strip()) for word in step.words]
            shown = go(command, words, **options)
            assert shown.exit_status == step.status, (name, shown)
            assert re.fullmatch(step.stdout, shown), (name, shown)
            assert re.fullmatch(step.stderr, shown.stderr), (name, shown)
            assert not TELLS_TRACE.search(shown.stderr), (name, shown)
            assert KEY not in shown + shown.stderr, name
            if step.status == 0:
                check_done(name, shown, router, Path(inside + "/place")
                           if inside else place)
    return taker


# == ways to start it

def isolated(python, folder):
    return [python, "-I", "-S", "-OO", SCRIPT]


def with_every_warning(python, folder):
    return [python, "-bb", "-X", "dev", "-W", "error", SCRIPT]


def from_a_zip(python, folder):
    path = str(folder / "xeroctl.pyz")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(SCRIPT, "__main__.py")
    return [python, path]


def as_a_module_in_a_zip(python, folder):
    path = str(folder / "lib.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(SCRIPT, "xeroctl.py")
    return [python, "-c", f"import sys; sys.path[:0] = [{path!r}];"
            " import xeroctl; xeroctl.console()"]


def through_a_symlink(python, folder):
    (folder / "bin").mkdir()
    (folder / "bin" / "far").symlink_to(SCRIPT)
    (folder / "xt").symlink_to("bin/far")
    return [python, str(folder / "xt")]


def from_a_descriptor(python, folder):
    return ["/bin/sh", "-c", 'exec "$0" /dev/fd/9 "$@" 9<' + SCRIPT, python]


def from_an_odd_place(python, folder):
    odd = folder / "a b\n'é$(x)"
    odd.mkdir()
    shutil.copy(SCRIPT, str(odd))
    return [python, str(odd / "xeroctl.py")]


def unreadable_name(python, folder):
    odd = os.path.join(os.fsencode(str(folder)), b"\xff.py")
    shutil.copy(SCRIPT, odd)
    return [python, os.fsdecode(odd)]


WAYS = [isolated, from_a_zip, through_a_symlink, as_a_module_in_a_zip,
        with_every_warning, from_an_odd_place, unreadable_name,
        from_a_descriptor]


@costly
def test_every_interpreter_takes_the_whole_tour(tour, python):
    tour(TOUR, [python, SCRIPT])


@at_both_ends
@pytest.mark.parametrize("number, way", list(enumerate(
    WAYS if IS_FULL else WAYS[:3])))
def test_every_way_in_leads_to_the_same(tour, tmp_path, python, number, way):
    tour(some(number), way(python, tmp_path))


# == what the environment says, and what it does not

POOR = {
    "nothing": {},
    "C": {"LANG": "C"},
    "POSIX": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0",
              "PYTHONUTF8": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1", "LC_ALL": "de_DE.ISO8859-1"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict", "PYTHONCOERCECLOCALE": "0"},
    "no home": {"HOME": "/no/such/folder"},
    "no docstrings": {"PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "0"},
    "unbuffered": {"PYTHONUNBUFFERED": "1", "COLUMNS": "x", "TERM": ""},
    "odd": {"HOME": "\udcff", "TMPDIR": "/no/such", "TZ": "Nowhere/At_all",
            "XEROTIER_OUTPUT": "", "LINES": "-1", "COLUMNS": "-5"},
}


@at_both_ends
@pytest.mark.parametrize("name", POOR if IS_FULL else ["POSIX"])
def test_a_poor_environment_takes_nothing_away(tour, python, name):
    more = some(list(POOR).index(name)) if IS_FULL else []
    tour(["stream"] + more, [python, STARTED], **POOR[name])


# == a file system that takes nothing

READ_ONLY = """
for each in / "$0"; do
    mount --bind "$each" "$each" || exit 99
    mount -o remount,bind,ro "$each" || exit 99
done
cd "$0" && exec "$@"
"""


def in_a_mount_space():
    """How to start a shell whose mounts are its own, or None."""
    rights = "-m" if os.geteuid() == 0 else "-rm"
    command = ["unshare", rights, "/bin/sh", "-c"]
    try:
        subprocess.check_output(command + [READ_ONLY, "/tmp", "true"],
                                stderr=subprocess.STDOUT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return command


@pytest.fixture(scope="module")
def read_only():
    """What makes the roots read-only, /tmp too, for one command."""
    command = in_a_mount_space()
    if command is None:
        pytest.skip("this machine mounts nothing for us")
    return command + [READ_ONLY]


REFUSED = r"error: .*(Read-only file system|not writable).*\n(  .*\n)*"
UNWRITABLE = {
    "add": TOUR["add"]._replace(status=3, stdout="", stderr=REFUSED),
    "download": TOUR["download"]._replace(status=2, stdout="",
                                          stderr=REFUSED),
}


@at_both_ends
def test_a_read_only_file_system(tour, python, place, read_only):
    names = TOUR if IS_FULL else ["add"]
    tour(names, read_only + [str(place), python, STARTED], UNWRITABLE)
    assert content(place / "config.toml") == CONFIG.encode()
    assert not (place / "got.bin").exists()


@costly
def test_a_read_only_place_is_no_bar_to_standard_output(
        go, run, place, read_only):
    kept = run("files", "--upload", str(place / "kept.bin"), "-o", "id")
    command = ["/bin/sh", "-c", 'exec "$@" | od -An -tx1', "sh"] + read_only
    shown = go(command + [str(place), sys.executable, STARTED],
               ["files", kept.strip(), "--download", "-"])
    assert shown.exit_status == 0
    assert shown.stderr == f"{kept.strip()} -> - ({len(KEPT)} B)\n"
    assert bytes.fromhex(shown.replace(" ", "").strip()) == KEPT


# == descriptors

CLOSED = ["".join(each) for count in range(1, 4)
          for each in itertools.combinations("012", count)]


def closing(numbers):
    """A shell that closes descriptors, then is the command."""
    words = " ".join({"0": "<&-", "1": ">&-", "2": "2>&-"}[number]
                     for number in numbers)
    return ["/bin/sh", "-c", f'exec "$@" {words}', "sh"]


@at_both_ends
@pytest.mark.parametrize("numbers", CLOSED if IS_FULL
                         else ["1", "02", "012"])
def test_a_closed_descriptor_takes_only_itself(tour, python, numbers):
    steps = {name: step._replace(
        stdout="" if "1" in numbers else step.stdout,
        stderr="" if "2" in numbers else step.stderr)
        for name, step in TOUR.items()}
    more = some(CLOSED.index(numbers)) if IS_FULL else []
    tour(["download", "stream", "missing"] + more,
         closing(numbers) + [python, STARTED], steps)


# == no terminal

@pytest.mark.parametrize("words, status, said", [
    (["config", "init"], 2, "terminal"),
    (["files", "file-x", "--delete"], 2, "--force"),
    (["config", "remove", "kept"], 2, "--force"),
    (SESSION, 0, ""),
])
def test_without_a_terminal_nothing_is_asked(run, router, place, words,
                                             status, said):
    shown = run(*words, XEROTIER_CONFIG=str(place / "config.toml"))
    assert shown.exit_status == status, shown
    assert shown == "" and said in shown.stderr
    assert router.requests == []
    assert content(place / "config.toml") == CONFIG.encode()


# == a session in a place

TYPED = "To " + WORDS


@pytest.fixture
def sit(router, place):
    """sit(command, **environ): one message, then Ctrl-D; what was shown."""
    desks = []

    def sitter(command, said=TYPED, **environ):
        desk = Desk(command + SESSION, environment(
            router, XEROTIER_CONFIG=str(place / "config.toml"), **environ))
        desks.append(desk)
        desk.until("msgs: 0", "> ")
        desk.type(said + "\n")
        desk.until("msgs: 2", "> ")
        desk.type("\x04")
        assert desk.end() == 0, desk.shown
        return desk.shown.decode()
    yield sitter
    for desk in desks:
        desk.close()


SEATS = [isolated, from_a_zip, as_a_module_in_a_zip, through_a_symlink]


@costly
@at_both_ends
@pytest.mark.parametrize("way", SEATS)
def test_a_session_starts_in_every_way(sit, router, tmp_path, python, way):
    shown = sit(way(python, tmp_path), TERM="xterm")
    assert f'You said: "{TYPED}"' in shown
    assert len(router.requests) == 1


@costly
@at_both_ends
@pytest.mark.parametrize("name", POOR)
def test_a_session_in_a_poor_environment(sit, router, python, name):
    shown = sit([python, STARTED], **POOR[name])
    assert f'You said: "{TYPED}"' in shown
    assert router.requests[-1].json["messages"][-1]["content"] == TYPED


@costly
@at_both_ends
@pytest.mark.parametrize("said", ["é", WORDS])
def test_no_typed_byte_is_lost_in_a_poor_locale(sit, router, python, said):
    sit([python, STARTED], said, **POOR["POSIX"])
    assert router.requests[-1].json["messages"][-1]["content"] == said


@costly
@at_both_ends
def test_a_session_on_a_read_only_file_system(sit, place, read_only, python):
    shown = sit(read_only + [str(place), python, SCRIPT])
    assert f'You said: "{TYPED}"' in shown


# == modules that a Python was built without

MISSING = ["readline", "ssl", "zlib", "termios", "curses", "_curses", "fcntl",
           "_hashlib", "_ssl", "select", "getpass", "unicodedata", "array",
           "_posixsubprocess", "pwd", "grp", "_bz2", "_lzma", "_ctypes",
           "_datetime", "_json", "_bisect", "_queue", "_uuid", "resource",
           "_csv", "csv", "tarfile", "mimetypes", "difflib", "tempfile",
           "subprocess", "binascii", "math", "_random", "hashlib",
           "hmac", "queue", "ipaddress"]
HIDE = "import sys\nsys.modules.update(dict.fromkeys({!r}))\n"


@pytest.fixture
def hide(tmp_path):
    """hide("ssl zlib") is the environment of a Python without these."""
    def hider(modules):
        folder = tmp_path / "hiding"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(HIDE.format(modules.split()))
        return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return hider


NEEDED_BY_NONE = ["readline", "ssl", "zlib", "termios", "curses", "_curses",
                  "fcntl", "_hashlib", "_ssl", "getpass", "pwd", "grp",
                  "_bz2", "_lzma", "_ctypes", "_datetime", "_json",
                  "_bisect", "_queue", "_uuid", "resource",
                  "_posixsubprocess", "tarfile", "subprocess", "csv", "_csv",
                  "hmac", "queue"]
OLDEST = version_of(INTERPRETERS[0])
if OLDEST < (3, 11):    # from 3.11.4 on urllib.parse imports it
    NEEDED_BY_NONE.append("ipaddress")
oldest = pytest.mark.parametrize("python", INTERPRETERS[:1], indirect=True)
OPTIONAL = "ssl readline zlib termios"


@oldest
@pytest.mark.parametrize("module", (
    NEEDED_BY_NONE if IS_FULL else ["fcntl"]) + [OPTIONAL])
def test_a_tour_needs_no_module_of_these(tour, hide, python, module):
    names = ["stream", "add"] + ["upload", "json"] * IS_FULL
    tour(names, [python, STARTED], **hide(module))


@oldest
@pytest.mark.parametrize("module", MISSING if IS_FULL else ["array"])
def test_what_needs_a_module_says_so_in_a_line(go, hide, python, place,
                                               module):
    names = ["check", "stream", "list", "usage", "upload"]
    for name in names if IS_FULL else names[:1]:
        shown = go([python, STARTED], TOUR[name].words, **hide(module))
        if shown.exit_status == TOUR[name].status:
            assert re.fullmatch(TOUR[name].stdout, shown), (name, shown)
        else:
            assert shown.exit_status in (1, 3, 5) and shown == "", shown
            assert shown.stderr.startswith("error: this Python has no ")
        assert not TELLS_TRACE.search(shown.stderr), (name, shown)


NEEDS = [("ssl", CHAT + ["--base-url", "https://127.0.0.1:1/p/v1"], 5),
         ("csv", "batches run --input kept.bin --input-format csv --template"
                " {a} --output-file o --endpoint e --dry-run".split(), 1),
         ("tarfile", ["upload", ".", "model"], 1),
         ("hashlib", ["upload", "kept.bin", "m"], 1)]
if OLDEST < (3, 14):    # from then on socket does without
    NEEDS.append(("select", CHAT, 1))


@oldest
@pytest.mark.parametrize("module, words, code",
                         NEEDS if IS_FULL else NEEDS[:1])
def test_the_module_is_named(go, hide, python, module, words, code):
    shown = go([python, STARTED], words, **hide(module))
    assert shown.exit_status == code and shown == ""
    assert re.match(r"(upload \S+\n)?error: (TLS: )?this Python has no "
                    + module + " module\n", shown.stderr), shown
    assert not TELLS_TRACE.search(shown.stderr)


@costly
@oldest
@pytest.mark.parametrize("module", ["subprocess", "_posixsubprocess"])
def test_a_key_of_a_command_needs_subprocess(go, hide, place, python, module):
    with open(str(place / "config.toml"), "a") as config:
        config.write('[deployment.asked]\napi_key_command = "echo x"\n'
                     'base_url = "https://127.0.0.1:1/p/v1"\n')
    shown = go([python, STARTED], ["models", "--context", "asked"],
               XEROTIER_BASE_URL="", XEROTIER_API_KEY="", **hide(module))
    assert shown.exit_status in (1, 3) and shown == ""
    assert shown.stderr.startswith(f"error: this Python has no {module} mod")


def ask_for_a_key(python, place, environ):
    """config init up to the question for the key; what is shown then."""
    desk = Desk([python, STARTED, "config", "init"], environment(
        None, XEROTIER_CONFIG=str(place / "none.toml"), **environ))
    try:
        for question, typed in (("Name ", "a\n"), ("Base URL",
                                "http://127.0.0.1:1/p/v1\n"),
                                ("Style", "\n")):
            desk.until(question)
            desk.type(typed)
        while desk.read():
            if b"(not shown): " in desk.shown:
                return desk.shown.decode(), None
        return desk.shown.decode(), desk.process.wait(LIMIT_S)
    finally:
        desk.close()


@at_both_ends
@pytest.mark.parametrize("module", ["termios", "getpass"] if IS_FULL
                         else ["termios"])
def test_a_key_is_not_asked_for_where_it_would_show(hide, python, place,
                                                    module):
    shown, status = ask_for_a_key(python, place, hide(module))
    assert status in (1, 3), shown
    assert not TELLS_TRACE.search(shown) and "echoed" not in shown
    last = [line for line in shown.splitlines() if "error:" in line]
    assert len(last) == 1 and "GetPassWarning" not in shown


@costly
@at_both_ends
def test_a_key_is_asked_for_where_it_can_be_hidden(place, python):
    shown, status = ask_for_a_key(python, place, {})
    assert status is None and shown.endswith("(not shown): ")


# == a root that holds an interpreter and this file

def libraries(path):
    """The files that a program or library is loaded with."""
    told = subprocess.run(["ldd", path], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout.decode()
    return re.findall(r"(/\S+) \(0x", told)


def put(root, path):
    """Put a file of the machine at the same path below a root."""
    there = root + path
    if not os.path.exists(there):
        os.makedirs(os.path.dirname(there), exist_ok=True)
        shutil.copy(path, there)


SKIPPED = shutil.ignore_patterns(
    "test", "tests", "site-packages", "dist-packages", "config-*", "idlelib",
    "ensurepip", "lib2to3", "turtledemo", "tkinter", "*.pyo", "*.opt-*.pyc")


def furnish(root, python):
    """Put an interpreter, its library and what it loads below a root."""
    told = subprocess.check_output([python, "-c", (
        "import json, os, sys; print(json.dumps([os.path.realpath("
        "sys.executable), sys.base_prefix, os.path.dirname(os.__file__)]))")])
    program, prefix, library = json.loads(told.decode())
    put(root, program)
    shutil.copytree(library, root + library, ignore=SKIPPED, symlinks=False)
    loaded = set(libraries(program))
    for path in glob.glob(root + library + "/lib-dynload/*.so"):
        loaded.update(libraries(path))
    for path in loaded:
        put(root, path)
    shutil.copy(SCRIPT, root + "/xeroctl.py")
    return program


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """roots(python) is (a root of its own, the program in it)."""
    made = {}

    def maker(python):
        if python not in made:
            root = str(tmp_path_factory.mktemp("root"))
            made[python] = root, furnish(root, python)
        return made[python]
    yield maker
    for root, _ in made.values():
        shutil.rmtree(root)


NOBODY = 54321


def enter(root, somebody_else):
    """Be in the root, and maybe somebody without name and rights there."""
    os.chroot(root)
    os.chdir("/place")
    if somebody_else:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


@pytest.fixture
def rooted(roots, place, go):
    """rooted(python, somebody_else) is a command, and what enters."""
    if os.geteuid() != 0 or not shutil.which("ldd"):
        pytest.skip("no root to change, or no ldd to tell what it must hold")

    def enterer(python, somebody_else=False):
        root, program = roots(python)
        shutil.rmtree(root + "/place", ignore_errors=True)
        shutil.copytree(str(place), root + "/place")
        os.chmod(root, 0o755)
        for name in os.listdir(root + "/place"):
            os.chmod(os.path.join(root, "place", name), 0o644)
        return {"command": [program, "/xeroctl.py"],
                "preexec_fn": lambda: enter(root, somebody_else)}, root
    return enterer


@costly
@at_both_ends
def test_a_root_with_nothing_but_python(tour, rooted, python, place):
    options, root = rooted(python)
    os.chmod(root + "/place/config.toml", 0o600)
    tour(TOUR, inside=root, **options)


@costly
@at_both_ends
def test_somebody_unknown_who_may_write_nothing(tour, rooted, python):
    refused = r"error: .*Permission denied.*\n(  .*\n)*"
    options, root = rooted(python, somebody_else=True)
    warned = r"(warning: .*\n(  .*\n)*)?"
    steps = {name: step._replace(stderr=warned + step.stderr)
             for name, step in TOUR.items()}
    for name in "add", "download":
        steps[name] = UNWRITABLE[name]._replace(stderr=warned + refused)
    before = sorted(os.listdir(root + "/place"))
    tour(TOUR, other=steps, inside=root, **options)
    assert sorted(os.listdir(root + "/place")) == before


@costly
@at_both_ends
def test_no_home_and_no_name_is_told(go, rooted, python):
    options, root = rooted(python, somebody_else=True)
    for words in (["config", "list"], ["config", "path"],
                  TOUR["add"].words):
        shown = go(words=words, XEROTIER_CONFIG="", **options)
        assert not TELLS_TRACE.search(shown.stderr), shown
        assert shown.exit_status in (0, 2, 3), shown
    assert "~" not in os.listdir(root + "/place")


@costly
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_closed_descriptor_where_there_is_no_dev_null(
        go, rooted, router, number):
    options, root = rooted(INTERPRETERS[-1])
    inner = options.pop("preexec_fn")

    def enter_and_close():
        inner()
        os.close(number)
    shown = go(words=STREAM, preexec_fn=enter_and_close, **options)
    assert shown.exit_status == 0, shown
    assert shown == ("" if number == 1 else ANSWER)
    assert not TELLS_TRACE.search(shown.stderr), shown


@costly
def test_a_reader_that_goes_where_there_is_no_dev_null(rooted, router):
    options, root = rooted(INTERPRETERS[-1])
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        options["command"] + STREAM, preexec_fn=options["preexec_fn"],
        stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE,
        env=environment(router))
    os.close(writing)
    stderr = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 141 and stderr == b""


# == installed by pip

@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the checkout, made without a network."""
    pytest.importorskip("flit_core")
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("wheel")
    copy = str(folder / "copy")
    os.mkdir(copy)
    for name in "xeroctl.py", "pyproject.toml", "README.md", "LICENSE":
        shutil.copy(os.path.join(ROOT, name), copy)
    subprocess.check_call(
        [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps",
         "--no-build-isolation", "--quiet", "-w", str(folder), copy])
    return str(next(folder.glob("*.whl")))


@costly
def test_installed_by_pip(tour, tmp_path, python, wheel, place):
    target = tmp_path / "target"
    if subprocess.call([python, "-m", "pip", "--version"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        pytest.skip("this Python has no pip")
    subprocess.check_call(
        [python, "-m", "pip", "install", "--no-index", "--no-deps",
         "--quiet", "--disable-pip-version-check", "--target", str(target),
         wheel], stderr=subprocess.DEVNULL)
    tour(TOUR, [str(target / "bin" / "xeroctl")], PYTHONPATH=str(target))


# == a Python that is too old

OLD = glob.glob(os.path.expanduser("~/.pyenv/versions/2.*/bin/python"))
OLD += glob.glob(os.path.expanduser("~/.pyenv/versions/3.[0-5].*/bin/python"))
OLD += [path for path in ("/usr/bin/python2", "/usr/bin/python3.5")
        if os.path.exists(path)]


@pytest.mark.skipif(not OLD, reason="no Python before 3.6 here")
@pytest.mark.parametrize("words", [["--version"], STREAM] if IS_FULL
                         else [STREAM])
def test_an_old_python_is_told_what_is_needed(go, router, words):
    for python in OLD:
        shown = go([python, SCRIPT], words)
        assert shown.exit_status == 1 and shown == ""
        assert "Python 3.6 or newer" in shown.stderr
        assert router.requests == []
