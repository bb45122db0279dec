"""From one command line to one exit code, as a process and as a call.

Run by pytest, which starts the script as people do: in a pipe, by its name, by
a shell that closes descriptors.
"""

import json
import os
import select
import signal
import sys
import threading

import pytest

import xeroctl
from conftest import (ROOT, SCRIPT, STARTED, at_both_ends, costly, every_case,
                      sampled)
from helpers import as_frame, chunk, finished, read_until, send, until

pytestmark = pytest.mark.skipif(os.name != "posix",
                                reason="signals and descriptors of POSIX")

LIMIT_S = 20
CHAT = "chat", "send", "--endpoint", "demo", "-m", "Hello"
STREAM = CHAT + ("--stream",)
COMPLETIONS = "POST /chat/completions"
ANSWER = ('Hello! You said: "Hello". I am the demo endpoint of the reference'
          " router; I repeat what I am told.\n")


ERROR_FRAME = as_frame({"error": {"message": "no more"}})


# == as the README has it

def readme_command(*more):
    return [sys.executable, "tests/router.py", "--", sys.executable,
            "xeroctl.py", "chat", "send", *more, "--message", "Hello",
            "--stream"]


def test_the_exit_code_passes_through_the_router(spawn):
    shown = finished(spawn(*readme_command("--endpoint", "nope"), cwd=ROOT,
                           against=None))
    assert shown.exit_status == 4 and shown == ""
    assert shown.stderr.startswith("error: HTTP 404 ")


# == token by token

def test_the_first_token_comes_before_the_second_is_sent(start, router):
    gate = threading.Event()
    router.order(COMPLETIONS, gate=(2, gate))
    process = start(*STREAM)    # and its standard input stays open, silent
    assert read_until(process.stdout, b"!") == b"Hello!"
    gate.set()
    rest = read_until(process.stdout, b"\n")
    assert b"Hello!" + rest == ANSWER.encode()
    assert process.wait(LIMIT_S) == 0


# == exit codes

@pytest.mark.parametrize("fault, code", [
    ({}, 0),
    ({"html": True}, 1),
    ({"raw": b"[]"}, 1),
    ({"raw": b"{}"}, 1),
    ({"redirect": "http://elsewhere.example/"}, 1),
    ({"frames": [ERROR_FRAME]}, 1),
    ({"drop": "after"}, 5),
    ({"frames": [chunk("")]}, 5),
    ({"frames": [chunk("Half")], "cut": 20}, 5),
    ({"frames": [chunk("Half"), ERROR_FRAME]}, 7),
    ({"frames": [chunk("Half")]}, 7),
    ({"frames": [chunk("Half"), chunk("more")], "cut": 200}, 7),
])
def test_an_answer_has_its_exit_code(run, router, fault, code):
    router.order(COMPLETIONS, **fault)
    shown = run(*STREAM)
    assert shown.exit_status == code, shown
    assert shown == {0: ANSWER, 7: "Half\n"}.get(code, "")
    assert shown.stderr.startswith("-- " if code == 0 else "error: ")
    assert "internal" not in shown.stderr
    assert len(router.requests) == 1


@pytest.mark.parametrize("argv, environ, code", [
    (("bogus",), {}, 2),
    (("chat", "bogus"), {}, 2),
    (CHAT + ("--bogus",), {}, 2),
    (CHAT + ("--temperature", "9"), {}, 2),
    (CHAT + ("--from-file", "/no/such/file"), {}, 2),
    (("chat", "-m", "hi"), {}, 2),
    (CHAT, {"XEROTIER_API_KEY": ""}, 3),
    (CHAT, {"XEROTIER_BASE_URL": ""}, 3),
    (CHAT, {"XEROTIER_BASE_URL": "file:///etc/passwd"}, 3),
    (CHAT + ("--api-key", "@/no/such/file"), {}, 3),
    (("--version",), {}, 0),
    (("help", "exit-codes"), {}, 0),
])
def test_what_is_wrong_before_a_request_has_its_exit_code(run, router, argv,
                                                          environ, code):
    shown = run(*argv, **environ)
    assert shown.exit_status == code, shown
    assert (shown == "") == (code != 0)
    assert shown.stderr.startswith("error: ") == (code != 0)
    assert router.requests == []


