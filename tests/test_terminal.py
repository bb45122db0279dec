"""The standard streams: what a terminal, a pipe and a full disk show.

Terminals are pseudo-terminals.  Most runs are in this process, with the near
side of one handed in as a stream; a process is started where the interpreter
takes part: its buffers, its locale, its last flush.
"""

import errno
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest

import xeroctl
from conftest import (STARTED, Result, at_both_ends, costly, environment,
                      sampled, text_stream, written)
from helpers import as_frame, chunk, finished, send

pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")
fcntl = pytest.importorskip("fcntl")

LIMIT_S = 20
CHAT = "chat", "send", "--endpoint", "demo", "-m", "hi"
STREAM = CHAT + ("--stream",)
COMPLETIONS = "POST /chat/completions"
ANSWER = ('Hello! You said: "hi". I am the demo endpoint of the reference'
          " router; I repeat what I am told.\n")
FOOTER = r"-- 19 tokens in \d+\.\ds \(\d+\.\d tok/s\)"
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
DUMB = {"TERM": "dumb"}     # no spinner and no colour: what is left is text

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"),
                                reason="this system has no /dev/full")


class Drain(threading.Thread):
    """Reads a descriptor to its end: nobody who writes has to wait."""

    def __init__(self, descriptor):
        super().__init__(daemon=True)
        self.descriptor, self.data, self.ended = descriptor, b"", False
        self.grown = threading.Condition()
        self.start()

    def run(self):
        while not self.ended:
            try:
                block = os.read(self.descriptor, 65536)
            except OSError:     # how Linux ends a terminal that was closed
                block = b""
            with self.grown:
                self.data += block
                self.ended = not block
                self.grown.notify_all()

    def has(self, words):
        """Whether these have come, one after the other."""
        place = 0
        for word in words:
            place = self.data.find(word, place) + len(word)
            if place < len(word):
                return False
        return True

    def comes(self, words, limit):
        """Wait until these have come; return whether they have."""
        with self.grown:
            self.grown.wait_for(lambda: self.has(words) or self.ended, limit)
            return self.has(words)

    def until(self, *words):
        """Wait until these have come, one after the other."""
        assert self.comes(words, LIMIT_S), self.data

    def rest(self):
        """Wait for the end; return all that came."""
        self.join(LIMIT_S)
        assert self.ended, self.data
        return self.data.decode("utf-8")


class Screen:
    """A pseudo-terminal that shows what it gets, and echoes nothing.

    0 columns is what a fresh one has: it does not know its size.
    """

    def __init__(self, columns):
        self.far, self.near = pty.openpty()
        modes = termios.tcgetattr(self.near)
        modes[1] &= ~termios.OPOST
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(self.near, termios.TCSANOW, modes)
        fcntl.ioctl(self.near, termios.TIOCSWINSZ,
                    struct.pack("HHHH", 24, columns, 0, 0))
        self.output, self.streams = Drain(self.far), []

    def stream(self, mode="w"):
        """A text stream on the terminal, as a process would have it."""
        stream = open(os.dup(self.near), mode, encoding="ascii", newline="")
        self.streams.append(stream)
        return stream

    def shown(self):
        """Give the terminal up; return all that it showed."""
        if self.near is not None:
            for stream in self.streams:
                stream.close()
            os.close(self.near)
            self.near = None
        return self.output.rest()

    def close(self):
        self.shown()
        os.close(self.far)


@pytest.fixture
def screen():
    """screen(columns=80) is a Screen."""
    made = []

    def maker(columns=80):
        made.append(Screen(columns))
        return made[-1]
    yield maker
    for one in made:
        one.close()


@pytest.fixture
def show(router, clock, screen):
    """As run, but on terminals: on= names the streams that are one.

    on="one" puts stdout and stderr on one terminal, as a person has it; all
    that it shows is then the Result.
    """
    def runner(*argv, on=("stdout", "stderr"), columns=80, typed=b"",
               groups=xeroctl.GROUPS, **environ):
        places = {name: screen(columns) for name in on if on != "one"}
        if on == "one":
            places = dict.fromkeys(("stdout", "stderr"), screen(columns))
        if "stdin" in places:
            os.write(places["stdin"].far, typed)
        streams = xeroctl.Streams(*(
            places[name].stream(mode) if name in places else text_stream()
            for name, mode in (("stdin", "r"), ("stdout", "w"),
                               ("stderr", "w"))))
        status = xeroctl.main(argv, environment(router, **environ), streams,
                              clock, groups)
        stdout, stderr = (
            places[name].shown() if name in places else
            written(getattr(streams, name)) for name in ("stdout", "stderr"))
        return Result(stdout, "" if on == "one" else stderr, status)
    return runner


