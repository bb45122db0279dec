
#!/usr/bin/env python3
"""xeroctl: the Xerotier inference platform, from one file.

Copy this file to a host with Python 3.6 or newer and run it; it needs
nothing else.  It drives the Xerotier router and, with --style openai, any
other OpenAI-compatible server.

It is read from top to bottom: a name uses only names that stand above it.
`grep -n '^# [0-9]' xeroctl.py` is the table of contents and
`grep -n '^# == ' xeroctl.py` the list of command groups.

   1. Constants      names, limits and tables that never change
   2. Errors         every way to fail, each with its exit code
   3. Text           values to strings; pure functions
   4. Terminal       the three standard streams, and what they can show
   5. Config         where a call goes, with which key
   6. Transport      one HTTP exchange; every failure is an error of 2
   7. Streams        server-sent events and JSON, as generators over bytes
   8. Output         rows, records, JSON, JSON Lines, CSV, ids, plans
   9. Declarations   flags, verbs and groups, and the standard verbs
  10. Engines        what is more than a verb: a chat turn, waiting
  11. Groups         one section per command group
  12. Parser         from a command line to a verb and its arguments; help
  13. Main           one command line in, one exit code out

Two rules hold everywhere: a verb never prints (values go to app.out, remarks
to app.terminal) and never exits (it raises an error of floor 2, which main
turns into an exit code).
"""

import argparse
import codecs
import io
import json
import os
import re
import sys
import time
from collections import defaultdict
from itertools import chain

__version__ = "0.1.0"


# ---------------------------------------------------------------------------
# 1. Constants
# ---------------------------------------------------------------------------

TIMEOUT_S = 60
INFERENCE_TIMEOUT_S = 600
ADDRESS_TIMEOUT_S = 10
RETRIES = 2
BACKOFF_S = 0.5, 30.0
LONGEST_WAIT_S = 60
LONGEST_OUTAGE_S = 300
POLL_S = 2
MOST_REDIRECTS = 5
BLOCK = 65536
MOST_ANSWER_BYTES = 512 * 1024 * 1024
NOTE_EVERY_S = 30
HELP_WIDTH = 79

XEROTIER, OPENAI = STYLES = "xerotier", "openai"
TABLE, WIDE, JSON, JSONL, CSV, ID = FORMS = (
    "table", "wide", "json", "jsonl", "csv", "id")
COLOR_MODES = "auto", "always", "never"
PROJECT, ENDPOINT = SCOPES = "project", "endpoint"

# One word per colour, as SGR parameters (ECMA-48, 8.3.117).
GREEN, YELLOW, RED, DIM, BOLD = "32", "33", "31", "2", "1"
STATE_STYLES = dict(
    [(word, GREEN) for word in (
        "completed", "active", "ready", "validated", "ok", "succeeded",
        "processed", "approved", "operational", "online")] +
    [(word, YELLOW) for word in (
        "queued", "pending", "validating", "in_progress", "finalizing",
        "cancelling", "uploading", "running", "pending_approval",
        "processing", "provisioning", "degraded")] +
    [(word, RED) for word in (
        "failed", "error", "invalid", "expired", "cancelled", "incomplete",
        "rejected", "timeout", "offline", "revoked", "exhausted")])

EXIT_CODES = (
    (0, "done"),
    (1, "the operation ended badly: a job failed, an answer that is not what"
        " the API promises, a refused redirect, any other HTTP error"),
    (2, "usage, or local input that is not valid"),
    (3, "not configured, no key to be had, HTTP 401 or 403"),
    (4, "HTTP 404: there is no such thing"),
    (5, "no usable connection: DNS, refused, TLS, timeout, cut off before"
        " an answer"),
    (6, "HTTP 429 or 503, still there after the retries"),
    (7, "a stream broke off or failed after its first delta"),
    (8, "a --wait-timeout ran out"),
    (130, "Ctrl-C"),
    (141, "the reader of the pipe went away"),
    (143, "SIGTERM"),
)

ENVIRONMENT = (
    ("XEROTIER_BASE_URL", "as --base-url: https://HOST/PROJECT/v1"),
    ("XEROTIER_API_KEY", "as --api-key, and not seen in the process list"),
    ("XEROTIER_ENDPOINT", "as --endpoint, where a command needs one"),
    ("XEROTIER_OUTPUT", "as --output"),
    ("XEROTIER_STYLE", "as --style"),
    ("XEROTIER_DEBUG", "1 shows the traceback of an error"),
    ("NO_COLOR", "not empty: no colour"),
    ("FORCE_COLOR", "not empty: colour, also where there is no terminal"),
    ("SSL_CERT_FILE", "the CA bundle to trust, as OpenSSL reads it"),
)


# ---------------------------------------------------------------------------
# 2. Errors
# ---------------------------------------------------------------------------

class XeroctlError(Exception):
    """Something the user should be told; it ends the run.

    The message is one line that says what and where; the hint names the
    next thing to try; facts (code, param, request id) are shown between.
    """

    exit_code = 1
    kind = "operation_failed"

    def __init__(self, message, hint=None, **facts):
        super().__init__(message)
        self.hint = hint
        self.facts = {k: v for k, v in facts.items() if v is not None}

    def lines(self):
        """(label, value) pairs to show below the message."""
        pairs = [(k.replace("_", " "), v) for k, v in self.facts.items()]
        return pairs + ([("hint", self.hint)] if self.hint else [])

    def envelope(self):
        """The error as a JSON object, in the shape of the API's own."""
        about = {"message": str(self), "type": self.kind,
                 "code": None, "param": None}
        about.update(self.facts)
        if self.hint:
            about["hint"] = self.hint
        return {"error": about}


class AnswerError(XeroctlError):
    """The answer is not what the API promises."""

    kind = "unexpected_answer"


class UsageError(XeroctlError):
    """The command line, or an input file, asks for what cannot be."""

    exit_code = 2
    kind = "usage_error"


class NotConfigured(XeroctlError):
    """Where to call, or with which key, is not to be had."""

    exit_code = 3
    kind = "not_configured"


class NotFound(XeroctlError):
    """A name stands for nothing that is there."""

    exit_code = 4
    kind = "not_found"


class ApiError(XeroctlError):
    """The router answered, and the answer was no.

    body is the decoded JSON of the answer, or None; retry_after is seconds.
    """

    kind = "api_error"
    CODES = {401: 3, 403: 3, 404: 4, 429: 6, 503: 6}

    def __init__(self, status, message, hint=None, body=None,
                 retry_after=None, strategy=None, **facts):
        super().__init__(f"HTTP {status} {message}".rstrip(), hint, **facts)
        self.status, self.body = status, body
        self.retry_after, self.strategy = retry_after, strategy
        self.exit_code = self.CODES.get(status, 1)

    def envelope(self):
        """The router's own envelope where it sent one."""
        if isinstance(self.body, dict):
            return self.body
        return super().envelope()


class ConnectionFailed(XeroctlError):
    """No answer.  sent tells whether any byte of the request had left."""

    exit_code = 5
    kind = "connection_failed"

    def __init__(self, layer, message, hint=None, sent=False, lasting=False):
        super().__init__(f"{layer}: {message}", hint)
        self.layer, self.sent, self.lasting = layer, sent, lasting


class StreamBroken(XeroctlError):
    """A stream ended or failed after its first delta."""

    exit_code = 7
    kind = "stream_broken"


class WaitExpired(XeroctlError):
    """The thing waited for did not end in time."""

    exit_code = 8
    kind = "wait_expired"


class ReaderGone(Exception):
    """The reader of standard output went away; nothing is left to say."""

    exit_code = 141


class PlanEnds(Exception):
    """What follows depends on an answer that a plan does not have."""


class HelpWanted(Exception):
    """The command line asks for help, not for work."""

    def __init__(self, group=None, verb=None):
        super().__init__()
        self.group, self.verb = group, verb


# ---------------------------------------------------------------------------
# 3. Text
# ---------------------------------------------------------------------------

# C0 but tab and newline, DEL, C1, and the bidirectional embeddings,
# overrides and isolates of Unicode UAX #9.
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SURROGATES = re.compile("[\ud800-\udfff]")
ISO_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?"
    r"\s*(Z|[+-]\d\d:?\d\d)?)?$", re.I)


def dig(value, path):
    """Follow a dotted path through JSON; None where it leads nowhere."""
    for key in path.split("."):
        if isinstance(value, list) and key.isdigit():
            value = dict(enumerate(value)).get(int(key))
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def plant(tree, path, value):
    """Set a dotted path in nested dicts, making those that are missing."""
    *parents, last = path.split(".")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def as_escape(match):
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def visible(text):
    """Show control characters as escapes (\\x1b) that do nothing."""
    return CONTROLS.sub(as_escape, text)


def one_line(text):
    """Show line ends and tabs as \\n and \\t: one cell, one line."""
    return text.replace("\n", "\\n").replace("\t", "\\t")


def whole(text):
    """Return text that UTF-8 can carry.

    Bytes that Python smuggled in as lone surrogates (PEP 383) are read as
    UTF-8 once more; what still is no text becomes U+FFFD.
    """
    if not SURROGATES.search(text):
        return text
    raw = text.encode("utf-8", "surrogateescape" if all(
        "\udc80" <= c <= "\udcff" for c in SURROGATES.findall(text))
        else "replace")
    return raw.decode("utf-8", "replace")


def decoded(raw):
    """Decode a text file: UTF-8, or UTF-16 if its byte order mark says so."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace")
    return raw.decode("utf-8-sig", "replace")


def compact_json(value):
    """One line of JSON, UTF-8 unescaped, no space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def pretty_json(value):
    """JSON for people: two spaces a level, keys in their order."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def parse_json(text):
    """Decode JSON (RFC 8259: no NaN, no Infinity); raise ValueError.

    Too deep for the interpreter is a ValueError like any other.
    """
    try:
        return DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply")


def zone_seconds(zone):
    """Seconds east of UTC for "+02:00", "-0530", "Z" or None."""
    if not zone or zone in "Zz":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return minutes * (-60 if zone[0] == "-" else 60)


def seconds_of(value):
    """Read epoch seconds or ISO 8601 as epoch seconds; None if neither."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    found = ISO_TIME.match(value.strip()) if isinstance(value, str) else None
    if not found:
        return None
    import calendar
    year, month, day, *clock = [int(g or 0) for g in found.groups()[:6]]
    try:
        seconds = calendar.timegm((year, month, day, *clock))
    except ValueError:
        return None
    return seconds - zone_seconds(found.group(7))


def as_text(value):
    """Show any JSON value in one cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return compact_json(value)


def as_time(value):
    """2026-05-27 14:03 UTC, from any form of time."""
    seconds = seconds_of(value)
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (TypeError, ValueError, OverflowError, OSError):
        return as_text(value)


def as_age(value, now):
    """3h ago, from any form of time."""
    seconds = seconds_of(value)
    if seconds is None:
        return as_text(value)
    left = max(0, now - seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if left >= size:
            return f"{left // size:.0f}{unit} ago"
    return f"{left:.0f}s ago"


def as_size(count):
    """Say a number of bytes in the unit a person would pick."""
    if not isinstance(count, (int, float)) or isinstance(count, bool):
        return as_text(count)
    if count < 1000:
        return f"{count} B"
    for unit in ("KB", "MB", "GB"):
        count /= 1000.0
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def as_seconds(seconds):
    """Say a duration: 0.6 s, 12 s."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def cell_width(character):
    # unicodedata is a large table: only text that is not ASCII pays for it.
    import unicodedata
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def display_width(text):
    """Count the terminal cells of a text (Unicode UAX #11)."""
    try:
        return len(text.encode("ascii"))
    except UnicodeEncodeError:
        return sum(map(cell_width, text))


def padded(text, width):
    """Fill a text with spaces to a number of terminal cells."""
    return text + " " * (width - display_width(text))