def test_a_peer_that_goes_away_is_no_closed_pipe(run, router):
    router.order(COMPLETIONS, times=None, drop="before")
    shown = run("chat", "--endpoint", "demo", "-m", "x" * 8000000)
    assert shown.exit_status == 5 and shown.stderr.startswith("error: ")


def fail_badly(app, group, args):
    raise ZeroDivisionError("with " + app.api.deployment.key)


def single(name, function):
    """A table of one command, of one verb."""
    return (xeroctl.Group(name, "A test.", default="", verbs=(
        xeroctl.Verb("", "A test.", function),)),)


# == never a traceback

@pytest.mark.parametrize("debug", [None, "", "1"])
def test_an_unforeseen_error_is_one_line(run, router, debug):
    shown = run("bad", groups=single("bad", fail_badly),
                XEROTIER_DEBUG=debug)
    assert shown.exit_status == 1 and shown == ""
    told = "error: internal error: ZeroDivisionError: with xero_demo_…\n"
    assert told in shown.stderr
    assert shown.stderr.startswith(told) == (not debug)
    assert ("Traceback" in shown.stderr) == bool(debug)
    assert ("in fail_badly" in shown.stderr) == bool(debug)
    assert router.key not in shown.stderr


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_traceback_is_for_those_who_ask(run, router, debug):
    shown = run(*CHAT[:-4], "--endpoint", "nope", "-m", "hi",
                XEROTIER_DEBUG=debug)
    assert shown.exit_status == 4
    assert ("Traceback" in shown.stderr) == bool(debug)
    assert "error: HTTP 404 " in shown.stderr
    assert router.key not in shown.stderr


# == signals: test_signals.py has all other moments

@pytest.fixture
def open_pipe():
    """(reading, writing) of a pipe that stays open."""
    descriptors = os.pipe()
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def test_ctrl_c_while_standard_input_is_read(spawn, router, open_pipe):
    reading, writing = open_pipe
    process = spawn(sys.executable, STARTED, *CHAT[:-1], "-", stdin=reading)
    os.write(writing, b"Half a mess")
    until(lambda: not select.select([reading], [], [], 0)[0])
    send(process, signal.SIGINT)
    shown = finished(process)
    assert shown.exit_status == 130
    assert shown == "" and shown.stderr == ""
    assert router.requests == []


# == standard input that says nothing, and descriptors that are closed

@sampled(0, 3, 8)
@pytest.mark.parametrize("argv, code", [
    (CHAT, 0), (STREAM, 0), (("api", "/models"), 0),
    (("api", "POST", "/conversations", "--field", "metadata={}"), 0),
    (("chat", "new", "--workspace", "ws_kube_prod", "--template",
      "ctpl_01HDRAIN", "-m", "hi"), 0),
    (("help",), 0), (("--version",), 0), ((), 0), (("chat",), 2)])
def test_a_silent_standard_input_is_not_waited_for(spawn, open_pipe, argv,
                                                   code):
    reading, _ = open_pipe
    shown = finished(spawn(sys.executable, STARTED, *argv, stdin=reading))
    assert shown.exit_status == code, shown


def closing(descriptors, *command):
    """A command whose descriptors a shell closes first."""
    return ["/bin/sh", "-c", f'exec "$@" {descriptors}', "sh", *command]


ALL = "<&- >&- 2>&-"


@pytest.mark.parametrize("argv", [CHAT[:-1] + ("-",), (
    "chat", "--endpoint", "demo", "--from-file", "-", "-m", "")])