@pytest.fixture
def spawn(router, screen):
    """Start a command on streams of its own; it does not outlive the test.

    Its own session keeps /dev/tty, where a person may sit, out of reach.
    It asks for screens first, so that they are closed after it has ended.
    """
    started = []

    def spawner(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, **environ):
        process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr,
            start_new_session=True, env=environment(router, **environ))
        started.append(process)
        return process
    yield spawner
    for process in started:
        process.kill()
        process.wait()
        for stream in filter(None, (process.stdout, process.stderr)):
            stream.close()


def ended(process, limit):
    """Wait for a process; return whether it has ended."""
    try:
        return process.wait(limit) is not None
    except subprocess.TimeoutExpired:
        return False


def streamed(*texts):
    """The frames of an answer that comes in these deltas."""
    return [chunk(text) for text in texts] + [chunk("", "stop"),
                                              b"data: [DONE]\n\n"]


def completion(text, model="demo"):
    return json.dumps({
        "id": "chatcmpl-1", "object": "chat.completion", "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message":
                     {"role": "assistant", "content": text}}]}).encode()


def listed(*records, **more):
    return json.dumps(dict({"object": "list", "data": records},
                           **more)).encode()


JOBS = xeroctl.Group(
    "jobs", "Jobs.", "/jobs", columns=("ID=id", "Status=status:state"),
    verbs=xeroctl.by_flag(xeroctl.lists(), xeroctl.deletes()))
NOTES = xeroctl.Group(
    "jobs", "Jobs.", "/jobs", columns=("ID=id", "Note=note"),
    verbs=JOBS.verbs)


@pytest.fixture
def held(router):
    """A stream that stops after its first token until the event is set."""
    event = threading.Event()
    router.order(COMPLETIONS, gate=(1, event), frames=[
        chunk("Half"), as_frame({"error": {"message": "gone"}})])
    return event


# == control characters

@pytest.mark.parametrize("sent, shown", [
    ("\x1b]52;c;cm0gLXJmCg==\x07", "\\x1b]52;c;cm0gLXJmCg==\\x07"),
    ("\x1b]0;a title\x1b\\", "\\x1b]0;a title\\x1b\\"),
    ("\x1b[2J\x1b[1;1H", "\\x1b[2J\\x1b[1;1H"),
    ("harmless\rdone", "harmless\\x0ddone"),
    ("line\r\nline", "line\\x0d\nline"),
    ("ab\b\bcd\x7f", "ab\\x08\\x08cd\\x7f"),
    ("\0\v\f\x0e\x1f", "\\x00\\x0b\\x0c\\x0e\\x1f"),
    ("\x80\x9b31m\x9d0;t\x9c\x9f", "\\x80\\x9b31m\\x9d0;t\\x9c\\x9f"),
    ("\u202eexe.txt\u202c", "\\u202eexe.txt\\u202c"),
    ("\u202a\u202b\u202d\u2066\u2067\u2068\u2069",
     "\\u202a\\u202b\\u202d\\u2066\\u2067\\u2068\\u2069"),
    ("a\tb\nc Grüße 漢字 \U0001f469\u200d\U0001f4bb",
     "a\tb\nc Grüße 漢字 \U0001f469\u200d\U0001f4bb"),
    ("half a pair \ud800", "half a pair \\ud800"),
])
def test_no_sequence_of_a_model_acts_on_a_terminal(show, router, sent,
                                                   shown):
    router.order(COMPLETIONS, frames=streamed(sent))
    assert show(*STREAM) == shown + "\n"


