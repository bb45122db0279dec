"""What servers really sent is answered right: one folder, one case.

A folder of tests/cases/ holds a case.json, and the files that it names; the
next odd server is one more folder.  The members of case.json, all optional
but about, source, and one of argv and shell:

about, source   what holds, and the public report that it comes from
routes          [method, path, file, media type, status] of each answer; a
                file that ends in .sse is a stream, ended by the connection;
                whatever else is asked for is 404
heartbeats      so many comments follow the stream, two a second
argv, shell     the words of one call, or a script that calls $XEROCTL
files           laid into the fresh folder where it runs
env, stdin      an environment beside the address and the key; an input
exit, stdout    the exit code (a list: one of them), all of standard output
stdout_has, stdout_lacks, stderr_has, stderr_lacks
                texts that stand there, or nowhere
json, sent      {path: value} of standard output, and of the last request
                that was JSON; null where nothing is
left            {file: a part of it, or null for no such file}
within          seconds

A case of argv runs in this process; with --full all run as processes, too.
"""

import http.server
import json
import os
import shutil
import subprocess
import threading
import time
from socketserver import ThreadingMixIn

import pytest

import xeroctl
from conftest import (HERE, INTERPRETERS, SCRIPT, STARTED, FakeClock, Result,
                      costly, every_case, text_stream, written)
from helpers import as_json

pytestmark = every_case

CASES = os.path.join(HERE, "cases")
NAMES = sorted(os.listdir(CASES))
KEY = "sk-test-0123456789"
MOST_S = 90
BROKEN = "Traceback", "internal error"


class Case:
    """What a case.json says; what it does not say is None, or as here."""

    argv = shell = stdout = json = None
    routes = files = heartbeats = env = sent = left = ()
    stdout_has = stdout_lacks = stderr_has = stderr_lacks = ()
    stdin, exit, within = "", 0, MOST_S

    def __init__(self, name):
        self.folder = os.path.join(CASES, name)
        with open(self.place("case.json"), "rb") as source:
            said = json.loads(source.read().decode("utf-8"))
        self.about, self.source = said.pop("about"), said.pop("source")
        assert all(hasattr(Case, word) for word in said), "no such member"
        vars(self).update(said)

    def place(self, name):
        return os.path.join(self.folder, name)

    def answer(self, method, path):
        """(status, media type, body, is it a stream) for a request."""
        for verb, place, name, *more in self.routes:
            if (verb, place) == (method, path):
                kind, status = (more + [None, 200][len(more):])[:2]
                with open(self.place(name), "rb") as source:
                    body = source.read()
                is_stream = name.endswith(".sse")
                usual = "text/event-stream" if is_stream else JSON
                return status, kind or usual, body, is_stream
        return 404, JSON, b"{}", False


# == the server ==============================================================