def cut_to(text, width):
    """Cut a text to a number of terminal cells, with … where it was cut."""
    if display_width(text) <= width:
        return text
    left, kept = width - 1, []
    for character in text:
        left -= cell_width(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def nearest(word, words):
    """Return the words most like a mistyped one, best first."""
    import difflib
    return difflib.get_close_matches(word, list(words), n=3, cutoff=0.6)


def did_you_mean(word, words):
    """Return the hint that names the nearest word, or None."""
    found = nearest(word, words)
    return f"did you mean {found[0]}?" if found else None


def redacted_key(key):
    """Show whose key it is, never the key: xero_<slug>_…, any other …."""
    found = re.match(r"xero_([^_]+)_.", key)
    return f"xero_{found.group(1)}_…" if found else "…"


def html_summary(page):
    """Say in one line what an HTML page is about."""
    found = (re.search(r"<title[^>]*>(.*?)</title", page, re.I | re.S)
             or re.search(r"<h1[^>]*>(.*?)</h1", page, re.I | re.S))
    text = " ".join(found.group(1).split()) if found else ""
    return f'an HTML page ("{text[:100]}")' if text else "an HTML page"


def is_html(page):
    return page.lstrip()[:15].lower().startswith(("<!doctype", "<html"))


def body_summary(text):
    """Say in one line what came in place of JSON: at most 300 characters."""
    if is_html(text):
        return html_summary(text)
    return visible(" ".join(text.split()))[:300]


class StandIn(str):
    """An id that only a real run would learn, as <file id>; never encoded."""


def quoted(name):
    """Percent-encode an id or name for one segment of a path.

    Dots alone would climb the path (RFC 3986, 5.2.4): no id is made of them.
    """
    from urllib.parse import quote
    if isinstance(name, StandIn):
        return name
    if not name or name in (".", ".."):
        raise UsageError(f"{name!r} cannot be an id: it is empty or a dot")
    return quote(whole(name), safe="")


def path_of(*segments):
    """Join segments, each percent-encoded, to an absolute path."""
    return "".join("/" + quoted(segment) for segment in segments)


# ---------------------------------------------------------------------------
# 4. Terminal
# ---------------------------------------------------------------------------

class Streams:
    """The three standard streams of one run; None stands for a closed one.

    Text streams with a .buffer, as sys.stdin and sys.stdout are, or plain
    text streams without.
    """

    def __init__(self, stdin=None, stdout=None, stderr=None):
        self.stdin = stdin or io.StringIO()
        self.stdout = stdout or io.StringIO()
        self.stderr = stderr or io.StringIO()


class Clock:
    """Time and chance, so that a test can hand in its own."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    @staticmethod
    def jitter():
        """A number from 0 to 1, never the same twice."""
        import random
        return random.random()


def is_terminal(stream):
    try:
        return stream.isatty()
    except ValueError:  # the stream is closed
        return False


def wants_color(environ, terminal):
    """Decide on colour as no-color.org and force-color.org have it."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return terminal and environ.get("TERM") != "dumb"


class Screen:
    """One output stream: UTF-8 in any locale, harmless on a terminal.

    Everything written to a terminal passes visible(), so no byte that a
    server sent acts there; our own sequences go through control().  What
    UTF-8 cannot carry is escaped, in the way that JSON reads back.
    """

    def __init__(self, stream, environ):
        self.stream = stream
        self.binary = getattr(stream, "buffer", None)
        self.is_terminal = is_terminal(stream)
        self.is_live = self.is_terminal and environ.get("TERM") != "dumb"
        self.color = wants_color(environ, self.is_terminal)
        self.raw = self.is_broken = False
        self.column_zero = True
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def columns(self):
        """Width in cells; a terminal that does not know has 80."""
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def write(self, text, style=None):
        """Write text of any origin, in a style where colour is on."""
        if text:
            self.column_zero = text[-1] == "\n"
            if self.is_terminal or style:
                text = self.dressed(text, style)
            self.control(text)

    def dressed(self, text, style):
        """The text as this stream may show it."""
        if self.is_terminal and not self.raw:
            text = visible(text)
        return f"\033[{style}m{text}\033[0m" if style and self.color else text

    def control(self, text):
        """Write text that is ours, control sequences included."""
        if self.binary is None:
            self.attempt(self.stream.write, text)
        else:
            self.attempt(self.binary.write,
                         text.encode("utf-8", "backslashreplace"))

    def flush(self):
        self.attempt((self.binary or self.stream).flush)

    def attempt(self, action, *args):
        """Do one thing with the stream; once it failed, do none."""
        try:
            if not self.is_broken:
                action(*args)
        except (OSError, ValueError) as problem:
            self.is_broken = True
            self.failed(problem)

    def end_line(self):
        """Begin a new line unless one has just begun."""
        if not self.column_zero:
            self.write("\n")


class Stdout(Screen):
    """Standard output: results, and nothing may be lost without a word."""

    def write_bytes(self, block):
        """Write bytes as they are; on a terminal, as harmless text."""
        if self.binary is None or self.is_terminal and not self.raw:
            self.write(self.decoder.decode(block))
        else:
            self.attempt(self.binary.write, block)

    def failed(self, problem):
        """Tell a reader that went away from a write that failed."""
        if isinstance(problem, BrokenPipeError):
            raise ReaderGone()
        reason = getattr(problem, "strerror", None) or problem
        raise XeroctlError(f"cannot write to standard output: {reason}")


class Stderr(Screen):
    """Standard error: remarks; if nobody can read them, so be it.

    It never shows a secret, whoever quotes it.
    """

    def __init__(self, stream, environ):
        super().__init__(stream, environ)
        self.secrets = {}

    def write(self, text, style=None):
        for secret, shown in self.secrets.items():
            text = text.replace(secret, shown)
        super().write(text, style)
        self.flush()

    def failed(self, problem):
        """There is nobody left to tell."""


class StatusLine:
    """The line at the foot of a terminal that is written over and over.

    Not live (a pipe, a dumb terminal, --quiet), it shows nothing.  A lock
    keeps the spinner's thread and the rest from writing into each other.
    """

    def __init__(self, screen):
        import threading
        self.screen, self.shown = screen, False
        self.lock = threading.RLock()

    def show(self, text):
        with self.lock:
            self.screen.control("\r")
            self.screen.write(cut_to(text, self.screen.columns() - 1), DIM)
            self.screen.control("\033[K")
            self.shown = True

    def clear(self):
        with self.lock:
            if self.shown:
                self.screen.control("\r\033[K")
                self.shown = False


class Spinner:
    """Turns on the status line until stopped; without a line, nothing."""

    FRAMES = "|/-\\"
    TURN_S = 0.1

    def __init__(self, line, label):
        self.line, self.label, self.thread = line, label, None

    def __enter__(self):
        if self.line:
            import threading
            self.stopped = threading.Event()
            self.thread = threading.Thread(target=self.turn, daemon=True)
            self.thread.start()
        return self

    def turn(self):
        frame = 0
        while not self.stopped.wait(self.TURN_S):
            self.line.show(f"{self.FRAMES[frame % 4]} {self.label}")
            frame += 1

    def stop(self):
        """Stop and wipe the line; a second call does nothing."""
        if self.thread:
            self.stopped.set()
            self.thread.join()
            self.thread = None
            self.line.clear()

    def __exit__(self, *_):
        self.stop()


class Progress:
    """How far a long job is: one line in place on a terminal.

    In a pipe it is a line on its own when the text changes, at most one
    every 30 seconds.
    """

    def __init__(self, terminal):
        self.terminal, self.last, self.told_at = terminal, None, None

    def show(self, text):
        if self.terminal.status_line:
            self.terminal.status_line.show(text)
        elif text != self.last and self.is_due():
            self.told_at = self.terminal.clock.monotonic()
            self.terminal.note(text)
        self.last = text

    def is_due(self):
        return (self.told_at is None or self.terminal.clock.monotonic()
                - self.told_at >= NOTE_EVERY_S)

    def clear(self):
        if self.terminal.status_line:
            self.terminal.status_line.clear()


class Terminal:
    """The three streams of one run: where to ask and where to remark."""

    def __init__(self, streams, environ, clock):
        self.stdin, self.clock = streams.stdin, clock
        self.out = Stdout(streams.stdout, environ)
        self.err = Stderr(streams.stderr, environ)
        self.quiet, self.status_line = False, None

    def adjust(self, quiet, color, raw):
        """Take over what the command line says about the streams."""
        self.quiet = quiet
        for screen in (self.out, self.err):
            screen.raw = raw
            if color != "auto":
                screen.color = color == "always"
        if self.err.is_live and not quiet:
            self.status_line = StatusLine(self.err)

    def hide(self, secret, shown):
        """Never show a secret on standard error, whoever quotes it."""
        self.err.secrets[secret] = shown

    def say(self, text, style=None):
        """Print a line on stderr, --quiet or not.

        On a terminal it does not go on where running text has stopped.
        """
        if self.status_line:
            self.status_line.clear()
        if self.err.is_terminal and self.out.is_terminal:
            self.out.end_line()
        self.err.write(text, style)
        self.err.write("\n")

    def note(self, text, style=DIM):
        """Print a remark that --quiet suppresses."""
        if not self.quiet:
            self.say(one_line(text), style)

    def warn(self, text):
        self.say("warning: " + one_line(text), YELLOW)

    def read_stdin(self):
        """Read all of standard input: only where `-` was written."""
        return getattr(self.stdin, "buffer", self.stdin).read()

    def read_line(self):
        """Read one line of standard input; empty at its end."""
        line = getattr(self.stdin, "buffer", self.stdin).readline()
        return line if isinstance(line, str) else decoded(line)

    def confirm(self, question):
        """Ask on the terminal; the end of input is a no."""
        if not is_terminal(self.stdin):
            raise UsageError(f"{question} There is no terminal to ask on",
                             "pass --force to go ahead without a question")
        self.say_prompt(f"{question} [y/N] ")
        line = self.read_line()
        if not line.endswith("\n"):
            self.say("")
        return line.strip().lower() in ("y", "yes")

    def say_prompt(self, text):
        if self.status_line:
            self.status_line.clear()
        self.err.write(text)

    def spinner(self, label):
        return Spinner(self.status_line, label)


# ---------------------------------------------------------------------------
# 5. Config
# ---------------------------------------------------------------------------

KEY_HELP = "pass --api-key @FILE or set XEROTIER_API_KEY"
URL_HELP = "pass --base-url or set XEROTIER_BASE_URL"


def check_url(text, what):
    """Return an http(s) URL without its last slashes, or raise."""
    from urllib.parse import urlsplit
    try:
        parts = urlsplit(text)
        valid = parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid or parts.scheme not in ("http", "https"):
        raise NotConfigured(f"{what} {text!r} is no http or https URL")
    if "@" in parts.netloc:
        raise NotConfigured(f"{what} carries credentials", KEY_HELP)
    if parts.query or parts.fragment or re.search(r"[^\x21-\x7e]", text):
        raise NotConfigured(f"{what} {text!r} holds more than a base URL may",
                            "no ?, #, space; percent-encode the rest")
    return text.rstrip("/")


def check_key(text):
    """Return an API key that a header can carry; never quote a bad one."""
    key = text.strip()
    if not key:
        raise NotConfigured("the API key is empty", KEY_HELP)
    if not re.match(r"[\x21-\x7e]+$", key):
        raise NotConfigured("the API key holds a space, a line end or a"
                            " character that is not ASCII", KEY_HELP)
    return key


def read_file(path, error=UsageError):
    """Read a local file whole; raise the given error with its name."""
    try:
        with open(path.encode("utf-8", "surrogateescape"), "rb") as source:
            return source.read()
    except (OSError, ValueError) as problem:
        raise error(f"cannot read {whole(path)}: "
                    f"{getattr(problem, 'strerror', None) or problem}")


def decoded_text(read):
    """What a standard input gave, as text."""
    return read if isinstance(read, str) else decoded(read)


class Deployment:
    """Where calls go, with which key, and how its paths are built.

    With style xerotier the base URL is https://HOST/PROJECT/v1 and the
    endpoint slug goes before the last /v1; with style openai there is no
    slug in a path, and the key may be None.
    """

    def __init__(self, base_url, key, style):
        self.base_url, self.key, self.style = base_url, key, style
        if style == XEROTIER and not base_url.endswith("/v1"):
            raise NotConfigured(
                f"the base URL {base_url} does not end in /v1",
                "https://HOST/PROJECT/v1; or is it --style openai?")

    def url(self, path, slug=None):
        """The URL of a path below /v1, of the project or of an endpoint."""
        if slug is None or self.style == OPENAI:
            return self.base_url + path
        return self.base_url[:-len("/v1")] + path_of(slug) + "/v1" + path


class Settings:
    """What a run was told: flag, then environment, then the default."""

    def __init__(self, args, environ, terminal):
        self.args, self.environ, self.terminal = args, environ, terminal

    def get(self, name, default=None):
        """Look a setting up; an empty variable counts as unset."""
        given = getattr(self.args, name, None)
        if given is not None:
            return given
        return self.environ.get("XEROTIER_" + name.upper()) or default

    def choice(self, name, choices, default):
        """A setting that takes one of a few words."""
        value = self.get(name, default)
        if value not in choices:
            raise UsageError(
                f"XEROTIER_{name.upper()}: {value!r} is none of "
                + ", ".join(choices), did_you_mean(value, choices))
        return value

    def output(self):
        return self.choice("output", FORMS, TABLE)

    def style(self):
        return self.choice("style", STYLES, XEROTIER)

    def key(self):
        """The API key: as it is, @FILE, or - for standard input."""
        text = self.get("api_key")
        if text is None:
            return None
        if text == "-":
            text = decoded_text(self.terminal.read_stdin())
        elif text.startswith("@"):
            text = decoded(read_file(text[1:], NotConfigured))
        return check_key(text)

    def deployment(self):
        """The deployment of this run; raise NotConfigured without one."""
        url = self.get("base_url")
        if not url:
            raise NotConfigured("no base URL", URL_HELP)
        url, style, key = check_url(url, "base URL"), self.style(), self.key()
        if key is None and style == XEROTIER:
            raise NotConfigured("no API key", KEY_HELP)
        return Deployment(url, key, style)


# ---------------------------------------------------------------------------
# 6. Transport
# ---------------------------------------------------------------------------

# http.client, not urllib.request: the latter adds policies on redirects,
# proxies and reuse that send a key elsewhere (cpython#77842) or hide which
# layer failed, and costs 7 ms more to import.

class Request:
    """One HTTP request: what the wire gets, and what a plan shows.

    body is bytes, any other JSON value, or None for no body.
    """

    def __init__(self, method, url, headers, body=None, silence=TIMEOUT_S):
        self.method, self.url, self.headers = method, url, headers
        self.body, self.silence = body, silence

    @property
    def writes(self):
        return self.method not in ("GET", "HEAD")

    @property
    def repeatable(self):
        """Whether asking twice is the same as asking once (RFC 9110, 9.2)."""
        return self.method in ("GET", "HEAD", "PUT", "DELETE")

    def data(self):
        """The body as it is sent."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return whole(compact_json(self.body)).encode("utf-8")


class Plan:
    """Requests shown in place of being sent (--dry-run and --curl).

    A dry run plans what changes something and what comes after that; --curl
    plans everything.
    """

    def __init__(self, dry_run=False, curl=False):
        self.dry_run, self.curl, self.requests = dry_run, curl, []

    def __bool__(self):
        return bool(self.dry_run or self.curl)

    def takes(self, request):
        return self.curl or self.dry_run and bool(
            request.writes or self.requests)

    def add(self, request, stand_in):
        """Plan a request; return what stands for its answer.

        Without a stand-in nothing can be foreseen: the plan ends here.
        """
        if self.curl or request.writes:
            self.requests.append(request)
        if stand_in is None:
            raise PlanEnds()
        return stand_in


class Limits:
    """How long one call may be silent, and when the run must be over."""

    def __init__(self, clock, silence, deadline=None):
        self.clock, self.silence, self.deadline = clock, silence, deadline

    def left(self):
        """Seconds that the next wait may take; raise if the time is up."""
        if self.deadline is None:
            return self.silence
        left = self.deadline - self.clock.monotonic()
        if left <= 0:
            raise self.expired()
        return min(left, self.silence)

    def expired(self):
        """The error for a wait that took too long."""
        if (self.deadline is not None
                and self.clock.monotonic() >= self.deadline - 0.01):
            return ConnectionFailed("timeout", "the call took longer than"
                                    " --max-time", sent=True, lasting=True)
        return ConnectionFailed(
            "timeout", f"nothing came for {as_seconds(self.silence)}",
            "--timeout SECONDS waits longer", sent=True)


class Reader(io.RawIOBase):
    """What arrives on a socket, under limits."""

    def __init__(self, sock, limits):
        self.sock, self.limits = sock, limits

    def readable(self):
        return True

    def readinto(self, buffer):
        self.sock.settimeout(self.limits.left())
        return self.sock.recv_into(buffer)


class Wire:
    """A connected socket in the form that http.client takes.

    sent tells whether any byte may have left.  http.client closes its
    socket as soon as it has read a head; the wire stays open until shut().
    """

    def __init__(self, sock, limits):
        self.sock, self.limits, self.sent = sock, limits, False

    def sendall(self, data):
        self.sock.settimeout(self.limits.left())
        self.sent = True
        self.sock.sendall(data)

    def makefile(self, *_):
        return io.BufferedReader(Reader(self.sock, self.limits), BLOCK)

    def close(self):
        pass

    def shut(self):
        self.sock.close()


def look_up(host, port):
    """Return the addresses of a host, as getaddrinfo gives them."""
    import socket
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise ConnectionFailed("DNS", f"cannot look up {host}: {reason}",
                               "check the host in the base URL")


def connect(address, timeout):
    """Connect to one address of getaddrinfo."""
    import socket
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout)
        sock.connect(target)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def open_socket(host, port, limits):
    """Connect to the first address of a host that answers."""
    addresses = look_up(host, port)
    for number, address in enumerate(addresses, 1):
        is_last = number == len(addresses)
        try:
            return connect(address, limits.left() if is_last
                           else min(limits.left(), ADDRESS_TIMEOUT_S))
        except OSError as problem:
            reason = problem.strerror or "no answer in time"
            if is_last:
                raise ConnectionFailed(
                    "connect", f"{host}:{port}: {reason}",
                    "is the server up, and the base URL right?")


def start_tls(sock, host):
    """Wrap a connected socket in TLS, certificate and name checked."""
    try:
        import ssl
    except ImportError:
        raise ConnectionFailed("TLS", "this Python has no ssl module",
                               lasting=True)
    try:
        return ssl.create_default_context().wrap_socket(
            sock, server_hostname=host)
    except OSError as problem:
        lasting = isinstance(problem, ssl.SSLError)
        reason = getattr(problem, "verify_message", None) or problem
        raise ConnectionFailed("TLS", f"{host}: {reason}", lasting=lasting)


def network_error(problem, where, limits, sent):
    """Return the ConnectionFailed for whatever http.client raised."""
    import http.client
    import socket
    if isinstance(problem, socket.timeout):
        error = limits.expired()
        error.sent = sent
        return error
    if isinstance(problem, http.client.RemoteDisconnected):
        reason = "the server closed the connection without an answer"
    elif isinstance(problem, http.client.IncompleteRead):
        reason = "the answer broke off"
    elif isinstance(problem, http.client.HTTPException):
        reason = f"not an HTTP answer: {visible(str(problem))[:100]}"
    else:
        reason = getattr(problem, "strerror", None) or str(problem)
    return ConnectionFailed("HTTP", f"{where}: {reason}", sent=sent)


def origin_of(url):
    """(scheme, host, port) of a URL: what a key is meant for (RFC 6454)."""
    from urllib.parse import urlsplit
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname, port


def is_same_origin(url, other):
    try:
        return origin_of(url) == origin_of(other)
    except ValueError:  # a port that is none
        return False


def is_loopback(host):
    return host in ("localhost", "::1") or host.startswith("127.")


def ask(client, wire, request):
    """Send a request over a connected client; return the answer's head.

    A server may answer (413) and close while the body is still on its way:
    when sending fails, what it said is read all the same.
    """
    import http.client
    target = re.sub(r"^https?://[^/]*", "", request.url) or "/"
    lost = None
    try:
        try:
            client.request(request.method, target, request.data(),
                           dict(request.headers, Connection="close"))
        except (BrokenPipeError, ConnectionResetError) as problem:
            lost = problem
        return client.getresponse()
    except (OSError, http.client.HTTPException) as problem:
        raise network_error(lost or problem, client.host, wire.limits,
                            wire.sent)


def plain_blocks(response):
    """Yield a body of known length, or one that ends with the connection.

    http.client ends a read(n) in silence when less has come than
    Content-Length says, so the bytes are counted here.
    """
    import http.client
    left = response.length
    while left != 0:
        block = response.read1(BLOCK if left is None else min(left, BLOCK))
        if not block:
            break
        left = None if left is None else left - len(block)
        yield block
    if left:
        raise http.client.IncompleteRead(b"", left)


def chunk_size(line):
    """Read the head of a chunk: a hexadecimal size, and extensions."""
    import http.client
    try:
        size = int(line.partition(b";")[0], 16)
    except ValueError:
        size = -1
    if size < 0:
        raise http.client.HTTPException(f"bad chunk {line[:20]!r}")
    return size


class ChunkedFrame:
    """Takes the frame off a chunked body, fed in blocks split anywhere."""

    def __init__(self):
        self.rest, self.left, self.is_over = b"", 0, False

    def take_off(self, block):
        """Return the data in a block; keep what is not complete."""
        block, position, pieces = self.rest + block, 0, []
        while not self.is_over:
            if self.left:
                pieces.append(block[position:position + self.left])
                position += len(pieces[-1])
                self.left -= len(pieces[-1])
            end = block.find(b"\n", position)
            if self.left or end < 0:
                break
            line, position = block[position:end], end + 1
            if line != b"\r":  # which is the end of the chunk before
                self.left = chunk_size(line)
                self.is_over = not self.left
        self.rest = block[position:]
        return b"".join(pieces)


def chunked_blocks(response):
    """Yield the data of a chunked body (RFC 9112, 7.1) as it arrives.

    http.client would hand it out chunk by chunk, which costs a stream of
    tokens more than all the rest.
    """
    import http.client
    frame = ChunkedFrame()
    while not frame.is_over:
        block = response.fp.read1(BLOCK)
        if not block:
            raise http.client.IncompleteRead(b"")
        data = frame.take_off(block)
        if data:
            yield data


def not_json(answer, text, problem):
    """Return the AnswerError for a body that should have been JSON."""
    what = body_summary(text)
    if not is_html(text):
        what = f"no JSON ({problem}): {what}"
    return AnswerError(f"{answer.url} answered with {what}",
                       "is the base URL that of an API?",
                       request_id=answer.request_id)


# What to try next, by error code or else by status.
API_HINTS = {
    "endpoint_not_found": "--endpoint takes the slug, not the model's name;"
                          " xeroctl api /endpoints lists them",
    "model_not_found": "xeroctl api /models lists what is served",
    "scope_insufficient": "use a key with the scope that the message names",
    "quota_exceeded": "the quota is used up: wait for its reset or raise it",
    "endpoint_inactive": "the endpoint is not active yet: try again later",
    400: "-v shows the request, --dry-run its body",
    401: "is the key right? " + KEY_HELP,
    403: "the key is known, but may not do this",
    404: "is it there? also check the base URL (…/v1) and --style",
    429: "try again later, or raise --retries",
    501: "this server does not offer it",
    503: "try again later, or raise --retries",
}


def validation_message(item):
    """One entry of the list that FastAPI puts under "detail"."""
    where = dig(item, "loc")
    place = ".".join(map(str, where)) if isinstance(where, list) else ""
    said = as_text(dig(item, "msg") or item)
    return f"{place}: {said}" if place else said


def error_message(body):
    """Find the message where servers put it; None if nowhere."""
    for path in ("error.message", "error", "detail", "message"):
        found = dig(body, path)
        if isinstance(found, list):
            found = "; ".join(map(validation_message, found))
        if isinstance(found, str) and found:
            return found
    return None


def is_positive(value):
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and value > 0)


def http_time(value):
    """Read an HTTP date as epoch seconds; None if it is none."""
    from email.utils import mktime_tz, parsedate_tz
    parts = parsedate_tz(value) if value else None
    try:
        return mktime_tz(parts) if parts else None
    except (ValueError, OverflowError):
        return None


def header_seconds(value, now):
    """Read Retry-After: seconds, or an HTTP date (RFC 9110, 10.2.3)."""
    if re.match(r"\s*\d+(\.\d+)?\s*$", value):
        return float(value)
    date = http_time(value)
    return 0 if date is None else max(0, date - now)


def retry_after(answer, about):
    """Seconds that an answer asks to wait: the greater of header and body."""
    said = dig(about, "retry_after")
    said = said if is_positive(said) else 0
    return max(said, header_seconds(answer.headers.get("Retry-After", ""),
                                    answer.wire.limits.clock.now()))


def api_error(answer, text):
    """Read an error in any of the shapes that servers send."""
    try:
        body = parse_json(text)
    except ValueError:
        body = None
    about = dig(body, "error")
    about = about if isinstance(about, dict) else body
    message = (error_message(body) or body_summary(text)
               or answer.response.reason)
    code, status = dig(about, "code"), answer.status
    return ApiError(
        status, message, API_HINTS.get(as_text(code), API_HINTS.get(status)),
        body=body, retry_after=retry_after(answer, about),
        strategy=dig(about, "retry_strategy"), code=code,
        param=dig(about, "param"), request_id=answer.request_id)


class Answer:
    """The open answer to one request; close it, or use it in a with."""

    def __init__(self, response, wire, url):
        self.response, self.wire, self.url = response, wire, url
        self.status, self.headers = response.status, response.headers
        self.request_id = self.headers.get("X-Request-ID")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.shut()

    def blocks(self):
        """Yield the body as it arrives; raise if it is cut short."""
        import http.client
        try:
            yield from (chunked_blocks if self.response.chunked
                        else plain_blocks)(self.response)
        except (OSError, http.client.HTTPException) as problem:
            raise network_error(problem, self.url, self.wire.limits, True)

    def read(self):
        """Return the whole body; refuse one that would fill the memory."""
        blocks, size = [], 0
        for block in self.blocks():
            size += len(block)
            if size > MOST_ANSWER_BYTES:
                raise AnswerError(f"{self.url}: the answer is larger than "
                                  + as_size(MOST_ANSWER_BYTES))
            blocks.append(block)
        return b"".join(blocks)

    def json(self):
        """Return the decoded body; an empty one is an empty object."""
        raw = self.read()
        if not raw.strip():
            return {}
        text = decoded(raw)
        try:
            return parse_json(text)
        except ValueError as problem:
            raise not_json(self, text, problem)

    def error(self):
        """Return the ApiError that this answer stands for."""
        try:
            text = decoded(self.read())
        except XeroctlError:
            text = ""  # the status has come, and says enough
        return api_error(self, text)


def exchange(request, limits, connect_limits):
    """Send one request; return its open Answer, whatever the status."""
    import http.client
    scheme, host, port = origin_of(request.url)
    sock = open_socket(host, port, connect_limits)
    try:
        if scheme == "https":
            sock = start_tls(sock, host)
        wire = Wire(sock, limits)
        default = 443 if scheme == "https" else 80
        client = http.client.HTTPConnection(host, port)
        client.default_port = default
        client.sock = wire
        return Answer(ask(client, wire, request), wire, request.url)
    except BaseException:
        sock.close()
        raise


def is_worth_repeating(request, error):
    """Whether asking again can help, and cannot do the same thing twice."""
    if isinstance(error, ConnectionFailed):
        return not error.lasting and (request.repeatable or not error.sent)
    if error.status == 429:
        return error.facts.get("code") not in ("quota_exceeded",
                                               "insufficient_quota")
    # A 503 is sent by a router that did not act (router-api.md, 2.2).
    return error.status == 503 or (
        error.status in (500, 502, 504) and request.repeatable)


def milliseconds(strategy, name, default):
    value = dig(strategy, name)
    return value / 1000 if is_positive(value) else default


def retry_wait(error, attempt, jitter):
    """Seconds until the next attempt: what the server asks for, or more.

    Exponential backoff with up to a quarter of jitter; a retry_strategy in
    the answer sets its numbers.
    """
    strategy = getattr(error, "strategy", None)
    initial, highest = BACKOFF_S
    initial = milliseconds(strategy, "initial_delay_ms", initial)
    highest = milliseconds(strategy, "max_delay_ms", highest)
    factor = dig(strategy, "multiplier")
    factor = factor if is_positive(factor) else 2
    try:
        wait = initial * float(factor) ** (attempt - 1)
    except OverflowError:
        wait = highest
    if dig(strategy, "jitter") is not False:
        wait *= 1 + jitter / 4
    return max(getattr(error, "retry_after", None) or 0, min(wait, highest))


def redirected(request, answer):
    """Return the request that a redirect asks for, or raise.

    Only a GET is followed, and only on its own origin: a key never leaves
    the scheme, host and port that it was meant for.
    """
    from urllib.parse import urljoin
    target = urljoin(request.url, answer.headers["Location"])
    if (request.method not in ("GET", "HEAD")
            or not is_same_origin(target, request.url)):
        raise AnswerError(
            f"HTTP {answer.status}: the server redirects {request.method} to"
            f" {target}, which is not followed",
            "if that is the right server, put it in the base URL",
            request_id=answer.request_id)
    return Request(request.method, target, request.headers, request.body,
                   request.silence)


SECRET_HEADER = re.compile("auth|key|token|secret|cookie|password", re.I)


def shown_header(name, value, key):
    """A header's value as it may be shown: no key, no other secret."""
    if key and key in value:
        return value.replace(key, redacted_key(key))
    if not SECRET_HEADER.search(name):
        return value
    scheme, _, secret = value.partition(" ")
    return f"{scheme} …" if secret else "…"


class Api:
    """JSON in, JSON out, against one deployment.

    options are the parsed global flags; headers are sent with each request.
    """

    REDIRECTS = 301, 302, 303, 307, 308

    def __init__(self, deployment, options, terminal, plan, deadline):
        self.deployment, self.options, self.plan = deployment, options, plan
        self.terminal, self.clock = terminal, terminal.clock
        self.deadline = deadline
        if deployment.key:
            terminal.hide(deployment.key, redacted_key(deployment.key))
        self.check_transport()

    def check_transport(self):
        """Warn of a key that would travel readable for everyone."""
        scheme, host, _ = origin_of(self.deployment.base_url)
        if (self.deployment.key and scheme == "http" and not self.plan
                and not is_loopback(host)):
            self.terminal.warn(f"the key travels unencrypted to {host}"
                               " (http, not https)")

    def request(self, method, path, slug=None, query=None, body=None,
                headers=None, accept="application/json", silence=TIMEOUT_S):
        """Build the request for a path below /v1.

        slug makes it endpoint-scoped; query is (name, value) pairs; a full
        URL as path must be of the deployment's own origin.
        """
        url = self.url(path, slug)
        pairs = [(whole(k), whole(str(v))) for k, v in query or ()]
        if pairs:
            from urllib.parse import urlencode
            url += ("&" if "?" in url else "?") + urlencode(pairs)
        return Request(method, url, self.headers(accept, body, headers), body,
                       self.options.timeout or silence)

    def url(self, path, slug):
        if not re.match(r"https?://", path):
            return self.deployment.url(path, slug)
        if not is_same_origin(path, self.deployment.base_url):
            raise UsageError(f"{path} is not on the deployment's origin",
                             "the key is meant for "
                             + self.deployment.base_url)
        return path

    def headers(self, accept, body, more):
        """The headers of one request; --header beats all of them."""
        system = os.uname().sysname if hasattr(os, "uname") else sys.platform
        python = ".".join(map(str, sys.version_info[:2]))
        headers = {"User-Agent": f"xeroctl/{__version__} "
                                 f"(Python {python}; {system})",
                   "Accept": accept}
        if self.deployment.key:
            headers["Authorization"] = "Bearer " + self.deployment.key
        if body is not None:
            headers["Content-Type"] = "application/json"
        headers.update(more or {})
        given = dict(self.options.header or ())
        names = {name.lower() for name in given}
        kept = {k: v for k, v in headers.items() if k.lower() not in names}
        return dict(kept, **given)

    def call(self, method, path, stand_in=None, **parts):
        """Send one request; return its decoded JSON.

        stand_in is what a plan goes on with in place of the answer.
        """
        request = self.request(method, path, **parts)
        if self.plan.takes(request):
            return self.plan.add(request, stand_in)
        return self.send(request, self.read_json)

    def open(self, method, path, **parts):
        """Send one request; return its open Answer, body not yet read."""
        request = self.request(method, path, **parts)
        if self.plan.takes(request):
            self.plan.add(request, None)
        return self.send(request, lambda answer: answer)

    def read_json(self, answer):
        with answer:
            value = answer.json()
        self.log_body("<", compact_json, value)
        return value

    def send(self, request, read):
        """Send until read(answer) succeeds or trying again is no use."""
        attempt = 1
        while True:
            try:
                return read(self.follow(request, attempt))
            except (ApiError, ConnectionFailed) as error:
                if self.has_vanished(request, error, attempt):
                    return {}
                self.wait_for_retry(request, error, attempt)
            attempt += 1

    @staticmethod
    def has_vanished(request, error, attempt):
        """A 404 to a repeated DELETE: the lost first attempt did it."""
        return (attempt > 1 and request.method == "DELETE"
                and getattr(error, "status", None) == 404)

    def wait_for_retry(self, request, error, attempt):
        """Sleep until the next attempt, or raise the error for good."""
        if (attempt > self.options.retries
                or not is_worth_repeating(request, error)):
            raise error
        wait = retry_wait(error, attempt, self.clock.jitter())
        if wait > LONGEST_WAIT_S:
            error.hint = ("the server asks to wait "
                          f"{as_seconds(wait)}: try again after that")
            raise error
        if self.deadline and self.clock.monotonic() + wait > self.deadline:
            raise error
        self.terminal.note(f"{error}: attempt {attempt + 1} of "
                           f"{self.options.retries + 1} in {as_seconds(wait)}")
        self.clock.sleep(wait)

    def follow(self, request, attempt):
        """Send a request, redirects included; return a good Answer."""
        for _ in range(MOST_REDIRECTS + 1):
            answer = self.logged(request, attempt)
            if answer.status < 300:
                return answer
            with answer:
                if (answer.status not in self.REDIRECTS
                        or not answer.headers.get("Location")):
                    raise answer.error()
                request = redirected(request, answer)
        raise AnswerError(f"more than {MOST_REDIRECTS} redirects, the last"
                          f" to {request.url}")

    def logged(self, request, attempt):
        """Exchange, with the line of -v and what -vv adds."""
        started = self.clock.monotonic()
        self.log_request(request)
        limits = Limits(self.clock, request.silence, self.deadline)
        connecting = Limits(self.clock, self.options.timeout or TIMEOUT_S,
                            self.deadline)
        result, request_id = "failed", "-"
        try:
            answer = exchange(request, limits, connecting)
            result, request_id = answer.status, answer.request_id or "-"
        finally:
            if self.options.verbose:
                took = (self.clock.monotonic() - started) * 1000
                self.terminal.say(
                    f"{request.method} {request.url} {result} {took:.0f} ms"
                    f" {request_id} attempt {attempt}", DIM)
        self.log_headers("<", answer.headers.items())
        return answer

    def log_request(self, request):
        self.log_headers(">", request.headers.items())
        if request.body is not None:
            self.log_body(">", decoded, request.data())

    def log_headers(self, mark, pairs):
        if self.options.verbose > 1:
            for name, value in pairs:
                value = shown_header(name, value, self.deployment.key)
                self.terminal.say(one_line(f"{mark} {name}: {value}"), DIM)

    def log_body(self, mark, render, body):
        if self.options.verbose > 1:
            self.terminal.say(one_line(f"{mark} {render(body)}"), DIM)


# ---------------------------------------------------------------------------
# 7. Streams
# ---------------------------------------------------------------------------

DONE = "[DONE]"
TERMINAL_EVENTS = ("response.completed", "response.failed",
                   "response.incomplete", "response.cancelled")


class StreamError(XeroctlError):
    """An error that the server told inside a stream."""

    kind = "stream_error"


BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def sse_lines(blocks):
    """Yield lines, ends included, from blocks of bytes that split anywhere.

    A line ends with CRLF, LF or CR (WHATWG HTML, 9.2.5).  A CR ends its line
    at once, without waiting for the LF that may follow in the next block.
    Only the last line may lack its end.
    """
    parts, after_cr = [], False
    for block in blocks:
        if after_cr and block[:1] == b"\n":
            block = block[1:]
        after_cr = block[-1:] == b"\r"
        lines = block.splitlines(True) or [b""]
        rest = b"" if lines[-1][-1:] in (b"\n", b"\r") else lines.pop()
        if parts and lines:
            lines[0] = b"".join(parts) + lines[0]
            parts = []
        yield from lines
        if rest:
            parts.append(rest)
    if parts:
        yield b"".join(parts)


def sse_events(blocks):
    """Yield (event, data, is_whole) for each server-sent event.

    WHATWG HTML, 9.2.6: fields up to a blank line make an event, several data
    fields are joined by newlines, one space after the colon belongs to the
    syntax, an event without data is none, one byte order mark may come
    first.  Beyond it, a last event without its blank line counts; is_whole
    is false if even its last line lacks an end.
    """
    lines = sse_lines(blocks)
    first = next(lines, b"")
    if first.startswith(BYTE_ORDER_MARK):
        first = first[3:]
    event, data, line = "", [], b""
    for line in chain([first], lines):
        field, _, value = line.rstrip(b"\r\n").partition(b":")
        if field == b"data":
            data.append(value[value[:1] == b" ":].decode("utf-8", "replace"))
        elif field == b"event":
            event = value[value[:1] == b" ":].decode("utf-8", "replace")
        elif line in (b"\n", b"\r\n", b"\r"):
            if data:
                yield event, "\n".join(data), True
            event, data = "", []
    if data:
        yield event, "\n".join(data), line[-1:] in (b"\n", b"\r")


def ended_early(has_begun):
    """The error for a stream that just stops."""
    return ConnectionFailed(
        "HTTP", "the stream ended before the answer was complete"
        if has_begun else "the stream ended before it began",
        "without --stream the server may say why", sent=True)


def check_told(kind, payload):
    """Raise the StreamError that an event tells, if it tells one."""
    told = dig(payload, "error")
    if not told and kind != "error":
        return
    about = told if isinstance(told, dict) else payload
    raise StreamError(
        "the server broke off the stream: "
        + (error_message(payload) or as_text(told or payload)),
        code=dig(about, "code"), param=dig(about, "param"))


def api_events(blocks):
    """Yield (kind, payload) for each JSON event, up to the terminal one.

    kind is the event field ("message" counts as absent), else the payload's
    type, else its object.  Raise a StreamError for an error the server
    tells, and ConnectionFailed if the stream ends before [DONE] or a
    terminal response event: whether it was complete is the caller's to say.
    """
    kind = None
    for event, data, is_whole in sse_events(blocks):
        if data[:1] == "[" and data.strip() == DONE:
            return
        if not data:
            continue  # kept alive
        try:
            payload = parse_json(data)
        except ValueError:
            if not is_whole:
                break
            raise AnswerError("an event of the stream is no JSON: "
                              + body_summary(data))
        if not isinstance(payload, dict):
            continue
        kind = event if event and event != "message" else (
            payload.get("type") or payload.get("object"))
        if "error" in payload or kind == "error":
            check_told(kind, payload)
        yield kind, payload
        if kind in TERMINAL_EVENTS:
            return
    raise ended_early(kind is not None)


def whole_answer(answer, text):
    """Yield the one event of an answer that is no stream."""
    try:
        payload = parse_json(text)
    except ValueError as problem:
        raise not_json(answer, text, problem)
    check_told("", payload)
    yield "", payload


def answer_events(answer):
    """The events of a streamed answer, as api_events yields them.

    A body of JSON where a stream was asked for is the one and only event.
    """
    blocks = answer.blocks()
    first = next(blocks, b"")
    if first.lstrip()[:1] in (b"{", b"[", b"<"):
        return whole_answer(answer, decoded(b"".join(chain([first], blocks))))
    return api_events(chain([first], blocks))


# ---------------------------------------------------------------------------
# 8. Output
# ---------------------------------------------------------------------------

CELL_FORMATS = {"": as_text, "state": as_text, "time": as_time,
                "size": as_size}


class Column:
    """A head and where its value is, from "Head=path|other.path:format".

    The first path that leads to a value wins.  A head that begins with +
    stands in the wide forms only.
    """

    def __init__(self, spec):
        head, _, rest = spec.partition("=")
        paths, _, self.format = rest.partition(":")
        self.is_wide, self.head = head[0] == "+", head.lstrip("+")
        self.paths = paths.split("|")

    def value(self, record):
        """The raw value in a record; None if it has none."""
        found = (dig(record, path) for path in self.paths)
        return next((value for value in found if value is not None), None)

    def cell(self, record, now):
        """The value as a person reads it, on one line."""
        value = self.value(record)
        if self.format == "age":
            return as_age(value, now)
        return one_line(CELL_FORMATS[self.format](value))

    def style(self, text):
        """The style of a cell: a state has a colour."""
        return (STATE_STYLES.get(text.lower())
                if self.format == "state" else None)


# Where servers put the records of a list.
RECORD_KEYS = "data", "models", "items", "results"


def page_records(page):
    """Return the list of records in an answer, wherever it stands."""
    if isinstance(page, list):
        return page
    found = [page[key] for key in RECORD_KEYS
             if isinstance(page, dict) and isinstance(page.get(key), list)]
    if not found:
        raise AnswerError("the answer holds no list: "
                          + compact_json(page)[:300])
    return found[0]


def csv_text(rows):
    """Render rows of raw JSON values after RFC 4180."""
    import csv
    target = io.StringIO()
    csv.writer(target).writerows(
        ["" if value is None else value if isinstance(value, str)
         else compact_json(value) for value in row] for row in rows)
    return target.getvalue()


def planned_headers(request):
    """The headers of a request that say something about it."""
    return [(name, value) for name, value in request.headers.items()
            if name not in ("User-Agent", "Accept")]


def curl_command(request, key):
    """Return the curl command that sends a request, without the key."""
    from shlex import quote
    words = [f"curl -sS -X {request.method} {quote(request.url)}"]
    if request.headers.get("Accept") == "text/event-stream":
        words[0] = words[0].replace("-sS", "-sSN", 1)
    for name, value in planned_headers(request):
        if key and value == "Bearer " + key:
            words.append('-H "Authorization: Bearer $XEROTIER_API_KEY"')
        else:
            value = shown_header(name, value, key)
            words.append(f"-H {quote(f'{name}: {value}')}")
    if request.body is not None:
        body = quote(request.data().decode("utf-8", "replace"))
        words.append(f"--data-raw {body}")
    return " \\\n  ".join(words)


def planned_request(request, key):
    """A request as the object that -o json shows of a dry run."""
    body = request.body
    if isinstance(body, bytes):
        body = decoded(body)
    return {"method": request.method, "url": request.url,
            "headers": {name: shown_header(name, value, key)
                        for name, value in planned_headers(request)},
            "body": body}


def planned_text(request, key):
    """A request as a dry run shows it to a person."""
    shown = planned_request(request, key)
    lines = [f"{request.method} {request.url}"]
    lines += [f"{name}: {value}" for name, value in shown["headers"].items()]
    body = shown["body"]
    if body is not None:
        lines += ["", body if isinstance(body, str) else pretty_json(body)]
    return "\n".join(lines)


class Out:
    """Standard output in the form that was asked for.

    Once something is planned rather than sent, results are what a plan made
    up: they are not shown, the plan is.
    """

    def __init__(self, terminal, form, plan):
        self.terminal, self.screen = terminal, terminal.out
        self.form, self.plan = form, plan
        self.is_table = form in (TABLE, WIDE)

    def write(self, text, style=None):
        """Write a piece of a result."""
        if not self.plan.requests:
            self.screen.write(text, style)

    def delta(self, text):
        """Write a piece of running text and let it go at once."""
        self.screen.write(text)
        self.screen.flush()

    def write_bytes(self, block):
        self.screen.write_bytes(block)
        self.screen.flush()

    def line(self, text, style=None):
        self.write(text, style)
        self.write("\n")

    def json(self, value):
        """One JSON document; on a terminal even its controls are JSON."""
        text = pretty_json(value)
        if self.screen.is_terminal:
            text = CONTROLS.sub(lambda c: f"\\u{ord(c.group()):04x}", text)
        self.line(text)

    def json_line(self, value):
        self.line(compact_json(value))

    def rows(self, page, specs, things="items", id_path="id"):
        """A list: page is the API's own object, or a bare list."""
        records = page_records(page)
        if self.form == JSON:
            self.json(page)
        elif self.form == JSONL:
            for record in records:
                self.json_line(record)
        elif self.form == ID:
            for record in records:
                self.line(as_text(dig(record, id_path)))
        elif self.form == CSV:
            self.csv(records, specs)
        elif records:
            self.table(records, specs)
        else:
            self.terminal.note(f"No {things} found.")

    def csv(self, records, specs):
        columns = [Column(spec) for spec in specs]
        rows = [[column.value(r) for column in columns] for r in records]
        self.write(csv_text([[c.head for c in columns]] + rows))

    def table(self, records, specs):
        """Columns aligned by display width, two spaces apart."""
        columns = [c for c in map(Column, specs)
                   if self.form == WIDE or not c.is_wide]
        now = self.terminal.clock.now()
        lines = [[column.head for column in columns]]
        lines += [[c.cell(record, now) for c in columns]
                  for record in records]
        widths = [max(map(display_width, cells)) for cells in zip(*lines)]
        if self.screen.is_terminal:
            widths[-1] = max(len(columns[-1].head) + 1, min(
                widths[-1], self.screen.columns() - sum(widths[:-1])
                - 2 * len(widths[:-1])))
        for number, cells in enumerate(lines):
            styles = [c.style(text) if number else BOLD
                      for c, text in zip(columns, cells)]
            self.table_line(cells, widths, styles)

    def table_line(self, cells, widths, styles):
        *cells, last = cells
        for text, width, style in zip(cells, widths, styles):
            self.write(text, style)
            self.write(" " * (width - display_width(text) + 2))
        if self.screen.is_terminal:
            last = cut_to(last, widths[-1])
        self.line(last, styles[-1])

    def record(self, item, specs, id_path="id"):
        """A single thing: one aligned `Label: value` line per column."""
        if self.form == JSON:
            self.json(item)
        elif self.form == JSONL:
            self.json_line(item)
        elif self.form == ID:
            self.line(as_text(dig(item, id_path)))
        elif self.form == CSV:
            self.csv([item], specs)
        else:
            self.labels(item, specs)

    def done(self, answer, text, item_id):
        """What a write did that returns little: a line for a person."""
        if self.is_table:
            self.line(text)
        else:
            self.record(answer or {"id": item_id}, ("ID=id",))

    def labels(self, item, specs, is_aligned=True):
        columns = [Column(spec) for spec in specs]
        width = max(len(c.head) for c in columns) + 1 if is_aligned else 0
        now = self.terminal.clock.now()
        for column in columns:
            text = column.cell(item, now)
            self.write(f"{column.head + ':':{width}} ")
            self.line(text, column.style(text))

    def show_plan(self, key):
        """Print the requests that were planned, in their order."""
        requests, self.plan.requests = self.plan.requests, []
        if self.form in (JSON, JSONL):
            shown = [{"curl": curl_command(request, key)} if self.plan.curl
                     else planned_request(request, key)
                     for request in requests]
            self.planned_json(shown)
        else:
            render = curl_command if self.plan.curl else planned_text
            self.line("\n\n".join(render(r, key) for r in requests))

    def planned_json(self, shown):
        if self.form == JSONL:
            for item in shown:
                self.json_line(item)
        else:
            self.json(shown[0] if len(shown) == 1 else shown)


# ---------------------------------------------------------------------------
# 9. Declarations
# ---------------------------------------------------------------------------

class Flag:
    """One argument of a verb, in the words of argparse.add_argument.

    sends is the dotted place of its value in the request (body, or query of
    a GET); header the request header that it sets.  many tells of a word
    whether it is one more value of the same flag.  from_stdin: the value
    `-` reads standard input.
    """

    def __init__(self, *names, sends=None, header=None, many=None,
                 from_stdin=False, **options):
        self.names, self.options = names, options
        self.sends, self.header = sends, header
        self.many, self.from_stdin = many, from_stdin
        self.is_word = not names[0].startswith("-")
        longest = max(names, key=len)
        self.dest = options.get("dest", longest.lstrip("-").replace("-", "_"))

    @property
    def takes_value(self):
        return not self.is_word and self.options.get(
            "action", "append") in ("store", "append")

    @property
    def long_name(self):
        return max(self.names, key=len)


def flag(*names, **options):
    """Declare an argument that stays here."""
    return Flag(*names, **options)


def field(name, *more, **options):
    """Declare a flag that is sent in the request, under its own name."""
    declared = Flag(name, *more, **options)
    declared.sends = declared.sends or declared.dest
    return declared


def bounded(convert, what, low, high):
    where = (f"from {low} to {high}" if high is not None
             else f"of at least {low}" if low is not None else "")

    def converted(text):
        try:
            value = convert(text)
            valid = (value - value == 0 and (low is None or low <= value)
                     and (high is None or value <= high))
        except ValueError:
            valid = False
        if not valid:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not {what} {where}".rstrip())
        return value
    return converted


def number(low=None, high=None):
    """A converter to a float within bounds; nan is in none."""
    return bounded(float, "a number", low, high)


def integer(low=None, high=None):
    """A converter to an integer within bounds."""
    return bounded(int, "a whole number", low, high)


def seconds(text):
    """Convert to a positive number of seconds."""
    value = number(0)(text)
    if not value:
        raise argparse.ArgumentTypeError("0 seconds is no time")
    return value


def choice(*words):
    """A converter that takes one of a few words."""
    def chosen(text):
        if text not in words:
            hint = did_you_mean(text, words)
            raise argparse.ArgumentTypeError(
                f"{text!r} is none of {', '.join(words)}"
                + (f" ({hint})" if hint else ""))
        return text
    chosen.words = words
    return chosen


def split_pair(text):
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return name, value


def text_pair(text):
    """Convert KEY=TEXT to a pair."""
    return split_pair(text)


def json_pair(text):
    """Convert KEY=JSON to a pair."""
    name, value = split_pair(text)
    try:
        return name, parse_json(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{value!r} is not JSON (a text needs its quotes: "
            f"{name}='\"…\"')")


def header_pair(text):
    """Convert NAME: VALUE to a pair that is safe to send (RFC 9110, 5)."""
    name, colon, value = text.partition(":")
    if not colon or not re.match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+$", name):
        raise argparse.ArgumentTypeError(f"{name!r} is no NAME: VALUE")
    if re.search(r"[^\t\x20-\x7e\xa0-\xff]", value):
        raise argparse.ArgumentTypeError(
            f"the value of {name} holds what a header cannot carry")
    return name, value.strip()


def sent_fields(args):
    """What the given flags of the verb send, as a JSON object."""
    tree = {}
    for declared in args.verb.flags:
        value = getattr(args, declared.dest, None)
        if declared.sends and value is not None:
            plant(tree, declared.sends, value)
    return tree


def sent_query(args):
    """What the given flags of the verb send, as pairs for a query."""
    return list(sent_fields(args).items())


def sent_headers(args):
    """The headers that the given flags of the verb set."""
    found = ((declared.header, getattr(args, declared.dest, None))
             for declared in args.verb.flags if declared.header)
    return {name: str(value) for name, value in found if value is not None}


class Verb:
    """One thing a group can do: a row of its table.

    run(app, group, args) does it.  by tells how it is called: None, by its
    name as a word; a Flag, by that flag; BARE, by nothing at all (list
    without an id, show with one).  The summary is data, since python -OO
    strips docstrings.
    """

    def __init__(self, name, summary, run, *flags, by=None, writes=False,
                 usage=None, examples=()):
        self.name, self.summary, self.run = name, summary, run
        self.flags, self.by, self.writes = flags, by, writes
        self.usage, self.examples = usage, examples

    @property
    def by_flag(self):
        return isinstance(self.by, Flag)


BARE = "bare"


def by_flag(*verbs):
    """The same rows, called by flag: --NAME, but list and show by nothing."""
    for verb in verbs:
        verb.by = (BARE if verb.name in ("list", "show") else
                   flag("--" + verb.name, action="store_true",
                        help=verb.summary))
    return verbs


def has_more(page, records, query):
    """Whether a page has a next one; a full page may, if none says so."""
    said = dig(page, "has_more")
    if said is None:
        return bool(records) and len(records) == query.get("limit")
    return bool(said)


class Cursor:
    """Pages by after=<last id>, while has_more (OpenAI)."""

    flags = (
        field("--limit", type=integer(1), metavar="N", help="items per page"),
        field("--after", metavar="ID", help="start after this item"),
        flag("--all", action="store_true", help="follow every page"))

    @staticmethod
    def following(page, query):
        """The query for the page after this one, or None."""
        records = page_records(page)
        last = (dig(page, "last_id") or dig(records[-1], "id")
                if records else None)
        if not has_more(page, records, query) or not isinstance(last, str):
            return None
        return dict(query, after=last)

    @staticmethod
    def hint(query):
        return f"--after {query['after']}"


def total_of(page):
    said = dig(page, "total")
    return said if is_positive(said) else 0


class Offset:
    """Pages by limit and offset (models, exports)."""

    flags = (
        field("--limit", type=integer(1), metavar="N", help="items per page"),
        field("--offset", type=integer(0), metavar="N",
              help="skip this many items"),
        flag("--all", action="store_true", help="follow every page"))

    @staticmethod
    def following(page, query):
        """The query for the page after this one, or None."""
        records = page_records(page)
        seen = int(query.get("offset") or 0) + len(records)
        if not records or not (has_more(page, records, query)
                               or seen < total_of(page)):
            return None
        return dict(query, offset=seen)

    @staticmethod
    def hint(query):
        return f"--offset {query['offset']}"


def each_page(fetch, paging, query):
    """Yield page after page of fetch(query); stop where none is new."""
    before = None
    while query is not None:
        page = fetch(query)
        records = page_records(page)
        if records == before:
            return  # the server does not know the cursor
        yield page
        before, query = records, paging.following(page, query)


def merged(pages):
    """One list object out of several pages, complete and of one shape."""
    first, *rest = pages
    if isinstance(first, list):
        return sum(rest, first)
    for page in rest:
        page_records(first).extend(page_records(page))
        first.update((key, page[key]) for key in ("last_id",) if key in page)
    if "has_more" in first:
        first["has_more"] = False
    return first


def fetch_list(app, fetch, paging, query, everything):
    """Fetch one page, or all; say on stderr how to go on if more exist."""
    if everything:
        return merged(each_page(fetch, paging, query))
    page = fetch(query)
    following = paging.following(page, query)
    if following:
        app.terminal.note(f"more exist: {paging.hint(following)}"
                          " continues, --all shows everything")
    return page


class Group:
    """A noun of the command line: where it lives, how it looks, its verbs.

    scope says once for the whole group whether its paths have the endpoint
    slug in them.  default names the verb that may be left out.
    """

    def __init__(self, name, summary, path="", columns=(), fields=(),
                 verbs=(), scope=PROJECT, default=None, paging=Cursor,
                 thing=None):
        self.name, self.summary, self.path = name, summary, path
        self.columns, self.fields = columns, fields or columns
        self.verbs, self.scope, self.default = verbs, scope, default
        self.paging, self.thing = paging, thing or name.rstrip("s")

    def call(self, app, method, path="", **parts):
        """Call the API below the group's path, in the group's scope."""
        return app.api.call(method, self.path + path, slug=self.slug(app),
                            **parts)

    def slug(self, app):
        return app.slug() if self.scope == ENDPOINT else None


ITEM = flag("id", metavar="ID", help="the id of the item")
FORCE = flag("--force", "-y", action="store_true", help="ask no question")
SLUG = flag("--endpoint", metavar="SLUG", help="endpoint slug (XEROTIER_"
            "ENDPOINT); with --style openai the model's name")


def run_list(app, group, args):
    def fetch(query):
        return group.call(app, "GET", query=query.items())
    page = fetch_list(app, fetch, group.paging, sent_fields(args), args.all)
    app.out.rows(page, group.columns, group.name)


def run_show(app, group, args):
    item = group.call(app, "GET", path_of(args.id))
    app.out.record(item, group.fields)


def run_create(app, group, args):
    item = group.call(app, "POST", body=sent_fields(args))
    app.out.record(item, group.fields)


def run_update(app, group, args):
    body = sent_fields(args)
    if not body:
        raise UsageError("nothing to update: give at least one of "
                         + ", ".join(f.long_name for f in args.verb.flags
                                     if f.sends))
    item = group.call(app, "POST", path_of(args.id), body=body)
    app.out.record(item, group.fields)


def run_action(app, group, args):
    path = path_of(args.id, args.verb.name)
    item = group.call(app, "POST", path, body=sent_fields(args) or None)
    app.out.record(item, group.fields)


def run_delete(app, group, args):
    app.confirm(f"Delete {group.thing} {args.id}?", args)
    answer = group.call(app, "DELETE", path_of(args.id))
    app.out.done(answer, f"deleted {args.id}", args.id)


def lists(*flags, summary="List items.", paging=Cursor, **options):
    return Verb("list", summary, run_list, *(flags + paging.flags), **options)


def shows(summary="Show one item.", **options):
    return Verb("show", summary, run_show, ITEM, **options)


def creates(summary, *flags, name="create", **options):
    return Verb(name, summary, run_create, *flags, writes=True, **options)


def updates(summary, *flags, name="update", **options):
    return Verb(name, summary, run_update, ITEM, *flags, writes=True,
                **options)


def acts(name, summary, *flags, **options):
    return Verb(name, summary, run_action, ITEM, *flags, writes=True,
                **options)


def deletes(summary="Delete an item.", name="delete", **options):
    return Verb(name, summary, run_delete, ITEM, FORCE, writes=True,
                **options)


# ---------------------------------------------------------------------------
# 10. Engines
# ---------------------------------------------------------------------------

# == waiting: poll until something has ended =================================

def is_passing(error):
    """Whether a failure may be over at the next poll."""
    if isinstance(error, ConnectionFailed):
        return not error.lasting
    return error.status == 429 or error.status >= 500


def poll_patiently(app, poll):
    """Call poll() until it answers; raise what still fails after 5 minutes."""
    started = app.clock.monotonic()
    while True:
        try:
            return poll()
        except (ApiError, ConnectionFailed) as error:
            lasted = app.clock.monotonic() - started
            if not is_passing(error) or lasted >= LONGEST_OUTAGE_S:
                raise
        app.clock.sleep(POLL_S)


def wait_until(app, poll, is_over, describe, timeout=None, resume=None):
    """Poll every 2 s until is_over(item); return that item.

    describe(item) is the progress line.  A failure that passes (network,
    5xx, 429) is borne for 5 minutes.  On Ctrl-C the job goes on, and resume,
    the command that takes the wait up again, is printed.
    """
    progress = Progress(app.terminal)
    started = app.clock.monotonic()
    try:
        while True:
            item = poll_patiently(app, poll)
            progress.show(describe(item))
            if is_over(item):
                return item
            if timeout and app.clock.monotonic() - started >= timeout:
                raise WaitExpired(f"not over after {as_seconds(timeout)}: "
                                  + describe(item), resume)
            app.clock.sleep(POLL_S)
    except KeyboardInterrupt:
        if resume:
            app.terminal.note(f"it goes on without you; {resume}")
        raise
    finally:
        progress.clear()


# == answers: what a model says, as it comes =================================

TEXT, REFUSAL, REASONING = "text", "refusal", "reasoning"

FINISH_HINTS = {
    "length": "the answer stopped at the token limit: raise --max-tokens",
    "content_filter": "the answer was cut by the content filter",
}


def content_text(value):
    """The text of a content: a string, or a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(content_text, value))
    if isinstance(value, dict):
        return content_text(value.get("text") or value.get("refusal"))
    return ""


def join_function(function, part):
    """Join a piece of a function call: arguments grow, names come once."""
    for key, value in part.items():
        if key == "arguments" and isinstance(value, str):
            function[key] = function.get(key, "") + value
        elif value is not None:
            function[key] = value


class ChatChoice:
    """One of the answers in a chat.completion, growing by deltas."""

    SHOWN = {"content": TEXT, "refusal": REFUSAL,
             "reasoning_content": REASONING, "reasoning": REASONING}
    KEPT_APART = frozenset(("index", "delta", "message", "finish_reason"))

    def __init__(self, index):
        self.index, self.message = index, {"role": "assistant"}
        self.texts, self.tool_calls, self.more = defaultdict(bytearray), [], {}
        self.finish_reason = None

    def add(self, choice):
        """Take a chunk's choice in; return its (kind, text) pieces."""
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        for key, value in choice.items():
            if key not in self.KEPT_APART:
                self.more[key] = value
        delta = choice.get("delta") or choice.get("message")
        pieces = []
        for key, value in delta.items() if isinstance(delta, dict) else ():
            if key in self.SHOWN:
                text = content_text(value)
                # Bytes: a list of small strings takes ten times the memory.
                self.texts[key] += text.encode("utf-8", "surrogatepass")
                if text:
                    pieces.append((self.SHOWN[key], text))
            elif value is not None:
                self.take(key, value)
        return pieces

    def take(self, key, value):
        """Take a member of a delta in that is no text."""
        if key == "tool_calls":
            for call in value if isinstance(value, list) else ():
                self.take_call(call)
        else:
            self.message[key] = value

    def take_call(self, part):
        """Join one part of a tool call to the call that it belongs to."""
        if not isinstance(part, dict):
            return
        call = self.call_of(part)
        for key, value in part.items():
            if key == "function" and isinstance(value, dict):
                join_function(call.setdefault("function", {}), value)
            elif value is not None and key != "index":
                call[key] = value

    def call_of(self, part):
        """The call of a part: by index, else by id, else the last one."""
        index = part.get("index")
        for call in self.tool_calls:
            if index is not None and call.get("index") == index:
                return call
            if index is None and part.get("id") in (None, call.get("id")):
                return self.tool_calls[-1]
        call = {"index": len(self.tool_calls) if index is None else index}
        self.tool_calls.append(call)
        return call

    def text(self, key="content"):
        """All of a text that has come so far."""
        return self.texts[key].decode("utf-8", "surrogatepass")

    def json(self):
        """The choice as it stands in a chat.completion."""
        message = dict(self.message)
        has_content = "content" in self.texts
        message["content"] = self.text() if has_content else None
        for key in self.SHOWN:
            if key != "content" and self.texts[key]:
                message[key] = self.text(key)
        if self.tool_calls:
            message["tool_calls"] = [
                {key: value for key, value in call.items() if key != "index"}
                for call in self.tool_calls]
            message["content"] = message["content"] or None
        return dict({"index": self.index, "message": message},
                    **dict(self.more, finish_reason=self.finish_reason))


class ChatAnswer:
    """A chat.completion, put together from its chunks (OpenAI).

    Takes whole completions as well: a message is a delta that comes at once.
    has_begun tells whether a delta with something in it has arrived; deltas
    counts those with text.
    """

    def __init__(self):
        self.head, self.choices, self.usage = {}, {}, None
        self.has_begun, self.deltas, self.received = False, 0, None

    def add(self, chunk):
        """Take a chunk in; return its (kind, text) pieces to be shown."""
        if chunk.get("object") == "chat.completion":
            self.received = chunk
        if not self.head:
            self.head = {key: value for key, value in chunk.items()
                         if key not in ("choices", "usage")}
        self.usage = chunk.get("usage") or self.usage
        choices, shown = chunk.get("choices"), []
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                kept = self.choice(choice.get("index"))
                pieces = kept.add(choice)
                shown += pieces if kept.index == 0 else ()
                self.deltas += (TEXT in dict(pieces))
                self.has_begun |= bool(pieces or kept.tool_calls)
        return shown

    def choice(self, index):
        """The choice of an index, made at its first delta."""
        kept = self.choices.get(index)
        if kept is None:
            index = index if isinstance(index, int) else 0
            kept = self.choices.setdefault(index, ChatChoice(index))
        return kept

    @property
    def is_finished(self):
        """Whether every choice has told why it ended."""
        return bool(self.choices) and all(
            choice.finish_reason for choice in self.choices.values())

    def first(self):
        return self.choices.get(0) or ChatChoice(0)

    def completion(self):
        """The whole, as received or as an answer without stream would be."""
        if self.received:
            return self.received
        whole_answer = dict(self.head, object="chat.completion")
        whole_answer["choices"] = [
            choice.json() for _, choice in sorted(self.choices.items())]
        if self.usage is not None:
            whole_answer["usage"] = self.usage
        return whole_answer

    def tokens(self):
        """Completion tokens as the server counts them, else the deltas."""
        counted = dig(self.usage, "completion_tokens")
        return counted if isinstance(counted, int) else self.deltas


class Talk:
    """Shows an answer while it comes.

    Text goes to stdout at once, reasoning and vendor events to stderr; a
    spinner turns until the first piece, the footer counts from it.
    """

    def __init__(self, app):
        self.app, self.terminal = app, app.terminal
        self.is_text = app.out.is_table
        self.spinner = app.terminal.spinner("waiting for the first token")
        self.began_at = None

    def __enter__(self):
        self.spinner.__enter__()
        return self

    def __exit__(self, kind, *_):
        """Leave the line, so that what follows has one of its own.

        After Ctrl-C on a terminal, main ends the line that ^C stands on.
        """
        self.spinner.stop()
        echoed = kind is KeyboardInterrupt and self.terminal.out.is_terminal
        if self.is_text and not echoed:
            self.terminal.out.end_line()

    def show(self, pieces):
        """Show (kind, text) pieces as they come."""
        if self.began_at is None:
            self.spinner.stop()
            self.began_at = self.app.clock.monotonic()
        if self.is_text:
            for kind, text in pieces:
                if kind == TEXT or kind == REFUSAL:
                    self.app.out.delta(text)

    def event(self, kind, payload):
        """Show that a vendor event came, on one dim line."""
        if str(kind).startswith("x_") and not self.terminal.quiet:
            self.spinner.stop()
            more = {k: v for k, v in payload.items() if k != "type"}
            line = f"{kind} {compact_json(more)}"
            self.terminal.note(cut_to(line, self.terminal.err.columns() - 1))

    def footer(self, tokens):
        """-- 312 tokens in 4.2s (74.3 tok/s), from the first token on."""
        if self.began_at is None:
            return
        took = max(0.001, self.app.clock.monotonic() - self.began_at)
        self.terminal.note(f"-- {tokens} tokens in {took:.1f}s"
                           f" ({tokens / took:.1f} tok/s)")


def is_chunk(kind, payload):
    return (kind == "chat.completion.chunk"
            or isinstance(payload, dict) and "choices" in payload)


def take_events(app, talk, answer, events):
    """Take the events of a chat stream in, each shown as it comes."""
    shows_events = app.out.form == JSONL
    for kind, payload in events:
        if shows_events:
            app.out.json_line(payload)
            app.terminal.out.flush()
        if not is_chunk(kind, payload):
            talk.event(kind, payload)
            continue
        pieces = answer.add(payload)
        if pieces:
            talk.show(pieces)


def broken(answer, error):
    """The error of a stream that failed: worse once a delta has arrived."""
    if not answer.has_begun:
        return error
    return StreamBroken(str(error), "what arrived is kept; the answer is not"
                        " complete", **error.facts)


def stream_chat(app, talk, body, headers):
    """Ask for a streamed answer and show it; return the ChatAnswer."""
    answer = ChatAnswer()
    body = dict(body, stream=True, stream_options={"include_usage": True})
    try:
        with app.api.open("POST", "/chat/completions", slug=app.slug(),
                          body=body, headers=headers,
                          accept="text/event-stream",
                          silence=INFERENCE_TIMEOUT_S) as reply:
            take_events(app, talk, answer, answer_events(reply))
    except ConnectionFailed as error:
        if not answer.is_finished:
            raise broken(answer, error)
    except (StreamError, AnswerError) as error:
        raise broken(answer, error)
    return answer


def check_completion(reply):
    """Raise unless an answer is a chat.completion with a choice."""
    choices = dig(reply, "choices")
    if not isinstance(choices, list) or not choices:
        check_told("", reply)
        raise AnswerError("the answer is no chat.completion: "
                          + compact_json(reply)[:300])


def ask_chat(app, talk, body, headers):
    """Ask for an answer at once and show it; return the ChatAnswer."""
    reply = app.api.call(
        "POST", "/chat/completions", slug=app.slug(),
        body=dict(body, stream=False), headers=headers,
        silence=INFERENCE_TIMEOUT_S)
    check_completion(reply)
    answer = ChatAnswer()
    talk.show(answer.add(reply))
    if app.out.form == JSONL:
        app.out.json_line(reply)
    return answer


def show_rest(app, answer):
    """Show what is known only at the end: tool calls, more choices."""
    for index, choice in sorted(answer.choices.items()):
        if index:
            app.terminal.out.end_line()
            app.out.line("\n" + choice.text())
        for call in choice.tool_calls:
            app.terminal.out.end_line()
            name = dig(call, "function.name")
            arguments = dig(call, "function.arguments")
            app.out.line(f"[tool call] {as_text(name)}({arguments or ''})")


def usage_line(usage):
    """usage: prompt 9, completion 3, total 12, cached 4, reasoning 2."""
    if not isinstance(usage, dict):
        return "usage: not reported by the server"
    paths = (("prompt", "prompt_tokens"), ("completion", "completion_tokens"),
             ("total", "total_tokens"),
             ("cached", "prompt_tokens_details.cached_tokens"),
             ("reasoning", "completion_tokens_details.reasoning_tokens"))
    return "usage: " + ", ".join(f"{name} {as_text(dig(usage, path))}"
                                 for name, path in paths)


# ---------------------------------------------------------------------------
# 11. Groups
# ---------------------------------------------------------------------------

# == chat: answers from a model, and chats from a template ===================

def tell_ends(app, answer, show_usage):
    """Say why an answer stopped early, and what it cost."""
    hint = FINISH_HINTS.get(answer.first().finish_reason)
    if hint:
        app.terminal.note("hint: " + hint)
    if show_usage:
        app.terminal.say(usage_line(answer.usage))


def message_text(app, args):
    """The user's message: what -m says, or standard input for `-`."""
    if args.message is None:
        raise UsageError("--message is missing", "-m TEXT, or -m - to read it"
                         " from standard input")
    text = app.read_text("-") if args.message == "-" else args.message
    if not text:
        raise UsageError("the message is empty")
    return text


def chat_body(app, args):
    """Build the body of a chat completion from the flags."""
    messages = []
    system = (app.read_text(args.from_file) if args.from_file is not None
              else args.system)
    if system is not None:
        messages.append({"role": "system", "content": system})
    messages.append({"role": "user", "content": message_text(app, args)})
    body = {"model": args.model or app.endpoint(), "messages": messages}
    body.update(sent_fields(args))
    return body


CHAT_FIELDS = ("ID=id", "Model=model", "Created=created:time",
               "Finish=choices.0.finish_reason",
               "Prompt tokens=usage.prompt_tokens",
               "Completion tokens=usage.completion_tokens",
               "Content=choices.0.message.content")


def send_chat(app, group, args):
    """Send one message and show the answer, at once or as it comes."""
    body, headers = chat_body(app, args), sent_headers(args)
    if args.agentic:
        app.terminal.note("-> agentic mode")
    with Talk(app) as talk:
        ask = stream_chat if args.stream else ask_chat
        answer = ask(app, talk, body, headers)
        if app.out.is_table:
            show_rest(app, answer)
    if app.out.form not in (TABLE, WIDE, JSONL):
        app.out.record(answer.completion(), CHAT_FIELDS)
    if args.stream:
        talk.footer(answer.tokens())
    tell_ends(app, answer, args.show_usage)


def post_message(app, chat_id, text):
    """Post a user message to a chat that was just made."""
    try:
        if not isinstance(chat_id, str):
            raise AnswerError("the answer to apply has no chat_id")
        app.api.call("POST", path_of("chats", chat_id, "messages"),
                     body={"role": "user", "content": text}, stand_in={})
    except XeroctlError as error:
        raise XeroctlError(
            f"the chat {as_text(chat_id)} was created, but its message was"
            f" not posted: {error}", "the chat is kept; post the message to"
            f" it: xeroctl api POST /chats/{as_text(chat_id)}/messages",
            **error.facts)


def only_named(name, templates, workspace):
    """Return the id of the one template of a name, or raise."""
    found = [dig(t, "id") for t in templates if dig(t, "name") == name]
    if len(found) > 1:
        raise UsageError(f"{len(found)} templates are named {name}",
                         "give the id: " + ", ".join(map(as_text, found)))
    if not found or not isinstance(found[0], str):
        names = [t["name"] for t in templates
                 if isinstance(dig(t, "name"), str)]
        near = nearest(name, names) or names
        raise NotFound(f"workspace {workspace} has no template {name}",
                       near and "there is " + ", ".join(near[:5]))
    return found[0]


def template_id(app, workspace, name):
    """Return the id of a template given by id (ctpl_…) or by name."""
    if name.startswith("ctpl_"):
        return name
    unknown = StandIn(f"<id of {name}>")
    if app.plan.dry_run:
        return unknown  # the product's page: "without hitting the router"
    path = path_of("workspaces", workspace, "chat-templates")

    def fetch(query):
        return app.api.call("GET", path, query=query.items(),
                            stand_in={"data": [{"id": unknown,
                                                "name": name}]})
    templates = page_records(merged(each_page(fetch, Cursor, {})))
    return only_named(name, templates, workspace)


NEW_CHAT_FIELDS = ("chat_id=chat_id|chatId", "url=url",
                   "template_id=template_id|templateId",
                   "template_version=template_version|templateVersion")


def new_chat(app, group, args):
    """Apply a template to a workspace; post a first message if there is one.

    POST /workspaces/{w}/chat-templates/{t}/apply, then
    POST /chats/{chat_id}/messages.
    """
    text = None if args.message is None else message_text(app, args)
    template = template_id(app, args.workspace, args.template)
    chat = app.api.call(
        "POST", path_of("workspaces", args.workspace, "chat-templates",
                        template, "apply"),
        body={}, stand_in={"chat_id": StandIn("<chat id>")})
    if text is not None:
        post_message(app, dig(chat, "chat_id"), text)
    if app.out.is_table:
        app.out.line("chat created from template")
        app.out.labels(chat, NEW_CHAT_FIELDS, is_aligned=False)
    else:
        app.out.record(chat, NEW_CHAT_FIELDS, id_path="chat_id")


MESSAGE = flag("-m", "--message", metavar="TEXT", from_stdin=True,
               help="the user's message; - reads standard input")

CHAT = Group(
    "chat", "Ask a model; start chats from templates.",
    scope=ENDPOINT, default="send",
    verbs=(
        Verb("send", "Send a message to an endpoint and show the answer.",
             send_chat, SLUG, MESSAGE,
             flag("--system", metavar="TEXT", help="system message"),
             flag("--from-file", metavar="PATH", from_stdin=True,
                  help="read the system message from a file (beats"
                       " --system); - is standard input"),
             field("--model", metavar="NAME",
                   help="model name passed to the API (informational: the"
                        " endpoint decides)"),
             field("--max-tokens", type=integer(1), metavar="N",
                   help="most tokens to generate"),
             field("--temperature", type=number(0, 2), metavar="F",
                   help="sampling temperature, 0.0 to 2.0"),
             field("--top-p", type=number(0, 1), metavar="F",
                   help="nucleus sampling threshold, 0.0 to 1.0"),
             field("--frequency-penalty", type=number(-2, 2), metavar="F",
                   help="against repetition, -2.0 to 2.0"),
             field("--presence-penalty", type=number(-2, 2), metavar="F",
                   help="for new topics, -2.0 to 2.0"),
             field("--seed", type=integer(), metavar="N",
                   help="random seed for reproducible output"),
             field("--stop", action="append", metavar="TEXT",
                   help="end the answer before this text (repeatable)"),
             flag("--stream", action="store_true",
                  help="show the answer token by token"),
             field("--store", action="store_true",
                   help="keep the completion on the server"),
             flag("--show-usage", action="store_true",
                  help="print token usage after the answer, on stderr"),
             field("--agentic", action="store_true",
                   sends="web_search_options.x_agentic",
                   help="let the router run its tool-calling loop"),
             flag("--enrich", action="store_const", const="1",
                  header="X-Xerotier-Vendor-Events",
                  help="ask for the router's enrichment events"),
             writes=True, usage="--endpoint SLUG -m TEXT [flags]",
             examples=(
                 'xeroctl chat send --endpoint demo -m "Hello" --stream',
                 "git diff | xeroctl chat send --endpoint demo -m -",
                 'xeroctl chat --endpoint demo -m "Hello" -o json')),
        Verb("new", "Start a chat in a workspace from a template.",
             new_chat,
             flag("--workspace", metavar="ID", required=True,
                  help="the workspace"),
             flag("--template", metavar="ID|NAME", required=True,
                  help="template: its ctpl_ id or its name"),
             MESSAGE, writes=True,
             examples=(
                 "xeroctl chat new --workspace ws_1 --template triage",
                 "xeroctl chat new --workspace ws_1 --template triage"
                 " --dry-run")),
    ))


# == api: any call, with the same retries, errors and output =================

def api_body(app, args):
    """The body that the flags make: bytes of --input, or an object."""
    pairs = (args.field or []) + (args.raw_field or [])
    if args.input is None:
        return dict(pairs) if pairs else None
    if pairs:
        raise UsageError("--input and --field cannot be combined: the body"
                         " comes from one of them")
    return app.read_bytes(args.input)


def query_text(value):
    return value if isinstance(value, str) else compact_json(value)


def api_path(path):
    """Make a path of the command line fit for a request line."""
    from urllib.parse import quote
    if not re.match(r"https?://|/", path):
        path = "/" + path
    return quote(whole(path), safe="/%:@!$&'()*+,;=?~[]-._")


def columns_of(records):
    """One column for each key that any of the records has."""
    keys = {}
    for record in records:
        keys.update(dict.fromkeys(record if isinstance(record, dict) else ()))
    return [f"{key}={key}" for key in keys]


def show_any(app, value):
    """Show JSON of which nothing is known; a person reads it as JSON."""
    is_list = isinstance(value, list) or any(
        isinstance(dig(value, key), list) for key in RECORD_KEYS)
    if app.out.is_table or app.out.form == JSON:
        app.out.json(value)
    elif is_list:
        app.out.rows(value, columns_of(page_records(value)))
    else:
        app.out.record(value, columns_of([value]))


def show_pages(app, method, path, query, body, parts):
    """Follow every page of a list and show it as one."""
    if method != "GET":
        raise UsageError(f"--all follows the pages of a GET, not of {method}")

    def fetch(query):
        return app.api.call("GET", path, query=query.items(), **parts)
    first = fetch(dict(query))
    paging = Offset if total_of(first) else Cursor
    following = paging.following(first, dict(query))
    more = [] if following is None else each_page(fetch, paging, following)
    show_any(app, merged([first, *more]))


def show_head(app, answer):
    """Print status and headers: on stdout only where JSON is not due."""
    lines = [f"HTTP {answer.status} {answer.response.reason}".rstrip()]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    say = app.out.line if app.out.is_table else app.terminal.say
    for line in lines + [""]:
        say(line)


def show_body(app, answer):
    """Show an answer of any type: JSON in the form asked for, else bytes."""
    media = answer.headers.get_content_type()
    if media.endswith("json"):
        show_any(app, answer.json())
    elif media == "text/event-stream" and app.out.form == JSONL:
        for _, payload in answer_events(answer):
            app.out.json_line(payload)
            app.terminal.out.flush()
    else:
        for block in answer.blocks():
            app.out.write_bytes(block)


def call_api(app, group, args):
    """Make one authenticated call and show what comes back."""
    body, query = api_body(app, args), ()
    method = (args.method or ("GET" if body is None else "POST")).upper()
    if isinstance(body, dict) and method in ("GET", "HEAD"):
        body, query = None, [(key, query_text(value))
                             for key, value in body.items()]
    path = api_path(args.path)
    parts = {"slug": app.slug() if args.endpoint else None,
             "silence": INFERENCE_TIMEOUT_S if args.endpoint else TIMEOUT_S}
    if args.all:
        return show_pages(app, method, path, query, body, parts)
    with app.api.open(method, path, query=query, body=body, accept="*/*",
                      **parts) as answer:
        if args.include:
            show_head(app, answer)
        show_body(app, answer)


API = Group(
    "api", "Make any API call, with the same retries, errors and output.",
    default="",
    verbs=(
        Verb("", "Make one authenticated call and show what comes back.",
             call_api,
             flag("method", metavar="METHOD", nargs="?",
                  help="GET, or POST when there is a body"),
             flag("path", metavar="PATH",
                  help="below the project's /v1, or a URL on its origin"),
             flag("--endpoint", metavar="SLUG",
                  help="call below this endpoint, not below the project"),
             flag("--field", action="append", type=json_pair,
                  metavar="KEY=JSON", help="a member of the body; of the"
                  " query with GET (repeatable)"),
             flag("--raw-field", action="append", type=text_pair,
                  metavar="KEY=TEXT", help="the same, as text"),
             flag("--input", metavar="FILE", from_stdin=True,
                  help="send this file as the body; - is standard input"),
             flag("--all", action="store_true",
                  help="follow every page of a list"),
             flag("--include", action="store_true",
                  help="show status and headers, too"),
             writes=True,
             examples=(
                 "xeroctl api /models",
                 "xeroctl api /conversations --all -o id",
                 "xeroctl api POST /conversations --field"
                 " 'metadata={\"a\":\"b\"}'")),
    ))


GROUPS = (CHAT, API)


# ---------------------------------------------------------------------------
# 12. Parser
# ---------------------------------------------------------------------------

# argparse converts, defaults and formats; taking the words apart is done
# here, since argparse refuses values that begin with a dash (cpython#53580),
# lets one flag eat the value or the positionals of another, and forgets what
# stood before a sub-command.

GLOBALS = (
    flag("-o", "--output", type=choice(*FORMS), metavar="FMT",
         help="table, wide, json, jsonl, csv or id (XEROTIER_OUTPUT)"),
    flag("--base-url", metavar="URL",
         help="https://HOST/PROJECT/v1 (XEROTIER_BASE_URL)"),
    flag("--api-key", metavar="KEY", from_stdin=True,
         help="the key (XEROTIER_API_KEY); @FILE reads a file, - standard"
              " input. As an argument it shows in the process list"),
    flag("--style", type=choice(*STYLES), metavar="STYLE",
         help="xerotier, or openai for any other server (XEROTIER_STYLE)"),
    flag("--timeout", type=seconds, metavar="SECONDS",
         help="to connect, and longest silence (60; inference 600)"),
    flag("--max-time", type=seconds, metavar="SECONDS",
         help="limit on the whole call"),
    flag("--retries", type=integer(0), metavar="N", default=RETRIES,
         help=f"attempts after the first (default {RETRIES})"),
    flag("--header", action="append", type=header_pair,
         metavar="'NAME: VALUE'", help="extra request header (repeatable)"),
    flag("--dry-run", action="store_true",
         help="print what would be sent; change nothing"),
    flag("--curl", action="store_true",
         help="print the curl command instead of sending"),
    flag("-q", "--quiet", action="store_true",
         help="no spinner, progress or hint on stderr"),
    flag("-v", "--verbose", action="count", default=0,
         help="a line per request on stderr; -vv headers and bodies"),
    flag("--raw", action="store_true",
         help="let server text reach a terminal unchanged"),
    flag("--color", type=choice(*COLOR_MODES), metavar="WHEN",
         help="auto, always or never"),
    flag("--no-color", action="store_const", const="never", dest="color",
         help="as --color never"),
    flag("--version", action="store_true", help="print the version"),
    flag("-h", "--help", action="store_true", help="print this help"),
)


def flag_table(*flag_lists):
    """Names to flags; the later list wins."""
    return {name: declared for flags in flag_lists for declared in flags
            if not declared.is_word for name in declared.names}


def is_flag_like(word):
    """Whether a word can only be a flag: -5 and - are values."""
    return word[:1] == "-" and not re.match(r"-(\.?\d|$)", word)


def known_flag(name, table, word=None):
    """Return the flag of a name, or raise with the nearest one."""
    if name not in table:
        raise UsageError(f"unknown flag {word or name}",
                         did_you_mean(name, table))
    return table[name]


def flags_in(word, table):
    """Yield (flag, value or None) for one word: --a, --a=b, -vv, -ojson."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        declared = known_flag(name, table)
        if equals and not declared.takes_value:
            raise UsageError(f"{name} takes no value")
        yield declared, value if equals else None
        return
    for place, letter in enumerate(word[1:], 2):
        declared = known_flag("-" + letter, table, word)
        if declared.takes_value:
            rest = word[place:]
            yield declared, rest[rest[:1] == "=":] or None
            return
        yield declared, None


def is_known(word, table):
    return word == "--" or word.partition("=")[0] in table


def next_value(declared, rest, table):
    """The value of a flag: the next word, unless it is a known flag."""
    name = declared.long_name
    if not rest:
        raise UsageError(f"{name} needs a value")
    if is_known(rest[0], table):
        raise UsageError(f"{name} needs a value, and {rest[0]} is a flag",
                         f"{name}={rest[0]} takes it as the value")
    return rest[0]


def is_one_more(declared, rest, table):
    """Whether the next word is one more value of a flag that takes many."""
    return bool(declared.many and rest and not is_known(rest[0], table)
                and declared.many(rest[0]))


def tokens(words, table):
    """Yield (index, flag, value) for flags, (index, None, word) for words.

    A known flag is never another's value: --name=VALUE forces it.
    """
    position = 0
    while position < len(words):
        index, word = position, words[position]
        position += 1
        if word == "--":
            for rest in range(position, len(words)):
                yield rest, None, words[rest]
            return
        if not is_flag_like(word):
            yield index, None, word
            continue
        for declared, value in flags_in(word, table):
            if declared.takes_value and value is None:
                value = next_value(declared, words[position:], table)
                position += 1
            yield index, declared, value
            while is_one_more(declared, words[position:], table):
                yield position, declared, words[position]
                position += 1


def by_word(group):
    """The verbs of a group that are called by a word."""
    return [verb for verb in group.verbs if verb.by is None and verb.name]


def find_group(words, groups):
    """Return (group, the words without its name); None if none is named."""
    for index, declared, word in tokens(words, flag_table(GLOBALS)):
        if declared is None:
            names = {group.name: group for group in groups}
            if word not in names:
                raise UsageError(f"unknown command {word!r}",
                                 did_you_mean(word, names)
                                 or "xeroctl help lists the commands")
            return names[word], words[:index] + words[index + 1:]
    return None, words


def check_no_verb(group, unnamed, named, word):
    """Raise unless the first word can be something else than a verb."""
    if word == "help":
        raise HelpWanted(group)
    if not any(f.is_word for verb in unnamed for f in verb.flags):
        raise UsageError(f"{group.name} has no verb {word!r}",
                         did_you_mean(word, named)
                         or "it has " + ", ".join(named))


def find_verb(group, words):
    """Return (verbs, words): what is called by a word, or the unnamed ones.

    The unnamed ones are the default verb, or all that are called by flag.
    """
    every = flag_table(GLOBALS, *(verb.flags for verb in group.verbs),
                       [v.by for v in group.verbs if v.by_flag])
    unnamed = [verb for verb in group.verbs
               if verb.by is not None or verb.name == group.default]
    named = {verb.name: verb for verb in by_word(group)}
    for index, declared, word in tokens(words, every):
        if declared is None and word in named:
            return [named[word]], words[:index] + words[index + 1:]
        if declared is None:
            check_no_verb(group, unnamed, named, word)
            break
    if not unnamed:
        raise HelpWanted(group)
    return unnamed, words


def choose_verb(verbs, given, words):
    """Choose among the verbs that are called by flag, or by nothing.

    An action that another given action has as a flag of its own modifies it
    (--wait with --input).
    """
    names = [declared.long_name for declared in given]
    called = [verb for verb in verbs
              if verb.by_flag and verb.by.long_name in names]
    actions = [verb for verb in called if not any(
        verb.by.long_name in flag_table(other.flags) for other in called)]
    if len(actions) > 1:
        raise UsageError(" and ".join(v.by.long_name for v in actions)
                         + " cannot be combined: give one action")
    if actions:
        return actions[0]
    wanted = "show" if words else "list"
    bare = [verb for verb in verbs if verb.by == BARE]
    return next((v for v in bare if v.name == wanted), verbs[0])


def check_goes_with(verb, verbs, given):
    """Raise for a flag that belongs to another verb, naming both."""
    own = flag_table(GLOBALS, verb.flags, [verb.by] if verb.by_flag else ())
    for declared in given:
        if declared.long_name not in own:
            homes = [v.by.long_name if v.by_flag else v.name for v in verbs
                     if declared.long_name in flag_table(v.flags)]
            raise UsageError(f"{declared.long_name} goes with "
                             + " or ".join(homes or ["another verb"]))


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose complaints are errors of ours."""

    color = False  # Python 3.14 would colour help on its own

    def error(self, message):
        raise UsageError(message.replace("argument ", "", 1),
                         f"{self.prog} --help")


def help_formatter(prog):
    return argparse.RawDescriptionHelpFormatter(
        prog, max_help_position=30, width=HELP_WIDTH)


def add_flags(parser, flags):
    """Add declared flags; one that is not given is None."""
    for declared in flags:
        options = dict({"default": None}, **declared.options)
        options["help"] = options["help"].replace("%", "%%")
        parser.add_argument(*declared.names, **options)


def build_parser(group, verb):
    """Build the argparse parser of one verb."""
    parser = ArgumentParser(
        prog=" ".join(filter(None, ("xeroctl", group.name, verb.name))
                      ) if verb.by is None else f"xeroctl {group.name}",
        usage=argparse.SUPPRESS, description=verb.summary, add_help=False,
        allow_abbrev=False, formatter_class=help_formatter)
    own = verb.flags + ((verb.by,) if verb.by_flag else ())
    add_flags(parser.add_argument_group("arguments"),
              [f for f in own if f.is_word])
    add_flags(parser.add_argument_group("flags"),
              [f for f in own if not f.is_word])
    taken = flag_table(own)
    add_flags(parser.add_argument_group("global flags"),
              [f for f in GLOBALS if f.long_name not in taken])
    return parser


def read_args(group, verb, given, words):
    """Let argparse convert what tokens() took apart."""
    line = [declared.long_name if value is None
            else f"{declared.long_name}={value}" for declared, value in given]
    parser = build_parser(group, verb)
    args = parser.parse_args(line + (["--"] if words else []) + words)
    args.verb = verb
    readers = [f.long_name for f in verb.flags + GLOBALS
               if f.from_stdin and getattr(args, f.dest, None) == "-"]
    if len(readers) > 1:
        raise UsageError(" and ".join(readers) + " cannot both read standard"
                         " input")
    return args


def take_help(argv):
    """Return (whether help is asked for, the words without that)."""
    end = argv.index("--") if "--" in argv else len(argv)
    kept = [w for w in argv[:end] if w not in ("-h", "--help")]
    return len(kept) < end, kept + argv[end:]


def parse_verb(group, verbs, words):
    """Parse the words of a verb; verbs are those that it can be."""
    table = flag_table(GLOBALS, *(verb.flags for verb in verbs),
                       [v.by for v in verbs if v.by_flag])
    taken = list(tokens(words, table))
    given = [(declared, value) for _, declared, value in taken if declared]
    plain = [word for _, declared, word in taken if not declared]
    flags = [declared for declared, _ in given]
    verb = choose_verb(verbs, flags, plain)
    check_goes_with(verb, verbs, flags)
    return read_args(group, verb, given, plain)


# The command line that names no group: global flags only.
TOP = Group("", "", verbs=(Verb("", "", None),))


def parse(argv, groups):
    """Return (group, args) of a command line; args.verb is what to run.

    Raise HelpWanted where help is asked for, and where there is no group.
    """
    wants_help, words = take_help(argv)
    try:
        group, words = find_group(words, groups)
        if group is None:
            return None, read_args(TOP, TOP.verbs[0], [
                (f, value) for _, f, value in tokens(
                    words, flag_table(GLOBALS))], [])
        verbs, words = find_verb(group, words)
    except UsageError:
        if not wants_help:
            raise
        raise HelpWanted()
    if wants_help:
        raise HelpWanted(group, verbs[0] if len(verbs) == 1 else None)
    return group, parse_verb(group, verbs, words)


# == help: all of it from the declarations ===================================


def word_usage(declared):
    name = declared.options.get("metavar", declared.dest)
    return {None: name, "?": f"[{name}]"}.get(
        declared.options.get("nargs"), f"{name}…")


def flag_usage(declared):
    if not declared.takes_value:
        return declared.long_name
    return f"{declared.long_name} {declared.options.get('metavar', 'VALUE')}"


def verb_usage(group, verb):
    """The usage line of a verb: what is required, then the rest."""
    words = ["xeroctl", group.name]
    if verb.by_flag:
        words += ["ID"] * (ITEM in verb.flags) + [flag_usage(verb.by)]
    elif verb.by is None and verb.name:
        words.append(verb.name)
    if verb.usage:
        return " ".join(words + [verb.usage])
    for declared in verb.flags:
        if declared.is_word and not (verb.by_flag and declared is ITEM):
            words.append(word_usage(declared))
        elif declared.options.get("required"):
            words.append(flag_usage(declared))
    return " ".join(words + ["[flags]"])


def verb_help(group, verb):
    """The help text of one verb."""
    examples = "".join(f"\n  {line}" for line in verb.examples)
    return (f"usage: {verb_usage(group, verb)}\n\n"
            + build_parser(group, verb).format_help().strip()
            + (f"\n\nexamples:{examples}" if examples else ""))


def group_help(group):
    """The help text of a group: its verbs; of a single one, all of it."""
    if len(group.verbs) == 1:
        return verb_help(group, group.verbs[0])
    lines = [group.summary, "", "usage:"]
    lines += ["  " + verb_usage(group, verb) for verb in group.verbs]
    lines += ["", "verbs:"]
    lines += [f"  {verb.name:12} {verb.summary}"
              + (" (default)" if verb.name == group.default else "")
              for verb in group.verbs]
    lines += ["", f"xeroctl help {group.name} VERB shows a verb's flags."]
    examples = [line for verb in group.verbs for line in verb.examples][:3]
    return "\n".join(lines + ["", "examples:"]
                     + ["  " + line for line in examples])


TOPICS = {
    "exit-codes": ("Exit codes:", EXIT_CODES),
    "environment": ("Environment variables (an empty one counts as unset;"
                    " flags beat them):", ENVIRONMENT),
}


def top_help(groups):
    """The help text of the whole program."""
    parser = build_parser(TOP, TOP.verbs[0])
    lines = ["usage: xeroctl [global flags] COMMAND [VERB] [ID] [flags]", "",
             "The Xerotier inference platform, and any OpenAI-compatible"
             " server.", "", "commands:"]
    lines += [f"  {group.name:12} {group.summary}" for group in groups]
    lines += ["", parser.format_help().strip(), "", "topics:"]
    lines += [f"  xeroctl help {topic}" for topic in TOPICS]
    lines += ["", "examples:",
              '  xeroctl chat --endpoint demo -m "Hello" --stream',
              "  xeroctl help chat send", "  xeroctl api /models -o json"]
    return "\n".join(lines)


def table_text(rows):
    """Two aligned columns, the second one wrapped."""
    import textwrap
    wide = max(len(str(name)) for name, _ in rows) + 4
    return "\n".join(textwrap.fill(
        meaning, HELP_WIDTH, initial_indent=f"  {name!s:{wide - 2}}",
        subsequent_indent=" " * wide) for name, meaning in rows)


def help_text(groups, group=None, verb=None):
    """The help of a verb, of a group, or of everything."""
    if group is None:
        return top_help(groups)
    return group_help(group) if verb is None else verb_help(group, verb)


def show_help(app, group, args):
    """Print the help of a command, a verb or a topic."""
    name, *more = args.words or [""]
    if name in TOPICS:
        head, rows = TOPICS[name]
        app.out.line(head + "\n\n" + table_text(rows))
    elif name:
        found, words = find_group([name] + more, app.groups)
        verbs, _ = find_verb(found, words) if words else ([], [])
        app.out.line(help_text(app.groups, found, verbs[0] if len(verbs) == 1
                               else None))
    else:
        app.out.line(top_help(app.groups))


HELP = Group(
    "help", "Show help on a command, a verb or a topic.", default="",
    verbs=(
        Verb("", "Show help on a command, a verb or a topic.", show_help,
             flag("words", metavar="COMMAND", nargs="*",
                  help="a command and a verb, or a topic: "
                       + ", ".join(TOPICS)),
             examples=("xeroctl help chat send",
                       "xeroctl help exit-codes")),
    ))


# ---------------------------------------------------------------------------
# 13. Main
# ---------------------------------------------------------------------------

class App:
    """What a verb may use: the API, where to show, where to ask.

    Nothing is read, looked up or opened before a verb asks for it.
    """

    def __init__(self, args, environ, terminal, groups):
        self.args, self.terminal, self.groups = args, terminal, groups
        self.clock = terminal.clock
        self.settings = Settings(args, environ, terminal)
        self.plan = Plan(args.dry_run, args.curl)
        self.out = Out(terminal, self.settings.output(), self.plan)
        self.deadline = (self.clock.monotonic() + args.max_time
                         if args.max_time else None)
        self.opened = None

    @property
    def api(self):
        if self.opened is None:
            self.opened = Api(self.settings.deployment(), self.args,
                              self.terminal, self.plan, self.deadline)
        return self.opened

    def endpoint(self):
        """The endpoint slug of this run."""
        slug = self.settings.get("endpoint")
        if not slug:
            raise UsageError("no endpoint", "pass --endpoint SLUG or set"
                             " XEROTIER_ENDPOINT")
        return slug

    def slug(self):
        """The slug for a path: style openai has none."""
        return None if self.settings.style() == OPENAI else self.endpoint()

    def confirm(self, question, args):
        """Ask before a change, unless --force or only a plan is made."""
        if args.force or self.plan or self.terminal.confirm(question):
            return
        raise XeroctlError("not confirmed: nothing was changed")

    def read_bytes(self, path):
        """Read an input file whole; - is standard input."""
        if path != "-":
            return read_file(path)
        read = self.terminal.read_stdin()
        return read.encode("utf-8") if isinstance(read, str) else read

    def read_text(self, path):
        """Read an input text, without its last line end, as $(…) does."""
        text = decoded(self.read_bytes(path))
        return text[:-1] if text.endswith("\n") else text

    def finish(self):
        """Print what was planned, if anything was."""
        if self.plan.requests:
            self.out.show_plan(self.api.deployment.key)


def run(argv, environ, terminal, groups):
    """Run one command line; raise what goes wrong."""
    group, args = parse(argv, groups)
    terminal.adjust(args.quiet, args.color or "auto", args.raw)
    if args.version:
        return terminal.out.write(f"xeroctl {__version__}\n")
    if group is None:
        raise HelpWanted()
    app = App(args, environ, terminal, groups)
    try:
        args.verb.run(app, group, args)
    except PlanEnds:
        pass
    app.finish()


def wants_json(argv, environ):
    """Whether errors are due as JSON; the command line may be broken."""
    forms = [environ.get("XEROTIER_OUTPUT")] + [
        word.partition("=")[2] if word.startswith("--output=") else word[2:]
        if word.startswith("-o") and word != "-o" else following
        for word, following in zip(argv, argv[1:] + [""])
        if word.startswith(("-o", "--output"))]
    return forms[-1] in (JSON, JSONL)


def show_traceback(environ, terminal):
    """Print the traceback of the current exception if XEROTIER_DEBUG asks."""
    if environ.get("XEROTIER_DEBUG"):
        import traceback
        terminal.say(traceback.format_exc())


def say_error(error, terminal):
    """One line for the error, then what is known about it, indented."""
    terminal.say(one_line(f"error: {error}"), RED)
    for label, value in error.lines():
        if label != "hint" or not terminal.quiet:
            terminal.say(f"  {label}: {one_line(as_text(value))}")


def fail(error, argv, environ, terminal):
    """Say what went wrong, as JSON where that is due; return the exit code."""
    show_traceback(environ, terminal)
    terminal.out.end_line()
    if wants_json(argv, environ):
        terminal.say(pretty_json(error.envelope()))
    else:
        say_error(error, terminal)
    return error.exit_code


def guarded(argv, environ, terminal, groups):
    """Run one command line; return its exit code."""
    code = 0
    try:
        run(argv, environ, terminal, groups)
    except HelpWanted as wanted:
        terminal.out.write(help_text(groups, wanted.group, wanted.verb))
        terminal.out.end_line()
    except XeroctlError as error:
        code = fail(error, argv, environ, terminal)
    terminal.out.flush()
    return code


def internal_error(problem):
    """The error for an exception that nobody foresaw."""
    return XeroctlError(f"internal error: {type(problem).__name__}: "
                        f"{problem}", "XEROTIER_DEBUG=1 shows where; please"
                        " report it")


def process_argv():
    """The words of this process, read as UTF-8 in any locale (PEP 383)."""
    return [os.fsencode(word).decode("utf-8", "surrogateescape")
            for word in sys.argv[1:]]


def main(argv=None, environ=None, streams=None, clock=None, groups=GROUPS):
    """Run one command line; return its exit code.

    argv is without the program's name; what is left out is the process's.
    """
    argv = process_argv() if argv is None else list(argv)
    environ = os.environ if environ is None else environ
    streams = streams or Streams(sys.stdin, sys.stdout, sys.stderr)
    terminal = Terminal(streams, environ, clock or Clock())
    groups = groups + (HELP,)
    try:
        return guarded(argv, environ, terminal, groups)
    except ReaderGone as gone:
        return gone.exit_code
    except KeyboardInterrupt:
        if terminal.err.is_terminal:
            terminal.say("")  # after the ^C that the terminal echoed
        return 130
    except XeroctlError as error:
        return fail(error, argv, environ, terminal)
    except Exception as problem:
        return fail(internal_error(problem), argv, environ, terminal)


def let_go_of_stdout():
    """Flush; what cannot be written, the interpreter shall not try again."""
    try:
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def open_closed_streams():
    """Put /dev/null where a standard stream is closed.

    Otherwise the first socket would get its number, and be written to.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def on_terminate():
    """Let SIGTERM unwind the program, as Ctrl-C does, with exit 143."""
    import signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def console():
    """Run as the program: the entry point of script and package alike."""
    open_closed_streams()
    on_terminate()
    try:
        code = main()
    except KeyboardInterrupt:
        code = 130
    finally:
        let_go_of_stdout()
    sys.exit(code)


if __name__ == "__main__":
    console()