def test_a_sequence_split_over_two_deltas_does_not_act(show, router):
    router.order(COMPLETIONS, frames=streamed(
        "\x1b", "]52;c;QQ==", "\x07", "\x1b[3", "1m"))
    assert show(*STREAM) == "\\x1b]52;c;QQ==\\x07\\x1b[31m\n"


def test_bytes_of_an_answer_are_text_on_a_terminal(show, router):
    router.order("GET /notes", body=b"\x1b[2J \xc2\x9b31m \xff \xc3\xbc",
                 content_type="text/plain", drip=True, drip_delay=0.002)
    assert show("api", "/notes") == "\\x1b[2J \\x9b31m \ufffd ü"


HOSTILE = "\x1b]52;c;QQ==\x07 \x9b31m"
TEMPLATES = "GET /chat-templates"
NEW = "chat", "new", "--workspace", "ws_1", "--template", "nope"

# Where the text stands as it is: the answer, with the hostile text in it, to
# the one request of a command.
PLAIN_PLACES = [
    (COMPLETIONS, lambda text: {"frames": streamed(text)}, STREAM),
    (COMPLETIONS, lambda text: {"body": completion(text)}, CHAT),
    (COMPLETIONS, lambda text: {"body": completion("", model=text)},
     CHAT + ("-o", "csv")),
    (COMPLETIONS, lambda text: {"status": 400, "message": text}, CHAT),
    (COMPLETIONS, lambda text: {"status": 400, "code": text}, CHAT),
    (COMPLETIONS, lambda text: {"frames": [as_frame({"error": {
        "message": text}})]}, STREAM),
    (COMPLETIONS, lambda text: {"status": 400, "body": b"", "reason": text},
     CHAT),
    ("GET /models", lambda text: {"body": listed({"id": text})},
     ("api", "/models", "-o", "id")),
    ("GET /models", lambda text: {"headers": {"X-Note": text}},
     ("api", "/models", "--include")),
    ("GET /models", lambda text: {"headers": {"X-Request-ID": text}},
     ("api", "/models", "-v")),
    (TEMPLATES, lambda text: {"body": listed({"id": "ctpl_1",
                                              "name": text})}, NEW),
]
# Where it is escaped in a pipe as well, since it is JSON or a summary.
OTHER_PLACES = [
    (COMPLETIONS, lambda text: {"body": completion(text)},
     CHAT + ("-o", "json")),
    (COMPLETIONS, lambda text: {"body": text.encode()}, CHAT),
    (COMPLETIONS, lambda text: {"frames": [
        b"event: x_research.progress\n" + as_frame({"message": text})]
        + streamed("done")}, STREAM),
    (COMPLETIONS, lambda text: {"status": 400, "message": text},
     CHAT + ("-o", "json")),
]


@pytest.mark.parametrize("match, fault, argv", PLAIN_PLACES + OTHER_PLACES)
def test_no_server_text_acts_on_a_terminal(show, router, match, fault, argv):
    router.order(match, **fault(HOSTILE))
    shown = show(*argv, **DUMB)
    text = shown + shown.stderr
    assert not CONTROL.search(text), shown
    assert re.search(r"\\(x|u00)1b\]52;c;QQ==\\(x|u00)07", text), shown


@pytest.mark.parametrize("match, fault, argv", PLAIN_PLACES)
def test_raw_lets_server_text_through(show, router, match, fault, argv):
    router.order(match, **fault(HOSTILE))
    shown = show("--raw", *argv, **DUMB)
    assert HOSTILE in shown + shown.stderr


@pytest.mark.parametrize("match, fault, argv", PLAIN_PLACES)
def test_a_pipe_gets_server_text_unchanged(run, router, match, fault, argv):
    router.order(match, **fault(HOSTILE))
    shown = run(*argv)
    assert HOSTILE in shown + shown.stderr


def test_each_stream_is_judged_on_its_own(show, router):
    frames = [chunk("\x1b[1m"), as_frame({"error": {"message": "\x1b[2m"}})]
    router.order(COMPLETIONS, frames=frames, times=2)
    shown = show(*STREAM, on=["stdout"])
    assert shown == "\\x1b[1m\n"
    assert "\x1b[2m" in shown.stderr
    shown = show(*STREAM, on=["stderr"], **DUMB)
    assert shown == "\x1b[1m\n"
    assert "\\x1b[2m" in shown.stderr and "\x1b" not in shown.stderr