def test_a_closed_standard_input_is_empty(spawn, router, argv):
    shown = finished(spawn(*closing("<&-", sys.executable, STARTED, *argv)))
    assert shown.exit_status == 2
    assert shown.stderr == "error: the message is empty\n"
    assert router.requests == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"),
                    reason="no /proc to look at descriptors")
@pytest.mark.parametrize("descriptors, closed", [
    (ALL, "012"), pytest.param("<&-", "0", marks=costly),
    pytest.param(">&-", "1", marks=costly),
    pytest.param("2>&-", "2", marks=costly)])
def test_no_socket_gets_the_number_of_a_stream(spawn, router, descriptors,
                                               closed):
    router.order(COMPLETIONS, hang=True)
    process = spawn(*closing(descriptors, sys.executable, STARTED, *CHAT))
    until(lambda: router.requests)
    for number in closed:
        path = f"/proc/{process.pid}/fd/{number}"
        assert os.readlink(path) == os.devnull


# == where it must run

def test_it_runs_by_its_name(spawn, tmp_path):
    os.symlink(sys.executable, str(tmp_path / "python3"))
    shown = finished(spawn(SCRIPT, *CHAT, PATH=str(tmp_path)))
    assert shown.exit_status == 0 and shown == ANSWER


@at_both_ends
def test_its_help_outlives_optimization(spawn, python):
    shown = finished(spawn(python, "-OO", SCRIPT, "help", "chat", "send"))
    assert shown.exit_status == 0 and shown.stderr == ""
    assert shown.startswith("usage: xeroctl chat send ")
    for words in ("Send a message to an endpoint", "--max-tokens N",
                  "most tokens to generate", "examples:\n"):
        assert words in shown


def test_it_writes_nothing_of_its_own(spawn, tmp_path):
    home, place = tmp_path / "home", tmp_path / "place"
    for folder in home, place:
        folder.mkdir()
        folder.chmod(0o555)
    for argv, code in (STREAM, 0), (("bogus",), 2), (("help",), 0):
        shown = finished(spawn(
            sys.executable, SCRIPT, *argv, cwd=str(place), HOME=str(home),
            TMPDIR=str(place), XDG_CONFIG_HOME=str(home),
            XDG_STATE_HOME=str(home)))
        assert shown.exit_status == code, shown
    assert os.listdir(str(home)) == os.listdir(str(place)) == []


# == imported

IMPORTER = """
import json, os, signal, sys, threading

def descriptors():
    for number in range(64):
        try:
            os.fstat(number)
            yield number
        except OSError:
            pass

def state():
    return (list(descriptors()), threading.active_count(), sys.argv[:],
            signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
            dict(os.environ), os.getcwd(), sys.stdin, sys.stdout, sys.stderr,
            sys.excepthook, sys.displayhook)

HEAVY = {"urllib.request", "http.client", "ssl", "socket", "email",
         "readline", "hashlib", "random", "tempfile", "subprocess"}
at_first, known = state(), HEAVY & set(sys.modules)
import xeroctl
told = {"import": state() == at_first}
for name, argv in json.loads(sys.argv[1]):
    status = xeroctl.main(argv)
    loaded = HEAVY & set(sys.modules) - known
    told[name] = [status, state() == at_first, sorted(loaded)]
print(json.dumps(told))
"""


def test_importing_does_nothing_and_main_returns(spawn, python):
    commands = [("version", ["--version"]), ("help", ["--help"]),
                ("verb help", ["chat", "send", "--help"]),
                ("group help", ["help", "chat"]),
                ("topic", ["help", "exit-codes"]), ("usage", ["bogus"]),
                ("chat", list(CHAT)), ("missing", ["api", "/missing"])]
    shown = finished(spawn(python, "-B", "-c", IMPORTER,
                           json.dumps(commands), PYTHONPATH=ROOT))
    assert shown.startswith("xeroctl " + xeroctl.__version__ + "\nusage: ")
    told = json.loads(shown.splitlines()[-1])
    chat, missing = told.pop("chat"), told.pop("missing")
    assert told == {"import": True, "version": [0, True, []],
                    "help": [0, True, []], "verb help": [0, True, []],
                    "group help": [0, True, []],
                    "topic": [0, True, []], "usage": [2, True, []]}
    assert chat[:2] == [0, True] and missing[:2] == [4, True]
    assert "urllib.request" not in chat[2] and "http.client" in chat[2]


