"""Signals at every moment of a run, and readers that leave or stop.

A process is started for each, brought to its moment by an event, never by a
pause, and then told to end: its exit code, what it had shown by then, how
soon the server sees it go, and the terminal that it leaves behind.
"""

import errno
import http.client
import json
import os
import random
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

import xeroctl
from conftest import (IS_FULL, STARTED, at_both_ends, costly, environment,
                      text_stream, written)
from helpers import finished, read_until, until
from router import as_frame
from test_session import Desk, has_readline

termios = pytest.importorskip("termios")

LIMIT_S = 10
CLOSED_WITHIN_S = 0.2
DEMO = "--endpoint", "demo"
CHAT = ("chat", "send") + DEMO + ("-m", "hi")
TALK = ("responses", "create") + DEMO + ("-m", "hi")
COMPLETIONS = "POST /chat/completions"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
LINE = (b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions",'
        b'"body":{"model":"m","messages":[{"role":"user","content":"x"}]}}\n')


def chunk(text, finish=None):
    return as_frame({"object": "chat.completion.chunk", "choices": [
        {"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


def listed(*ids, **more):
    return json.dumps(dict(more, object="list", data=[
        {"id": each} for each in ids])).encode()


# == the moments

class Peer:
    """A server that takes one connection, and never says a word."""

    def __init__(self, backlog=5):
        self.socket = socket.socket()
        self.socket.settimeout(LIMIT_S)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(backlog)
        self.port = self.socket.getsockname()[1]
        self.client, self.others = None, []

    def take(self, *_):
        """Wait for the connection, and for what is said first."""
        self.client, _ = self.socket.accept()
        self.client.settimeout(LIMIT_S)
        assert self.client.recv(1)

    def fill(self):
        """Fill the backlog: the next one to connect gets no answer."""
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", self.port))
            self.others.append(client)
            if not select.select([], [client], [], 0.05)[1]:
                break

    def is_called(self):
        """Whether somebody but fill() waits to be let in (Linux)."""
        ours = {client.getsockname()[1] for client in self.others}
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table][1:]
        return any(int(row[2][-4:], 16) == self.port and row[3] == "02"
                   and int(row[1][-4:], 16) not in ours for row in rows)

    def sees_end(self):
        """Whether the client is gone, and soon."""
        end = time.monotonic() + CLOSED_WITHIN_S
        while time.monotonic() < end:
            self.client.settimeout(CLOSED_WITHIN_S)
            try:
                if not self.client.recv(1 << 20):
                    return True
            except OSError as problem:
                return problem.errno == errno.ECONNRESET
        return False

    def close(self):
        for each in [self.socket, self.client] + self.others:
            if each:
                each.close()


class Moment:
    """Where a process is when it is told to end.

    prepare(self) orders the faults and returns the command line; reach()
    waits until the process is there, is_gone() is what the server saw.
    """

    stdout, said = "", ""       # what is left to read of stdout, of stderr

    def __init__(self, router, place):
        self.router, self.place = router, place
        self.environ = {"XDG_STATE_HOME": str(place)}
        self.peer = None

    def file(self, data, name="in.jsonl"):
        path = self.place / name
        path.write_bytes(data)
        return str(path)

    def prepare(self):
        raise NotImplementedError

    def reach(self, process):
        until(lambda: self.router.requests)

    def is_gone(self):
        return self.router.requests[-1].closed.wait(CLOSED_WITHIN_S)

    def check(self):
        """What else is left behind."""

    def talk_to(self, peer, scheme="http"):
        self.peer = peer
        self.environ["XEROTIER_BASE_URL"] = (
            f"{scheme}://127.0.0.1:{peer.port}/proj_demo/v1")


class Connecting(Moment):
    def prepare(self):
        self.talk_to(Peer(0))
        self.peer.fill()
        return "models",

    def reach(self, process):
        until(self.peer.is_called)

    def is_gone(self):
        return True


class Handshake(Moment):
    def prepare(self):
        self.talk_to(Peer(), "https")
        return "models",

    def reach(self, process):
        self.peer.take()

    def is_gone(self):
        return self.peer.sees_end()


class Uploading(Handshake):
    """The body is under way, and more than any buffer takes."""

    def prepare(self):
        self.talk_to(Peer())
        return "files", "--upload", self.file(b"x" * 12000000)


class Waiting(Moment):
    """No answer has come."""

    argv = "models",

    def prepare(self):
        self.router.order("*", hang=True)
        return self.argv


class UploadAnswer(Waiting):
    def prepare(self):
        self.argv = "files", "--upload", self.file(LINE)
        return super().prepare()


class HalfAnswer(Moment):
    """A part of the JSON has come."""

    def prepare(self):
        self.router.order("*", frames=[b'{"data":[{"id":"a"},', b"]}"],
                          content_type="application/json",
                          gate=(1, threading.Event()))
        return "files", "-o", "id"


class BeforeFirstDelta(Moment):
    def prepare(self):
        self.router.order("*", gate=(0, threading.Event()))
        return TALK + ("--stream",)


class AfterFirstDelta(Moment):
    """What came has been shown; it ends with a line end."""

    first, stdout = b"Half", "\n"

    def prepare(self):
        self.router.order("*", frames=[
            as_frame({"type": "response.output_text.delta", "delta": "Half",
                      "item_id": "m", "output_index": 0,
                      "content_index": 0}), b": more\n\n"],
            gate=(1, threading.Event()))
        return TALK + ("--stream",)

    def reach(self, process):
        assert read_until(process.stdout, self.first) == self.first


class LinesOfStream(AfterFirstDelta):
    """Each chunk was a line, and out before the next was made."""

    first = b'"content":"Half"},"finish_reason":null}]}\n'
    stdout = ""

    def prepare(self):
        self.router.order("*", frames=[chunk("Half"), b": more\n\n"],
                          gate=(1, threading.Event()))
        return CHAT + ("--stream", "-o", "jsonl")

    def reach(self, process):
        assert read_until(process.stdout, b"\n").endswith(self.first)


class WholeOfStream(BeforeFirstDelta):
    """Half a document is none: nothing is shown."""

    def prepare(self):
        self.router.order("*", frames=[chunk("Half"), b": more\n\n"],
                          gate=(1, threading.Event()))
        return CHAT + ("--stream", "-o", "json")


class RetrySleep(Moment):
    def prepare(self):
        self.router.order("*", times=None, status=503, retry_after=30)
        return "files", "--all"

    def reach(self, process):
        read_until(process.stderr, b"in 30 s\n")


class DownloadToPipe(Moment):
    """What came is out before more comes."""

    def prepare(self):
        self.router.order("GET /content", frames=[b"first", b"second"],
                          gate=(1, threading.Event()),
                          content_type="application/octet-stream")
        return "files", "file-1", "--download", "-"

    def reach(self, process):
        assert read_until(process.stdout, b"first") == b"first"


class DownloadToFile(Moment):
    """What came is kept, for the next call."""

    def prepare(self):
        self.router.order("GET /content", frames=[b"x" * 200000, b"y"],
                          content_type="application/octet-stream",
                          headers={"ETag": '"1"'},
                          gate=(1, threading.Event()))
        return "files", "file-1", "--download", str(self.place / "out")

    def reach(self, process):
        until(lambda: (self.place / "out.part").exists()
              and (self.place / "out.part").stat().st_size >= 65536)

    def check(self):
        assert (self.place / "out.part").read_bytes() == b"x" * 200000
        assert not (self.place / "out").exists()


class Part(Moment):
    """The second part of a model is under way."""

    def prepare(self):
        self.router.order("POST /uploads", body=json.dumps(
            {"id": "upl_1", "chunk_size": 10}).encode())
        self.router.order("POST /parts", body=b'{"id":"part_1"}')
        self.router.order("POST /parts", hang=True)
        self.path = self.file(b"x" * 20, "model.gguf")
        self.said = f"xeroctl upload {self.path} m --resume upl_1 goes on"
        return "upload", self.path, "m"

    def reach(self, process):
        until(lambda: len(self.router.seen("POST", "/parts")) == 2)


class Poll(Moment):
    """The next poll is waited for; the job goes on."""

    argv = ("batches", "batch_1") + DEMO + ("--wait",)
    answer = {"id": "batch_1", "status": "in_progress"}
    said = "xeroctl batches batch_1 --endpoint demo --wait resumes"
    polled = "GET /batches/batch_1"

    def prepare(self):
        self.router.order(self.polled, times=None,
                          body=json.dumps(self.answer).encode())
        return self.argv

    def check(self):
        assert not self.router.seen("POST", "/cancel")
        assert not [seen for seen in self.router.requests
                    if seen.method == "DELETE"]


class HangingPoll(Poll):
    """A poll is under way."""

    def prepare(self):
        self.router.order(self.polled, hang=True)
        return self.argv


class ResponsePoll(Poll):
    argv = ("responses", "resp_1") + DEMO + ("--wait",)
    answer = {"id": "resp_1", "status": "queued"}
    polled = "GET /responses/resp_1"
    said = "xeroctl responses resp_1 --endpoint demo --wait resumes"


class ToolPoll(Poll):
    argv = "exec", "watch", "inv_1"
    answer = {"id": "inv_1", "status": "running"}
    polled = "GET /invocations/inv_1"
    said = "xeroctl exec watch inv_1 watches it"


class ModelPoll(Poll):
    argv = "models", "model_1", "--revalidate", "--wait"
    answer = {"id": "model_1", "status": "validating"}
    polled = "GET /models/model_1"
    said = "xeroctl models model_1 shows its status"

    def prepare(self):
        self.router.order("POST /revalidate", body=b"{}")
        return super().prepare()

    def reach(self, process):
        until(lambda: self.router.seen("GET", "/models/model_1"))


class RunPoll(Moment):
    """A batch run: the same command goes on."""

    said, more = "the same command goes on", ()

    def prepare(self):
        self.router.batch_plan(hold="in_progress")
        return ("batches", "run") + DEMO + (
            "--input", self.file(LINE), "--output-file",
            str(self.place / "out.jsonl")) + self.more

    def reach(self, process):
        until(lambda: self.router.seen("GET", "/batches/batch_1"))

    def check(self):
        assert (self.place / "out.jsonl.state.json").exists()
        assert not (self.place / "out.jsonl").exists()


class DirectRun(RunPoll):
    """Requests are under way."""

    more = "--direct",

    def prepare(self):
        self.router.order(COMPLETIONS, hang=True)
        return super().prepare()

    def reach(self, process):
        until(lambda: self.router.seen("POST", "/chat/completions"))


class WatchingApprovals(Moment):
    """Each request that came has been shown."""

    def prepare(self):
        self.router.order("*", times=None, body=json.dumps(
            {"data": [{"id": "appr_1", "risk": "write", "tool": "t",
                       "workspace_id": "ws_1"}]}).encode())
        return "approvals", "watch"

    def reach(self, process):
        assert read_until(process.stdout, b"\n").startswith(b"appr_1  write")


def moments(kind):
    """The moments that can be told apart by name."""
    for each in kind.__subclasses__():
        yield each
        yield from moments(each)


MOMENTS = sorted(set(moments(Moment)), key=lambda kind: kind.__name__)
# What runs in the plain command; each has its costs.
SOME = {(Handshake, signal.SIGTERM), (Uploading, signal.SIGINT),
        (HalfAnswer, signal.SIGTERM), (BeforeFirstDelta, signal.SIGINT),
        (LinesOfStream, signal.SIGINT), (DownloadToPipe, signal.SIGTERM)}
has_proc = os.path.exists("/proc/net/tcp")


def cases():
    for kind in MOMENTS:
        if kind is Connecting and not has_proc:
            continue
        for number in CODES:
            marks = () if (kind, number) in SOME else costly
            yield pytest.param(kind, number, marks=marks,
                               id=f"{kind.__name__}-{number.name}")


@pytest.mark.parametrize("kind, number", list(cases()))
@at_both_ends
def test_a_signal_ends_a_run_at_any_moment(start, router, tmp_path, kind,
                                           number):
    moment = kind(router, tmp_path)
    try:
        process = start(*moment.prepare(), **moment.environ)
        moment.reach(process)
        time.sleep(0.02)    # to where it waits
        begun = time.monotonic()
        process.send_signal(number)
        assert moment.is_gone(), "the connection is still open"
        shown = finished(process)
        assert time.monotonic() - begun < 1
    finally:
        if moment.peer:
            moment.peer.close()
    assert shown.exit_status == CODES[number]
    assert shown == moment.stdout
    assert "Traceback" not in shown.stderr and "error" not in shown.stderr
    assert moment.said in shown.stderr
    assert moment.said or shown.stderr == ""
    moment.check()


def test_no_interrupt_is_lost_when_an_answer_is_let_go(run, monkeypatch):
    """A finalizer closes what is still open, and drops what is raised."""
    flush = http.client.HTTPResponse.flush

    def interrupted(response):
        flush(response)
        raise KeyboardInterrupt()
    monkeypatch.setattr(http.client.HTTPResponse, "flush", interrupted)
    assert run("models").exit_status == 130


@costly
@pytest.mark.parametrize("kind", [Poll, ToolPoll, RunPoll])
@at_both_ends
def test_quiet_is_quiet_about_a_signal(start, router, tmp_path, kind):
    moment = kind(router, tmp_path)
    process = start(*moment.prepare(), "-q", **moment.environ)
    moment.reach(process)
    process.send_signal(signal.SIGINT)
    shown = finished(process)
    assert shown.exit_status == 130 and (shown, shown.stderr) == ("", "")


# == more than one signal

@pytest.mark.parametrize("number", [
    signal.SIGINT, pytest.param(signal.SIGTERM, marks=costly)])
@at_both_ends
def test_more_signals_do_no_harm(start, router, tmp_path, number):
    """They come while it cleans up, each time at another moment."""
    for seed in range(30 if IS_FULL else 1):
        gap = random.Random(seed).random() / 100
        moment = DownloadToPipe(router, tmp_path)
        process = start(*moment.prepare())
        moment.reach(process)
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(gap)
        shown = finished(process)
        assert (shown, shown.stderr) == ("", "")
        # A shell tells 130 of what died of the signal, too.
        assert shown.exit_status in (CODES[number], -number)


# == readers that stop, and readers that leave

MANY = listed(*(f"file-{number:090}" for number in range(5000)))


@pytest.mark.parametrize("form, number", [
    ("table", signal.SIGTERM),
    pytest.param("jsonl", signal.SIGINT, marks=costly),
    pytest.param("id", signal.SIGTERM, marks=costly),
    pytest.param("json", signal.SIGINT, marks=costly)])
@at_both_ends
def test_a_reader_that_stops_reading_holds_nobody(start, router, form,
                                                  number):
    router.order("*", body=MANY)
    process = start("files", "-o", form)
    read_until(process.stdout, b"file-")
    time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(1) == CODES[number]
    assert process.stderr.read() == b""


def left_by_reader(process, lines=1):
    """Read so many lines, as head does, and leave."""
    data = b""
    while data.count(b"\n") < lines:
        data += os.read(process.stdout.fileno(), 64)
    process.stdout.close()
    process.stdout = open(os.devnull, "rb")
    assert process.wait(LIMIT_S) is not None
    return process.returncode, process.stderr.read().decode()


LEFT = {
    "a list": ("files", "--all"),
    "a list as lines": ("files", "--all", "-o", "jsonl"),
    "ids": ("files", "--all", "-o", "id"),
    "csv": ("files", "-o", "csv"),
    "an answer of any kind": ("api", "/files"),
}


@pytest.mark.parametrize("argv", [
    pytest.param(argv, marks=[] if name == "csv" else costly)
    for name, argv in LEFT.items()], ids=list(LEFT))
@at_both_ends
def test_a_reader_that_leaves_a_list_is_no_news(start, router, argv):
    router.order("*", body=MANY)
    assert left_by_reader(start(*argv)) == (141, "")


@pytest.mark.parametrize("form", ["table", pytest.param("jsonl",
                                                        marks=costly)])
@at_both_ends
def test_a_reader_that_leaves_a_stream_ends_it(start, router, form):
    """A line is read, then the next one finds nobody: the stream is shut."""
    gate = threading.Event()
    router.order("*", frames=[chunk("one\n"), chunk("two\n")]
                 + [chunk("x" * 9999)] * 40, gate=(1, gate))
    process = start(*CHAT, "--stream", "-o", form)
    read_until(process.stdout, b"\n")
    process.stdout.close()
    process.stdout = open(os.devnull, "rb")
    gate.set()
    assert process.wait(LIMIT_S) == 141
    assert router.requests[-1].closed.wait(LIMIT_S)
    assert process.stderr.read() == b""


@costly
@at_both_ends
def test_a_reader_that_leaves_a_download_is_no_news(start, router):
    router.order("GET /content", body=b"line\n" * 10 ** 6,
                 content_type="text/plain")
    assert left_by_reader(start("files", "f", "--download", "-")) == (141, "")


@costly
@pytest.mark.parametrize("argv", [
    ("--version",), ("help",), ("files",), ("files", "-o", "json"),
    ("commands",), ("shell-completion", "bash"), ("batches", "check", "F"),
    CHAT, CHAT + ("--dry-run",)])
@at_both_ends
def test_a_closed_pipe_is_silent_at_exit_too(start, router, tmp_path, argv):
    """The reader has gone before a byte is written: the last flush fails."""
    router.add_file("in.jsonl", LINE)
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINE)
    argv = [str(path) if word == "F" else word for word in argv]
    process = start(*argv, XEROTIER_ENDPOINT="demo")
    process.stdout.close()
    process.stdout = open(os.devnull, "rb")
    assert process.wait(LIMIT_S) == 141
    assert process.stderr.read() == b""


@at_both_ends
def test_remarks_nobody_reads_do_no_harm(start, router):
    """2>&1 >file | true: the answer is whole, and so is the exit code."""
    router.order("*", frames=[as_frame({"message": "m"}, event="x_a"),
                              chunk("all of it"), chunk("", "stop")])
    process = start(*CHAT, "--stream", "-vv")
    process.stderr.close()
    process.stderr = open(os.devnull, "rb")
    assert finished(process) == "all of it\n"
    assert process.returncode == 0


@costly
@pytest.mark.parametrize("fault, code", [
    ({"status": 404}, 4), ({"status": 401}, 3), ({"drop": "after"}, 5)])
@at_both_ends
def test_an_error_nobody_reads_has_its_exit_code(start, router, fault, code):
    router.order("*", times=None, **fault)
    process = start("models", "-v", "--retries", "0")
    process.stderr.close()
    process.stderr = open(os.devnull, "rb")
    assert finished(process) == "" and process.returncode == code


@costly
@pytest.mark.skipif(not os.path.exists("/dev/full"),
                    reason="this system has no /dev/full")
@pytest.mark.parametrize("argv", [
    ("files",), ("files", "--all", "-o", "jsonl"), ("files", "-o", "csv"),
    ("api", "/files"), ("files", "f", "--download", "-"), ("commands",),
    ("shell-completion", "zsh"), ("status",), ("config", "list", "-o", "csv"),
    CHAT + ("--stream", "-o", "jsonl"), TALK])
@at_both_ends
def test_a_full_disk_is_an_error_in_every_family(router, python, tmp_path,
                                                 argv):
    router.order("GET /content", body=b"x")
    router.add_file("in.jsonl", LINE)
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [python, STARTED, *argv], stdin=subprocess.DEVNULL, stdout=full,
            stderr=subprocess.PIPE, env=environment(
                router, XEROTIER_CONFIG=str(tmp_path / "config.toml")))
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode not in (0, 141)
    assert b"No space left on device" in said and b"Traceback" not in said


BUFFERED = """
import io, sys
sys.path.insert(0, {folder!r})
sys.stdout = io.TextIOWrapper(io.BufferedWriter(
    io.FileIO(1, "w", closefd=False), 10 ** 6), "utf-8")
import xeroctl
xeroctl.console()
"""


@at_both_ends
def test_what_cannot_be_written_is_let_go_however_much(python):
    """A file system of large blocks has as large a buffer, and 3.14 128 KB:
    more than a pipe holds."""
    text = BUFFERED.format(folder=os.path.dirname(xeroctl.__file__))
    process = subprocess.Popen(
        [python, "-c", text, "commands"], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.stdout = open(os.devnull, "rb")
    try:
        assert process.wait(LIMIT_S) == 141
        assert process.stderr.read() == b""
    finally:
        process.kill()


# == standard input that says nothing

class Silent:
    """A standard input that nobody may wait for."""

    def isatty(self):
        return False

    def __getattr__(self, name):
        pytest.fail(f"standard input is used: {name}")


def silent_rows():
    """A command line for each row of the map but those that read."""
    rows = [xeroctl.sample_call(group, verb).split()[1:]
            for group in xeroctl.GROUPS for verb in group.verbs]
    rows = [row for row in rows if "listen" not in row and "watch" not in row]
    return rows if IS_FULL else random.Random(1).sample(rows, 25)


class ShortClock:
    """A wait that never ends is left by Ctrl-C."""

    now = monotonic = staticmethod(lambda: 1770000000.0)

    @staticmethod
    def sleep(_):
        raise KeyboardInterrupt()

    @staticmethod
    def jitter():
        return 0.0


def test_nothing_waits_for_a_silent_standard_input(router, tmp_path,
                                                   monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    for row in silent_rows():
        streams = xeroctl.Streams(Silent(), text_stream(), text_stream())
        status = xeroctl.main(row, environment(
            router, XEROTIER_ENDPOINT="demo"), streams, ShortClock())
        assert status in (0, 1, 2, 3, 4, 5, 6, 130), row
        assert "internal error" not in written(streams.stderr), row


# == terminals

# Where a person sits when the signal comes: (command line, typed, shown).
SEATS = {
    "confirmation": (("models", "m", "--delete"), (), "[y/N] "),
    "name": (("config", "init"), (), "[default]: "),
    "password": (("config", "init"), (
        ("[default]: ", "x"), ("v1: ", "{url}"), ("]: ", "")), "shown): "),
    "session": (("chat",) + DEMO + ("--interactive",), (), "> "),
    "plain session": (("chat",) + DEMO + ("--interactive",), (), "> "),
    "answer": (("chat",) + DEMO + ("--interactive",), (("> ", "one"),),
               "Half"),
}
ENDINGS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SOME_SEATS = {("password", signal.SIGINT), ("session", signal.SIGTERM)}


def seat_cases():
    for name in SEATS:
        for number in ENDINGS:
            if number == signal.SIGINT and name == "answer":
                continue    # goes on: test_session.py has it
            marks = () if (name, number) in SOME_SEATS else costly
            yield pytest.param(name, number, marks=marks,
                               id=f"{name}-{number.name}")


@pytest.fixture
def sit(router, python, tmp_path):
    """sit("session") is a Desk at that place, and its terminal's settings."""
    desks = []

    def sitter(name):
        argv, typed, awaited = SEATS[name]
        router.order(COMPLETIONS, frames=[chunk("Half"), chunk("way")],
                     gate=(1, threading.Event()))
        more = {}
        if name == "plain session":
            (tmp_path / "readline.py").write_text("raise ImportError()\n")
            more["PYTHONPATH"] = str(tmp_path)
        desk = Desk([python, STARTED, *argv], environment(
            router, TERM="xterm", NO_COLOR="1", INPUTRC=os.devnull,
            XEROTIER_CONFIG=str(tmp_path / "config.toml"),
            XDG_STATE_HOME=str(tmp_path), **more))
        desks.append(desk)
        modes = termios.tcgetattr(desk.far)
        modes[3] |= termios.ECHO
        termios.tcsetattr(desk.far, termios.TCSANOW, modes)
        before = termios.tcgetattr(desk.far)
        for prompt, text in typed:
            desk.until(prompt)
            desk.type(text.format(url=router.base_url) + "\n")
        desk.until(awaited)
        return desk, before
    yield sitter
    for desk in desks:
        desk.close()


@pytest.mark.parametrize("name, number", list(seat_cases()))
@at_both_ends
def test_a_signal_leaves_the_terminal_as_it_was(sit, router, tmp_path,
                                                python, name, number):
    if "session" in name and not has_readline(python):
        pytest.skip("this interpreter has no readline")
    desk, before = sit(name)
    time.sleep(0.05)    # to where it waits
    desk.process.send_signal(number)
    if number == signal.SIGINT and "session" in name:
        desk.until("Ctrl-C again leaves", "> ")
        time.sleep(0.05)
        desk.process.send_signal(number)
    assert desk.end() == ENDINGS[number]
    assert termios.tcgetattr(desk.far) == before
    assert b"Traceback" not in desk.shown
    assert desk.shown.rfind(b"\x1b[?2004h") <= desk.shown.rfind(
        b"\x1b[?2004l")
    assert not (tmp_path / "config.toml").exists()
    assert not [seen for seen in router.requests if seen.method == "DELETE"]
    if name == "answer":
        assert router.requests[-1].closed.wait(CLOSED_WITHIN_S)


@costly
@at_both_ends
def test_a_terminal_that_hangs_up_ends_a_session(sit, python):
    """The window is closed: every read fails, every write, too."""
    desk, _ = sit("session")
    os.close(desk.far)
    try:
        assert desk.process.wait(LIMIT_S) is not None
    finally:
        desk.far = os.open(os.devnull, os.O_RDWR)   # for close()


@costly
@at_both_ends
def test_nohup_is_obeyed(router, python):
    """What was told to ignore hang-ups goes on to its end."""
    gate = threading.Event()
    router.order("*", frames=[chunk("one"), chunk(" two", "stop")],
                 gate=(1, gate))
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh", python, STARTED,
         *CHAT, "--stream"], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(router))
    assert read_until(process.stdout, b"one") == b"one"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.05)
    gate.set()
    shown = finished(process)
    assert shown == " two\n" and shown.exit_status == 0


@costly
@at_both_ends
def test_a_job_in_the_background_ignores_ctrl_c(router, python):
    """sh starts what stands before & with SIGINT ignored."""
    gate = threading.Event()
    router.order("*", frames=[chunk("one"), chunk(" two", "stop")],
                 gate=(1, gate))
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", python, STARTED,
         *CHAT, "--stream"], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(router))
    assert read_until(process.stdout, b"one") == b"one"
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    gate.set()
    shown = finished(process)
    assert shown == " two\n" and shown.exit_status == 0