def read_lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("form, read", [("json", json.loads),
                                        ("jsonl", read_lines)])
def test_json_on_a_terminal_is_harmless_and_still_json(show, router, form,
                                                       read):
    text = "\x1b]52;\x9b\u202e"
    router.order(COMPLETIONS, body=completion(text))
    shown = show(*CHAT, "-o", form)
    assert not CONTROL.search(shown), shown
    assert read(shown) == read(completion(text).decode())


def test_an_error_as_json_is_still_json_on_a_terminal(show, router):
    router.order(COMPLETIONS, status=400, message="\x1b]52;\x9b\u202e")
    shown = show(*CHAT, "-o", "json", **DUMB)
    assert not CONTROL.search(shown.stderr), shown
    assert json.loads(shown.stderr)["error"]["message"] == "\x1b]52;\x9b\u202e"


@pytest.mark.parametrize("on", [(), ("stderr",)])
def test_an_error_is_one_line(show, router, on):
    router.order(COMPLETIONS, status=400, message="a\nb\tc", code="d\ne")
    first, second, *_ = show(*CHAT, on=on, **DUMB).stderr.splitlines()
    assert first == "error: HTTP 400 a\\nb\\tc"
    assert second == "  code: d\\ne"


# == width

def test_escapes_keep_the_columns_of_a_table_aligned(show, router):
    router.order("GET /jobs", body=listed(
        {"id": "a\x1b[2J", "status": "new"},
        {"id": "job_22", "status": "old"}))
    head, new, old = show("jobs", groups=(JOBS,), **DUMB).splitlines()
    assert head.index("Status") == new.index("new") == old.index("old")


@pytest.mark.parametrize("columns, width", [(40, 40), (0, 80), (200, 107)])
def test_a_text_is_cut_to_the_terminal(show, router, columns, width):
    router.order("GET /jobs", body=listed({"id": "job_1",
                                           "note": "s" * 100}))
    line = show("jobs", columns=columns, groups=(NOTES,)).splitlines()[1]
    assert len(line) == width
    assert line.endswith("s" if width == 107 else "…")


# == colour

BOTH, OUT, ERR, NONE = ("stdout", "stderr"), ("stdout",), ("stderr",), ()


@pytest.mark.parametrize("environ, flags, on, coloured", [
    ({}, "", BOTH, BOTH),
    ({}, "", OUT, OUT),
    ({}, "", ERR, ERR),
    ({}, "", NONE, NONE),
    ({"TERM": "xterm"}, "--color auto", BOTH, BOTH),
    ({"TERM": "xterm", "CLICOLOR": "1"}, "", NONE, NONE),
    ({"TERM": "dumb"}, "", BOTH, NONE),
    ({"NO_COLOR": "1"}, "", BOTH, NONE),
    ({"NO_COLOR": ""}, "", BOTH, BOTH),
    ({"FORCE_COLOR": "1"}, "", NONE, BOTH),
    ({"FORCE_COLOR": "1"}, "--color auto", OUT, BOTH),
    ({"FORCE_COLOR": "1", "TERM": "dumb"}, "", BOTH, BOTH),
    ({"FORCE_COLOR": ""}, "", NONE, NONE),
    ({}, "--color always", NONE, BOTH),
    ({"NO_COLOR": "1"}, "--color always", NONE, BOTH),
    ({"TERM": "dumb"}, "--color=always", BOTH, BOTH),
    ({}, "--color never", BOTH, NONE),
    ({"FORCE_COLOR": "1"}, "--color never", BOTH, NONE),
    ({"FORCE_COLOR": "1"}, "--no-color", BOTH, NONE),
])
def test_colour_is_for_those_who_want_it(show, router, environ, flags, on,
                                         coloured):
    router.order("GET /jobs", body=listed(
        {"id": "job_1", "status": "failed"}, has_more=True))
    shown = show("jobs", *flags.split(), on=on, groups=(JOBS,), **environ)
    assert "job_1" in shown and "--after job_1" in shown.stderr
    assert ("\x1b[" in shown) == ("stdout" in coloured)
    assert ("\x1b[" in shown.stderr) == ("stderr" in coloured)