# What the head of the file imports is the interpreter's own, or cheap.
LOADER = """
import codecs, collections, contextlib, gc, io, itertools, json, os, re, sys
import time, types
known = set(sys.modules)
import xeroctl
code = xeroctl.main(sys.argv[1:])
print(code, *sorted(set(sys.modules) - known - {"xeroctl"}), file=sys.stderr)
"""
NOT_BEFORE_A_REQUEST = {
    "argparse", "calendar", "datetime", "email", "gettext", "http", "random",
    "selectors", "shlex", "shutil", "socket", "ssl", "subprocess", "tempfile",
    "textwrap", "threading", "tomllib"}


@pytest.fixture
def loaded(spawn, python):
    """The exit code of a call, and what it imported beyond the head."""
    def runner(*argv, **environ):
        shown = finished(spawn(python, "-B", "-c", LOADER, *argv,
                               PYTHONPATH=ROOT, **environ))
        code, *names = shown.stderr.splitlines()[-1].split()
        return int(code), set(names)
    return runner


@pytest.mark.parametrize("line, code", [
    ("--version", 0), ("chat", 2), ("models m --delete", 2)])
def test_a_call_that_needs_nothing_imports_nothing(loaded, line, code):
    assert loaded(*line.split()) == (code, set())


@every_case
@pytest.mark.parametrize("line, code", [
    ("config list", 0), ("commands", 0), ("shell-completion bash", 0),
    ("bogus", 2), ("chat --timeout 0", 2),
    ("chat --endpoint demo -m Hello --dry-run", 0)])
def test_what_sends_nothing_imports_no_network(loaded, tmp_path, line, code):
    told, names = loaded(*line.split(), HOME=str(tmp_path))
    assert told == code and not names & NOT_BEFORE_A_REQUEST


def test_a_chat_imports_nothing_of_the_help(loaded):
    code, names = loaded(*CHAT)
    assert code == 0 and "http.client" in names
    assert not names & {"argparse", "gettext", "tempfile", "subprocess"}


TOUR = """
import json, sys, xeroctl
print(json.dumps([xeroctl.main(a) for a in json.loads(sys.argv[1])]))
"""
FORMS = "table", "wide", "json", "jsonl", "csv", "id"


def test_every_interpreter_shows_every_form(spawn, python):
    new = ["chat", "new", "--workspace", "ws_kube_prod", "--template"]
    tour = [list(command) + ["-o", form] for form in FORMS for command in (
        STREAM, new + ["ctpl_01HDRAIN"], ["api", "/models"])]
    shown = finished(spawn(python, "-B", "-c", TOUR, json.dumps(tour),
                           PYTHONPATH=ROOT))
    codes = json.loads(shown.splitlines()[-1])
    assert [words for words, code in zip(tour, codes) if code] == [], shown


# == what counts though the command line is broken ===========================

@pytest.mark.parametrize("line, is_json", [
    ("models --bogus -o json", True), ("models --bogus -ojson", True),
    ("models --bogus -qojson", True), ("models --bogus -o=json", True),
    ("-q models --output=json --bogus", True), ("models --bogus", False),
    ("models --bogus -o json -o csv", False), ("models --bogus -o", False),
    ("models --bogus -o bogus", False), ("models --bogus --pick id", True)])
def test_how_an_error_is_due_is_read_from_a_broken_line(run, line, is_json):
    shown = run(*line.split())
    assert (shown.exit_status, shown) == (2, ""), shown
    assert shown.stderr.startswith("{" if is_json else "error: "), shown