JSON = "application/json"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the case says, and closes."""

    def do(self):
        case, path = self.server.case, self.path.partition("?")[0]
        size = int(self.headers.get("Content-Length") or 0)
        self.server.bodies.append(self.rfile.read(size))
        status, kind, body, is_stream = case.answer(self.command, path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if not is_stream:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        for _ in range(is_stream and case.heartbeats or 0):
            time.sleep(0.5)
            self.wfile.write(b": still here\n\n")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

    def log_message(self, *_):
        pass


class Server(ThreadingMixIn, http.server.HTTPServer):
    """Serves one case at a time, and keeps what it was sent."""

    daemon_threads = True
    request_queue_size = 128    # what does not fit waits for a second

    def take(self, case):
        self.case, self.bodies = case, []

    def handle_error(self, *_):
        pass    # the client has left

    @property
    def last_json(self):
        """The last request that held a JSON object, or None."""
        found = [value for value in map(as_json, self.bodies)
                 if isinstance(value, dict)]
        return found[-1] if found else None


@pytest.fixture(scope="module")
def server():
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,),
                     daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


# == what is right ===========================================================

def dig(value, path):
    """What stands at a dotted path, or None."""
    for key in path.split(".") if path else ():
        try:
            value = value[int(key) if isinstance(value, list) else key]
        except (LookupError, TypeError, ValueError):
            return None
    return value


def content(path):
    """The text of a file, or None."""
    if not os.path.exists(path):
        return None
    with open(path, "rb") as source:
        return source.read().decode("utf-8", "replace")


def faults_of_text(case, shown):
    for name, text in (("stdout", shown), ("stderr", shown.stderr)):
        for part in getattr(case, name + "_has"):
            if part not in text:
                yield f"{name} lacks {part!r}"
        for part in (*getattr(case, name + "_lacks"), *BROKEN):
            if part in text:
                yield f"{name} has {part!r}"


def faults_of_values(name, wanted, value):
    for path, right in dict(wanted).items():
        if dig(value, path) != right:
            yield f"{name} {path} is {dig(value, path)!r}, not {right!r}"


def faults(case, shown, took, server, folder):
    """Each thing that is not as the case says."""
    codes = case.exit if isinstance(case.exit, list) else [case.exit]
    if shown.exit_status not in codes:
        yield f"exit {shown.exit_status}, not {case.exit}"
    if case.stdout not in (None, shown):
        yield f"stdout is {shown[:]!r}, not {case.stdout!r}"
    yield from faults_of_text(case, shown)
    if case.json is not None:
        value = as_json(shown.encode("utf-8"))
        yield from faults_of_values("json", case.json, value)
        if value is None:
            yield "stdout is no JSON"
    yield from faults_of_values("sent", case.sent, server.last_json)
    for name, part in dict(case.left).items():
        text = content(os.path.join(folder, name))
        if (text is not None if part is None
                else text is None or part not in text):
            yield f"file {name} is {text!r}"
    if took > case.within:
        yield f"took {took:.1f} s"


# == one case ================================================================

class Hasty(FakeClock):
    """Real time, in which a nap takes none."""

    def now(self):
        return time.time() + self.at

    def monotonic(self):
        return time.monotonic() + self.at


def environment_of(case, server, folder):
    base = f"http://127.0.0.1:{server.server_port}/v1"
    return dict({"XEROTIER_BASE_URL": base, "XEROTIER_API_KEY": KEY,
                 "XEROTIER_STYLE": "openai", "HOME": folder,
                 "XEROTIER_CONFIG": os.path.join(folder, "none.toml")},
                **dict(case.env))


def run_here(case, environ):
    streams = xeroctl.Streams(text_stream(case.stdin.encode("utf-8")),
                              text_stream(), text_stream())
    status = xeroctl.main(case.argv, environ, streams, Hasty())
    return Result(written(streams.stdout), written(streams.stderr), status)


def run_process(case, environ, folder, python, script):
    words = ([python, script, *case.argv] if case.shell is None
             else ["sh", "-c", case.shell])
    environ = dict({"PATH": os.environ["PATH"],
                    "XEROCTL": f"{python} {script}"}, **environ)
    done = subprocess.run(
        words, cwd=folder, env=environ, input=case.stdin.encode("utf-8"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=MOST_S)
    return Result(done.stdout.decode("utf-8", "replace"),
                  done.stderr.decode("utf-8", "replace"), done.returncode)


def check(name, server, folder, runner):
    """Run a case by runner(case, environ); assert that all is right."""
    case = Case(name)
    server.take(case)
    for each in case.files:
        shutil.copy(case.place(each), folder)
    began = time.monotonic()
    shown = runner(case, environment_of(case, server, folder))
    took = time.monotonic() - began
    wrong = list(faults(case, shown, took, server, folder))
    assert not wrong, (f"{case.about} ({case.source})\n"
                       + "\n".join(wrong) + f"\n{shown!r}")


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_answered_right(server, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(name, server, str(tmp_path), lambda case, environ: (
        run_here(case, environ) if case.shell is None
        else run_process(case, environ, str(tmp_path), INTERPRETERS[0],
                         STARTED)))


@costly
@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_answered_right_by_a_process(server, name, tmp_path,
                                               python):
    check(name, server, str(tmp_path), lambda case, environ: run_process(
        case, environ, str(tmp_path), python, SCRIPT))