@pytest.mark.parametrize("flags, is_coloured", [
    (("--no-color",), False), (("--color", "never"), False), ((), True)])
def test_a_usage_error_obeys_the_colour_flags(show, flags, is_coloured):
    shown = show(*flags, "bogus")
    assert shown.exit_status == 2
    assert ("\x1b" in shown.stderr) == is_coloured, shown


@pytest.mark.parametrize("argv", [
    STREAM, STREAM + ("--agentic", "--enrich", "--show-usage"),
    CHAT + ("-v",), CHAT + ("--dry-run",), ("chat", "--endpoint", "nope"),
    ("chat", "--help"), ("api", "/models"), ("bogus",), ("jobs",)])
def test_a_pipe_gets_no_escape(run, router, argv):
    router.order("GET /jobs", body=listed({"id": "j", "status": "failed"}))
    shown = run(*argv, TERM="xterm-256color", COLORTERM="truecolor",
                COLUMNS="40", groups=xeroctl.GROUPS + (JOBS,))
    assert not CONTROL.search(shown + shown.stderr), shown


# == the line at the foot of a terminal

SPUN = b"waiting for the first token"


@at_both_ends
def test_a_spinner_then_the_answer_then_the_footer(spawn, screen, router,
                                                   python):
    terminal, gate = screen(columns=0), threading.Event()
    router.order(COMPLETIONS, gate=(0, gate))
    process = spawn(python, STARTED, *STREAM, stdout=terminal.near,
                    stderr=terminal.near)
    terminal.output.until(SPUN)
    gate.set()
    assert process.wait(LIMIT_S) == 0
    spun, _, told = terminal.shown().rpartition("\r\x1b[K")
    assert "Hello" not in spun
    assert told.startswith(ANSWER), told
    assert re.match(r"\x1b\[2m" + FOOTER + r"\x1b\[0m\n\Z",
                    told[len(ANSWER):]), told


def test_no_spinner_outlives_an_error(show, router):
    router.order(COMPLETIONS, status=400)
    before = set(threading.enumerate())
    assert show(*STREAM).exit_status == 1
    left = set(threading.enumerate()) - before
    assert [each for each in left if "router" not in each.name] == []


def test_ctrl_c_wipes_the_spinner(spawn, screen, router):
    terminal = screen()
    router.order(COMPLETIONS, hang=True)
    process = spawn(sys.executable, STARTED, *STREAM, stdout=terminal.near,
                    stderr=terminal.near)
    terminal.output.until(SPUN)
    send(process, signal.SIGINT)
    assert process.wait(LIMIT_S) == 130
    assert terminal.shown().endswith("\r\x1b[K\n")


def test_ctrl_c_in_a_stream_leaves_one_clean_line(spawn, screen, held):
    terminal = screen()
    process = spawn(sys.executable, STARTED, *STREAM, stdout=terminal.near,
                    stderr=terminal.near)
    terminal.output.until(b"Half")
    send(process, signal.SIGINT)
    assert process.wait(LIMIT_S) == 130
    assert re.search(r"(^|\r\x1b\[K)Half\n\Z", terminal.shown())


@pytest.mark.parametrize("more, on, environ", [
    ((), ["stdout"], {}),
    pytest.param(("-q",), BOTH, {}, marks=costly),
    pytest.param((), BOTH, {"TERM": "dumb"}, marks=costly),
])
def test_no_spinner_where_it_would_be_in_the_way(show, router, more, on,
                                                 environ):
    router.order(COMPLETIONS, delay=0.25)   # two turns of a spinner
    shown = show(*STREAM, *more, on=on, **environ)
    assert shown == ANSWER
    assert "waiting" not in shown.stderr and "\r" not in shown.stderr


@pytest.mark.parametrize("frames, told", [
    (streamed("Half"), r"Half\n-- 1 tokens in "),
    ([chunk("Half"), as_frame({"error": {"message": "gone"}})],
     r"Half\nerror: .*gone\n"),
    ([chunk("Half")], r"Half\nerror: "),
    ([chunk("Half"), b"event: x_a\n" + as_frame({}), chunk(" and half")],
     r"Half\nx_a {}\n and half\n"),
])
def test_a_remark_has_a_line_of_its_own(show, router, frames, told):
    router.order(COMPLETIONS, frames=frames)
    shown = show(*STREAM, on="one", **DUMB)
    assert re.match(told, shown), shown


# == questions

@pytest.mark.parametrize("typed", [b"n\n", b"\n", b"yep\n", b"\x04"])
def test_anything_else_is_a_no_and_so_is_the_end_of_input(show, router,
                                                          typed):
    shown = show("jobs", "job_1", "--delete", on=("stdin",) + BOTH,
                 typed=typed, groups=(JOBS,), **DUMB)
    assert shown.exit_status == 1 and shown == ""
    prompt, _, told = shown.stderr.partition("[y/N] ")
    assert prompt == "Delete job job_1? "
    assert told.lstrip("\n").startswith(
        "error: no answer" if typed == b"\x04" else "error: not confirmed")
    assert (typed == b"\x04") == told.startswith("\n")
    assert router.requests == []


def test_the_first_question_at_the_end_of_input_stores_nothing(show,
                                                               tmp_path):
    path = tmp_path / "config.toml"
    shown = show("config", "init", on=("stdin",) + BOTH, typed=b"\x04",
                 XEROTIER_CONFIG=str(path), **DUMB)
    assert shown.exit_status == 1 and "error: no answer" in shown.stderr
    assert "internal" not in shown.stderr and not path.exists()


def test_a_hidden_question_at_the_end_of_input_stores_nothing(
        spawn, screen, router, tmp_path):
    terminal, path = screen(), tmp_path / "config.toml"
    process = spawn(sys.executable, STARTED, "config", "init",
                    stdin=terminal.near, stdout=terminal.near,
                    stderr=terminal.near, XEROTIER_CONFIG=str(path))
    os.write(terminal.far, f"x\n{router.base_url}\nxerotier\n".encode())
    terminal.output.until(b"API key")
    os.write(terminal.far, b"\x04")
    assert process.wait(LIMIT_S) not in (0, None)
    shown = terminal.shown()
    assert "error: " in shown and "internal" not in shown, shown
    assert not path.exists() and router.requests == []


# == sessions

SESSION = "chat", "--endpoint", "demo", "--interactive"


def test_ctrl_c_in_an_answer_returns_to_the_prompt(spawn, screen, router):
    router.order(COMPLETIONS, gate=(0, threading.Event()))
    router.order(COMPLETIONS, gate=(1, threading.Event()),
                 frames=streamed("Half"))
    terminal = screen()
    process = spawn(sys.executable, STARTED, *SESSION, stdin=terminal.near,
                    stdout=terminal.near, stderr=terminal.near)
    terminal.output.until(b"> ")
    os.write(terminal.far, b"nothing\n")
    terminal.output.until(SPUN)
    limit = time.monotonic() + LIMIT_S
    while not router.requests and time.monotonic() < limit:
        time.sleep(0.01)
    send(process, signal.SIGINT)
    terminal.output.until(SPUN, b"msgs: 0", b"> ")
    os.write(terminal.far, b"one\n")
    terminal.output.until(b"Half")
    send(process, signal.SIGINT)
    terminal.output.until(b"msgs: 2", b"> ")
    os.write(terminal.far, b"two\n")
    terminal.output.until(b"I repeat what I am told.", b"msgs: 4", b"> ")
    os.write(terminal.far, b"\x04")
    assert process.wait(LIMIT_S) == 0, terminal.shown()
    assert router.requests[-1].json["messages"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "Half"},
        {"role": "user", "content": "two"}]


def interrupt(process, is_answered):
    """Send SIGINT until it is answered.

    One that comes just before readline waits is noticed with the next; the
    two are one then.
    """
    for _ in range(LIMIT_S):
        send(process, signal.SIGINT)
        if is_answered(1):
            break


def test_ctrl_c_twice_at_the_prompt_leaves(spawn, screen, router):
    terminal = screen()
    process = spawn(sys.executable, STARTED, *SESSION, stdin=terminal.near,
                    stdout=terminal.near, stderr=terminal.near)
    terminal.output.until(b"> ")
    note = b"(Ctrl-C again leaves", b"> "
    interrupt(process, lambda limit: terminal.output.comes(note, limit))
    assert process.poll() is None
    interrupt(process, lambda limit: ended(process, limit))
    assert process.wait(LIMIT_S) == 130
    assert "Traceback" not in terminal.shown()
    assert router.requests == []


PASTE = b"\x1b[200~def f():\n\n    return 1\x1b[201~\n"
PASTED = "def f():\n\n    return 1"


def test_a_paste_of_many_lines_is_one_message(show, router):
    shown = show(*SESSION, on=("stdin", "stderr"), typed=PASTE + b"\x04")
    assert shown.exit_status == 0
    seen, = router.requests
    assert seen.json["messages"][-1]["content"] == PASTED
    begin, end = "\x1b[?2004h", "\x1b[?2004l"
    assert shown.stderr.index(begin) < shown.stderr.index("> ")
    assert shown.stderr.rindex(begin) < shown.stderr.index(end)
    assert shown.stderr.count(end) == 1


def test_a_paste_into_the_line_editor_is_one_message(spawn, screen, router):
    readline = pytest.importorskip("readline")
    if "libedit" in (readline.__doc__ or ""):
        pytest.skip("libedit does not bracket what is pasted")
    terminal = screen()
    process = spawn(sys.executable, STARTED, *SESSION, stdin=terminal.near,
                    stdout=terminal.near, stderr=terminal.near,
                    TERM="xterm")
    terminal.output.until(b"> ")
    os.write(terminal.far, PASTE)
    terminal.output.until(b"msgs: 2", b"> ")
    os.write(terminal.far, b"\x04")
    assert process.wait(LIMIT_S) == 0, terminal.shown()
    seen, = router.requests
    assert seen.json["messages"][-1]["content"] == PASTED


@pytest.mark.parametrize("on", [(), ("stdin",), ("stdin", "stdout")])
def test_a_session_writes_no_escape_to_a_pipe(show, on):
    shown = show(*SESSION, on=on, typed=b"hi\n/help\n/quit\n",
                 TERM="xterm")
    assert shown.exit_status == 0
    assert not CONTROL.search(shown.stderr), shown
    assert "stdout" in on or not CONTROL.search(shown), shown
    assert (ANSWER in shown) == ("stdin" in on)


# == text in any locale

# What a text stream, or a name of a file, would be encoded with.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SAID = "Grüße 漢字 \U0001f680"


def check_text_survives(process, router):
    shown = finished(process)
    assert shown == SAID + "\n"
    assert shown.stderr.startswith("error: the server broke off the stream: "
                                   + SAID + "\n")
    assert shown.exit_status == 7
    seen, = router.requests
    said = json.loads(seen.body.decode("utf-8"))["messages"][0]["content"]
    assert said == SAID + "\ufffd"


@pytest.fixture
def broken_off(router):
    """An answer and an error of the same text, which is not ASCII."""
    router.order(COMPLETIONS, frames=[
        chunk(SAID), as_frame({"error": {"message": SAID}})])


def test_no_text_is_lost_in_an_ascii_locale(spawn, router, broken_off,
                                            python):
    check_text_survives(spawn(
        python, STARTED, "chat", "--endpoint", "demo", "--stream", "-m",
        SAID.encode() + b"\xff", PYTHONIOENCODING="latin-1", **ASCII), router)


@sampled(1, 5)
@pytest.mark.parametrize("environ", [
    {}, {"LANG": "C"}, {"LC_ALL": "C"}, ASCII,
    {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "utf-16"}])
def test_no_text_is_lost_in_any_locale(spawn, router, broken_off, environ):
    check_text_survives(spawn(
        sys.executable, STARTED, "chat", "--endpoint", "demo", "--stream",
        "-m", SAID.encode() + b"\xff", **environ), router)


def test_an_error_names_a_word_as_it_was_typed(spawn):
    shown = finished(spawn(sys.executable, STARTED, SAID.encode(), **ASCII))
    assert shown.exit_status == 2 and f"'{SAID}'" in shown.stderr


@sampled(1, 3)
@pytest.mark.parametrize("argv", [
    (b"\xff",), (b"--\xff",), ("chat", "--endpoint", b"\xff", "-m", "hi"),
    ("chat", "--endpoint", "demo", "--from-file", b"/\xff", "-m", "hi"),
    ("chat", "--endpoint", "demo", "--max-tokens", b"\xff", "-m", "hi")])
def test_a_byte_that_is_no_text_is_an_error_like_others(spawn, argv):
    shown = finished(spawn(sys.executable, STARTED, *argv))
    assert shown.exit_status in (2, 4) and shown == ""
    assert shown.stderr.startswith("error: ")
    assert "Traceback" not in shown.stderr
    assert "internal" not in shown.stderr


# == full disks and closed pipes

@at_both_ends
@needs_full
@pytest.mark.parametrize("argv", [("--version",), CHAT])
def test_a_full_disk_is_an_error(spawn, argv, python):
    with open("/dev/full", "w") as full:
        shown = finished(spawn(python, STARTED, *argv, stdout=full))
    assert shown.stderr == ("error: cannot write to standard output: "
                            + os.strerror(errno.ENOSPC) + "\n")
    assert shown.exit_status == 1


@sampled(1, 3)
@needs_full
@pytest.mark.parametrize("size", [4000, 8191, 8192, 70000])
def test_a_full_disk_is_an_error_whatever_the_size(spawn, router, size):
    router.order(COMPLETIONS, body=completion("x" * size))
    with open("/dev/full", "w") as full:
        shown = finished(spawn(sys.executable, STARTED, *CHAT, "-o", "json",
                               stdout=full))
    told = json.loads(shown.stderr)["error"]["message"]
    assert told.startswith("cannot write to standard output: ")
    assert shown.exit_status == 1


@at_both_ends
@needs_full
def test_remarks_that_cannot_be_written_do_no_harm(spawn, python):
    with open("/dev/full", "w") as full:
        shown = finished(spawn(python, STARTED, *STREAM, stderr=full))
    assert shown.exit_status == 0 and shown == ANSWER


@needs_full
def test_an_error_that_cannot_be_written_has_its_exit_code(spawn):
    with open("/dev/full", "w") as full:
        shown = finished(spawn(sys.executable, STARTED, "chat", "--endpoint",
                               "nope", "-m", "hi", stdout=full, stderr=full))
    assert shown.exit_status == 4


@at_both_ends
@pytest.mark.parametrize("argv", [("--version",), CHAT + ("-ojson",)])
def test_a_reader_that_never_came_is_no_news(spawn, router, argv, python):
    router.order(COMPLETIONS, body=completion("x" * 300000))
    reading, writing = os.pipe()
    os.close(reading)
    process = spawn(python, STARTED, *argv, stdout=writing)
    os.close(writing)
    shown = finished(process)
    assert (shown.exit_status, shown.stderr) == (141, "")


def read_some(process, wanted):
    """Read from standard output until something has come, then leave."""
    data = b""
    while wanted not in data:
        assert select.select([process.stdout], [], [], LIMIT_S)[0], data
        block = os.read(process.stdout.fileno(), len(wanted))
        assert block, data
        data += block
    process.stdout.close()
    process.stdout = None


@at_both_ends
def test_a_reader_that_leaves_early_is_no_news(spawn, router, python):
    router.order(COMPLETIONS, frames=streamed(*["x" * 65536] * 8))
    process = spawn(python, STARTED, *STREAM)
    read_some(process, b"x")
    shown = finished(process)
    assert (shown.exit_status, shown.stderr) == (141, "")
    assert router.requests[-1].closed.wait(LIMIT_S)


@at_both_ends
def test_ctrl_c_after_the_reader_left_is_still_ctrl_c(spawn, held, python):
    process = spawn(python, STARTED, *STREAM)
    read_some(process, b"Half")
    send(process, signal.SIGINT)
    shown = finished(process)
    assert (shown.exit_status, shown.stderr) == (130, "")


def test_an_error_after_the_reader_left_is_told_once(spawn, held):
    process = spawn(sys.executable, STARTED, *STREAM)
    read_some(process, b"Half")
    held.set()
    shown = finished(process)
    assert "ignored" not in shown.stderr and "internal" not in shown.stderr
    assert shown.exit_status in (7, 141)
