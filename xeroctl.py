#!/usr/bin/env python3
"""xeroctl: the Xerotier inference platform, from one file.

Copy this file to a host with Python 3.6 or newer and run it; it needs
nothing else.  It drives the Xerotier router and, with --style openai, any
other OpenAI-compatible server.

It is read from top to bottom: a name uses only names that stand above it.
`grep -n '^# [0-9]' xeroctl.py` is the table of contents and
`grep -n '^# == ' xeroctl.py` the list of sections and command groups.

   1. Constants      names, limits and tables that never change
   2. Errors         every way to fail, each with its exit code
   3. Text           values to strings and back; pure functions
   4. Terminal       the three standard streams, and what they can show
   5. Config         where a call goes, with which key
   6. Transport      one HTTP exchange; every failure is an error of 2
   7. Streams        events, JSON Lines and files, as generators over bytes
   8. Output         rows, records, JSON, JSON Lines, CSV, ids, plans
   9. Declarations   flags, verbs and groups, and the standard verbs
  10. Engines        what is more than a verb: answers, sessions, waiting,
                     transfers, batch runs
  11. Groups         one section per command group
  12. Parser         from a command line to a verb and its arguments; help
  13. Main           one command line in, one exit code out

Two rules hold everywhere: a verb never prints (values go to app.out, remarks
to app.terminal) and never exits (it raises an error of floor 2, which main
turns into an exit code).
"""

import codecs
import gc
import io
import json
import os
import re
import sys
import time
from _thread import RLock
from collections import Counter, defaultdict, namedtuple
from contextlib import (AbstractContextManager, closing, contextmanager,
                        suppress)
from functools import lru_cache, partial
from itertools import chain, cycle, zip_longest
from types import SimpleNamespace

# An annotation is where a Python that is too old stops, and shows its line.
__version__: str = "1.1.0"  # xeroctl needs Python 3.6 or newer


# ---------------------------------------------------------------------------
# 1. Constants
# ---------------------------------------------------------------------------

TIMEOUT_S = 60
INFERENCE_TIMEOUT_S = 600
ADDRESS_TIMEOUT_S = 10
RETRIES = 2
BACKOFF_S = 0.5, 30.0
LONGEST_WAIT_S = 60
IDLE_S = 3  # for so long a connection is kept between two requests
LONGEST_S = 10 ** 9
SESSION_TOKENS = 4096
LONGEST_OUTAGE_S = 300
POLL_S = 2
MOST_REDIRECTS = 5
BLOCK = 65536
LOCK_S, LOCK_POLL_S = 10, 0.05
MOST_CONFIG_BYTES = 10 ** 6
MOST_HEAD_BYTES = 1024 * 1024
MOST_ANSWER_BYTES = 64 * 10 ** 6
MOST_LINE_BYTES = 16 * 10 ** 6
MOST_FILE_BYTES = 500 * 1024 * 1024
MOST_INPUT_BYTES = 100 * 1024 * 1024
MOST_METADATA_BYTES = 16 * 1024
MOST_REQUESTS = 50000
MOST_PROBLEMS = 20
PART_BYTES = 10 ** 8
NOTE_EVERY_S = 30
HELP_WIDTH = 79
USER_AGENT = "xeroctl/{} (Python {}.{}; {})".format(
    __version__, *sys.version_info[:2],
    os.uname().sysname if hasattr(os, "uname") else sys.platform)

XEROTIER, OPENAI = STYLES = "xerotier", "openai"
TABLE, WIDE, JSON, JSONL, CSV, ID = FORMS = (
    "table", "wide", "json", "jsonl", "csv", "id")
# A group's paths are below the project or an endpoint; ASKED asks for an
# endpoint, and stays below the project; GIVEN takes one that is given.
PROJECT, ENDPOINT, ASKED, GIVEN = "project", "endpoint", "asked", "given"

# One word per colour, as SGR parameters (ECMA-48, 8.3.117).
GREEN, YELLOW, RED, DIM, BOLD = "32", "33", "31", "2", "1"
STATE_STYLES = {word: style for style, words in (
    (GREEN, "completed active ready validated ok succeeded processed approved"
            " operational online"),
    (YELLOW, "queued pending validating in_progress finalizing cancelling"
             " uploading running pending_approval processing provisioning"
             " degraded"),
    (RED, "failed error invalid expired cancelled incomplete rejected timeout"
          " offline revoked exhausted")) for word in words.split()}

EXIT_CODES = (
    (0, "done"),
    (1, "the operation ended badly: a job failed, an answer that is not what"
        " the API promises, a refused redirect, any other HTTP error"),
    (2, "usage, or local input that is not valid"),
    (3, "not configured, no key to be had, HTTP 401 or 403"),
    (4, "HTTP 404: there is no such thing"),
    (5, "no usable connection: DNS, refused, TLS, proxy, timeout, cut off"
        " before an answer"),
    (6, "HTTP 429, 503 or 529, still there after the retries"),
    (7, "a stream broke off or failed after its first delta"),
    (8, "a --wait-timeout ran out"),
    (129, "SIGHUP: the terminal went away"),
    (130, "Ctrl-C"),
    (141, "the reader of the pipe went away"),
    (143, "SIGTERM"),
)

ENVIRONMENT = (
    ("XEROTIER_BASE_URL", "as --base-url: https://HOST/PROJECT/v1"),
    ("XEROTIER_API_KEY", "as --api-key, and not seen in the process list"),
    ("XEROTIER_CONTEXT", "the deployment, where --context is not given"),
    ("XEROTIER_ENDPOINT", "as --endpoint, where a command needs one"),
    ("XEROTIER_FRONTEND_URL", "as --frontend-url"),
    ("XEROTIER_OUTPUT", "as --output"),
    ("XEROTIER_STYLE", "as --style"),
    ("XEROTIER_CERT_PASSWORD", "the password of an encrypted --cert-key"),
    ("XEROTIER_DEBUG", "1 shows the traceback of an error"),
    ("XEROTIER_CONFIG", "the path of the config file"),
    ("XDG_CONFIG_HOME", "its folder is xeroctl/ below this (~/.config)"),
    ("XDG_STATE_HOME", "the history's, in the same way (~/.local/state)"),
    ("NO_COLOR", "not empty: no colour"),
    ("FORCE_COLOR", "not empty: colour, also where there is no terminal"),
    ("HTTPS_PROXY, HTTP_PROXY", "the proxy for https and http URLs (either"
                                " case): http://[USER:PASSWORD@]HOST:PORT"),
    ("NO_PROXY", "what is called directly: hosts, domains, addresses, CIDR"
                 " ranges, with :PORT if wanted, or *"),
    ("SSL_CERT_FILE", "the CA bundle to trust, where --cacert is not given"),
)


# ---------------------------------------------------------------------------
# 2. Errors
# ---------------------------------------------------------------------------

class XeroctlError(Exception):
    """Something the user should be told; it ends the run.

    The message is one line that says what and where; details are more such
    lines, facts (code, param, request id) are shown after them, and the hint
    names the next thing to try.  is_told: the user has seen it; settings are
    those of the run that it ended, status, body and headers of the answer it
    tells of, if any; is_busy: it may be better later, lasting: it will not.
    """

    exit_code = 1
    kind = "operation_failed"
    is_told, settings = False, None
    status, body, headers, is_busy, lasting = None, None, {}, False, False

    def __init__(self, message, hint=None, details=(), **facts):
        super().__init__(message)
        self.hint, self.details = hint, list(details)
        self.facts = {k: v for k, v in facts.items() if v not in (None, "")}

    def lines(self):
        """(label, value) pairs to show below the message."""
        pairs = [(None, text) for text in self.details]
        pairs += [(k.replace("_", " "), v) for k, v in self.facts.items()]
        return pairs + ([("hint", self.hint)] if self.hint else [])

    def add_hint(self, text):
        """Name one more thing to try; two layers may name the same."""
        if text not in (self.hint or ""):
            self.hint = (f"{self.hint}; {text}".replace("?;", "?")
                         if self.hint else text)

    def envelope(self):
        """The error as a JSON object, in the shape of the API's own."""
        more = {"details": self.details, "hint": self.hint}
        return {"error": dict(
            {"message": str(self), "type": self.kind, "code": None,
             "param": None}, **self.facts,
            **{name: value for name, value in more.items() if value})}


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

    body is the decoded JSON of the answer, or None; is_envelope whether it
    has the API's own shape; kind is the server's type.
    """

    kind = "api_error"
    CODES = {401: 3, 403: 3, 404: 4, 429: 6, 503: 6, 529: 6}
    USED_UP = "quota_exceeded", "insufficient_quota"

    def __init__(self, status, message, hint, body, headers, is_envelope,
                 kind, **facts):
        said = re.sub(f"^{status}(: |(?= page| [A-Z]))", "", message).strip()
        super().__init__(f"HTTP {status} {said}".rstrip(), hint, **facts)
        self.kind, self.is_envelope = kind or self.kind, is_envelope
        self.status, self.body, self.headers = status, body, headers
        self.given = dict(self.facts)
        self.exit_code = self.CODES.get(status, 1)

    @property
    def is_busy(self):
        """Whether it was not acted on, and may be later: 529 is a 503."""
        return self.status in (429, 503, 529) and not self.is_used_up

    @property
    def is_used_up(self):
        """Whether a quota is, which no waiting of ours brings back."""
        return (self.kind in self.USED_UP
                or self.facts.get("code") in self.USED_UP)

    def envelope(self):
        """The router's own envelope where it sent one with a message, and
        the work that it ended has no more to tell."""
        is_all = not self.details and self.facts == self.given
        return self.body if self.is_envelope and is_all else super().envelope()


class ConnectionFailed(XeroctlError):
    """No answer; layer is what failed: DNS, proxy, connect, TLS, HTTP, …

    sent tells whether any byte of the request had left, lasting that another
    attempt would fail as well.
    """

    exit_code = 5
    kind = "connection_failed"

    def __init__(self, layer, message, hint=None, sent=False, lasting=False):
        super().__init__(f"{layer}: {message}", hint)
        self.layer, self.sent, self.lasting = layer, sent, lasting


class StreamBroken(XeroctlError):
    """A stream ended or failed after its first delta."""

    exit_code = 7
    kind = "stream_broken"


class StreamError(XeroctlError):
    """An error that the server told inside a stream."""

    kind = "stream_error"


class WaitExpired(XeroctlError):
    """The thing waited for did not end in time."""

    exit_code = 8
    kind = "wait_expired"


# What ends a run from outside: Ctrl-C, or a signal of STOP_SIGNALS.
INTERRUPTS = KeyboardInterrupt, SystemExit


class ReaderGone(Exception):
    """The reader of standard output went away; nothing is left to say."""


class PlanEnds(Exception):
    """What follows depends on an answer that a plan does not have."""


class HelpWanted(Exception):
    """The command line asks for help, not for work: on a group, on verbs."""


# ---------------------------------------------------------------------------
# 3. Text
# ---------------------------------------------------------------------------

# Few calls need each pattern of this file: re compiles it at its first use.
# C0 but tab and newline, DEL, C1, and the bidirectional embeddings,
# overrides and isolates of Unicode UAX #9.
CONTROLS = "[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
# Beyond these, what has no width: a name that is copied has it as well.  The
# joiner before a picture is a part of it.
UNSEEN = (CONTROLS[:-1] + "\xad\u061c\u200b\u200c\u200e\u200f\u2028\u2029"
          "\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
          "|\u200d(?![\u203c-\u3299\U0001f000-\U0001faff])")
ISO_TIME = (
    r"(?i)(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?"
    r"\s*(?:Z|([+-]\d\d)(?::?(\d\d))?)?)?\Z")


def is_number(value):
    """Whether it can be counted with; 1e400, inf and nan can not."""
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and abs(value) < 1e300)


def is_positive(value):
    return is_number(value) and value > 0


def is_filled(value):
    return isinstance(value, str) and value != ""


def counted(value):
    """A count of something; 0 where it is none."""
    return value if type(value) is int and 0 < value < 1e300 else 0


def header_seconds(value, now):
    """Read Retry-After: seconds, or an HTTP date (RFC 9110, 10.2.3)."""
    if re.match(r"\s*\d+(\.\d+)?\s*$", value):
        return float(value)
    from email.utils import mktime_tz, parsedate_tz
    try:
        return max(0, mktime_tz(parsedate_tz(value[:40])) - now)
    except (TypeError, ValueError, OverflowError):
        return 0


def dig(value, path):
    """Follow a dotted path through JSON; None where it leads nowhere."""
    for key in path.split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and len(key) < 10:
            value = dict(enumerate(value)).get(int(key))
        else:
            return None
    return value


def picked(value, steps):
    """Yield what steps lead to, but null; * is every element, -1 the last."""
    if not steps:
        if value is not None:
            yield value
        return
    step, *rest = steps
    if isinstance(value, list):
        if re.match(r"-\d{1,9}\Z", step):
            step = str(len(value) + int(step))
        value = {str(place): each for place, each in enumerate(value)}
    members = value if isinstance(value, dict) else {}
    for name in members if step == "*" else members.keys() & {step}:
        yield from picked(members[name], rest)


def plant(tree, path, value):
    """Set a dotted path in nested dicts, making those that are missing."""
    *parents, last = path.split(".")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def as_escape(match):
    code = ord(match.group())
    return (f"\\x{code:02x}" if code < 0x100
            else f"\\u{code:04x}" if code < 0x10000
            else f"\\U{code:08x}")


def visible(text):
    """Show control characters as escapes (\\x1b) that do nothing."""
    return re.sub(CONTROLS, as_escape, text)


def reason_of(problem):
    """What the system says of a failure."""
    return getattr(problem, "strerror", None) or problem


def one_line(text):
    """Show line ends and tabs as \\n and \\t: one cell, one line."""
    return text.replace("\n", "\\n").replace("\t", "\\t")


def shell_word(value):
    """A value as a shell takes it: whatever a server sent, it is one word."""
    from shlex import quote
    return quote(str(value))


def whole(text):
    """Return text that UTF-8 can carry.

    Bytes that Python smuggled in as lone surrogates (PEP 383) are read as
    UTF-8 once more; what still is no text becomes U+FFFD.
    """
    with suppress(UnicodeEncodeError):
        text.encode()
        return text
    text = re.sub("[\udc80-\udcff]+", lambda found: found.group().encode(
        "utf-8", "surrogateescape").decode("utf-8", "replace"), text)
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def decoded(raw, errors="replace"):
    """Decode a text file: UTF-8, or UTF-16 if its byte order mark says so."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", errors)
    return raw.decode("utf-8-sig", errors)


def refuse_constant(name):
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(parse_constant=refuse_constant)
# What servers send: NaN and Infinity, mostly of a logprob, are null, and a
# tab in a text is one.
SERVER_DECODER = json.JSONDecoder(parse_constant=lambda name: None,
                                  strict=False)
COMPACT, PRETTY = (
    json.JSONEncoder(ensure_ascii=False, allow_nan=False, **layout)
    for layout in ({"separators": (",", ":")}, {"indent": 2}))


def json_text(value, encode):
    """Encode JSON, UTF-8 unescaped; a number beyond all floats is null."""
    try:
        return encode(value)
    except ValueError:
        return encode(SERVER_DECODER.decode(json.dumps(value)))


def compact_json(value):
    """One line of JSON, no space."""
    return json_text(value, COMPACT.encode)


def text_or_json(value):
    """A text as it is, any other value as JSON."""
    return value if isinstance(value, str) else compact_json(value)


def pretty_json(value):
    """JSON for people: two spaces a level, keys in their order.

    By encode() Python 3.14 would indent tens of thousands of levels.
    """
    return json_text(value, lambda each: "".join(PRETTY.iterencode(each)))


def parse_json(text, decoder=DECODER):
    """Decode JSON (RFC 8259: no NaN); raise ValueError, if too deep, too."""
    try:
        try:
            value, end = decoder.scan_once(text, 0)
            if end == len(text):
                return value  # nothing around it: the quick way
        except (ValueError, StopIteration):
            pass
        return decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply")


def json_or_text(text, decoder=DECODER):
    """Convert JSON to its value; what is no JSON is a text."""
    try:
        return parse_json(text, decoder)
    except ValueError:
        return text


def seconds_of(value):
    """Read epoch seconds or ISO 8601 as epoch seconds; None if neither."""
    if is_number(value):
        return value
    found = isinstance(value, str) and re.match(ISO_TIME, value.strip())
    if not found:
        return None
    import calendar
    *clock, hours, minutes = found.groups("0")  # hours have the sign of both
    year, month, day, hour, minute, second = map(int, clock)
    try:
        return calendar.timegm((year, month, day, hour - int(hours), minute
                                - int(hours[0] + minutes), second))
    except ValueError:
        return None


def as_text(value):
    """Show any JSON value in one cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return compact_json(value)


def index_in(item):
    """Its index, which some send as a text, or as 0.0; None without one."""
    found = re.match(r"(\d{1,9})(\.0)?\Z", as_text(dig(item, "index")))
    return int(found.group(1)) if found else None


def as_time(value):
    """2026-05-27 14:03 UTC, from any form of time."""
    try:  # gmtime would take None for now
        moment = time.gmtime(float(seconds_of(value)))
        return time.strftime("%Y-%m-%d %H:%M UTC", moment)
    except (TypeError, ValueError, OverflowError, OSError):
        return as_text(value)


def as_age(value, now):
    """3h ago, or in 2d, from any form of time."""
    seconds = seconds_of(value)
    if seconds is None:
        return as_text(value)
    is_ahead = seconds - now >= 60  # by less, it is the clocks that differ
    left = seconds - now if is_ahead else max(0, now - seconds)
    units = (86400, "d"), (3600, "h"), (60, "m")
    size, unit = next((each for each in units if left >= each[0]), (1, "s"))
    text = f"{left // size:.0f}{unit}"
    return f"in {text}" if is_ahead else f"{text} ago"


def as_count(value, units=("", "K", "M", "B", "T")):
    """Say a large number as models are named: 7.0B, 350.0M."""
    if not is_number(value):
        return as_text(value)
    if value < 1000:
        return as_text(value) + units[0]
    for unit in units[1:]:
        value /= 1000.0
        if value < 999.95:
            break
    return f"{value:.1f}{unit}"


def as_many(count, noun):
    """How many there are of a thing: 1 model, 2 models."""
    return f"{count} {noun}{'s' * (count != 1)}"


def as_size(count):
    """Say a number of bytes in the unit a person would pick."""
    return as_count(count, (" B", " KB", " MB", " GB", " TB"))


def as_duration(seconds):
    """Say how long something takes: 0.6 s, 12 s, 5m 40s, 2h 5m."""
    if not is_number(seconds):
        return as_text(seconds)
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes}m {seconds % 60:.0f}s"
    return f"{minutes // 60}h {minutes % 60}m"


def as_percent(value, target=100):
    """Say a share (0 to 1) or a percentage with the digits of its target, or
    with more, so that it seems to be at the target, or at 100, only if it is.
    """
    if not is_number(value):
        return as_text(value)
    value, goal = (each * 100 if each <= 1 else each for each in (
        value, target if is_positive(target) else 100))
    digits = min(6, len(str(round(float(goal), 9)).partition(".")[2]))
    while digits < 6 and any(round(value, 9) < each <= round(value, digits)
                             for each in (round(goal, 9), 100)):
        digits += 1
    return f"{value:.{digits}f}%"


def as_progress(value, upload):
    """Say how far an upload is, by its chunks if the server does not."""
    done, total = dig(upload, "uploaded_chunks"), dig(upload, "total_chunks")
    is_percent = is_number(value) and value > 1
    if not is_percent and is_number(done) and is_positive(total):
        value = done / total
    return as_percent(value)


def sparkline(values):
    """Draw numbers as a line of bars; what is no number is a gap."""
    known = list(filter(is_number, values)) or [0]
    low, reach = min(known), (max(known) - min(known)) or 1
    return "".join("▁▂▃▄▅▆▇█"[int((value - low) / reach * 7)]
                   if is_number(value) else " " for value in values)


def iso_text(seconds):
    """Epoch seconds as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


THOUGHTS = "thinking", "reasoning", "summary"
CALLS = "function_call", "custom_tool_call"  # that somebody else has to make


def content_text(value):
    """The text of a content: a string, or a list of parts, to any depth."""
    if isinstance(value, str):
        return value
    todo, texts = [value], []
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            todo += reversed(value)
        elif isinstance(value, dict):
            found = map(value.get, ("text", "refusal") + THOUGHTS)
            todo.append(next(filter(None, found), None))
    return "".join(texts)


def call_line(call):
    """A call of a tool, as it is shown: a function's, or one that is flat."""
    call = dig(call, "function") or dig(call, "custom") or call
    name = dig(call, "name") or dig(call, "type") or None
    given = (dig(call, "arguments") or dig(call, "input")
             or dig(call, "action") or "")
    return f"[tool call] {as_text(name)}({text_or_json(given)})"


SAID = "content", "text", "refusal", "output", "stdout", "stderr", "summary"


def as_said(value):
    """Show what a message, an item, a tool or a list of them says."""
    if isinstance(value, list):
        return "\n".join(as_said(each) for each in value
                         if dig(each, "type") not in THOUGHTS) or "-"
    if as_text(dig(value, "type")).endswith("_call"):
        return one_line(call_line(value))
    calls, found = dig(value, "tool_calls"), [dig(value, k) for k in SAID]
    said = [content_text(each) for each in found] + [
        one_line(call_line(each))
        for each in (calls if isinstance(calls, list) else ())]
    is_known = any(each is not None for each in found)
    return "\n".join(filter(None, said)) or as_text(
        dig(value, "output") or (None if is_known else value))


def as_list(value):
    """Show the texts of a list in one cell."""
    if not isinstance(value, list):
        return as_text(value)
    return ", ".join(map(as_text, value)) or "-"


def as_pairs(value):
    """Show an object in one cell: a=1, b=2."""
    if not isinstance(value, dict):
        return as_text(value)
    return as_list([f"{k}={as_text(v)}" for k, v in value.items()])


def as_rate(rate, as_amount=str):
    """Say how much of something passes: 11.7/s, 1.2 MB/s, 4.5/min."""
    amount, unit = (rate, "s") if rate >= 1 else (rate * 60, "min")
    return f"{as_amount(round(amount, 1))}/{unit}"


# Two cells together: a flag, and a picture with U+FE0F, with skin tones, or
# with more pictures that joiners add to it (Unicode UTS #51).
PICTURE = ("[#*0-9\xa9\xae\u203c-\u3299\U0001f000-\U0001faff]"
           "[\ufe0f\U0001f3fb-\U0001f3ff]*")
GLYPH = (f"(?s)[\U0001f1e6-\U0001f1ff]{{2}}|{PICTURE}(?:\u200d{PICTURE})*|.")


def cell_width(glyph):
    import unicodedata  # a large table: only what is not ASCII pays for it
    if len(glyph) > 1:
        return 2
    category = unicodedata.category(glyph)
    if category in ("Mn", "Me", "Cf") or "\u1160" <= glyph <= "\u11ff":
        return 0
    is_new = category == "Cn" and glyph >= "\U0001f000"  # to this Python
    return 1 + (is_new or unicodedata.east_asian_width(glyph) in "WF")


def display_width(text):
    """Count the terminal cells of a text (Unicode UAX #11)."""
    try:
        return len(text.encode("ascii"))
    except UnicodeEncodeError:
        return sum(map(cell_width, re.findall(GLYPH, text)))


def padded(text, width):
    """Fill a text with spaces to a number of terminal cells."""
    return text + " " * (width - display_width(text))


def cut_to(text, width):
    """Cut a text to a number of terminal cells, with … where it was cut."""
    if display_width(text) <= width:
        return text
    left, kept = width - 1, []
    for glyph in re.findall(GLYPH, text):
        left -= cell_width(glyph)
        if left < 0:
            break
        kept.append(glyph)
    return "".join(kept) + "…"


def nearest(word, words):
    """Return the words like a mistyped one; dashes and case do not count."""
    import difflib
    plain = {each.strip("-").lower(): each for each in words}
    word = word.strip("-").lower()
    found = (difflib.get_close_matches(word, plain, n=3, cutoff=0.7)
             or [each for each in plain if word in each and len(word) > 2])
    return [plain[each] for each in found[:3]]


def did_you_mean(word, words):
    """Return the hint that names the nearest word, or None."""
    found = nearest(word, words)
    return f"did you mean {found[0]}?" if found else None


def redacted_key(key):
    """Show whose key it is, never the key: xero_<slug>_…, any other …."""
    found = re.match(r"xero_([^_]+)_.", key)
    return f"xero_{found.group(1)}_…" if found else "…"


def with_texts(value, change, name=""):
    """The same JSON value, each text passed through change(text, name).

    name is the member that it stands in, "id" for a name itself.
    """
    if isinstance(value, str):
        return change(value, name)
    if isinstance(value, list):
        return [with_texts(item, change, name) for item in value]
    if isinstance(value, dict):
        return {change(key, "id"): with_texts(item, change, key)
                for key, item in value.items()}
    return value


# What looks like a secret: a key behind what tells its kind, the user of a
# URL, and what a query names so.
SECRET_LIKE = (
    r"(?i)(?<!\w)(?<!\w-)(xero_[^\s_/]+_|xero_(?=\w{12})|sk-)[\w-]{3,}"
    r"|((?://|(?<![\w.-])[\w.-]{1,99}:)(?!\[?USER:|PASSWORD)(?=[^/\s@]{1,200}"
    r"@)|//[\w.-]{0,99}:(?!\d+/|PASSWORD))[^\s@]{1,200}(?=@)"
    r"|([?&][\w.-]*(?:key|token|secret|password|sig|signature)=)[^&\s]+")
# Where a short secret stays: in an id, and where a protocol has its words.
WORDS = r"(.*_)?id$|(object|type|role|model|status|content)$"
# A character as it is escaped in a URL, in JSON and in HTML.
ESCAPES = (("%", r"%([0-9a-fA-F]{2})"), ("&#x", r"&#x([0-9a-fA-F]{2});"),
           ("\\", r"\\(?:u00|x)([0-9a-fA-F]{2})|\\(\S)"))


class Secrets:
    """What is never shown: known secrets, in any form they may take.

    12 characters in a row are masked (8 and more, if one has no more),
    escaped or not; a shorter one may be any word, and is masked as a whole
    value and behind Bearer.  The begin xero_slug_ of a key is public.  wary:
    what looks like a secret is one.
    """

    def __init__(self, wary=False):
        self.wary, self.short, self.runs, self.pieces = wary, {}, {}, set()

    def add(self, secret):
        public = len(redacted_key(secret)) - 1
        for text, public in ((secret, public), (secret[public:], 0)):
            size = min(len(text), 12)
            if size < 8:
                self.short[text] = re.compile(
                    rf"(Bearer\s+){re.escape(text)}(?![\w-])", re.I)
                continue
            for at in range(max(0, public - size + 1), len(text) - size + 1):
                run = text[at:at + size]
                self.runs.setdefault(run, max(public - at, 0))
                self.pieces.update(run[i:i + 5] for i in range(4))

    def holes(self, text):
        """Yield (start, end) of what has to go; some overlap.

        Four pieces of a run are known: every fourth place is looked at.  A
        few characters that go on are the begin of another key.
        """
        for at in range(0, len(text), 4):
            if text[at:at + 5] not in self.pieces:
                continue
            for start in range(max(0, at - 3), at + 1):
                for end in range(start + 8, min(start + 12, len(text)) + 1):
                    public = self.runs.get(text[start:end], end)
                    if end - start - public > 5 or public < end and (
                            not re.match(r"[\w-]", text[end:end + 1])):
                        yield start + public, end

    def masked(self, text):
        """The text with … for each piece of a secret."""
        if self.wary:
            text = re.sub(SECRET_LIKE, r"\1\2\3…", text)
        for behind_bearer in tuple(self.short.values()):
            text = behind_bearer.sub(r"\1…", text)
        found = list(self.holes(text)) if self.pieces else []
        for mark, escape in ESCAPES:
            if self.pieces and mark in text:
                more = list(self.holes(re.sub(escape, lambda c: (
                    chr(int(c.group(1), 16)) if c.group(1) else c.group(2)),
                    text)))
                ends = more and [0] + [c.end() for c in re.finditer(
                    escape + r"|[\s\S]", text)]
                found += [(ends[start], ends[end]) for start, end in more]
        kept, done = "", 0
        for start, end in sorted(found):
            kept += text[done:start] + "…" * (start > done or not kept)
            done = max(done, end)
        return kept + text[done:]

    def masked_json(self, value):
        """The same JSON value with its texts masked, before any encoding."""
        if not (self.wary or self.short or self.pieces):
            return value
        todo, texts = [value], []
        for item in todo:  # which grows meanwhile
            if isinstance(item, str):
                texts.append(item)
            elif isinstance(item, dict):
                todo += item
                todo += item.values()
            elif isinstance(item, list):
                todo += item
        joined = "\n".join(texts)
        if (self.short.keys().isdisjoint(texts)
                and self.masked(joined) == joined):
            return value  # the quick way
        return with_texts(value, lambda text, name: (
            "…" if text in self.short and not re.match(WORDS, name)
            else self.masked(text)))


def html_summary(page):
    """Say in one line what an HTML page is about."""
    found = re.search(r"<(title|h1)\b[^>]*>(.*?)</\1", page, re.I | re.S)
    text = " ".join(found.group(2).split()) if found else ""
    return f'an HTML page ("{text[:100]}")' if text else "an HTML page"


def is_html(page):
    """Whether a text begins as a page does; Markdown with a <div> does not."""
    return bool(re.match(
        r"(?:[\s\ufeff]|<\?[^>]*>|<!--(?:(?!-->).)*-->)*<(?:!doctype\s+html"
        r"|html|head|body|title|meta|script|style|iframe)\b", page,
        re.I | re.S))


def body_summary(text):
    """Say in one line what came in place of JSON: at most 300 characters."""
    if is_html(text):
        return html_summary(text)
    return visible(" ".join(text.split()))[:300]


def safe_name(text):
    """Make a name for a file of ours out of anything: one plain segment."""
    name = re.sub(r"[/\\:\n\t]", "_", re.sub(CONTROLS, "_", whole(text)))
    name = re.sub(r"^[\s.]+", "", name).encode("utf-8")[:200]
    return name.decode("utf-8", "ignore").strip()


def on_disk(path):
    """A path as this Python takes it; texts are UTF-8 in any locale."""
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))


def from_disk(name):
    """A file's name as text."""
    return whole(os.fsencode(name).decode("utf-8", "surrogateescape"))


def first_of(texts, count=None):
    """The first of many remarks, and how many more there are."""
    more = (len(texts) if count is None else count) - MOST_PROBLEMS
    return texts[:MOST_PROBLEMS] + [f"and {more} more"] * (more > 0)


class StandIn(str):
    """An id that only a real run would learn, as <file id>; never encoded."""


def an_id(name):
    """A name that can be an id: dots alone climb a path (RFC 3986, 5.2.4)."""
    if name in (None, "", ".", ".."):
        raise UsageError(f"{name!r} cannot be an id: it is empty or a dot")
    return name


def quoted(name):
    """Percent-encode an id or name for one segment of a path."""
    from urllib.parse import quote
    return name if isinstance(name, StandIn) else quote(
        whole(an_id(name)), safe="")


def path_of(*segments):
    """Join segments, each percent-encoded, to an absolute path."""
    return "".join("/" + quoted(segment) for segment in segments)


def bounded(convert, what, low, high, is_open=False):
    """A converter to a number within bounds; if open, low is not in them."""
    where = (f" above {low}, up to {high}" if is_open
             else f" from {low} to {high}" if high is not None
             else f" of at least {low}" if low is not None else "")

    def converted(text):
        try:
            value = convert(text)
            valid = (abs(value) < float("inf")
                     and (low is None or low <= value)
                     and (high is None or value <= high)
                     and not (is_open and value == low))
        except ValueError:
            valid = False
        if not valid:
            raise UsageError(f"{text!r} is not {what}{where}")
        return value
    converted.kind = "integer" if convert is int else "number"
    return converted


def number(low=None, high=None):
    """A converter to a float within bounds."""
    return bounded(float, "a number", low, high)


def integer(low=None, high=None):
    """A converter to an integer within bounds."""
    return bounded(int, "a whole number", low, high)


seconds = positive = bounded(float, "a number", 0, LONGEST_S, is_open=True)


def some_text(text):
    """Take a text that is not empty."""
    if not text:
        raise UsageError("the text is empty")
    return text


def choice(*words, of_file=None):
    """Take one of a few words, or numbers; of_file: the hint for a path."""
    known = {str(word): word for word in words}

    def chosen(text):
        if text not in known:
            hint = did_you_mean(text, known)
            raise UsageError(f"{text!r} is none of {', '.join(known)}",
                             "." in text and of_file or hint)
        return known[text]
    chosen.kind, chosen.words = "choice", tuple(known)
    return chosen


# ---------------------------------------------------------------------------
# 4. Terminal
# ---------------------------------------------------------------------------

# The three standard streams of one run: text streams with a .buffer, as
# sys.stdin is; output may have none, and None stands for a closed one.
Streams = namedtuple("Streams", "stdin stdout stderr")


class Clock:
    """Time and chance, so that a test can hand in its own."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    @staticmethod
    def jitter():
        """A number from 0 to 1, by chance (random takes long to import)."""
        return int.from_bytes(os.urandom(4), "big") / 2 ** 32


class Screen:
    """One output stream: UTF-8 in any locale, harmless on a terminal.

    Everything written to a terminal passes shown(), so no byte that a
    server sent acts there; our own sequences go through control().  What
    UTF-8 cannot carry is escaped, in the way that JSON reads back.
    """

    hidden = CONTROLS

    def __init__(self, stream, environ):
        self.stream = stream
        self.binary = getattr(stream, "buffer", None)
        self.sink = self.binary or stream
        self.is_terminal = self.is_guarded = stream.isatty()
        self.is_live = self.is_terminal and environ.get("TERM") != "dumb"
        # As no-color.org and force-color.org have it.
        self.color = not environ.get("NO_COLOR") and bool(
            environ.get("FORCE_COLOR") or self.is_live)
        self.is_broken, self.column_zero = False, True
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
            if style or self.is_guarded:
                text = self.dressed(text, style)
            self.control(text)

    def dressed(self, text, style):
        """The text as it is written here."""
        text = self.shown(text)
        return f"\033[{style}m{text}\033[0m" if style and self.color else text

    def shown(self, text, hidden=None):
        """The text as it will look here: escapes take cells, too."""
        return re.sub(hidden or self.hidden, as_escape,
                      text) if self.is_guarded else text

    def write_json(self, text):
        """Write JSON text; on a terminal its controls are JSON escapes."""
        if self.is_guarded:
            text = re.sub(UNSEEN, lambda c: re.sub(
                "....", r"\\u\g<0>", c.group().encode("utf-16-be").hex()),
                text)
        Screen.write(self, text)

    def control(self, text):
        """Write text that is ours, control sequences included."""
        self.put(text.encode("utf-8", "backslashreplace") if self.binary
                 else text)

    def put(self, data):
        """Hand data to the stream; None flushes it.  Once failed: nothing."""
        try:
            if not self.is_broken:
                self.sink.flush() if data is None else self.sink.write(data)
        except (OSError, ValueError) as problem:
            self.is_broken = True
            self.failed(problem)

    def flush(self):
        self.put(None)

    def end_line(self):
        """Begin a new line unless one has just begun."""
        if not self.column_zero:
            self.write("\n")


class Stdout(Screen):
    """Standard output: results, and nothing may be lost without a word."""

    def write_bytes(self, block):
        """Write bytes as they are; on a terminal, as harmless text."""
        if self.binary is None or self.is_guarded:
            self.write(self.decoder.decode(block))
        else:
            self.put(block)

    def failed(self, problem):
        """Tell a reader that went away from a write that failed."""
        if isinstance(problem, BrokenPipeError):
            raise ReaderGone()
        raise XeroctlError("cannot write to standard output:"
                           f" {reason_of(problem)}")


class Stderr(Screen):
    """Standard error: remarks; if nobody can read them, so be it.

    It never shows a secret, whoever quotes it, nor what looks like a key.
    On a live terminal it has a foot, a line that is written over and over,
    and that goes where anything else is written; a lock keeps the spinner's
    thread and the rest from writing into each other.
    """

    hidden = UNSEEN

    def __init__(self, stream, environ):
        super().__init__(stream, environ)
        self.secrets, self.lock = Secrets(wary=True), RLock()
        self.has_foot = False

    def write(self, text, style=None, is_masked=False):
        with self.lock:
            self.clear_foot()
            super().write(text if is_masked else self.secrets.masked(text),
                          style)
            self.flush()

    def write_foot(self, text):
        """Write the line at the foot over."""
        text = cut_to(one_line(self.shown(text)), self.columns() - 1)
        with self.lock:
            self.control(f"\r{self.dressed(text, DIM)}\033[K")
            self.flush()
            self.has_foot = self.column_zero = True

    def clear_foot(self):
        with self.lock:
            if self.has_foot:
                self.control("\r\033[K")
                self.flush()
            self.has_foot = False

    def failed(self, problem):
        """There is nobody left to tell."""


class Spinner:
    """Turns at the foot of the terminal until stopped, if it has a foot."""

    FRAMES = "|/-\\"
    TURN_S = 0.1

    def __init__(self, terminal, label):
        self.terminal, self.label, self.thread = terminal, label, None
        if terminal.has_foot:
            import threading
            self.stopped = threading.Event()
            self.thread = threading.Thread(target=self.turn, daemon=True)
            self.thread.start()

    def turn(self):
        for frame in cycle(self.FRAMES):
            if self.stopped.wait(self.TURN_S):
                break
            self.terminal.err.write_foot(f"{frame} {self.label}")

    def stop(self):
        """Stop and wipe the line; a second call does nothing."""
        if self.thread:
            self.stopped.set()
            self.thread.join()
            self.thread = None
            self.terminal.err.clear_foot()


class Progress(AbstractContextManager):
    """How far a long job is, in one line; its counts as as_amount says them.

        part 1/3 [####....] 412/2000, 2 failed, 11.7/s, 2m 32s left

    On a terminal it stands in place, as wide as there is room.  Elsewhere it
    is a line with the time when something has changed, at most one every 30
    seconds, the first after so many as first says.
    """

    SURE_S, SURE_COUNT = 5, 5  # before that an estimate would be a guess

    def __init__(self, terminal, as_amount=str, first=NOTE_EVERY_S):
        self.terminal, self.as_amount = terminal, as_amount
        self.told = None
        self.due = terminal.clock.monotonic() + (
            0 if terminal.has_foot else first)
        self.begun = self.seen = None
        self.span = self.gain = 0

    def __exit__(self, *_):
        self.terminal.err.clear_foot()

    def show(self, label, count=None, total=None, failed=0, tokens=0):
        """Show where it is, unless something has been shown just now."""
        now = self.terminal.clock.monotonic()
        if self.begun is None and count is not None:
            self.begun = self.seen = now, count
        if now < self.due:
            return
        facts = [] if count is None else self.facts(
            count, total, failed, tokens, self.rate(now, count))
        if self.terminal.has_foot:
            self.due = now + 0.1
            return self.terminal.err.write_foot(
                self.fitted(label, count, total, facts))
        text = f"{label} {', '.join(facts)}".rstrip()
        if text != self.told:
            self.told, self.due = text, now + NOTE_EVERY_S
            moment = iso_text(self.terminal.clock.now())
            self.terminal.note(f"{moment} {text}")

    def rate(self, now, count):
        """What passes in a second; older figures fade; None: who knows."""
        took, age = now - self.seen[0], now - self.begun[0]
        fade = 0.5 ** (took / max(NOTE_EVERY_S, age / 4))
        self.span = self.span * fade + took
        self.gain = self.gain * fade + count - self.seen[1]
        self.seen = now, count
        is_sure = (age >= self.SURE_S and self.gain > 0
                   and count - self.begun[1] >= self.SURE_COUNT)
        return self.gain / self.span if is_sure else None

    def facts(self, count, total, failed, tokens, rate):
        """What is told of it, a text each, the least important last."""
        counts = [count, total] if total else [count]
        return list(filter(None, [
            "/".join(map(self.as_amount, counts)),
            failed and f"{failed} failed",
            rate and as_rate(rate, self.as_amount),
            rate and count < (total or 0) and as_duration(
                (total - count) / rate) + " left",
            tokens and as_count(tokens, ("", "k", "M", "B")) + " tokens"]))

    def fitted(self, label, count, total, facts):
        """The line with a bar, or with what the width has room for."""
        if not facts:
            return label
        room = self.terminal.err.columns() - 2
        least = min(display_width(label), room // 4)
        while len(facts) > 1 and len(", ".join(facts)) > room - least:
            facts.pop()
        text = ", ".join(facts)
        room -= len(text)
        label = cut_to(label, room - 8 * (room >= least + 8))
        width = min(room - display_width(label) - 3, 20)
        if total and width > 3:
            full = min(int(count / total * width), width)
            label += f" [{'#' * full:.<{width}}]"
        return f"{label} {text}"


class Terminal:
    """The three streams of one run: where to ask and where to remark."""

    def __init__(self, streams, environ, clock):
        self.stdin, self.clock = streams.stdin or io.BytesIO(), clock
        self.out = Stdout(streams.stdout or io.StringIO(), environ)
        self.err = Stderr(streams.stderr or io.StringIO(), environ)
        self.secrets = Secrets()
        self.quiet = False

    def adjust(self, quiet, color, raw):
        """Take over what the command line says about the streams."""
        self.quiet = quiet
        for screen in (self.out, self.err):
            screen.is_guarded = screen.is_terminal and not raw
            if color != "auto":
                screen.color = color == "always"

    @property
    def has_foot(self):
        """Whether there is a line for what passes: a spinner, a bar."""
        return self.err.is_live and not self.quiet

    def hide(self, secret):
        """Never show a secret, nor put it into a file, whoever quotes it."""
        self.secrets.add(secret)
        self.err.secrets.add(secret)

    def say(self, text, style=None, is_masked=False):
        """Print a line on stderr, --quiet or not, below any running text."""
        if self.err.is_terminal and self.out.is_terminal:
            self.out.end_line()
            self.out.flush()
        with self.err.lock:
            self.err.write(one_line(text), style, is_masked)
            self.err.write("\n")

    def end_echo(self):
        """End the line on which the terminal has echoed ^C or ^D."""
        if self.out.is_terminal and not self.out.column_zero:
            self.out.end_line()
        elif self.err.is_terminal:
            self.err.write("\n")

    def note(self, text):
        """Print a remark that --quiet suppresses."""
        if not self.quiet:
            self.say(text, DIM)

    def warn(self, text):
        self.say("warning: " + text, YELLOW)

    @property
    def input(self):
        """Standard input, in bytes: read for a `-`, or for an answer."""
        return getattr(self.stdin, "buffer", self.stdin)

    def read_line(self):
        """Read one line of standard input; raise EOFError at its end."""
        line = decoded(self.input.readline())
        if not line:
            raise EOFError()
        return line.rstrip("\r\n")

    def ask(self, prompt, default=""):
        """Ask for a line of text; an empty answer is the default."""
        self.err.write(one_line(prompt))
        try:
            return self.read_line().strip() or default
        except EOFError:
            self.say("")
            raise XeroctlError("no answer: nothing was changed")

    def ask_secret(self, prompt="API key (not shown): ",
                   hint="--api-key @FILE reads a key"):
        """Ask for a secret on the terminal, unseen; raise without one."""
        if not self.stdin.isatty():
            raise NotConfigured(f"there is no terminal to ask on: {hint}")
        import getpass
        import warnings
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", getpass.GetPassWarning)
                return getpass.getpass(prompt, self.err.stream)
        except getpass.GetPassWarning:
            raise NotConfigured("this terminal cannot hide what is typed:"
                                f" {hint}")
        except EOFError:
            self.say("")
            raise XeroctlError("no answer: nothing was changed")


def say_error(error, terminal):
    """One line for the error, then what is known about it, indented."""
    terminal.say(f"error: {error}", RED)
    for label, value in error.lines():
        if label != "hint" or not terminal.quiet:
            label = f"{label}: " if label else ""
            value = as_text(terminal.err.secrets.masked_json(value))
            terminal.say(f"  {label}{value}")


# ---------------------------------------------------------------------------
# 5. Config
# ---------------------------------------------------------------------------

KEY_HELP = "pass --api-key @FILE or set XEROTIER_API_KEY"


def shown_url(text):
    """A URL as an error may quote it: … if a secret may be in it."""
    plain = r"([a-z]+:/+)?[\w.-]*(:\d*)?(/[\w./-]*)?\Z"
    return text if re.match(plain, text, re.I) else "…"


def check_url(text):
    """Return an http(s) URL without its last slashes, or raise."""
    from urllib.parse import urlsplit
    if "@" in text:
        raise NotConfigured("it carries credentials (an @)", KEY_HELP)
    try:
        parts = urlsplit(text)
        valid = parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid or parts.scheme not in ("http", "https"):
        raise NotConfigured(f"{shown_url(text)} is no http or https URL")
    if parts.query or parts.fragment or re.search(r"[^\x21-\x7e]", text):
        raise NotConfigured("it holds more than a base URL may",
                            "no ?, #, space; percent-encode the rest")
    return parts.scheme + text[len(parts.scheme):].rstrip("/")


def check_key(text):
    """Return an API key that a header can carry; never quote a bad one."""
    key = text.strip()
    if not key:
        raise NotConfigured("the API key is empty", KEY_HELP)
    found = re.search(r"[^\x21-\x7e]", key)
    if found:
        raise NotConfigured(f"the API key holds {found.group()!r}: a space, a"
                            " line end, or what is not ASCII", KEY_HELP)
    return key


def read_file(path, error=UsageError, size=None):
    """Read a local file, all or so much; raise the error with its name."""
    try:
        with open(path.encode("utf-8", "surrogateescape"), "rb") as source:
            return source.read(size)
    except (OSError, ValueError) as problem:
        raise error(f"cannot read {whole(path)}: {reason_of(problem)}")


@lru_cache(maxsize=8)
def origin_of(url):
    """(scheme, host, port) of a URL: what a key is meant for (RFC 6454)."""
    from urllib.parse import urlsplit
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname, port


# What stands for itself in a URL (RFC 3986, 2.2 and 2.3), and the %.
URL_CHARACTERS = "/%:@!$&'()*+,;=?~[]-._#"


def is_same_origin(url, other):
    try:
        return origin_of(url) == origin_of(other)
    except ValueError:  # a port that is none
        return False


def url_path(url):
    """What a URL has behind its host: path and query."""
    return re.sub("^https?://[^/?]*", "", url)


class Deployment:
    """Where calls go, with which key, and how its paths are built.

    With style xerotier the base URL is https://HOST/PROJECT/v1 and the
    endpoint slug goes before the last /v1; with style openai there is no
    slug in a path, and the key may be None.  What FRONTEND matches goes to
    the origin of the frontend URL, where there is one.  slug is that of an
    SDK's base URL, https://HOST/PROJECT/SLUG/v1.
    """

    FRONTEND = (
        r"/(management|slos|exec/learnings|endpoints/[^/]+/slos)([/?]|\Z)")

    def __init__(self, base_url, key, style, frontend_url=None):
        self.base_url, self.key, self.style = base_url, key, style
        self.frontend_url, self.slug = frontend_url, None
        sdk = re.match(r"(\w+://[^/]+/[^/]+)/([^/]+)/v1\Z", base_url)
        if sdk and style == XEROTIER:
            from urllib.parse import unquote
            self.base_url, self.slug = sdk.group(1) + "/v1", unquote(
                sdk.group(2))
        if style == XEROTIER and not base_url.endswith("/v1"):
            raise NotConfigured(
                f"the base URL {base_url} does not end in /v1",
                "https://HOST/PROJECT/v1; or is it --style openai?")

    def endpoint(self, asked):
        """The slug of a call: what is asked for, or the base URL's own."""
        if asked and self.slug not in (None, asked):
            raise UsageError(f"the base URL is that of endpoint {self.slug!r},"
                             f" not of {asked!r}",
                             f"{self.base_url} is for all endpoints")
        return asked or self.slug

    def url(self, path, slug):
        """The URL of a path below /v1, of the project or of an endpoint."""
        if self.frontend_url and re.match(self.FRONTEND, path):
            return self.frontend_url + url_path(self.base_url) + path
        if slug is None or self.style == OPENAI:
            return self.base_url + path
        return self.base_url[:-len("/v1")] + path_of(slug) + "/v1" + path


# == TOML: what a config file holds, and edits that leave the rest alone =====

CURRENT, DEPLOYMENT = "current", "deployment"

# What a deployment may have: the check of its value, whether a variable says
# it too (XEROTIER_NAME), and what holds where nothing is said.
DEPLOYMENT_KEYS = {
    "base_url": (check_url, True, None),
    "api_key": (check_key, True, None),
    **dict.fromkeys(("api_key_env", "api_key_file", "api_key_command",
                     "api_key_keychain"), (str, False, None)),
    "style": (choice(*STYLES), True, XEROTIER),
    "endpoint": (str, True, None),
    "output": (choice(*FORMS), True, TABLE),
    "frontend_url": (check_url, True, None),
    "timeout": (seconds, False, None),
    "cacert": (str, False, None),
}
KEY_SOURCES = [key for key in DEPLOYMENT_KEYS if key.startswith("api_key")]

# The subset of TOML 1.0 that tells deployments apart: tables, quoted keys,
# strings, decimal numbers, booleans.  In what is not ours any value may stand,
# and is skipped.  No message quotes a value: it may be an API key that lacks
# its quotes.
TOML_ESCAPE = (
    r'\\(?:[btnfr"\\]|u(?![dD][89A-Fa-f])[0-9A-Fa-f]{4}'
    r"|U(?!0000[dD][89A-Fa-f])00(?:0[0-9A-Fa-f]|10)[0-9A-Fa-f]{4})")
TOML_LINE_STRING = (r'"(?!"")(?:[^"\\\n]|%s)*"' % TOML_ESCAPE
                    + r"|'(?!'')[^'\n]*'")
# Up to two quotes more may come right before the closing three.
TOML_STRING = (
    r'"""(?:[^"\\]|%s|\\[ \t\r]*\n|"(?!""))*"{3,5}' % TOML_ESCAPE
    + r"|'''(?:[^']|'(?!''))*'{3,5}|" + TOML_LINE_STRING)
TOML_SCALAR = (  # as in JSON
    r"true|false|-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?"
)
TOML_BARE_NAME = r"[A-Za-z0-9_-]+"
TOML_NAME = f"{TOML_BARE_NAME}|{TOML_LINE_STRING}"
TOML_KEY = r"(?:%s)(?:[ \t]*\.[ \t]*(?:%s))*" % (TOML_NAME, TOML_NAME)
TOML_END = r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)"
TOML_STATEMENT = (
    r"((?:[ \t\r]*(?:#[^\n]*)?\n)*)[ \t]*(?:(\[(\[)?[ \t]*)?(%s)[ \t]*"
    r"(?(2)\](?(3)\])%s|=[ \t]*(?:(%s|%s)%s)?)|%s)?" % (
        TOML_KEY, TOML_END, TOML_STRING, TOML_SCALAR, TOML_END, TOML_END))


def toml_scalar(word):
    """What a string, a boolean or a number stands for."""
    quotes = re.match(r"(\"\"\"|''')(?:\r?\n)?|[\"']|", word)
    if not quotes.end():
        return json.loads(word)
    inside = word[quotes.end():-3 if quotes.group(1) else -1]
    inside = inside.replace("\r\n", "\n")
    return inside if word[0] == "'" else re.sub(
        TOML_ESCAPE + r"|\\[ \t]*\n[ \t\n]*", lambda found: (
            "" if "\n" in found.group() else
            found.group().encode().decode("unicode_escape")), inside)


def toml_end(text, start):
    """Where a value that we cannot read ends; None without its bracket."""
    depth, tokens = 0, re.compile(TOML_STRING + r"|#[^\n]*|[][{}\n]|\Z")
    for found in tokens.finditer(text, start):
        token = found.group()
        depth += (token in ("[", "{")) - (token in ("]", "}"))
        if token in ("\n", "") and depth <= 0:
            return found.end()
    return None


def toml_statements(text):
    """Yield the statements of a document, without the comments above them.

    start and end are the span of one, path its names from the root, header
    those of the table that it stands in, or begins.  value is {} for a table
    and None where we cannot read it; place is its span.  What is no
    statement has no path, and is the last.
    """
    pattern, header, end = re.compile(TOML_STATEMENT), (), 0
    while end is not None and end < len(text):
        found = pattern.match(text, end)
        start, end, value = found.end(1), found.end(), None
        _, bracket, is_array, key, word = found.groups()
        path = tuple(toml_scalar(each) if each[0] in "\"'" else each
                     for each in re.findall(TOML_NAME, key or ""))
        if bracket:
            header, value = path, None if is_array else {}
        elif key:
            value = toml_scalar(word) if word and not path[1:] else None
            path = header + path
            end = end if word else toml_end(text, end)
        elif end == len(text):
            return
        yield SimpleNamespace(
            start=start, end=end, place=found.span(5), value=value,
            path=path if end else (), header=header)
        end = end if path else None


def toml_problem(one):
    """What is wrong with a statement that is not foreign; None if nothing."""
    kinds, told = (str,), "a text in quotes (a \\ in it doubled)"
    if not one.path:
        return "no [table], no key = value"
    if one.path[0] == DEPLOYMENT:
        if len(one.path) < 3 or one.header[:2] != one.path[:2]:
            kinds, told = (dict,), "a table: [deployment.NAME]"
        elif one.path[2] == "timeout":
            kinds, told = (int, float), "a number"
        elif one.path[2] not in DEPLOYMENT_KEYS:
            return None
    return None if type(one.value) in kinds else (
        f"{'.'.join(one.path[:3])} has to be {told}")


def read_toml(text, name):
    """Read what is ours: {(): {"current": …}, ("deployment", NAME): {…}}.

    name is the file's.  A key that is not one of ours may be None.
    """
    tables, seen = {(): {}}, set()
    for one in toml_statements(text):
        path, value = one.path[:3], None if one.path[3:] else one.value
        if path and path[0] not in (CURRENT, DEPLOYMENT):
            continue
        problem = toml_problem(one) or one.path in seen and "defined twice"
        if problem:
            line = text.count("\n", 0, one.start) + 1
            raise NotConfigured(f"{name}: line {line}: {problem}")
        if value is not None:
            seen.add(path)
        if path[2:] or path == (CURRENT,):
            tables.setdefault(path[:-1], {})[path[-1]] = value
        elif path[1:]:
            tables.setdefault(path, {})
    return tables


def toml_with(text, path, value):
    """A text with a key set or, with None, without what is at a path.

    A new key goes behind the last one of its table, a new table to the end,
    the first key of the root to the begin.
    """
    found = list(toml_statements(text))
    old = [one for one in found if one.path[:len(path)] == path]
    if value is None:
        for one in reversed(old):
            text = text[:one.start] + text[one.end:]
        return text
    odd = re.search("[\x7f\ud800-\udfff]", compact_json([path, value]))
    if odd:
        raise UsageError(f"{'.'.join(path)}: {odd.group()!r} is no text",
                         "a config file can hold no such character")
    if old:
        start, stop = old[0].place
        return text[:start] + compact_json(value) + text[stop:]
    end = "\r\n" if "\r\n" in text else "\n"
    gap, new = end * bool(text), f"{path[-1]} = {compact_json(value)}{end}"
    ends = {(): 0, **{one.header: one.end for one in found}}
    at = ends.get(path[:-1], len(text))
    if path[:-1] not in ends:
        names = (name if re.fullmatch(TOML_BARE_NAME, name)
                 else compact_json(name) for name in path[:-1])
        new = f"{gap}[{'.'.join(names)}]{end}{new}"
    elif not at:
        new += gap
    ended = end * (text[:at][-1:] not in ("", "\n"))
    return text[:at] + ended + new + text[at:]


def edit_toml(text, tables, name):
    """Change a text so that it is read as tables; the rest of it stays."""
    old = read_toml(text, name)
    for path in {**old, **tables}:
        was, wanted = old.get(path, {}), tables.get(path, {})
        if path not in tables:
            text = toml_with(text, path, None)
        for key in {**was, **wanted}:
            if key not in wanted or was.get(key) != wanted[key]:
                text = toml_with(text, path + (key,), wanted.get(key))
    if len(text) > MOST_CONFIG_BYTES or read_toml(text, name) != tables:
        raise NotConfigured(f"{name} cannot be changed so",
                            "it would not be read as it is meant")
    return text


# == the config file =========================================================

CONFIG_HELP = "xeroctl config init makes one, xeroctl status checks it"


def home_path(environ, variable, *default):
    """The folder of an XDG variable, else below HOME; None without either.

    A relative path is none (XDG Base Directory Specification).
    """
    for name, below_it in ((variable, ()), ("HOME", default)):
        if os.path.isabs(environ.get(name, "")):
            return os.path.join(environ[name], *below_it, "xeroctl")
    return None


def remove_quietly(path):
    """Remove a file that is of no more use, if it can be."""
    with suppress(OSError):
        os.unlink(path)


class writing(AbstractContextManager):
    """Turn what a file system refuses into an error that names the file."""

    def __init__(self, path, error=XeroctlError, hint=None):
        self.path, self.error, self.hint = path, error, hint

    def __exit__(self, kind, problem, trace):
        if isinstance(problem, OSError):
            raise self.error(
                f"cannot write {self.path}: {reason_of(problem)}", self.hint)


def is_special(path):
    """Whether a name stands for what is no file: a device, a pipe, a loop."""
    return os.path.lexists(path) and not os.path.isfile(path)


def keep_access(number, path, widest):
    """Give a new file owner, group and mode of the old one, if it may.

    A mode that is wider is not kept, nor is any without its group.
    """
    # There is no old one, it is another's, or it is Windows.
    with suppress(AttributeError, OSError):
        old = os.stat(path)
        os.fchown(number, old.st_uid, old.st_gid)
        if not old.st_mode & 0o7777 & ~widest:
            os.fchmod(number, old.st_mode & 0o7777)


def write_privately(path, data, prepare=None):
    """Replace a file whole: old or new, never torn, for its owner only.

    Written beside it with mode 0600, synced and renamed; a link is kept and
    what it points to is replaced.  prepare(number), if any, sees the new
    file while nobody else can.
    """
    path = os.path.realpath(path)
    if is_special(path):
        raise OSError(None, "it is no regular file")
    beside = f"{path}.{os.urandom(4).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(beside, flags, 0o600), "wb") as target:
            keep_access(target.fileno(), path, 0o640)
            if prepare:
                prepare(target.fileno())
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        os.replace(beside, path)
    except BaseException:
        remove_quietly(beside)
        raise


def try_lock(file):
    """Lock a file or folder while it is open; False if another process has."""
    try:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass  # Windows, and some network file systems, have no locks
    return True


@contextmanager
def locked(path, clock):
    """Have nobody else change a file meanwhile, there or not."""
    # Its folder is locked, since another file takes the place of the old.
    folder = os.path.dirname(os.path.realpath(path))
    os.makedirs(folder, 0o700, True)
    # Windows opens no folder, and locks nothing.
    number = os.open(os.devnull if os.name == "nt" else folder, os.O_RDONLY)
    until = clock.monotonic() + LOCK_S
    try:
        while not try_lock(number):
            if clock.monotonic() >= until:
                raise NotConfigured(f"another process is changing {path}",
                                    "try again when it has ended")
            clock.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(number)


class ConfigFile:
    """The tables of read_toml on file: what is there, and how it changes."""

    def __init__(self, environ, terminal):
        self.terminal, self.text, self.tables = terminal, "", None
        folder = home_path(environ, "XDG_CONFIG_HOME", ".config")
        self.path = environ.get("XEROTIER_CONFIG") or (
            folder and os.path.join(folder, "config.toml"))

    def place(self):
        """The path of the file, there or not; raise without a home."""
        if not self.path:
            raise NotConfigured("there is no home directory",
                                "set XEROTIER_CONFIG to a path")
        return self.path

    def load(self):
        """Read the file; there may be none, or a link that leads to none."""
        raw = b""
        if self.path and os.path.lexists(os.path.realpath(self.path)):
            raw = read_file(self.path, NotConfigured, MOST_CONFIG_BYTES + 1)
        if len(raw) > MOST_CONFIG_BYTES:
            raise NotConfigured(f"{self.path}: over 1 MB is no config file")
        # A mark that is there stays; TOML has none.
        self.coding = "utf-8-sig" if raw[:3] == codecs.BOM_UTF8 else "utf-8"
        try:
            self.text = raw.decode(self.coding)
        except UnicodeDecodeError:
            raise NotConfigured(f"{self.path} is not UTF-8")
        self.tables = read_toml(self.text, self.path)

    def deployments(self):
        """{name: {key: value}}; warn once of a key that others can read."""
        if self.tables is None:
            self.load()
            if (os.name == "posix" and any(
                    "api_key" in table for table in self.tables.values())
                    and os.stat(self.path).st_mode & 0o077):
                self.terminal.warn(f"{self.path} holds a key and can be read"
                                   f" by others: chmod 600 {self.path}")
        return {path[1]: table for path, table in self.tables.items() if path}

    def current(self):
        """The name that the file calls current; None without deployments."""
        return self.deployments() and self.tables[()].get(CURRENT) or None

    def deployment(self, name):
        """The table of a deployment; raise NotConfigured if it is unknown."""
        known = self.deployments()
        if name not in known:
            raise NotConfigured(
                f"there is no deployment {name!r} in {self.path}",
                did_you_mean(name, known) or (
                    "there is " + ", ".join(known) if known else CONFIG_HELP))
        return known[name]

    @contextmanager
    def changing(self, is_plan):
        """Have the tables changed and written, or nothing; a plan tries."""
        lock = locked(self.place(), self.terminal.clock)
        with writing(self.path, NotConfigured, "XEROTIER_CONFIG names another"
                     " path"), suppress() if is_plan else lock:
            self.load()
            yield self.tables
            text = edit_toml(self.text, self.tables, self.path)
            if not is_plan:
                write_privately(self.path, text.encode(self.coding))


def key_source(table, error=NotConfigured):
    """The one key source that a deployment has; None if it has none."""
    found = [source for source in KEY_SOURCES if source in table]
    if len(found) > 1:
        raise error("the deployment has two key sources: "
                    + " and ".join(found), "keep one of them")
    return found[0] if found else None


def printed_key(source, text):
    """What a command prints, which is run without a shell."""
    import shlex
    import subprocess
    words = [source]
    try:
        words = shlex.split(text) or [""]
        done = subprocess.run(words, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, timeout=TIMEOUT_S)
    except (OSError, ValueError, subprocess.TimeoutExpired) as problem:
        reason = getattr(problem, "strerror", "late or odd")
        raise NotConfigured(f"{source}: cannot run {words[0]}: {reason}")
    if done.returncode:
        raise NotConfigured(f"{source}: {words[0]} ended with exit code"
                            f" {done.returncode}")
    return decoded(done.stdout)


def key_from(source, value, environ, folder):
    """The text of a key; a file is seen from a folder, the config's."""
    if source == "api_key_env":
        if not environ.get(value):
            name = value if value.isupper() else "…"
            raise NotConfigured(f"api_key_env: {name} is not set")
        return environ[value]
    if source == "api_key_file":
        if value.startswith("~/"):
            value = environ.get("HOME", "~") + value[1:]
        return decoded(read_file(os.path.join(folder, value), NotConfigured))
    if source == "api_key_keychain":
        value = (f"security find-generic-password -s {shell_word(value)} -w"
                 if sys.platform == "darwin" else
                 f"secret-tool lookup service {shell_word(value)}")
    return value if source == "api_key" else printed_key(source, value)


def checked(key, value, where, error=None):
    """A value as the check of its key returns it; errors say where it is."""
    try:
        return DEPLOYMENT_KEYS[key][0](value)
    except XeroctlError as problem:
        raise (error or type(problem))(f"{where}: {problem}", problem.hint)


class Settings:
    """What a run was told: flag, then environment, then deployment.

    The flag --context means its deployment whole: of variables only endpoint
    and output count, where it has none.  The config file is read when needed.
    """

    def __init__(self, args, environ, terminal):
        self.args, self.environ, self.terminal = args, environ, terminal
        self.config = ConfigFile(environ, terminal)

    def variable(self, name):
        """What the environment says, where it counts; else None."""
        is_one = name == "context" or DEPLOYMENT_KEYS[name][1]
        value = is_one and self.environ.get("XEROTIER_" + name.upper())
        if not value or self.args.context is not None and (
                name not in ("endpoint", "output") or name in self.table()):
            return None
        # A file of variables may have left its quotes and line ends.
        bare = re.match(r"(?s)\s*(['\"]?)(.*?)\1\s*\Z", value)
        return bare.group(2) or None

    def tell_beaten(self, name):
        """Say which variables beat what a deployment has, if any do."""
        table = self.config.deployments().get(name)
        if not table:
            return
        has = dict({"context": name, "style": XEROTIER}, **table)
        if key_source(has):
            has.setdefault("api_key")
        found = ["XEROTIER_" + each.upper()
                 for each in ("context", *DEPLOYMENT_KEYS) if each in has
                 and self.variable(each) not in (None, has[each])]
        if found:
            self.terminal.note(f"{name} gives way to {' and '.join(found)}:"
                               f" --context {name} goes by {name} alone")

    def context(self):
        """The name of the deployment of this run; None if there is none."""
        name = self.args.context
        name = self.variable("context") if name is None else name
        return self.config.current() if name is None else name

    def table(self):
        """The table of the deployment of this run; empty if there is none."""
        name = self.context()
        return {} if name is None else self.config.deployment(name)

    def get(self, name):
        """What is said first of a key, checked; else what holds then."""
        value = getattr(self.args, name, None)
        where = "--" + name.replace("_", "-")
        if value is None:
            value, where = self.variable(name), "XEROTIER_" + name.upper()
        if value is not None:
            return checked(name, value, where)
        value = self.table().get(name)
        return DEPLOYMENT_KEYS[name][2] if value is None else checked(
            name, value, f"{self.config.path}: {name}", NotConfigured)

    def style(self):
        return self.get("style")

    def form(self):
        """The output as far as it can be told: a config may be broken."""
        with suppress(NotConfigured):
            return self.get("output")
        return TABLE

    def typed_key(self, text):
        """The key that --api-key means: itself, @FILE, - for stdin, none."""
        if not text:
            return None
        if text == "-":
            text = (self.terminal.ask_secret() if self.terminal.stdin.isatty()
                    else decoded(self.terminal.input.read()))
        elif text.startswith("@"):
            text = decoded(read_file(text[1:], NotConfigured))
        return checked("api_key", text, "--api-key")

    def key(self, urls):
        """The API key for some URLs; None if there is none for them."""
        if self.args.api_key is not None:
            return self.typed_key(self.args.api_key)
        text, where = self.variable("api_key"), "XEROTIER_API_KEY"
        if text is None:
            table = self.table()
            where = key_source(table)
            if where is None or self.is_foreign(urls, table):
                return None
            text = key_from(where, table[where], self.environ,
                            os.path.dirname(self.config.path))
        return checked("api_key", text, where)

    def is_foreign(self, urls, table):
        """Whether a URL is not its deployment's; style xerotier raises."""
        own = [table[name] for name in ("base_url", "frontend_url")
               if name in table]
        found = [url for url in urls if not any(
            is_same_origin(url, home) for home in own)]
        if found:
            told = (f"the key of deployment {self.context()} is meant for"
                    f" {' and '.join(map(shown_url, own)) or 'no URL'},"
                    f" not for {found[0]}")
            if self.style() == XEROTIER:
                raise NotConfigured(told, KEY_HELP)
            self.terminal.note(told + ": none is sent")
        return bool(found)

    def deployment(self, needs_key):
        """The deployment of this run; raise NotConfigured without one."""
        url, style = self.get("base_url"), self.style()
        if not url:
            known = ", ".join(self.config.deployments())
            raise NotConfigured(
                "no base URL: " + ("no deployment that has one is current"
                                   if known else "nothing is configured"),
                f"xeroctl config use NAME takes one of {known}" if known else
                f"pass --base-url or set XEROTIER_BASE_URL; {CONFIG_HELP}")
        if not needs_key:
            return Deployment(url, None, style)
        frontend = self.get("frontend_url") if style == XEROTIER else None
        key = self.key([each for each in (url, frontend) if each])
        if key is None and style == XEROTIER:
            raise NotConfigured("no API key", KEY_HELP)
        return Deployment(url, key, style, frontend)


# ---------------------------------------------------------------------------
# 6. Transport
# ---------------------------------------------------------------------------

# http.client, not urllib.request: the latter adds policies on redirects,
# proxies and reuse that send a key elsewhere (cpython#77842) or hide which
# layer failed, and costs 7 ms more to import.

# A name with such a word in it; but tokens are counted, and a key has an id.
SECRET_NAME = (
    "(?i)secret|password|authorization|(?:access|api|auth|refresh)_?tokens"
    "|token(?!s|iz|_?(?:count|type|limit|id))|(?<!public)(?<!public[_-])"
    "(?<!cache_)key(?!_?(?:ids?|name|prefix|type)(?:_|$)|word|board)")


def redacted(value):
    """The same JSON value without the texts that have such a name."""
    return with_texts(value, lambda text, name: (
        "…" if re.search(SECRET_NAME, name) else text))


class Multipart:
    """A multipart/form-data body (RFC 7578), read from disk as it is sent.

    fields are (name, text) pairs; one part more, "file" unless named, holds
    an excerpt: what has a name, a size and blocks().  tell(count) is called
    as its bytes leave.
    """

    def __init__(self, fields, excerpt, tell, part="file"):
        self.fields, self.excerpt, self.tell = fields, excerpt, tell
        self.part = part
        boundary = "xeroctl-" + os.urandom(16).hex()
        self.media = "multipart/form-data; boundary=" + boundary
        self.head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
            f"\r\n\r\n{text}\r\n" for name, text in fields)
        # The name as browsers have it (WHATWG HTML, 4.10.21.8).
        name = re.sub('[\r\n"]', lambda c: f"%{ord(c.group()):02X}",
                      excerpt.name)
        self.head += (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="{part}"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n")
        self.head = whole(self.head).encode("utf-8")
        self.tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.size = len(self.head) + excerpt.size + len(self.tail)

    def blocks(self):
        """Yield the body; each call reads the file once more."""
        count = 0
        yield self.head
        for block in self.excerpt.blocks():
            yield block
            count += len(block)
            self.tell(count)
        yield self.tail

    def shown(self):
        """The body as a plan shows it: the file by its name."""
        return dict(self.fields, **{self.part: "@" + self.excerpt.name})

    def curl_words(self):
        """The body in the flags of curl, which reads @ and ; in -F."""
        words = [f"--form-string {shell_word(f'{name}={text}')}"
                 for name, text in self.fields]
        path, name = (re.sub(r'(["\\])', r"\\\1", text) for text in (
            self.excerpt.source.name, self.excerpt.name))
        path = "-" if self.excerpt.source.is_stdin else f'"{path}"'
        return words + [
            "-F " + shell_word(f'{self.part}=@{path};filename="{name}"')]


class Request:
    """One HTTP request: what the wire gets, and what a plan shows.

    body is bytes, a Multipart, any other JSON value, or None for no body;
    about is what a plan says before it, if that is not plain to see.
    """

    about = None

    def __init__(self, method, url, headers, body, silence):
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
        """The body as it is sent: bytes, or blocks of a known size."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, Multipart):
            return self.body.blocks()
        return whole(compact_json(self.body)).encode("utf-8")

    def shown_body(self):
        """The body as a plan or a log shows it: a text, or JSON."""
        if isinstance(self.body, Multipart):
            return self.body.shown()
        if isinstance(self.body, bytes):
            return decoded(self.body)
        return redacted(self.body)


class Plan:
    """Requests shown in place of being sent (--dry-run and --curl).

    A dry run plans what changes something and what comes after that; --curl
    plans everything.
    """

    def __init__(self, dry_run, curl):
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

    def __init__(self, clock, silence, deadline):
        self.clock, self.silence = clock, silence
        self.deadline = deadline or float("inf")

    def left(self):
        """Seconds that the next wait may take; raise if the time is up."""
        left = self.deadline - self.clock.monotonic()
        if left <= 0:
            raise self.expired()
        return min(left, self.silence)

    def end_in(self, seconds):
        """Have the run be over so soon, if not sooner."""
        self.deadline = min(self.clock.monotonic() + seconds, self.deadline)

    def expired(self, sent=True):
        """The error for a wait that took too long."""
        if self.clock.monotonic() >= self.deadline - 0.01:
            return ConnectionFailed("timeout", "the call took longer than"
                                    " --max-time", None, sent, lasting=True)
        return ConnectionFailed(
            "timeout", f"nothing came for {as_duration(self.silence)}",
            "--timeout SECONDS waits longer", sent)


def wire_failures():
    """What http.client raises, which is imported when it is needed."""
    import http.client
    return OSError, http.client.HTTPException


class HeadReader(io.BufferedReader):
    """Reads heads that have an end: http.client takes one that was cut for
    a whole one, and any number of hints before it."""

    size = 0

    def readline(self, limit=-1):
        line = super().readline(limit)
        self.size += len(line)
        if self.size > MOST_HEAD_BYTES:
            import http.client
            raise http.client.HTTPException("its head does not end")
        if line[-1:] != b"\n" and len(line) != limit and (
                line.startswith(b"HTTP/") or self.size > len(line)):
            raise ConnectionResetError(0, "the answer broke off")
        return line


class Wire(io.RawIOBase):
    """A connected socket, under limits, in the form that http.client takes.

    sent tells whether any byte may have left.  http.client closes its
    socket as soon as it has read a head; the wire stays open until shut().
    keep(socket), if any, takes a socket that can be used once more.
    """

    def __init__(self, sock, limits, keep=None):
        self.sock, self.limits, self.keep = sock, limits, keep
        self.pending, self.sent = b"", False

    def sendall(self, data):
        """Send data; a small piece, as a head, waits for what follows."""
        self.pending += data
        if len(self.pending) >= BLOCK:
            self.send_pending()

    def send_pending(self):
        """Send what waits; flush() would be called by whoever closes."""
        data, self.pending = self.pending, b""
        if data:
            self.sock.settimeout(self.limits.left())
            self.sent = True
            self.sock.sendall(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        self.send_pending()
        self.sock.settimeout(self.limits.left())
        return self.sock.recv_into(buffer)

    def makefile(self, *_):
        return HeadReader(self, BLOCK)

    def close(self):
        pass

    def shut(self, is_reusable):
        """Close the socket, or keep it for another request."""
        if self.keep and is_reusable:
            self.keep(self.sock)
        else:
            self.sock.close()


class closed_on_error(AbstractContextManager):
    """Close a socket or a file if what is done with it fails."""

    def __init__(self, thing):
        self.thing = thing

    def __exit__(self, kind, problem, trace):
        if kind:
            with suppress(OSError):  # what cannot be written was told
                self.thing.__exit__(None, None, None)


def look_up(host, port):
    """Return the addresses of a host, as getaddrinfo gives them."""
    import socket
    try:
        # Of bytes, since a str goes through the idna codec, a large table.
        return socket.getaddrinfo(host.encode("ascii"), port,
                                  type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        raise ConnectionFailed(
            "DNS", f"cannot look up {host}: {reason_of(problem)}",
            "check the host in --base-url (XEROTIER_BASE_URL)")


def connect(address, timeout):
    """Connect to one address of getaddrinfo."""
    import socket
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    with closed_on_error(sock):
        sock.settimeout(timeout)
        sock.connect(target)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def open_socket(host, port, limits):
    """Connect to the first address of a host that answers."""
    *others, last = look_up(host, port)
    for address in others:
        with suppress(OSError):
            return connect(address, min(limits.left(), ADDRESS_TIMEOUT_S))
    try:
        return connect(last, limits.left())
    except OSError as problem:
        limits.left()  # or is the time up?
        reason = problem.strerror or "no answer in time"
        raise ConnectionFailed(
            "connect", f"{host}:{port}: {reason}",
            "is the server up, and --base-url (XEROTIER_BASE_URL) right?")


CA_HELP = "--cacert FILE trusts a private CA; --insecure checks nothing"

# What helps, by what OpenSSL says; Python 3.6 leaves out what it refuses.
TLS_HINTS = (
    ("wrong version number",
     "a server without TLS has an http:// URL in --base-url"),
    ("not yet valid|has expired", "is this machine's clock right?"),
    ("mismatch|hostname|unrecognized name",
     "does the base URL name the host as its certificate does?"),
    ("verify failed$", "it is self-signed, expired, for another host name, or"
                       " of an unknown issuer: " + CA_HELP),
    ("verify failed", CA_HELP),
    ("alert.*(certificate|handshake failure|unknown ca|access denied)",
     "does the server want a client certificate? --cert FILE"),
    ("protocol version|unsupported protocol|ssl version|legacy sigalg",
     "the server speaks no version of TLS that this Python takes"),
    ("", "is it a TLS server, and nothing in between?"),
)


def network_error(problem, where, limits, sent, layer="HTTP"):
    """Return the ConnectionFailed for whatever http.client or ssl raised.

    OpenSSL's code in front is left out: an old Python has a wrong one for
    what is new, as in "[SSL: BAD_MAC_LENGTH] legacy sigalg".
    """
    import http.client
    import socket
    reason = re.sub(r"^\[.*?\] |\.? \(_ssl\.c:\d+\)$", "", str(problem))
    hint = TLS_HINTS[-1][1] if layer == "TLS" else None
    is_refused = False
    if isinstance(problem, socket.timeout):
        if layer == "HTTP":
            return limits.expired(sent)
        reason, hint = "no handshake in time", "--timeout SECONDS waits longer"
    elif isinstance(problem, http.client.RemoteDisconnected):
        reason = "the server closed the connection without an answer"
    elif isinstance(problem, http.client.IncompleteRead):
        reason = "the answer broke off"
    elif isinstance(problem, http.client.HTTPException):
        reason = f"not an HTTP answer: {visible(str(problem))[:100]}"
        hint = "is it https:// in --base-url?"
    elif re.search(r"\beof\b", reason, re.I):
        reason = "the server cut the connection"
    elif isinstance(problem, ValueError) or type(problem).__module__ == "ssl":
        is_refused = layer == "TLS" or " alert " in reason
        if is_refused:
            layer, hint = "TLS", next(hint for said, hint in TLS_HINTS
                                      if re.search(said, reason, re.I))
        else:
            reason = f"the connection was disturbed ({reason})"
    return ConnectionFailed(layer, f"{where}: {reason}", hint, sent,
                            is_refused)


def bare_url(url):
    """A URL as it may be shown: no user, password, query or fragment."""
    return re.sub(r"(?<=//)[^/?#]*@|[?#].*", "", url)


def is_loopback(host):
    return bool(re.match(r"(localhost|::1|127(\.\d+){3})\Z", host))


def check_head(response):
    """Refuse a head that leaves its body's end in doubt (RFC 9112, 6.3)."""
    import http.client
    headers = response.headers
    sizes = headers.get_all("Content-Length", ())
    size = re.match(r"(\d{1,18})([ \t]*,[ \t]*\1)*[ \t]*\Z", ",".join(sizes))
    if (len(headers.get_all("Transfer-Encoding", ())) != response.chunked
            or sizes and not size or any("Header" in type(each).__name__
                                             for each in headers.defects)):
        raise http.client.HTTPException("its head does not tell where it ends")
    if size and response.length is None and not response.chunked:
        response.length = int(size.group(1))  # of "2, 2"


def ask(client, wire, request, relay=None):
    """Send a request over a connected client; return the answer's head.

    A relay is the proxy that plain http is sent through, with a whole URL.
    A server may answer (413) and close while the body is still on its way:
    when sending fails, what it said is read all the same.
    """
    target = url_path(request.url)
    target = target if target[:1] == "/" else "/" + target
    headers, lost = dict(request.headers), None
    if not wire.keep:
        headers["Connection"] = "close"
    if isinstance(request.body, Multipart):
        headers["Content-Length"] = str(request.body.size)
    if relay:
        target = request.url
        headers.update(relay.headers)
    try:
        try:
            client.request(request.method, target, request.data(), headers)
            wire.send_pending()
        except OSError as problem:
            if not isinstance(problem, (BrokenPipeError, ConnectionResetError)
                              ) and type(problem).__name__ != "SSLEOFError":
                raise
            lost = problem
        response = client.getresponse()
        while 100 <= response.status < 200:  # only hints (RFC 8297)
            response.headers = None
            response.begin()
        check_head(response)
        return response
    except wire_failures() as problem:
        raise network_error(lost or problem, client.host, wire.limits,
                            wire.sent)


def plain_blocks(response):
    """Yield a body of known length, or one that ends with the connection.

    http.client ends a read(n) in silence when less has come than
    Content-Length says, so the bytes are counted here.
    """
    left = response.length
    while left != 0:
        block = response.read1(BLOCK if left is None else min(left, BLOCK))
        if not block:
            break
        left = None if left is None else left - len(block)
        yield block
    if left:
        import http.client
        raise http.client.IncompleteRead(b"", left)


# A chunk is its size in hexadecimal, extensions, CRLF, data, and CRLF: that
# one is taken for the begin of the next.
CHUNK_HEAD = rb"\r\n([0-9a-fA-F]{1,15})[ \t]*(?:;[^\n]*)?\r?\n"


def chunked_blocks(response):
    """Yield the data of a chunked body (RFC 9112, 7.1) as it arrives.

    http.client would hand it out chunk by chunk, which costs a stream of
    tokens more than all the rest.
    """
    import http.client
    head, rest, left, is_over = re.compile(CHUNK_HEAD), b"\r\n", 0, False
    while not is_over:
        block, pieces, at = response.fp.read1(BLOCK), [], 0
        if not block:
            raise http.client.IncompleteRead(b"")
        block = rest + block
        while not is_over and at < len(block):
            if not left:
                found = head.match(block, at)
                if not found:
                    break
                at, left = found.end(), int(found.group(1), 16)
                is_over = not left
            pieces.append(block[at:at + left])
            at += len(pieces[-1])
            left -= len(pieces[-1])
        if any(pieces):
            yield b"".join(pieces)
        rest = block[at:]
        if not is_over and (rest[:2] != b"\r\n"[:len(rest)]
                            or b"\n" in rest[2:] or len(rest) > BLOCK):
            raise http.client.HTTPException(f"bad chunk {rest[:20]!r}")


def json_of(answer, text):
    """The body of an answer, decoded; no page is one."""
    try:
        return parse_json(text, SERVER_DECODER)
    except ValueError as problem:
        what = ("" if is_html(text) else f"no JSON ({problem}): "
                if text.strip() else "no JSON: it is empty")
        raise AnswerError(
            f"{answer.url} answered with {what}{body_summary(text)}",
            "is the base URL that of an API?", request_id=answer.request_id)


# What to try next, by error code, or else by type, or by status.
API_HINTS = {
    "endpoint_not_found": "--endpoint takes the slug, not the model's name;"
                          " xeroctl endpoints lists them",
    "model_not_found": "xeroctl models lists what is served",
    "scope_insufficient": "use a key with the scope that this call needs",
    **dict.fromkeys(ApiError.USED_UP, "the quota is used up: wait for its"
                                      " reset or raise it"),
    "endpoint_inactive": "the endpoint is not active yet: xeroctl endpoints"
                         " lists its status",
    400: "-v shows the request, --dry-run its body",
    **dict.fromkeys((401, "invalid_api_key"), "is the key right? " + KEY_HELP),
    403: "the key may not do this, or a proxy in between refuses it",
    404: "is it there? also check the base URL (…/v1) and --style",
    **dict.fromkeys((405, 501), "this server does not offer it"),
    413: "a proxy in between may take less than the server does",
    504: "a proxy did not wait for it: --stream may keep an answer alive",
}


# Where servers put a message, and where type, code and param stand.
MESSAGE_PLACES = ("error", "detail", "message", "errors", "msg",
                  "error_message", "error_msg", "title")
FACT_PLACES = ("error.", "", "detail.error.", "detail.", "errors.0.",
               "error.0.", "0.error.")


def provider_error(body):
    """What OpenRouter tells of the server behind it; None if nothing."""
    raw = dig(body, "metadata.raw")
    value = json_or_text(raw) if is_filled(raw) else raw
    return body_summary(value) if isinstance(value, str) else value


def error_message(body, depth=5):
    """Find the message where servers put it, in any JSON; None if nowhere.

    FastAPI says in loc what each of several is about; Fastify, Spring and
    OAuth have in error only a class, and beside it a message, or several.
    """
    if isinstance(body, list) and len(body) == 1:
        body, = body
    places = ("message",) * (depth < 5) + MESSAGE_PLACES
    for place in places if depth and isinstance(body, dict) else ():
        found = body.get(place)
        if isinstance(found, dict):
            found = error_message(found, depth - 1) or place != "error" and [
                {"loc": [key], "msg": found[key]} for key in found]
        if isinstance(found, list):
            found = "; ".join(filter(None, (
                error_message(each, depth - 1)
                if isinstance(each, (dict, list)) else as_text(each)
                for each in found[:MOST_PROBLEMS] if each)))
        if isinstance(found, str) and found.strip():
            loc = body.get("loc")
            if loc and isinstance(loc, list):
                found = ".".join(str(step) for step in loc if isinstance(
                    step, (str, int))) + ": " + found
            for more in (body.get("message"), body.get("error_description"),
                         provider_error(body)) * (found == body[place]):
                more = error_message({"msg": more}, depth - 1)
                if more and more not in found:
                    found += f": {more}"
            return found
    return None


def error_fact(body, name):
    """The type, code or param of an error, in its object or beside it."""
    found = (dig(body, place + name) for place in FACT_PLACES)
    return next((value for value in found if value is not None), None)


def api_error(answer, text):
    """Read an error in any shape; LiteLLM sends a frame of a stream, too."""
    text = re.sub(r"\Adata:(.*)[\s\S]*", r"\1", text)
    try:
        body = parse_json(text, SERVER_DECODER)
    except ValueError:
        body = None
    said, status = error_message(body), answer.status
    kind, code, param = (error_fact(body, name)
                         for name in ("type", "code", "param"))
    kind = as_text(kind) if kind else None
    named = ", ".join(as_text(each) for each in (kind, code) if each)
    hints = map(API_HINTS.get, (as_text(code), kind, status))
    return ApiError(
        status, said or named and "without a message: " + named
        or body_summary(text) or answer.response.reason,
        next(filter(None, hints), None), body, answer.headers,
        is_filled(dig(body, "error.message")), kind,
        code=code, param=param, request_id=answer.request_id)


# == the judge: what an answer is, told once for each kind ===================

# How a choice or a response ends that broke off, in the words of vendors.
BROKEN_ENDS = frozenset(
    "error abort aborted cancelled canceled failed network_error"
    " insufficient_system_resource malformed_function_call".split())


def no_answer(value, what, who="the answer", kind=AnswerError):
    """The error for JSON that is not what was asked for."""
    return kind(
        f"{who} {what}: "
        + (error_message(value) or compact_json(value)[:300]),
        code=error_fact(value, "code"), param=error_fact(value, "param"))


def told_error(value):
    """The error that JSON holds; one of empty members alone is none."""
    error = dig(value, "error")
    return any(error.values()) and error if isinstance(error, dict) else error


def is_error(value):
    """Whether JSON is an error; a record with a status may tell one, too."""
    has_id = is_filled(dig(value, "id"))
    return (dig(value, "object") == "error"
            or dig(value, "success") is False and not has_id
            or bool(told_error(value) and not (
                has_id and dig(value, "status"))))


def check_answer(value, *_):
    """Return JSON that can be an answer; raise for an error, or null."""
    if value is None:
        raise AnswerError("the answer is null")
    if is_error(value):
        raise no_answer(value, "is an error")
    return value


def check_write(value, method):
    """Raise if what was asked for was not done, or not deleted."""
    names, is_refused = ("success", "ok"), value is False
    if method == "DELETE":
        names += ("deleted",)
        is_refused = is_refused or not dig(value, "id") and (
            dig(value, "errors") or dig(value, "status") == "error")
    if is_refused or any(dig(value, name) in (False, "false")
                         for name in names):
        raise no_answer(value, "is a refusal")


def id_in(answer, name="id"):
    """The id of what has been made; an answer without one is none."""
    item_id = dig(answer, name)
    if not is_filled(item_id):
        raise no_answer(answer, f"has no {name}")
    return item_id


def broken_end(answer, state):
    """Why a choice or a response that ends in a state broke off, or None."""
    error = told_error(answer)
    if error:
        return error_message({"error": error}) or as_text(error)
    is_broken = is_filled(state) and state.lower() in BROKEN_ENDS
    return f"it ended with {state}" if is_broken else None


def check_end(answer, state):
    """Raise if a choice or a response has broken off."""
    why = broken_end(answer, state)
    if why:
        raise AnswerError(f"the answer broke off: {why}",
                          code=dig(answer, "error.code"))


def is_said(choice):
    """Whether a choice of a whole answer holds a message, or a text."""
    return isinstance(dig(choice, "text"), str) or bool(
        isinstance(dig(choice, "message"), dict) and choice["message"])


def check_completion(reply, *_):
    """Raise unless it is a completion, every choice of it ended well."""
    choices = dig(check_answer(reply), "choices")
    if not isinstance(choices, list) or not any(map(is_said, choices)):
        raise no_answer(reply, "is no chat.completion")
    for choice in choices:
        check_end(choice, dig(choice, "finish_reason"))


def check_response(reply, *_):
    """Raise unless it is a response that has not failed."""
    if dig(reply, "object") != "response" and not isinstance(
            dig(check_answer(reply), "output"), list):
        raise no_answer(reply, "is no response")
    check_end(reply, dig(reply, "status"))


def check_count(found, wanted, what, has_index=True):
    """Raise unless each text has one result, in whatever order they came."""
    places = [place for place in (dig(item, "index") for item in found)
              if isinstance(place, int) and has_index]
    if (len(found) != wanted or len(set(places)) < len(places)
            or not all(isinstance(item, dict) for item in found)):
        raise AnswerError(f"{len(found)} {what} came for {wanted} texts: "
                          + compact_json(found)[:200])


def check_vectors(reply, sent):
    """Raise unless there is an embedding for each text that was sent."""
    texts, data = dig(sent, "input"), dig(check_answer(reply), "data")
    if not isinstance(data, list) or not all(isinstance(
            dig(item, "embedding") or None, (str, list)) for item in data):
        raise no_answer(reply, "holds no embeddings")
    is_one = not isinstance(texts, list) or texts and is_number(texts[0])
    # Some say 0 of each (llama.cpp had it so): they keep the order.
    check_count(data, 1 if is_one else len(texts), "embeddings",
                len({as_text(dig(item, "index")) for item in data}) > 1)


# By the url of a line; of any other, all but an error is an answer.
JUDGES = {"/v1/chat/completions": check_completion,
          "/v1/completions": check_completion,
          "/v1/responses": check_response, "/v1/embeddings": check_vectors}


def check_line(reply, request):
    """Raise unless a reply is the answer to a line of a batch."""
    if not isinstance(reply, dict) or not reply:
        raise no_answer(reply, "is no JSON object")
    JUDGES.get(request["url"], check_answer)(reply, request["body"])
    if dig(reply, "status") in ("queued", "in_progress"):
        raise AnswerError(f"the response is {reply['status']}")


def held(blocks):
    """The bytes of blocks together; too many would fill the memory."""
    found = bytearray()
    for block in blocks:
        found += block
        if len(found) > MOST_ANSWER_BYTES:
            raise AnswerError("the answer is larger than "
                              + as_size(MOST_ANSWER_BYTES))
    return bytes(found)


def unzipped(blocks, url):
    """Yield what a server has compressed, or only says that it has."""
    import zlib
    first, inflate = next(blocks, b""), zlib.decompressobj(wbits=31)
    if first[:1] != b"\x1f":
        yield from chain([first], blocks)
        return
    try:
        for block in chain([first], blocks):
            while block:
                if inflate.eof:  # the next member (RFC 1952, 2.2)
                    inflate = zlib.decompressobj(wbits=31)
                yield inflate.decompress(block)
                block = inflate.unused_data
    except zlib.error as problem:
        raise AnswerError(f"{url} is no gzip: {problem}")
    if not inflate.eof:
        raise AnswerError(f"{url}: the gzip is cut short")


class Answer(AbstractContextManager):
    """The open answer to one request; close it, or use it in a with."""

    def __init__(self, response, wire, url):
        self.response, self.wire, self.url = response, wire, url
        self.status, self.headers = response.status, response.headers
        self.request_id = self.headers.get("X-Request-ID")
        self.media = self.headers.get_content_type()
        # Unasked; what else it may say (none, utf-8) codes no bytes.
        found = re.search(r"\b(gzip|deflate|br|zstd|compress)\b",
                          self.headers.get("Content-Encoding", "").lower())
        self.coding = found and found.group()
        self.kept, self.is_whole = None, False

    def __exit__(self, *_):
        self.wire.shut(self.is_whole and not self.response.will_close)
        self.response.close()  # what interrupts a finalizer is lost

    def blocks(self):
        """Yield the body as it arrives; raise if it is cut short."""
        if self.kept is not None:
            yield self.kept
            return
        if self.coding not in (None, "gzip"):
            raise AnswerError(f"{self.url} comes encoded as {self.coding},"
                              " which was not asked for")
        is_chunked = self.response.chunked and self.response.length != 0
        blocks = (chunked_blocks if is_chunked
                  else plain_blocks)(self.response)
        try:
            yield from unzipped(blocks, self.url) if self.coding else blocks
            self.is_whole = not is_chunked
        except wire_failures() as problem:
            raise network_error(problem, self.url, self.wire.limits, True)

    def read(self):
        """Return the whole body; refuse one that would fill the memory."""
        return held(self.blocks())

    def json(self):
        """Return the decoded body; an empty one is an empty object."""
        raw = self.read()
        return json_of(self, decoded(raw)) if raw.strip() else {}


class Proxy:
    """An HTTP proxy: its address, who named it, its credentials (RFC 7617)."""

    def __init__(self, url, source):
        from urllib.parse import quote, unquote, urlsplit
        self.source, self.host, self.headers = source, None, {}
        url = url if "://" in url else "http://" + url
        url = re.sub("(?<=//).*(?=@)", lambda user: quote(  # as curl: # / ?
            whole(user.group()), safe="%:!$&'()*+,;=~@"), url)
        scheme = url.partition("://")[0].lower()
        with suppress(ValueError):  # no URL at all
            parts = urlsplit(url)
            self.host, self.port = parts.hostname, parts.port or 80
        if scheme != "http" or not self.host:
            raise NotConfigured(
                f"{source}: no proxy URL" if scheme == "http"
                else f"{source}: a {scheme}:// proxy is not supported",
                "http://[USER:PASSWORD@]HOST:PORT")
        self.secrets = [unquote(parts.password or "")]
        if parts.username:
            import base64
            user = whole(f"{unquote(parts.username)}:{self.secrets[0]}")
            code = base64.b64encode(user.encode("utf-8")).decode("ascii")
            self.headers["Proxy-Authorization"] = "Basic " + code
            self.secrets.append(code)

    def __str__(self):
        return f"{self.host}:{self.port} (from {self.source})"

    def failed(self, reason, hint=None, lasting=False):
        """The error for whatever goes wrong at the proxy."""
        return ConnectionFailed(
            "proxy", f"{self}: {reason}",
            hint or "--proxy, HTTPS_PROXY and NO_PROXY decide on the proxy",
            lasting=lasting)

    def refused(self, status, reason):
        """The error for an answer that is no tunnel."""
        hint = ("give user and password: http://USER:PASSWORD@HOST:PORT"
                if status in (401, 407) else None)
        return self.failed(f"HTTP {status} {reason}".rstrip(), hint,
                           lasting=status < 500)


def is_in_network(host, network):
    """Whether a host is an address within a range or equal to an address."""
    import ipaddress
    with suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(network,
                                                                  False)
    return False


def bypasses_proxy(host, port, no_proxy):
    """Whether NO_PROXY names a host.

    Entries are *, a domain (with all below it), an address or a CIDR range,
    each but the last with a :PORT if wanted.
    """
    for entry in re.split(r"[\s,]+", no_proxy.strip().lower()):
        found = re.match(r"(\[.*\]|[^:]*):(\d+)\Z", entry, re.A)
        name, entry_port = found.groups() if found else (entry, port)
        if int(entry_port) != port:
            continue
        name = name.strip("[]").lstrip(".")
        if name == "*" or name and (
                host == name or host.endswith("." + name)
                or re.search(r":|\d$", host) and is_in_network(host, name)):
            return True
    return False


def start_tls(sock, host, context, limits, proxy=None):
    """Wrap a connected socket in TLS; certificate and name are checked.

    An end without TLS's goodbye is an error, since anybody can make one.
    """
    try:
        sock.settimeout(limits.left())
        return context.wrap_socket(sock, server_hostname=host,
                                   suppress_ragged_eofs=False)
    except (OSError, ValueError) as problem:
        limits.left()  # or is the time up?
        # A mismatch of names is a ValueError in Python 3.6.
        error = network_error(problem, host, limits, False, "TLS")
        error.details += [f"through the proxy {proxy}"] * bool(proxy)
        raise error


def open_proxy(proxy, limits):
    """Connect to a proxy; whatever fails is the proxy's failure."""
    try:
        return open_socket(proxy.host, proxy.port, limits)
    except ConnectionFailed as error:
        raise proxy.failed(str(error), lasting=error.lasting)


def open_tunnel(sock, proxy, host, port, limits):
    """Ask a proxy for a tunnel (RFC 9110, 9.3.6)."""
    import http.client
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    client = http.client.HTTPConnection(host, port)
    client.sock = Wire(sock, limits)
    try:
        client.request("CONNECT", target, headers=proxy.headers)
        response = client.getresponse()
    except wire_failures() as problem:
        error = network_error(problem, host, limits, False)
        raise proxy.failed(f"no tunnel to {target}: {error}")
    if not 200 <= response.status < 300:
        raise proxy.refused(response.status, response.reason)


def is_readable(sock):
    """Whether something has come on a socket, be it its end."""
    import select
    if hasattr(sock, "pending") and sock.pending():
        return True  # TLS has decrypted it already
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Network:
    """How a socket is opened, as flags, variables and deployment say."""

    def __init__(self, settings, terminal):
        self.settings, self.terminal = settings, terminal
        self.made_context, self.idle = None, []
        self.keeps = False  # connections open for the next request

    def close(self):
        """Close what is kept open, and keep nothing from now on."""
        self.keeps = False
        with suppress(IndexError):
            while True:
                self.idle.pop()[0].close()

    def keeper(self, origin, proxy):
        """What takes a socket back for its origin, if one is kept at all."""
        return self.keeps and (lambda sock: self.idle.append(
            (sock, time.monotonic(), origin, proxy)))

    def reuse(self, origin):
        """A kept (socket, proxy) that the server has not closed, or None."""
        with suppress(IndexError):  # other threads take of them, too
            while True:
                sock, since, place, proxy = self.idle.pop()
                if place == origin and not is_readable(sock) and (
                        time.monotonic() - since < IDLE_S):
                    return sock, proxy
                sock.close()
        return None

    def proxy(self, scheme, host, port):
        """The proxy for a target, or None; --proxy '' is none, too."""
        given = self.settings.args.proxy
        if given is not None:
            found, source = given, "--proxy"
        else:
            source, found = self.variable(scheme.upper() + "_PROXY")
            if bypasses_proxy(host, port, self.variable("NO_PROXY")[1]):
                found = ""
        if not found:
            return None
        proxy = Proxy(found, source)
        for secret in filter(None, proxy.secrets):
            self.terminal.hide(secret)
        return proxy

    def variable(self, name):
        """(name, value) of what counts in either case; lower first."""
        environ = self.settings.environ
        name = name.lower() if environ.get(name.lower()) else name
        return name, environ.get(name, "").strip(" \t\r\n'\"")

    def open(self, url, limits):
        """Connect to the origin of a URL; return (socket, proxy)."""
        scheme, host, port = origin_of(url)
        proxy = self.proxy(scheme, host, port)
        context = self.context() if scheme == "https" else None
        sock = (open_socket(host, port, limits) if proxy is None
                else open_proxy(proxy, limits))
        with closed_on_error(sock):
            if context and proxy:
                open_tunnel(sock, proxy, host, port, limits)
            if context:
                sock = start_tls(sock, host, context, limits, proxy)
        return sock, proxy

    def context(self):
        """The TLS context of this run, made once."""
        self.made_context = self.made_context or self.make_context()
        return self.made_context

    def make_context(self):
        try:
            import ssl
        except ImportError:
            raise ConnectionFailed("TLS", "this Python has no ssl module",
                                   lasting=True)
        bundle = (self.settings.args.cacert
                  or self.settings.environ.get("SSL_CERT_FILE")
                  or self.settings.get("cacert"))
        try:
            context = ssl.create_default_context(cafile=bundle)
        except (OSError, ValueError) as problem:
            raise UsageError(
                f"cannot use the CA bundle {bundle}: {reason_of(problem)}",
                "it has to hold PEM certificates")
        # Set by some Pythons, and not named by all: OP_IGNORE_UNEXPECTED_EOF.
        context.options &= ~0x80
        if bundle and hasattr(ssl, "VERIFY_X509_STRICT"):
            # Strict since 3.13, which refuses private CAs without keyUsage.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.settings.args.insecure:
            self.terminal.warn("--insecure: the server's certificate is not"
                               " checked")
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self.load_client_certificate(context)
        return context

    def load_client_certificate(self, context):
        """Load --cert and --cert-key, with a password if it takes one."""
        args = self.settings.args
        if not args.cert:
            return
        pem = read_file(args.cert_key or args.cert)
        password = self.password() if b"ENCRYPTED" in pem else ""
        try:
            context.load_cert_chain(args.cert, args.cert_key, password)
        except (OSError, ValueError) as problem:
            key = f" with the key {args.cert_key}" if args.cert_key else ""
            reason = ("wrong password of the key (XEROTIER_CERT_PASSWORD)"
                      if password else reason_of(problem))
            raise UsageError("cannot use the client certificate"
                             f" {args.cert}{key}: {reason}",
                             "both are PEM, the key that of the certificate")

    def password(self):
        """The password of an encrypted key: from the variable, or asked."""
        text = self.settings.environ.get("XEROTIER_CERT_PASSWORD")
        if not text:
            text = self.terminal.ask_secret(
                "Password of the client key: ",
                "set XEROTIER_CERT_PASSWORD: the client key is encrypted")
        self.terminal.hide(text)
        return text


def exchange(request, network, limits, connect_limits):
    """Send one request; return its open Answer, whatever the status."""
    import http.client
    origin = scheme, host, port = origin_of(request.url)
    sock, proxy = network.reuse(origin) or network.open(request.url,
                                                        connect_limits)
    with closed_on_error(sock):
        wire = Wire(sock, limits, network.keeper(origin, proxy))
        client = http.client.HTTPConnection(host, port)
        client.default_port = 443 if scheme == "https" else 80
        client.sock = wire
        relay = proxy if scheme == "http" else None
        answer = Answer(ask(client, wire, request, relay), wire, request.url)
        if relay and answer.status == 407:
            raise relay.refused(407, answer.response.reason)
        return answer


def is_passing(error):
    """Whether a failure may be over at the next attempt."""
    if isinstance(error, ConnectionFailed):
        return not error.lasting
    return isinstance(error, ApiError) and not error.is_used_up and (
        error.status in (408, 429) or error.status >= 500
        and error.status != 501)


def is_worth_repeating(request, error):
    """Whether asking again can help, and cannot do the same thing twice."""
    if isinstance(error, ConnectionFailed):
        return not error.lasting and (request.repeatable or not error.sent)
    # A 503 is sent by a router that did not act (router-api.md, 2.2).
    return error.is_busy or (error.status in (408, 500, 502, 504)
                             and request.repeatable)


def retry_wait(error, attempt, clock):
    """Seconds until the next attempt: what the server asks for, or more.

    Exponential backoff with up to a quarter of jitter; a retry_strategy in
    the answer sets its numbers.
    """
    strategy, asked = (error_fact(error.body, name)
                       for name in ("retry_strategy", "retry_after"))
    said = [dig(strategy, name) for name in (
        "multiplier", "initial_delay_ms", "max_delay_ms")]
    factor, initial, highest = (
        min(value, 1e9) / unit if is_positive(value) else usual
        for value, unit, usual in zip(said, (1, 1000, 1000), (2,) + BACKOFF_S))
    wait = initial * factor ** min(attempt - 1, 30)
    if dig(strategy, "jitter") is not False:
        wait *= 1 + clock.jitter() / 4
    waits = [min(wait, highest), min(asked, 1e9) if is_positive(asked) else 0]
    for name, unit in ("Retry-After", 1), ("Retry-After-Ms", 1000):
        value = error.headers.get(name, "")
        waits.append(header_seconds(value, clock.now()) / unit)
    waits += map(float, re.findall(  # Google's
        r'"retryDelay":"(\d{1,9}(?:\.\d+)?)s"', compact_json(error.body)))
    return max(waits)


def redirected(request, answer):
    """Return the request that a redirect asks for, or raise.

    Only a GET is followed, and only on its own origin: a key never leaves
    the scheme, host and port that it was meant for.
    """
    from urllib.parse import quote, urljoin
    target = quote(answer.headers["Location"].encode("latin-1", "replace"),
                   safe=URL_CHARACTERS)
    with suppress(ValueError):  # no URL, and so not of this origin
        target = urljoin(request.url, target).partition("#")[0]
    if request.writes or not is_same_origin(target, request.url):
        raise AnswerError(
            f"HTTP {answer.status}: the server redirects {request.method} to"
            f" {bare_url(target)}, which is not followed",
            "if that is the right server, put it in the base URL",
            request_id=answer.request_id)
    return Request(request.method, target, request.headers, request.body,
                   request.silence)


def shown_header(name, value, key):
    """A header's value as it may be shown: no key, no other secret."""
    if key and value in (key, "Bearer " + key):
        return value[:-len(key)] + redacted_key(key)
    if not re.search(SECRET_NAME + "|auth|cookie", name):
        return value
    scheme, _, secret = value.partition(" ")
    return f"{scheme} …" if secret else "…"


class Api:
    """JSON in, JSON out, against one deployment.

    options are the parsed global flags, timeout the seconds of silence that
    beat the defaults.
    """

    def __init__(self, deployment, network, options, timeout, terminal, plan,
                 deadline):
        self.deployment, self.network = deployment, network
        self.options, self.timeout, self.plan = options, timeout, plan
        self.terminal, self.clock = terminal, terminal.clock
        self.deadline, self.retries = deadline, options.retries
        if deployment.key:
            terminal.hide(deployment.key)
        self.is_checked = False

    def check_transport(self):
        """Warn once of a key that would travel readable for everyone."""
        scheme, host, port = origin_of(self.deployment.base_url)
        if self.is_checked or scheme != "http" or not self.deployment.key:
            return
        self.is_checked = True
        proxy = self.network.proxy(scheme, host, port)
        for there in [proxy.host, host] if proxy else [host]:
            if not is_loopback(there):
                return self.terminal.warn("the key travels unencrypted to"
                                          f" {there} (http, not https)")

    def request(self, method, path, slug=None, query=None, body=None,
                headers=None, accept="application/json", silence=TIMEOUT_S):
        """Build the request for a path below /v1.

        slug makes it endpoint-scoped; query is (name, value) pairs; a full
        URL as path must be of the deployment's own origin.
        """
        url = self.url(path, slug)
        pairs = [(whole(k), whole(text_or_json(v))) for k, v in query or ()]
        if pairs:
            from urllib.parse import urlencode
            url += ("&" if "?" in url else "?") + urlencode(pairs)
        return Request(method, url, self.headers(accept, body, headers), body,
                       self.timeout or silence)

    def url(self, path, slug):
        if not re.match(r"https?://", path):
            return self.deployment.url(path, slug)
        if not is_same_origin(path, self.deployment.base_url):
            raise UsageError(
                f"{shown_url(path)} is not on the deployment's origin",
                "the key is meant for " + self.deployment.base_url)
        return path

    def headers(self, accept, body, more):
        """The headers of one request; --header beats all of them."""
        headers = {"User-Agent": USER_AGENT, "Accept": accept}
        if self.deployment.key:
            headers["Authorization"] = "Bearer " + self.deployment.key
        if body is not None:
            headers["Content-Type"] = getattr(body, "media",
                                              "application/json")
        headers.update(more or {})
        if self.options.header:
            given = dict(self.options.header)
            names = {name.lower() for name in given}
            headers = {name: headers[name] for name in headers
                       if name.lower() not in names}
            headers.update(given)
        return headers

    def call(self, method, path, stand_in=None, **parts):
        """Send one request; return its decoded JSON.

        stand_in is what a plan goes on with in place of the answer.
        """
        request = self.request(method, path, **parts)
        if self.plan.takes(request):
            return self.plan.add(request, stand_in)
        answer = self.send(request, self.read_json)
        if answer is None:
            return {}
        if request.writes:
            check_write(answer, method)
        return answer

    def open(self, method, path, **parts):
        """Send one request; return its Answer, open unless it is JSON."""
        request = self.request(method, path, **parts)
        if self.plan.takes(request):
            self.plan.add(request, None)
        return self.send(request, self.settled)

    def settled(self, answer, is_json=False):
        """An answer whose body is read if it is JSON; else it stays open.

        Read here, a lost body is asked for again like any lost answer.  One
        that says that it is too large for that stays open, too.
        """
        size = answer.response.length or 0
        if is_json or answer.media.endswith("json") and (
                size <= MOST_ANSWER_BYTES):
            with answer:
                answer.kept = answer.read()
            self.log_body("<", lambda: redacted(json_or_text(decoded(
                answer.kept))))
        return answer

    def read_json(self, answer):
        return check_answer(self.settled(answer, True).json())

    def send(self, request, read):
        """Send until read(answer) succeeds or trying again is no use.

        None stands for what a DELETE finds gone when it is repeated: its
        first attempt did it, and the answer was lost.
        """
        self.check_transport()
        for attempt in range(1, self.retries + 2):  # the last one raises
            try:
                return read(self.follow(request, attempt))
            except (ApiError, ConnectionFailed) as error:
                if (attempt > 1 and request.method == "DELETE"
                        and error.status == 404):
                    return None
                self.wait_for_retry(request, error, attempt)

    def once(self, act):
        """Do something whose requests are asked again by the caller."""
        retries, self.retries = self.retries, 0
        try:
            return act()
        finally:
            self.retries = retries

    def wait_for_retry(self, request, error, attempt):
        """Sleep until the next attempt, or raise the error for good."""
        error.url = bare_url(request.url)
        if not is_worth_repeating(request, error):
            if getattr(error, "layer", None) == "HTTP" and not error.hint:
                error.hint = "it may have been acted on; -v shows the request"
            raise error
        self.pause(error, attempt)

    def pause(self, error, attempt):
        """Sleep until the next attempt, or raise the error of the last."""
        if attempt > self.retries:
            error.add_hint("try again later, or raise --retries")
            raise error
        wait = retry_wait(error, attempt, self.clock)
        if wait > LONGEST_WAIT_S:
            error.hint = ("the server asks to wait "
                          f"{as_duration(wait)}: try again after that")
            raise error
        if self.deadline and self.clock.monotonic() + wait > self.deadline:
            raise error
        self.terminal.note(f"{error}: attempt {attempt + 1} of "
                           f"{self.retries + 1} in {as_duration(wait)}")
        self.clock.sleep(wait)

    def follow(self, request, attempt):
        """Send a request, redirects included; return a good Answer."""
        for _ in range(MOST_REDIRECTS + 1):
            answer = self.logged(request, attempt)
            if answer.status < 300:
                return answer
            with answer:
                if answer.status >= 400 or not answer.headers.get("Location"):
                    text = ""
                    with suppress(XeroctlError):  # the status says enough
                        text = decoded(answer.read())
                    error = api_error(answer, text)
                    self.log_body("<", lambda: redacted(error.body or text))
                    raise error
                request = redirected(request, answer)
        raise AnswerError(f"more than {MOST_REDIRECTS} redirects, the last"
                          f" to {bare_url(request.url)}")

    def logged(self, request, attempt):
        """Exchange, with the line of -v and what -vv adds."""
        started = self.clock.monotonic()
        self.log_headers(">", request.headers)
        if request.body is not None:
            self.log_body(">", request.shown_body)
        limits = Limits(self.clock, request.silence, self.deadline)
        connecting = Limits(self.clock, self.timeout or TIMEOUT_S,
                            self.deadline)
        result, request_id = "failed", "-"
        try:
            answer = exchange(request, self.network, limits, connecting)
            result, request_id = answer.status, answer.request_id or "-"
        finally:
            if self.options.verbose:
                took = (self.clock.monotonic() - started) * 1000
                self.terminal.say(
                    f"{request.method} {request.url} {result} {took:.0f} ms"
                    f" {request_id} attempt {attempt}", DIM)
        self.log_headers("<", answer.headers)
        return answer

    def log_headers(self, mark, headers):
        if self.options.verbose > 1:
            for name, value in headers.items():
                value = shown_header(name, value, self.deployment.key)
                self.terminal.say(f"{mark} {name}: {value}", DIM)

    def log_body(self, mark, shown):
        if self.options.verbose > 1:
            body = self.terminal.err.secrets.masked_json(shown())
            self.terminal.say(f"{mark} {text_or_json(body)}", DIM, True)


# ---------------------------------------------------------------------------
# 7. Streams
# ---------------------------------------------------------------------------

DONE, WHOLE = "[DONE]", "whole answer"
OURS = r"(message|error|response\..*)?\Z"  # events that have to be JSON
TERMINAL_EVENTS = ("response.completed", "response.failed",
                   "response.incomplete", "response.cancelled",
                   "response.done")  # OpenRouter's


def sse_lines(blocks):
    """Yield lines, ends included, from blocks of bytes that split anywhere.

    A line ends with CRLF, LF or CR (WHATWG HTML, 9.2.5).  A CR ends its line
    at once, without waiting for the LF that may follow in the next block.
    Only the last line may lack its end.
    """
    rest, after_cr = bytearray(), False
    for block in blocks:
        rest += block[after_cr and block[:1] == b"\n":]
        after_cr = block[-1:] == b"\r"
        if rest and (after_cr or b"\n" in block or b"\r" in block):
            lines = bytes(rest).splitlines(True)
            rest.clear()
            if lines[-1][-1:] not in (b"\n", b"\r"):
                rest += lines.pop()
            yield from lines
        if len(rest) > MOST_LINE_BYTES:
            raise AnswerError("a line of the stream is larger than "
                              + as_size(MOST_LINE_BYTES))
    if rest:
        yield bytes(rest)


def is_own_event(data, field):
    """Whether data is complete before another field: a comment, or JSON."""
    if not re.match(rb"event(:|$)|error:|data:\s*[{[:]", field):
        return False
    return data[:1] == ":" or json_or_text(data, SERVER_DECODER) is not data


def sse_events(blocks):
    """Yield (event, data, is_whole) for each server-sent event.

    WHATWG HTML, 9.2.6: fields up to a blank line make an event, several data
    fields are joined by newlines, one space after the colon belongs to the
    syntax, an event without data is none, one byte order mark may come
    first.  Beyond it, a last event without its blank line counts; is_whole
    is false if even its last line lacks an end; a field after data that is a
    JSON text of its own begins an event, as it has to where servers leave
    the blank lines out; the field error (llama.cpp, until 2025) is an event
    of that name.
    """
    lines = sse_lines(blocks)
    first = next(lines, b"")
    if first.startswith(codecs.BOM_UTF8):
        first = first[3:]
    event, data, line = "", [], b""
    for line in chain([first], lines):
        bare = line.rstrip(b"\r\n")
        if not bare or data and is_own_event("\n".join(data), bare):
            if data:
                yield event, "\n".join(data), True
            event, data = "", []
            if not bare:
                continue
        field, _, value = bare.partition(b":")
        if field == b"data":
            data.append(value[value[:1] == b" ":].decode("utf-8", "replace"))
        elif field == b"event":
            event = value[value[:1] == b" ":].decode("utf-8", "replace")
        elif field == b"error":
            event = "error"
            data.append(value.strip().decode("utf-8", "replace"))
    if data:
        yield event, "\n".join(data), line[-1:] in (b"\n", b"\r")


def api_events(blocks):
    """Yield (kind, payload) for each JSON event, up to the terminal one.

    kind is the event field ("message" counts as absent), else the payload's
    type, else its object.  Raise a StreamError for an error the server
    tells, and ConnectionFailed if the stream ends before [DONE] or a
    terminal response event: whether it was complete is the caller's to say.
    """
    payload = None
    for event, data, is_whole in sse_events(blocks):
        if data[:1] != "{":
            data = re.sub(r"\A(data:\s*)*", "", data)  # put there twice
            if data.strip() == DONE:
                return
            if data[:1] in ":" or "{" not in data and (
                    not re.match(OURS, event)):
                continue  # kept alive
        try:
            payload = parse_json(data, SERVER_DECODER)
        except ValueError:
            if not is_whole:
                break
            raise AnswerError("an event of the stream is no JSON: "
                              + body_summary(data))
        if not isinstance(payload, dict):
            continue
        kind = event if event and event != "message" else (
            payload.get("type") or payload.get("object"))
        if kind == "error" or (
                "error" in payload or not payload.get("choices")) and (
                payload.get("object") == "error" or told_error(payload)
                or payload.get("error_message")
                and kind in (None, "chat.completion.chunk")):
            raise no_answer(payload, "broke off the stream", "the server",
                            StreamError)
        yield kind, payload
        if kind in TERMINAL_EVENTS:
            return
    raise ConnectionFailed(
        "HTTP", "the stream ended before " + (
            "it began" if payload is None else "the answer was complete"),
        "asked without a stream, the server may say why", sent=True)


def let_go_after(blocks, flush):
    """Yield blocks; what came of one is let go before the next is awaited."""
    for block in blocks:
        yield block
        flush()


def answer_events(answer, blocks):
    """The events of an answer and its body, as api_events yields them.

    Whether it is a stream tells what comes, not what was asked for; a body
    that is none is the one and only event.
    """
    is_field = re.compile(rb"(data|event|id|retry|error)?:").match
    first = b""
    for block in blocks:
        first += block
        if len(first.strip()) > len("event:") or len(first) > BLOCK:
            break
    start, said = first.lstrip(codecs.BOM_UTF8 + b" \r\n"), answer.media
    if is_field(start) or (said == "text/event-stream"
                           and start[:1] not in (b"{", b"[", b"<")):
        return api_events(chain([first], blocks))
    text = decoded(held(chain([first], blocks))).rstrip()
    if text.endswith(DONE):
        text = re.sub(r"\s+data: ?\[DONE\]\Z", "", text)
    return [(WHOLE, json_of(answer, text))]


# == files: read from any place, written whole or not at all =================

def utf8_text(raw):
    """Decode UTF-8; raise a ValueError that says where it is none."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise ValueError(f"not UTF-8 at byte {problem.start + 1}")


def parse_line(raw, decoder=DECODER):
    """Decode a line of JSON Lines; raise ValueError with what is wrong."""
    try:
        return parse_json(raw.decode("utf-8").rstrip(" \t\r\n"), decoder)
    except UnicodeDecodeError:
        return utf8_text(raw)  # which says where it is none
    except json.JSONDecodeError as problem:
        raise ValueError(
            "a blank line" if not problem.doc
            else "begins with a byte order mark, which is no JSON"
            if problem.doc[0] == "\ufeff"
            else f"not JSON: {problem.msg.replace(' starting at', '')} at"
                 f" column {problem.colno}")
    except ValueError as problem:
        raise ValueError(f"not JSON: {problem}")


class Source:
    """An input file that is read in pieces, from any place, repeatedly.

    name is what errors call it, unit what they call a line of it; the file
    is open for reading, in binary.  start is where the first line begins;
    is_made and digest tell of lines that requests are made of.
    """

    unit, start, is_made, digest = "line", 0, False, None

    def __init__(self, file, name, is_stdin=False):
        self.file, self.name, self.is_stdin = file, name, is_stdin
        self.stamp = self.current()
        self.size = self.stamp[0]

    def current(self):
        about = os.fstat(self.file.fileno())
        return about.st_size, about.st_mtime_ns

    def check_unchanged(self):
        """Raise if somebody has written to the file since it was opened."""
        if self.current() != self.stamp:
            raise UsageError(f"{self.name} has changed while it was read")

    def lines(self):
        """Yield the lines as bytes with their ends: \\n alone ends one."""
        self.file.seek(0)
        yield from self.file

    def parse(self, raw, number):
        """The request that a line holds; raise ValueError with its fault."""
        return parse_line(raw)

    def read(self, start, end):
        """Return the bytes from start to before end."""
        self.file.seek(start)
        return self.file.read(end - start)

    def blocks(self, spans):
        """Yield the bytes of (start, end) spans, all of one moment."""
        self.check_unchanged()
        for start, end in spans:
            while start < end:
                block = self.read(start, min(end, start + BLOCK))
                if not block:
                    raise UsageError(f"{self.name} has become shorter while"
                                     " it was read")
                start += len(block)
                yield block
        self.check_unchanged()


def spooled(blocks):
    """Keep what comes only once in a temporary file that has no name."""
    import tempfile
    with writing("a temporary file"):
        file = tempfile.TemporaryFile()
        with closed_on_error(file):
            file.writelines(blocks)
            file.flush()
    return file


def blocks_of(file):
    """What is left of a file, in blocks."""
    return iter(lambda: file.read(BLOCK), b"")


class Excerpt:
    """What an upload sends: a source, or some spans of it, under a name."""

    def __init__(self, source, name=None, spans=None):
        self.source = source
        self.name = name or os.path.basename(source.name)
        self.spans = [(0, source.size)] if spans is None else spans
        self.size = sum(end - start for start, end in self.spans)

    def blocks(self):
        """Yield the bytes, which are those of one moment."""
        return self.source.blocks(self.spans)


def open_to_write(path):
    """Open a file for reading and writing, made if missing, and claim it.

    A file that has been renamed or removed meanwhile is not the one.
    """
    while True:
        with writing(path, UsageError):
            if is_special(path):
                raise OSError(None, "it is no regular file")
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        # By itself Python 3.14 would hold back two blocks of a download.
        file = os.fdopen(number, "r+b", 8192)
        with closed_on_error(file):
            if not try_lock(file):
                raise UsageError(f"another run is writing {path}",
                                 "wait for its end, or choose another file")
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(number), os.stat(path)):
                    return file
        file.close()


class NewFile(AbstractContextManager):
    """A file that takes its place only once it is whole.

    It grows in PATH.part, beside what a link leads to.  PATH.part.json
    tells that this is ours, and of which URL, version and size the bytes
    are; what is not ours is left as it is, unless by force.  may_replace
    tells whether what is in its place in the end is replaced, is_resumed
    whether a part that is left behind is of use.
    """

    may_replace = True

    def __init__(self, path, force, url=None):
        self.path, self.count, self.is_resumed = path, 0, url is not None
        self.target = os.path.realpath(on_disk(path))
        self.part = self.target + ".part"
        self.about = self.part + ".json"
        for name in (path, self.part, self.about):
            if is_special(os.path.realpath(on_disk(name))):
                raise UsageError(f"cannot write {name}: it is no regular file")
        self.known = {"url": url, "version": None, "size": None}
        found = self.recall()
        if found is None:
            self.claim(force)
        self.file, size = open_to_write(self.part), 0
        with closed_on_error(self):
            keep_access(self.file.fileno(), self.target, 0o777)
            if self.is_resumed and found and found["url"] == url:
                self.known, size = found, os.fstat(self.file.fileno()).st_size
            self.restart(size)
            self.begin(self.known["version"], self.known["size"])

    def recall(self):
        """What PATH.part.json says, if that is ours; else None."""
        with suppress(UsageError, ValueError, TypeError):
            found = parse_json(decoded(read_file(self.about, size=BLOCK)))
            if isinstance(found, dict) and set(found) == set(self.known) and (
                    re.match(r"[ -~\xa0-\xff]*\Z", found["version"] or "")):
                return found
        return None

    def claim(self, force):
        """Take the names beside the target, where nothing stands yet."""
        for path in (self.part, self.about):
            if force:
                remove_quietly(path)
            if os.path.lexists(path):
                raise UsageError(f"{path} exists, and nothing tells that it"
                                 " is ours", "--force replaces it")
        self.begin(None, None, UsageError)

    def begin(self, version, size, error=XeroctlError):
        """Take note of what the bytes that follow belong to."""
        self.known.update(version=version, size=size)
        with writing(self.path, error):
            write_privately(self.about, pretty_json(self.known).encode())

    def __exit__(self, *_):
        if not self.file.closed and (not self.count or not self.is_resumed):
            remove_quietly(self.part)
            remove_quietly(self.about)
        with suppress(OSError):  # told before, by the write
            self.file.close()

    def restart(self, count=0):
        """Keep only so many bytes, the first."""
        self.count = count
        with writing(self.path):
            self.file.seek(count)
            self.file.truncate()

    def write(self, block):
        with writing(self.path):
            self.file.write(block)
        self.count += len(block)

    def finish(self):
        """Put the file in its place."""
        if not self.may_replace and os.path.lexists(self.target):
            raise UsageError(f"{self.path} exists by now",
                             "--force replaces it")
        with writing(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
            if os.name == "nt":
                self.file.close()  # Windows renames no open file
            os.replace(self.part, self.target)
            remove_quietly(self.about)
            self.file.close()


# ---------------------------------------------------------------------------
# 8. Output
# ---------------------------------------------------------------------------

def as_brief(value):
    """At most 120 characters, as the product's page has a description."""
    text = as_text(value)
    return text if len(text) <= 120 else text[:119] + "…"


CELL_FORMATS = {"": as_text, "time": as_time, "size": as_size,
                "seconds": as_duration, "list": as_list, "pairs": as_pairs,
                "count": as_count, "rate": as_rate, "brief": as_brief,
                "keys": lambda value: as_text(  # how many there are
                    len(value) if isinstance(value, dict) else value),
                # Some servers wrap it in an object (llama.cpp).
                "state": lambda value: as_text(dig(value, "value") or value),
                "content": lambda value: content_text(value) or "-",
                "said": as_said, "lines": as_said}
RECORD_FORMATS = {  # which look at the whole record
    "item": lambda value, record: "-" if value is None else as_said(record),
    "percent": lambda value, record: as_percent(value, dig(record, "target")),
    "progress": as_progress}
TEXT_FORMATS = "", "list", "pairs", "content", "said", "lines", "item"


class Column:
    """A head, the places of its value, and its format.

    A place is a dotted path, or the name of a member as it is; the first
    one that leads to a value wins.  A wide one is in the wide forms only.
    """

    def __init__(self, head, paths, format="", is_wide=False):
        self.head, self.paths = head, paths
        self.format, self.is_wide = format, is_wide

    def value(self, record):
        """The raw value in a record; None if it has none."""
        members = record if isinstance(record, dict) else {}
        found = (members.get(path, dig(record, path)) for path in self.paths)
        return next((value for value in found if value is not None), None)

    def text(self, record, now, is_short=False):
        """The value as a person reads it; short, times are ages."""
        value = self.value(record)
        if self.format == "age" or is_short and self.format == "time":
            return as_age(value, now)
        if self.format in RECORD_FORMATS:
            return RECORD_FORMATS[self.format](value, record)
        return CELL_FORMATS[self.format](value)

    def style(self, text):
        """The style of a cell: a state has a colour."""
        return (STATE_STYLES.get(text.lower())
                if self.format == "state" else None)


def as_column(spec):
    """The column of "Head=path|other.path:format"; one that is made stays.

    Without a path the head is it; one that begins with + is wide.
    """
    if isinstance(spec, Column):
        return spec
    place, _, form = spec.partition(":")
    head, _, paths = place.lstrip("+").partition("=")
    paths = (paths or head.lower().replace(" ", "_")).split("|")
    paths += [re.sub("_([a-z])", lambda found: found.group(1).upper(), path)
              for path in paths if "_" in path]  # as some servers spell it
    return Column(head, paths, form, place[:1] == "+")


def key_column(key):
    """The column of a key that may be spelled in any way."""
    is_time = re.search(r"(_at|At|\Acreated|\Atimestamp)\Z", key)
    return Column(key, [key], "time" if is_time else {
        "status": "state", "compliance": "percent"}.get(key, ""))


# Where servers put the records of a list.
RECORD_KEYS = "data", "models", "items", "results"


def page_records(page):
    """Return the list of records in an answer, wherever it stands.

    null under a known name is an empty list, from now on; under any other
    name it has to be the only list of objects.
    """
    if isinstance(page, list):
        return page
    members = page if isinstance(page, dict) else {}
    for kind in (list, type(None)):
        for key in RECORD_KEYS:
            if key in members and isinstance(members[key], kind):
                members[key] = members[key] or []
                return members[key]
    if isinstance(members.get("data"), dict):
        return page_records(members["data"])
    found = [value for key, value in members.items()
             if key != "errors" and isinstance(value, list)
             and all(isinstance(item, dict) for item in value)]
    if len(found) != 1:
        raise no_answer(page, "holds no list")
    return found[0]


def merged(pages):
    """One list object out of several pages, complete and of one shape."""
    first, *rest = pages
    for page in rest:
        page_records(first).extend(page_records(page))
        if isinstance(first, dict) and "last_id" in page:
            first["last_id"] = page["last_id"]
    if rest and "has_more" in first:
        first["has_more"] = False
    return first


def columns_of(records):
    """One column for each key that any of the records has."""
    keys = chain.from_iterable(
        record for record in records if isinstance(record, dict))
    return list(map(key_column, dict.fromkeys(keys)))


def check_record(item, columns):
    """Raise unless it is an object that has its id, if it has to have one,
    or something of what is shown of it."""
    ids = [column for column in columns if column.head == "ID"]
    if not isinstance(item, dict) or all(
            column.value(item) is None for column in ids or columns):
        raise no_answer(item, "has no id" if len(ids or columns) == 1
                        else "holds nothing that can be shown")


def id_of_record(item, id_path):
    """The id of a record for a line of its own; raise if it has none."""
    value = as_column("ID=" + id_path).value(item)
    if value in (None, ""):
        raise no_answer(item, "has no " + id_path.partition("|")[0])
    return one_line(as_text(value))


def cell_text(value):
    """A raw JSON value as a cell of a CSV file."""
    return "" if value is None else text_or_json(value)


def csv_text(rows, line_end, delimiter=","):
    """Render rows of raw JSON values after RFC 4180.

    The module csv refuses a NUL in 3.10, and leaves a CR bare before 3.13.
    """
    def cell(value):
        text = cell_text(value)
        return '"{}"'.format(text.replace('"', '""')) if re.search(
            f'[{delimiter}"\r\n]', text) else text
    return "".join((delimiter.join(map(cell, row)) or '""') + line_end
                   for row in rows)


def planned_headers(request):
    """The headers of a request that say something about it."""
    # That of a form has a boundary made for one time.
    of_form = "Content-Type" * isinstance(request.body, Multipart)
    return [(name, value) for name, value in request.headers.items()
            if name not in ("User-Agent", "Accept", of_form)]


def curl_network(url, network):
    """What curl calls the flags on certificates and a proxy; no password."""
    args = network.settings.args
    proxy = args.proxy and re.sub(r"^([a-z]+:[/\\]+)?([^:@]*).*@", r"\1\2@",
                                  args.proxy, flags=re.I)
    words = [f"{name} {shell_word(value)}" for name, value in (
        ("--cacert", args.cacert), ("--cert", args.cert),
        ("--key", args.cert_key), ("--proxy", proxy)) if value is not None]
    if args.insecure:
        words.append("--insecure")
    found = args.proxy is None and network.proxy(*origin_of(url))
    return words + ([f'--proxy "${found.source}"'] if found else [])


def curl_command(request, key, network):
    """Return the curl command that sends a request, without the key."""
    how = "-I" if request.method == "HEAD" else f"-X {request.method}"
    options = "-sS" + "g" * bool(re.search(r"[][{}]", request.url))
    if request.headers.get("Accept") == "text/event-stream":
        options += "N"
    words = [f"curl {options} {how} {shell_word(request.url)}"]
    for name, value in planned_headers(request):
        if key and value == "Bearer " + key:
            words.append('-H "Authorization: Bearer $XEROTIER_API_KEY"')
        else:
            value = shown_header(name, value, key)
            words.append(f"-H {shell_word(f'{name}: {value}')}")
    if isinstance(request.body, Multipart):
        words += request.body.curl_words()
    elif request.body is not None:
        body = shell_word(whole(text_or_json(request.shown_body())))
        words.append(f"--data-raw {body}")
    return " \\\n  ".join(words + curl_network(request.url, network))


def planned_request(request, key):
    """A request as the object that -o json shows of a dry run."""
    shown = {"method": request.method, "url": request.url,
             "headers": {name: shown_header(name, value, key)
                         for name, value in planned_headers(request)},
             "body": request.shown_body()}
    return dict(shown, about=request.about) if request.about else shown


def planned_text(shown):
    """A planned request as a person reads it."""
    if "curl" in shown:
        return shown["curl"]
    lines, body = [f"{shown['method']} {shown['url']}"], shown["body"]
    if "about" in shown:
        lines.insert(0, one_line(f"# {shown['about']}"))
    lines += [f"{name}: {value}" for name, value in shown["headers"].items()]
    if body is not None:
        lines += ["", body if isinstance(body, str) else pretty_json(body)]
    return "\n".join(lines)


class Strip:
    """A column of a table: its cells, and to how many each may be cut."""

    def __init__(self, column, cells, is_key):
        self.column, self.cells = column, cells
        self.full = self.width = max(map(display_width, cells))
        is_id = is_key or re.search(r"((\b|_)(id|slug)|Id)\Z",
                                    column.paths[-1])
        is_text = column.format in TEXT_FORMATS and not is_id
        self.least = 12 if is_text else self.full
        is_state = column.format == "state" or column.head.lower() == "status"
        self.rank = 2 if is_key else 1 if is_state else 0


def fits(strips, room):
    """Whether columns fit side by side, their texts cut if need be."""
    for strip in strips:
        strip.width = min(strip.full, max(strip.least, room))
    while sum(strip.width + 2 for strip in strips) - 2 > room:
        cut = max(strips, key=lambda s: s.width * (s.width > s.least))
        if cut.width <= cut.least:
            return False
        cut.width -= 1
    return True


def drop_to_fit(strips, room):
    """Leave out the last of least rank until all fit, or an id cannot."""
    key = max(strips, key=lambda strip: strip.rank)
    while not fits(strips, room) and len(strips) > 1 + (key.full > room):
        strips.remove(min(strips[::-1], key=lambda strip: strip.rank))


class Out:
    """Standard output in the form that was asked for.

    Once something is planned rather than sent, results are what a plan made
    up: they are not shown, the plan is.  With steps to pick, JSON is only
    what they lead to; if that is nothing, writes is what lets all be shown.
    """

    def __init__(self, terminal, form, plan, pick, writes):
        self.terminal, self.screen = terminal, terminal.out
        self.form, self.plan = form, plan
        self.pick, self.writes, self.has_picked = pick, writes, False
        self.is_table = form in (TABLE, WIDE)
        self.masked = terminal.secrets.masked_json

    def write(self, text, style=None, hidden=UNSEEN):
        """Write a piece of a result."""
        if not self.plan.requests:
            text = self.terminal.secrets.masked(text)
            self.screen.write(self.screen.shown(text, hidden), style)

    def write_bytes(self, block):
        if not self.pick or self.writes:
            self.screen.write_bytes(block)
            self.screen.flush()

    def text(self, text):
        """A text as it is, in whatever form."""
        self.write(text, hidden=CONTROLS)

    def line(self, text, style=None):
        self.write(text, style)
        self.write("\n")

    def json(self, value, layout=pretty_json):
        """One JSON document, or what is to be picked of it."""
        if self.plan.requests:
            return
        value = self.masked(value)
        found = list(picked(value, self.pick)) if self.pick else ()
        for each in found:
            self.text(text_or_json(each) + "\n")
        if not self.pick or self.writes and not found:
            self.screen.write_json(layout(value) + "\n")
        if self.pick and not found:
            names = (list(value)[:MOST_PROBLEMS] if isinstance(value, dict)
                     else ["*"] if value and isinstance(value, list) else [])
            raise XeroctlError(f"{'.'.join(self.pick)} leads to nothing", (
                "it begins with " + " or ".join(names)) if names else None)
        self.has_picked = True

    def json_line(self, value):
        """One JSON value of several, on a line of its own."""
        self.json(value, compact_json)

    def rows(self, pages, specs, things="items", id_path="id"):
        """Show and return a list in pages, each the API's own or a list."""
        if self.form in (JSONL, ID, CSV):
            for number, page in enumerate(pages):  # shown as it comes
                self.lines(page_records(page), specs, id_path, not number)
            return page
        page = merged(pages)
        records = page_records(page)
        if self.form == JSON:
            self.json(page)
        elif records:
            self.table(records, specs)
        elif not self.plan.requests:
            self.terminal.note(f"No {things} found.")
        return page

    def lines(self, records, specs, id_path, has_head):
        """Records in a form that has a line for each."""
        if self.form == CSV:
            columns = list(map(as_column, specs))
            rows = [[c.head for c in columns]] * has_head
            rows += [[c.value(record) for c in columns]
                     for record in self.masked(records)]
            line_end = "\n" if self.screen.is_terminal else "\r\n"
            self.write(csv_text(rows, line_end))
        elif self.form == ID:
            self.write("".join(id_of_record(each, id_path) + "\n"
                               for each in records))
        else:
            for record in records:
                self.json_line(record)

    def table(self, records, specs):
        """Columns aligned by display width, two spaces apart."""
        columns = [c for c in map(as_column, specs)
                   if self.form == WIDE or not c.is_wide]
        room, records = self.screen.columns(), self.masked(records)
        strips = self.strips(columns, records)
        if self.form == TABLE and self.screen.is_terminal and not fits(
                strips, room):
            strips = self.strips(columns, records, True)
            drop_to_fit(strips, room)
        for number, cells in enumerate(zip(*(s.cells for s in strips))):
            for strip, text in zip(strips, cells):
                shown = cut_to(text, strip.width)
                self.write(shown, strip.column.style(text) if number else BOLD)
                self.write("\n" if strip is strips[-1] else " " * (
                    strip.width - display_width(shown) + 2))
        left = [c.head for c in columns
                if c not in [strip.column for strip in strips]]
        if left:
            self.terminal.note(f"left out to fit: {', '.join(left)}"
                               " (-o wide shows all)")

    def strips(self, columns, records, is_short=False):
        now = self.terminal.clock.now()
        key = next((c for c in columns if c.head == "ID"), columns[0])
        return [Strip(c, [c.head] + [
            self.screen.shown(one_line(c.text(record, now, is_short)), UNSEEN)
            for record in records], c is key) for c in columns]

    def bars(self, head, values):
        """A line of bars; a terminal has room for the last ones."""
        last = self.screen.columns() - len(head) - 1
        self.line(head + " " + sparkline(
            values[-last:] if self.screen.is_terminal else values))

    def record(self, item, specs, id_path="id"):
        """A single thing: one aligned `Label: value` line per column."""
        if not self.plan.requests:
            check_record(item, list(map(as_column, specs)))
            self.show(item, specs, id_path)

    def show(self, item, specs, id_path="id"):
        """A record, whether or not it is what was asked for."""
        if self.form == JSON:
            self.json(item)
        elif self.is_table:
            self.labels(item, specs)
        else:
            self.lines([item], specs, id_path, True)

    def passing(self, item, *names):
        """One of the things that come now and then, shown at once."""
        if self.is_table:
            item = self.masked(item)
            self.line(one_line("  ".join(
                as_text(dig(item, name)) for name in names)))
        else:
            self.lines([item], (), "id", False)
        self.screen.flush()

    def done(self, answer, text, item_id):
        """What a write did that returns little: a line for a person."""
        if self.is_table or self.form == ID:
            self.line(one_line(text if self.is_table else as_text(item_id)))
        else:
            self.show(answer or {"id": item_id}, ("ID",))

    def outcome(self, name, item_id, error):
        """Tell a person what came of one thing of many."""
        made = f" -> {item_id}" * (item_id != name)
        mark, style, more = ("[OK]", GREEN, made) if error is None else (
            "[FAIL]", RED, f" ({error})")
        if self.is_table:
            self.write(mark, style)
            self.line(one_line(f" {name}{more}"))

    def outcomes(self, outcomes):
        """What came of all: {"id", "ok", "error", …} each."""
        if self.form == ID:
            outcomes = [each for each in outcomes if each["ok"]]
        if not self.is_table:
            self.rows([{"object": "list", "data": outcomes}],
                      ("ID", "OK", "Error"))

    def labels(self, item, specs, is_aligned=True):
        columns, item = list(map(as_column, specs)), self.masked(item)
        width = max([len(c.head) for c in columns] + [0]) + 1
        now = self.terminal.clock.now()
        for column in columns:
            text, label = column.text(item, now), column.head + ":"
            if column.format == "lines" and "\n" in text:
                self.text(label + "\n" + text.rstrip("\n") + "\n")
                continue
            self.write((padded(label, width) if is_aligned else label) + " ")
            self.line(one_line(text), column.style(text))

    def show_plan(self, key, network):
        """Print the requests that were planned, in their order."""
        requests, self.plan.requests = self.plan.requests, []
        shown = [{"curl": curl_command(request, key, network)}
                 if self.plan.curl else planned_request(request, key)
                 for request in requests]
        if self.form not in (JSON, JSONL):
            return self.line("\n\n".join(map(planned_text, shown)))
        if self.form == JSON:
            return self.json(shown[0] if len(shown) == 1 else shown)
        for item in shown:
            self.json_line(item)


# ---------------------------------------------------------------------------
# 9. Declarations
# ---------------------------------------------------------------------------

class Flag:
    """One argument of a verb: spec and help are its line in the help.

    "-m, --message TEXT" takes a value and "--stream" is a switch; "ID" is a
    word, "[ID]" one that may be left out; "--param KEY=JSON…", "ID…" and
    "[ID…]" take several, one at a time.  type converts a text (TYPES), const
    is what a switch stands for; counts: how often it was given.

    sends is the dotted place of its value in the request (body, or query of
    a GET); header the request header that it sets.  many tells of a word
    whether it is one more value of the same flag.  from_stdin: the value
    `-` reads standard input.  needs names the flag without which it means
    nothing; is_ours tells that only the platform knows what it sends.
    completes is what a shell offers for it: "file", "folder", "context", or
    "" for nothing; sample is what an example shows.
    """

    dest = default = sends = header = many = None
    needs = completes = sample = None
    required = counts = from_stdin = is_ours = False
    const = True
    TYPES = {"ID": an_id, "SLUG": an_id, "N": integer(1)}  # by the metavar

    def __init__(self, spec, help, type=None, **options):
        self.__dict__ = options
        self.spec, self.help = spec, help
        names = []
        while spec.startswith("-"):
            name, _, spec = spec.partition(" ")
            names.append(name.rstrip(","))
        self.metavar, self.is_word = spec.strip("[]…"), not names
        self.type = type or self.TYPES.get(self.metavar.partition("|")[0])
        self.is_several = "…" in spec
        self.required = self.required or not names and spec[0] != "["
        self.long_name = max(names or [self.metavar], key=len)
        self.dest = self.dest or self.long_name.lstrip("-").replace(
            "-", "_").lower()
        self.names = tuple(names) or (self.dest,)
        self.takes_value = bool(spec)


flag = Flag  # an argument that stays here, where a field is sent


def field(spec, help, type=None, **options):
    """Declare an argument that is sent in the request, under its own name."""
    declared = Flag(spec, help, type, **options)
    declared.sends = declared.sends or declared.dest
    return declared


def changed(flags, **changes):
    """Yield the same arguments, declared otherwise if they are not so."""
    for declared in flags:
        same = Flag.__new__(Flag)
        vars(same).update(vars(declared), **changes)
        # Examples ask for SLUG itself: what is so already stays what it is.
        yield declared if vars(same) == vars(declared) else same


def text_pair(text):
    """Convert KEY=TEXT to a pair."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{text!r} is not KEY=VALUE")
    return name, value


def json_pair(text):
    """Convert KEY=JSON to a pair."""
    name, value = text_pair(text)
    try:
        return name, parse_json(value)
    except ValueError:
        raise UsageError(f"{value!r} is not JSON (a text needs its quotes: "
                         f"{name}='\"…\"')")


class Null:
    """The null of a JSON argument, which is not an argument left out."""


def json_value(text):
    """Convert JSON, or a text, to a value that counts as given."""
    value = json_or_text(text)
    return Null if value is None else value


def any_pair(text):
    """Convert KEY=VALUE, a value of JSON or a text, to a pair."""
    name, value = text_pair(text)
    return name, json_or_text(value)


def listed(text):
    """Convert A,B,C to a list."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f"{text!r} is not A,B,C")
    return words


def span_of(text):
    """The seconds of 45m, 12h, 30d or 2w; None of anything else."""
    found = re.match(r"(\d{1,9})([mhdw])\Z", text or "")
    units = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
    return found and int(found.group(1)) * units[found.group(2)]


def moment(text):
    """Convert a date, a time with its zone (ISO 8601), or 30d, 12h, 45m."""
    span = span_of(text)
    if span is not None and span <= LONGEST_S:
        return text
    if seconds_of(text) is None:
        raise UsageError(f"{text!r} is no time: 2026-05-27,"
                         " 2026-05-27T14:00:00Z or 7d")
    zone = re.search(r"(Z|[+-]\d\d(:?\d\d)?)\Z", text, re.I)
    if len(text) > 10 and not zone:
        raise UsageError(f"{text!r} has no zone: end it with Z or +02:00")
    return text


def path_steps(text):
    """Convert a dotted path to its steps."""
    if re.search(r"\A\Z|\A\.|\.\.|\.\Z|\[", text):
        raise UsageError(f"{text!r} is no path, as"
                         " choices.0.message.content and data.*.id are")
    return text.split(".")


def fixes(sign, *names):
    """A check that makes ISO times of moments; start and end are in order.

    7d is so long ago (-1) or ahead (+1).
    """
    def fix(app, args):
        for name in names:
            span = span_of(getattr(args, name))
            if span is not None:
                setattr(args, name, iso_text(app.clock.now() + sign * span))
        if len(names) > 1:
            start, end = (getattr(args, name) for name in names)
            if start and end and seconds_of(start) >= seconds_of(end):
                told = " and --".join(names).replace("_", "-")
                raise UsageError(f"--{told} are the wrong way round: {start}"
                                 f" is not before {end}")
    return fix


def is_pair(word):
    """Whether a word is one more KEY=VALUE of the flag before it."""
    return "=" in word


def header_pair(text):
    """Convert NAME: VALUE to a pair that is safe to send (RFC 9110, 5)."""
    name, colon, value = text.partition(":")
    if not colon or not re.match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", name):
        # Not quoted: without its colon it may be a key.
        raise UsageError("this is no NAME: VALUE")
    if re.search(r"[^\t\x20-\x7e\xa0-\xff]", value):
        raise UsageError(f"the value of {name} holds what a header cannot"
                         " carry")
    return name, value.strip()


def sent_fields(args):
    """What the given flags of the verb send, as a JSON object.

    KEY=VALUE pairs are the members of one object; that of a flag which
    sends "*" is the whole one.
    """
    tree = {}
    for declared in args.verb.own:
        value = getattr(args, declared.dest)
        if declared.sends == "*":
            tree.update(value or ())
        elif declared.sends and value is not None:
            is_map = isinstance(value, list) and tuple in map(type, value)
            plant(tree, declared.sends, dict(value) if is_map else
                  None if value is Null else value)
    return tree


def sent_headers(args):
    """The headers that the given flags of the verb set."""
    found = ((declared.header, getattr(args, declared.dest))
             for declared in args.verb.flags if declared.header)
    return {name: str(value) for name, value in found if value is not None}


ITEM = flag("ID", "the id of the item")


class Verb:
    """One thing a group can do: a row of its table.

    One whose path has an {id} in it takes an ITEM before its other flags.
    run(app, group, args) does it.  Its name as a word calls it, and so do
    those of also.  by tells how else: a Flag, by that flag; BARE, by nothing
    at all (list without an id, show with one).  word is the word that all of
    that stands behind, if any (models versions ID --create); excludes names
    the actions that an error says it never goes with.  The summary is data,
    since python -OO strips docstrings.

    The standard verbs call method on path, below the group's own unless it
    begins with //, where {name} stands for an argument.  columns beat the
    group's (ALL_FIELDS makes them of the answer); said tells what a write has
    done that returns little, and asks is the question before it, where {thing}
    is the group's.  once names the member of an answer that is shown this one
    time; checks, one or several, check and complete arguments by
    check(app, args); paging is how a list goes on (PAGING), None for one that
    is whole; id_path is where -o id finds the ids; sample is the id in its
    examples, if it is not that of the group.
    """

    by = word = usage = columns = said = asks = once = None
    paging = id_path = sample = None
    writes, path, method = False, "", "POST"
    excludes = examples = checks = also = ()

    def __init__(self, name, summary, run, *flags, **options):
        self.__dict__ = options
        self.name, self.summary = name, summary
        self.run, self.flags = run, flags
        if "{id}" in self.path and "id" not in [f.dest for f in flags]:
            self.flags = (ITEM,) + flags

    @property
    def by_flag(self):
        return isinstance(self.by, Flag)

    @property
    def own(self):
        """All arguments that it takes, the flag that calls it first."""
        return (self.by,) * self.by_flag + self.flags

    @property
    def places(self):
        """The arguments that are plain words, in their order."""
        return [declared for declared in self.flags if declared.is_word]

    def has(self, name):
        """Whether a flag of this name goes with it."""
        return any(declared.long_name == name for declared in self.flags)

    @property
    def called(self):
        """What an error calls it by: its flag, or its name."""
        return self.by.long_name if self.by_flag else self.name

    @property
    def words(self):
        """The words that call it: get and show are one verb everywhere."""
        same = {"get": ("show",), "show": ("get",)}.get(self.name, ())
        return (self.name,) * bool(self.name) + same + self.also


ALL_FIELDS = "*",
BARE = "bare"


def by_flag(*verbs):
    """The same rows, called by flag: --NAME, but list and show by nothing."""
    for verb in verbs:
        verb.by = verb.by or (
            BARE if verb.name in ("list", "show") else
            flag("--" + verb.name, verb.summary))
    return verbs


def below(word, *verbs):
    """The same rows, each behind a word of its group."""
    for verb in verbs:
        verb.word = word
    return verbs


LIMIT = field("--limit N", "items per page")
ALL = flag("--all", "follow every page")
# How a list goes on: behind its last id (OpenAI), or by a count.
PAGING = {"after": (LIMIT, field("--after ID", "start after this item"), ALL),
          "offset": (LIMIT, field("--offset N", "skip this many items",
                                  integer(0)), ALL)}


def following(page, query, paging):
    """The query for the page after this one, or None.

    A full page may have a next one, if none says so; a total counts, too.
    """
    records, has_more = page_records(page), dig(page, "has_more")
    if has_more is None:
        has_more = str(len(records)) == str(query.get("limit"))
    if paging == "offset":
        place = int(query.get("offset") or 0) + len(records)
        has_more = has_more or place < counted(dig(page, "total"))
    else:
        place = records and (dig(page, "last_id") or dig(records[-1], "id"))
    goes_on = records and has_more and isinstance(place, (int, str))
    return dict(query, **{paging: place}) if goes_on else None


def each_page(app, fetch, paging, query):
    """Yield page after page of fetch(query=); say so where none is new.

    With no paging the first page tells: one that has a total counts.
    """
    before = asked = None
    while query not in (None, asked):
        page = fetch(query=query.items())
        if page_records(page) == before:
            break  # the server does not know the cursor
        yield page
        before, asked = page_records(page), query
        paging = paging or (
            "offset" if counted(dig(page, "total")) else "after")
        query = following(page, asked, paging)
    if query is not None:
        app.terminal.warn("the server's cursor does not move: the list may"
                          " be cut")


def record_lists(app, path, query, **parts):
    """Yield the records of a list page by page, as far as it goes."""
    fetch = partial(app.api.call, "GET", path, **parts)
    return map(page_records, each_page(app, fetch, "after", query))


class Group:
    """A noun of the command line: where it lives, how it looks, its verbs.

    scope says once for the whole group whether its paths have the endpoint
    slug in them.  default names the verb that may be left out, main the one
    that the help begins with; item is what an id is called there, sample the
    one that examples show, id_path where -o id finds it, and notes what is
    said of the files it is about.  One thing is shown with fields, or with
    the columns and more.
    """

    def __init__(self, name, summary, path="", columns=(), fields=(),
                 verbs=(), scope=PROJECT, default=None, thing=None,
                 sample=None, notes="", main=None, item="ID", id_path="id",
                 more=()):
        self.name, self.summary, self.path = name, summary, path
        self.columns, self.fields = columns, fields or columns + more
        self.verbs, self.scope, self.default = verbs, scope, default
        self.thing = thing or name.rstrip("s")
        self.sample, self.notes = sample or self.thing + "_1", notes
        self.main, self.item, self.id_path = main or default, item, id_path

    def call(self, app, method, path="", **parts):
        """Call the API below the group's path, in the group's scope.

        One that begins with // is below the scope itself.
        """
        path = path[1:] if path.startswith("//") else self.path + path
        return app.api.call(method, path, slug=self.slug(app), **parts)

    def slug(self, app):
        """The slug in the group's paths, which some only ask for."""
        if self.scope == PROJECT or self.scope == GIVEN and not getattr(
                app.args, "endpoint", None):
            return None
        slug = app.slug()
        return None if self.scope == ASKED else slug


def only(name, summary, run, *flags, path="", columns=(), scope=PROJECT,
         **options):
    """A group that is one command, without a word for its verb."""
    return Group(name, summary, path, columns, scope=scope, default="", verbs=(
        Verb("", summary, run, *flags, **options),))


SLUG = flag("--endpoint SLUG",
            "endpoint slug (XEROTIER_ENDPOINT); with --style openai the"
            " model's name")
NAME_FLAG = field("--name NAME", "its name", required=True)
DESCRIPTION = field("--description TEXT", "what it is for")
REGION = field("--region REGION", "where it is")
OF_STATUS = field("--status STATUS", "only those of this status")


def filled(template, args, form=as_list):
    """A text with {name} replaced by what an argument holds."""
    return re.sub(r"{(\w+)}", lambda name: form(
        getattr(args, name.group(1))), template)


def place_of(args):
    """The path of a verb, below args.place if a check has set one."""
    found = filled(args.verb.path, args, quoted)
    return getattr(args, "place", "") + (
        "/" + found if found[:1] not in ("", "/") else found)


def tell_rest(app, args, page):
    """Say, below a page of a list, how to go on to more, if there is."""
    paging = args.verb.paging
    rest = paging and not args.all and following(
        page, sent_fields(args), paging)
    if rest:
        app.terminal.note(f"more exist: --{paging} {shell_word(rest[paging])}"
                          " continues, --all shows everything")


def pages_of(app, group, args):
    """The pages of a verb's list: the one asked for, or all as they come."""
    paging, query = args.verb.paging, sent_fields(args)
    fetch = partial(group.call, app, "GET", place_of(args))
    return (each_page(app, fetch, paging, query) if paging and args.all
            else [fetch(query=query.items())])


def run_list(app, group, args):
    things = args.verb.path.rpartition("/")[2] or group.name
    tell_rest(app, args, app.out.rows(
        pages_of(app, group, args), args.verb.columns or group.columns,
        re.sub("[-_]", " ", things), args.verb.id_path or group.id_path))


def show_item(app, group, args, item):
    """Show one thing, or the list that some writes are answered with."""
    columns = (getattr(args, "columns", None) or args.verb.columns
               or group.fields)
    if args.verb.writes and isinstance(dig(item, "data"), list):
        return app.out.rows([item], columns)
    app.out.record(item, columns_of([item]) if columns == ALL_FIELDS
                   else columns, args.verb.id_path or group.id_path)


def run_show(app, group, args):
    show_item(app, group, args, group.call(
        app, "GET", place_of(args), query=sent_fields(args).items()))


def show_done(app, group, args, answer):
    """Show what a write has returned, or say in words what it did."""
    verb = args.verb
    item_id = getattr(args, "id", None)
    if verb.said or item_id is not None and not answer:
        said = verb.said or verb.name + " of {id} is done"
        return app.out.done(answer, filled(said, args), item_id)
    if item_id is not None and isinstance(answer, dict) and (
            answer.get("id") is None):
        answer = dict(answer, id=item_id)
    if not verb.once or app.plan:
        return show_item(app, group, args, answer)
    app.terminal.err.secrets.add(as_text(id_in(answer, verb.once)))
    app.out.record(answer, (verb.columns or group.fields)
                   + (f"{verb.once}={verb.once}",), verb.once)
    app.terminal.warn(f"keep the {verb.once}: it is not shown again")


def run_write(app, group, args):
    if args.verb.asks:
        question = args.verb.asks.replace("{thing}", group.thing)
        app.confirm(filled(question, args))
    body = sent_fields(args) or (None if hasattr(args, "id") else {})
    answer = group.call(app, args.verb.method, place_of(args), body=body,
                        headers=sent_headers(args))
    show_done(app, group, args, answer)


def run_update(app, group, args):
    if not sent_fields(args):
        raise UsageError("nothing to update: give at least one of "
                         + ", ".join(f.long_name for f in args.verb.flags
                                     if f.sends))
    run_write(app, group, args)


def lists(summary="List items.", *flags, name="list", path=None,
          paging="after", run=run_list, **options):
    """A row of a list; one with a name of its own is that of an item."""
    if path is None:
        path = "" if name == "list" else "{id}/" + name
    return Verb(name, summary, run, *flags, *PAGING.get(paging, ()),
                path=path, paging=paging, **options)


def shows(summary="Show one item.", *flags, name="show", path="{id}",
          run=run_show, **options):
    return Verb(name, summary, run, *flags, path=path, **options)


def acts(name, summary, *flags, path=None, run=run_write, **options):
    path = "{id}/" + name if path is None else path
    return Verb(name, summary, run, *flags, writes=True, path=path, **options)


def creates(summary, *flags, name="create", path="", **options):
    return acts(name, summary, *flags, path=path, **options)


def updates(summary, *flags, name="update", path="{id}", **options):
    """A row of changes: what a new thing has to have, may stay as it is."""
    return acts(name, summary, *changed(flags, required=False), path=path,
                run=run_update, **options)


def deletes(summary="Delete an item.", *flags, name="delete", path="{id}",
            asks="Delete {thing} {id}?", **options):
    return acts(name, summary, *flags, path=path, method="DELETE", asks=asks,
                said="deleted {id}", **options)


# ---------------------------------------------------------------------------
# 10. Engines
# ---------------------------------------------------------------------------

FAILURES = AnswerError, ApiError, ConnectionFailed


# == waiting: poll until something has ended =================================

def made_once(app, make, look_up, is_doubtful=False):
    """What make() makes, or look_up() finds to have been made.

    No status tells what has happened: a proxy says 503 of what the server
    behind it has done, too.  So nothing is made again unless looked up; with
    no look_up it does no harm to be there twice.
    """
    for attempt in range(1, app.api.retries + 2):  # the last one raises
        try:
            found = look_up() if is_doubtful and look_up else None
            return found or app.api.once(make)
        except FAILURES as error:
            if not is_passing(error):
                raise
            app.api.pause(error, attempt)
        is_doubtful = True


def with_status(item):
    """An item whose status is a word of ours; without one it is no answer."""
    status = as_text(dig(item, "status.value") or id_in(item, "status"))
    # Some have them in capitals, or cancelled with one l.
    status = status.lower() if re.match(r"\w+\Z", status) else status
    return dict(item, status=status.replace("canceled", "cancelled"))


def call_again(app, *words):
    """A command for a hint, with the --endpoint and --context of this one."""
    ours = []
    for name in "endpoint", "context":
        value = getattr(app.args, name, None)
        ours += [f"--{name}", value] if value else []
    end = [str(word)[:2] for word in (*words, "--")].index("--")
    return " ".join(map(shell_word, (
        "xeroctl", *words[:end], *ours, *words[end:])))


def poll_patiently(app, poll, until=float("inf"), resume=None):
    """Call poll() until it answers; raise what still fails after 5 minutes.

    A failure is told when it is another one than before.  until is when the
    wait is over, resume the hint that says then how to go on.
    """
    started, told = app.clock.monotonic(), None
    while True:
        try:
            return app.api.once(poll)
        except FAILURES as error:
            if not is_passing(error):
                raise
            now, url, said = app.clock.monotonic(), error.url, str(error)
            if now - started >= LONGEST_OUTAGE_S:
                error.facts["url"] = url
                error.hint = resume or error.hint
                raise
            if now >= until:
                raise WaitExpired(f"not over in time, and no answer: {said}",
                                  resume)
            if said != told:
                app.terminal.note(f"{url}: " * (url not in said) + said
                                  + ": asked again for up to 5 minutes")
            told = said
            wait = min(retry_wait(error, 1, app.clock), LONGEST_WAIT_S,
                       until - now)
        app.clock.sleep(max(POLL_S, wait))


def wait_until(app, poll, is_over, describe, resume):
    """Poll every 2 s until is_over(item); return that item.

    describe(item) is what a Progress shows of it, () for nothing.  A failure
    that passes (network, 5xx, 429) is borne for 5 minutes.  On Ctrl-C the job
    goes on, and resume, the command for that, is printed.
    """
    timeout = app.args.wait_timeout or float("inf")
    until = app.clock.monotonic() + timeout
    try:
        with Progress(app.terminal, first=0) as progress:
            while True:
                item = poll_patiently(app, poll, until, resume)
                shown = describe(item)
                if shown:
                    progress.show(*shown)
                if is_over(item):
                    return item
                left = until - app.clock.monotonic()
                if left <= 0:
                    raise WaitExpired(": ".join(
                        (f"not over after {as_duration(timeout)}",)
                        + shown[:1]), resume)
                app.clock.sleep(min(POLL_S, left))
    except INTERRUPTS:
        app.terminal.note(f"it goes on without you; {resume}")
        raise


def see_end(app, group, args, is_over, good, resume, fields=None, place="",
            describe=None):
    """Poll an item until is_over(status), and show how it has ended.

    Raise unless its status is one of good then.  describe is wait_until's.
    """
    found = wait_until(
        app, lambda: with_status(
            group.call(app, "GET", place + path_of(args.id))),
        lambda found: is_over(found["status"]), describe or (
            lambda found: (f"{args.id} {found['status']}",)), resume)
    app.out.record(found, fields or group.fields)
    if found["status"] not in good:
        raise XeroctlError(f"{group.thing} {args.id}: {found['status']}")


# == bulk: one thing after the other, come what may ==========================

def tried(app, name, make, **about):
    """Do one thing of many; return what came of it, told as a line.

    make() returns an id, or it and what is told of it; about may have the
    id.  Once a key is refused (401), the rest fails without a try.
    """
    item_id = told = error = None
    try:
        if app.refused:
            raise app.refused
        made = make()
        item_id, told = made if isinstance(made, tuple) else (made, made)
    except (UsageError,) + FAILURES as problem:
        if problem.status == 401:
            app.refused = problem
        error = str(problem)
    if error and app.plan:
        app.terminal.warn(f"{name}: {error}")
    elif error or told:
        app.out.outcome(name, told, error)
    return dict({"id": item_id, "ok": error is None, "error": error}, **about)


def end_bulk(app, outcomes, done):
    """Show what came of all, or what is planned; raise if one went wrong."""
    good = sum(each["ok"] for each in outcomes)
    app.out.outcomes(outcomes)
    if app.plan:
        app.finish()
    if good < len(outcomes):
        raise app.refused or XeroctlError(f"{good} of {len(outcomes)} {done}")


# == answers: what a model says, as it comes =================================

TEXT, REFUSAL, REASONING = "text", "refusal", "reasoning"
GRACE_S = 1  # for usage and [DONE], once every choice has ended

FINISH_HINTS = {
    "length": "the answer stopped at the token limit: raise --max-tokens",
    "max_output_tokens": "the answer stopped at the token limit: raise"
                         " --max-output-tokens",
    "content_filter": "the answer was cut by the content filter",
}

# The texts that come in pieces; any other text of a delta is told once.
GROWING = frozenset((
    "content", "text", "refusal", "reasoning", "reasoning_content",
    "reasoning_text", "thinking", "thought", "summary", "arguments",
    "transcript", "data", "input", "partial_json", "signature"))


def paired(text):
    """Join the halves of surrogate pairs that came one by one."""
    return re.sub("[\ud800-\udbff][\udc00-\udfff]", lambda pair: pair.group()
                  .encode("utf-16", "surrogatepass").decode("utf-16"), text)


def grown(before, value, key=""):
    """Join what two deltas bring of a member, the later one second.

    Lists and the texts of GROWING grow, objects by their members; of other
    texts the first that is not empty stays, of numbers the last.
    """
    if not before:
        return before if value is None else value
    kind = type(before)
    if value in (None, "") or kind in (dict, list, str) and (
            kind is not type(value)):
        return before
    if kind is dict:
        for name in value:
            before[name] = grown(before.get(name), value[name], name)
    elif kind is list:
        for item in value:
            what, last = dig(item, "type"), before[-1]
            if what in ("text",) + THOUGHTS and dig(last, "type") == what:
                grown(last, item)  # goes on with it
            else:
                before.append(item)
    elif kind is not str:
        return value
    elif key in GROWING:
        return before[:-1] + paired(before[-1:] + value)
    return before


def content_pieces(value, kind=TEXT):
    """Yield the (kind, text) pieces of a content: a text, parts, or JSON."""
    known = {"type", "text", "refusal", *THOUGHTS}
    for part in value if isinstance(value, list) else [value]:
        what = dig(part, "type")
        if isinstance(part, dict) and part and known.isdisjoint(part):
            part = compact_json(part)
        yield (REFUSAL if what == "refusal" else
               REASONING if what in THOUGHTS else kind), content_text(part)


def broken_off(answer, state):
    """The error of a choice or a response that broke off, or None."""
    why = broken_end(answer, state)
    return why and StreamError("the server broke off the stream: " + why,
                               code=dig(answer, "error.code"))


def arguments_of(call):
    return as_text(dig(call, "function.arguments"))


def is_second(part, call):
    """Whether a part begins an object of arguments behind a whole one."""
    said = arguments_of(call)
    # What does not end with a brace need not be read: pieces are many.
    return (arguments_of(part)[:1] == "{" and said.rstrip()[-1:] == "}"
            and isinstance(json_or_text(said), dict))


def begins_call(part, call):
    """Whether a part is of another call than the one under its index: by
    its id with a name, or, as Gemini's are empty, by a second object."""
    ids, name = (call.get("id"), part.get("id")), dig(part, "function.name")
    if all(ids):
        return ids[0] != ids[1] and name
    return is_second(part, call) and (
        name or arguments_of(call) not in ("{}", arguments_of(part)))


class ChatChoice:
    """One of the answers in a chat.completion, growing by deltas."""

    SHOWN = {"content": TEXT, "refusal": REFUSAL, "thinking": REASONING,
             "reasoning_content": REASONING, "reasoning": REASONING,
             "reasoning_text": REASONING}
    KEPT_APART = frozenset(("index", "delta", "message", "finish_reason",
                            "usage"))

    def __init__(self):
        self.parts = self.finish_reason = None
        self.message, self.more, self.tool_calls = {"role": ""}, {}, []
        self.texts = defaultdict(bytearray)

    def add(self, choice):
        """Take a chunk's choice in; return its (kind, text) pieces."""
        reason = choice.get("finish_reason")
        if reason and reason != "null":
            self.finish_reason = reason
        if not self.KEPT_APART.issuperset(choice):
            for key in choice:
                if key not in self.KEPT_APART:
                    self.more[key] = grown(self.more.get(key), choice[key])
        delta = choice.get("delta") or self.unsaid(choice) or {
            "content": choice.get("text")}
        pieces = []
        for key, value in delta.items() if isinstance(delta, dict) else ():
            if value is None:
                continue
            kind = self.SHOWN.get(key)
            if kind and type(value) is str and not self.parts:
                # Bytes: a list of small strings takes ten times the memory.
                self.texts[key] += value.encode("utf-8", "surrogatepass")
                piece = kind, value
                if value and piece not in pieces:  # reasoning has two names
                    pieces.append(piece)
            elif kind:
                pieces += self.take_parts(key, value)
            elif key == "tool_calls":
                for part in value if isinstance(value, list) else [value]:
                    if isinstance(part, dict):
                        call = self.call_of(part)
                        if is_second(part, call):  # Bedrock's {}, or a copy
                            call["function"]["arguments"] = ""
                        # The members of the call; its index is its own.
                        grown(call, dict(part, index=None))
            else:
                self.message[key] = grown(self.message.get(key), value, key)
        return pieces

    def unsaid(self, choice):
        """Its message, but for what deltas have told before its end."""
        message = choice.get("message")
        if message and choice.get("finish_reason") and (
                self.texts or self.tool_calls):
            text, said = content_text(dig(message, "content")), self.text()
            if text.startswith(said):
                return {"content": text[len(said):]}
        return message

    def take_parts(self, key, value):
        """Take a text in that comes as a list of parts; return its pieces.

        Thoughts in a content are no part of its text.
        """
        if key == "content" and isinstance(value, (str, list)):
            text = "" if self.parts else self.text()
            self.parts = grown(
                self.parts or [{"type": "text", "text": text}] * bool(text),
                [{"type": "text", "text": value}]
                if isinstance(value, str) else value)
        pieces = [piece for piece in content_pieces(value, self.SHOWN[key])
                  if piece[1]]
        for kind, text in pieces:
            if kind == self.SHOWN[key]:
                self.texts[key] += text.encode("utf-8", "surrogatepass")
        return pieces

    def call_of(self, part):
        """The call of a part, by its index, else by its id, or a new one.

        Without a name an id that is known counts more than the index, and
        what has no id, too, goes on with the last call.
        """
        index, call_id = part.get("index"), part.get("id")
        name, calls = dig(part, "function.name"), self.tool_calls
        found = [call for call in calls
                 if call["index"] == index and index is not None]
        if call_id and (index is None or not name):
            found = [call for call in calls if call.get("id") == call_id
                     ] or found
        if found and begins_call(part, found[-1]):
            found = []
        elif not found and not name and (index is None or not call_id):
            found = calls
        if not found:
            found = [{"index": index}]
            calls += found
        return found[-1]

    def text(self, key="content"):
        """All of a text that has come so far."""
        said = self.texts.get(key, b"")  # to ask for it is not to tell it
        return paired(said.decode("utf-8", "surrogatepass"))

    def json(self, index):
        """The choice as it stands in a chat.completion."""
        message = dict(
            self.message, role=self.message["role"] or "assistant",
            content=self.parts or (
                self.text() if "content" in self.texts else None))
        for key in self.SHOWN:
            if key != "content" and self.texts[key]:
                message[key] = self.text(key)
        if self.tool_calls:
            message["tool_calls"] = [
                {key: value for key, value in call.items() if key != "index"}
                for call in self.tool_calls]
            message["content"] = message["content"] or None
        return dict({"index": index, "message": message}, **self.more,
                    finish_reason=self.finish_reason)


class ChatAnswer:
    """A chat.completion, put together from its chunks (OpenAI).

    Takes whole completions as well: a message is a delta that comes at once.
    has_begun tells whether a delta with something in it has arrived,
    is_finished whether all wanted choices have told why they ended, failure
    why one of them broke off.
    """

    PATH = "/chat/completions"
    id = None  # a completion is seldom kept
    STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
    has_begun, is_finished, wanted, size = False, False, 1, 0
    usage = received = failure = None

    def __init__(self):
        self.head, self.choices = {}, defaultdict(ChatChoice)

    def add(self, chunk, kind):
        """Take a chunk in; return its (kind, text) pieces to be shown.

        None stands for an event that is no part of the answer.
        """
        if "choices" not in chunk and kind != "chat.completion.chunk" and (
                kind or "usage" not in chunk):
            return None
        if kind == WHOLE or chunk.get("object") == "chat.completion":
            self.received = chunk
        if len(chunk) != self.size:
            self.take_head(chunk)
        self.usage = chunk.get("usage") or self.usage
        choices, shown = chunk.get("choices"), []
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = choice.get("index")
                if type(index) is not int:
                    index = index_in(choice)
                if index is None:
                    index = [each is choice for each in choices].index(True)
                kept = self.choices[index]
                pieces = kept.add(choice)
                if index == 0:
                    shown += pieces
                if pieces or kept.tool_calls or len(kept.message) > 1:
                    self.has_begun = True
                if kept.finish_reason or "error" in choice:
                    self.end(chunk, choice)
        return shown

    def take_head(self, chunk):
        """Take in what stands beside the choices; the empty is filled."""
        for key, value in chunk.items():
            if key not in ("choices", "usage"):
                self.head[key] = value or self.head.get(key, value)
        is_full = all(map(self.head.get, ("id", "created", "model")))
        self.size = len(chunk) if is_full else 0

    def end(self, chunk, choice):
        """Take note of how a choice has ended, and of what came with it."""
        self.take_head(chunk)
        self.failure = self.failure or broken_off(
            choice, choice.get("finish_reason"))
        self.usage = (choice.get("usage") or dig(chunk, "x_groq.usage")
                      or self.usage)
        self.is_finished = bool(self.failure) or (
            len(self.choices) >= self.wanted and all(
                kept.finish_reason for kept in self.choices.values()))

    def first(self):
        return self.choices.get(0) or ChatChoice()

    def text(self, key="content"):
        return self.first().text(key)

    def rest(self):
        """Yield what is shown at the end: more choices, and tool calls."""
        for index, choice in sorted(self.choices.items()):
            if index:
                yield "\n" + choice.text() + choice.text("refusal")
            older = choice.message.get("function_call")  # OpenAI's older form
            calls = choice.tool_calls + [older] * bool(older)
            yield from map(call_line, calls)

    def hint(self):
        """What to try where the answer has stopped early, or None."""
        return FINISH_HINTS.get(as_text(self.first().finish_reason))

    def whole(self):
        """As received, or as it would be without a stream; empty for none."""
        choices = [choice.json(index) for index, choice
                   in sorted(self.choices.items())]
        usage = {} if self.usage is None else {"usage": self.usage}
        return self.received or choices and dict(
            self.head, object="chat.completion", choices=choices, **usage)


class ResponseAnswer:
    """A response, put together from its events (OpenAI, Responses API).

    Takes whole responses as well.  Each lifecycle event brings the response
    as it is then; items and texts fill what the last one leaves out.
    """

    PATH = "/responses"
    STREAMED = {"stream": True}
    KINDS = {"output_text": TEXT, "refusal": REFUSAL,
             "reasoning_text": REASONING, "reasoning_summary_text": REASONING}
    GIVEN = {"function_call_arguments": ("function_call", "arguments"),
             "custom_tool_call_input": ("custom_tool_call", "input")}
    has_begun, is_finished = False, False
    usage = id = received = failure = None

    def __init__(self):
        self.response, self.items = {}, []  # (output_index, item) pairs
        self.said, self.names = defaultdict(bytearray), {}

    def add(self, payload, kind):
        """Take an event or a whole response in; return what is shown."""
        if kind == WHOLE:
            self.received = payload
        elif not str(kind).startswith("response."):
            return None
        name, _, step = kind[len("response."):].rpartition(".")
        if name == "content_part":  # OpenRouter's, where others tell no text
            name = as_text(dig(payload, "part.type") or "output_text")
        response = self.received or payload.get("response")
        if isinstance(response, dict):
            self.response = response
            self.usage, self.id = response.get("usage"), response.get("id")
            if self.received:
                return self.end(response.get("status"))
        if kind in TERMINAL_EVENTS:
            return self.end(dig(self.response, "status") if step == "done"
                            else step)
        if name == "output_item" and isinstance(payload.get("item"), dict):
            self.take(payload["item"], payload, step == "added")
        elif name in self.GIVEN:
            what, key = self.GIVEN[name]
            call = self.take({"name": payload.get("name"), "type": what},
                             payload)
            call[key] = payload.get(key) or grown(
                call.get(key), payload.get("delta"), key)
        elif name in self.KINDS:
            kind = self.KINDS[name]
            # Some tell the same under two names: the first one counts.
            if self.names.setdefault(kind, name) == name:
                return self.kept(self.text_pieces(kind, step, payload))
        return []

    def end(self, state):
        """Take note of how it has ended; return what was not yet told."""
        self.failure, self.is_finished = broken_off(self.response, state), True
        return self.kept([piece for piece in self.pieces()
                          if not self.said[piece[0]]])

    def take(self, told, event, is_new=False):
        """Return the item of an event, with what is told of it.

        It is found by its id, its index, or as the last: llama.cpp tells no
        index, LiteLLM another id each time, and some have 0 for each.
        """
        item_id, index = event.get("item_id"), event.get("output_index")
        by_id = [item for _, item in self.items if item.get("id")
                 and item["id"] in (item_id, told.get("id"))]
        by_index = [item for place, item in self.items
                    if not is_new and index in (None, place)]
        item = (by_id or by_index or [{}])[-1]
        if not item:
            self.items.append((index, item))
        for key, value in told.items():
            if value or key not in item:
                item[key] = value
        self.has_begun |= item.get("type") in CALLS
        return item

    def text_pieces(self, kind, step, event):
        """The piece in a delta, or what is new in a done."""
        text = content_text(event.get("delta") if step == "delta"
                            else event.get("part", event))
        if step != "delta":
            said = self.text(kind)
            text = "" if step != "done" or text in said else (
                text[len(said):] if text.startswith(said) else text)
        return [(kind, text)] if text else []

    def kept(self, pieces):
        for kind, text in pieces:
            self.has_begun = True
            self.said[kind] += text.encode("utf-8", "surrogatepass")
        return pieces

    def pieces(self):
        """What the response says, in the order of its output."""
        pieces = []
        for item in self.output():
            if dig(item, "type") == "reasoning":
                pieces += [(REASONING, content_text(dig(item, name)))
                           for name in ("summary", "content")]
            elif dig(item, "type") == "message":
                pieces += content_pieces(dig(item, "content"))
        if not pieces and isinstance(self.response.get("output_text"), str):
            pieces.append((TEXT, self.response["output_text"]))
        return [piece for piece in pieces if piece[1]]

    def output(self):
        """The items of the output, those that came one by one included."""
        output = self.response.get("output")
        if not isinstance(output, list) or not output:
            output = [item for _, item in sorted(
                self.items, key=lambda each: counted(each[0]))]
        if self.said[TEXT] and not any(dig(item, "type") == "message" and dig(
                item, "content") for item in output):
            output = [item for item in output
                      if dig(item, "type") != "message"] + [{
                          "type": "message", "role": "assistant",
                          "status": "completed", "content": [{
                              "type": "output_text", "text": self.text(),
                              "annotations": []}]}]
        return output

    def text(self, kind=TEXT):
        return paired(self.said[kind].decode("utf-8", "surrogatepass"))

    def rest(self):
        for item in self.output():
            if dig(item, "type") in CALLS:
                yield call_line(item)

    def hint(self):
        reason = dig(self.response, "incomplete_details.reason")
        if dig(self.response, "status") != "incomplete":
            return None
        return FINISH_HINTS.get(as_text(reason)) or (
            "the answer is incomplete: "
            + as_text(reason or "the server does not say why"))

    def whole(self):
        """The whole, as received or put together."""
        output = self.output()
        return self.received or (dict(self.response, output=output) if output
                                 else self.response)


USAGE_COLUMNS = tuple(map(as_column, (
    "prompt=prompt_tokens|input_tokens",
    "completion=completion_tokens|output_tokens", "total=total_tokens",
    "cached=prompt_tokens_details.cached_tokens"
    "|input_tokens_details.cached_tokens",
    "reasoning=completion_tokens_details.reasoning_tokens"
    "|output_tokens_details.reasoning_tokens")))


class Talk(AbstractContextManager):
    """Shows an answer while it comes.

    Text goes to stdout at once, reasoning and vendor events to stderr; a
    spinner turns until the first piece, the footer counts from it.
    """

    def __init__(self, app, args):
        self.terminal, self.clock = app.terminal, app.clock
        self.is_text = app.out.is_table and not args.extract
        self.shows_reasoning = args.show_reasoning
        self.began_at, self.halves, self.deltas = None, {}, 0
        self.spinner = Spinner(self.terminal, "waiting for the first token")

    def __exit__(self, kind, *_):
        """Leave the line, so that what follows has one of its own.

        After Ctrl-C on a terminal, main ends the line that ^C stands on.
        """
        self.spinner.stop()
        if self.is_text:
            self.terminal.out.write(self.halves.get(TEXT, ""))
        if self.shows_reasoning:
            self.terminal.err.end_line()
        echoed = kind is KeyboardInterrupt and self.terminal.out.is_terminal
        if self.is_text and not echoed:
            self.terminal.out.end_line()
        if kind not in INTERRUPTS:
            self.terminal.out.flush()

    def show(self, pieces):
        """Show (kind, text) pieces as they come."""
        if self.began_at is None:
            self.spinner.stop()
            self.began_at = self.clock.monotonic()
        for kind, text in pieces:
            if self.halves or text[-1] >= "\ud800":
                text = self.mended(kind, text)
            if kind == REASONING:
                if self.shows_reasoning:
                    self.terminal.out.flush()
                    self.terminal.err.write(text, DIM)
                continue
            self.deltas += 1
            if self.is_text:
                if self.shows_reasoning:
                    self.terminal.err.end_line()
                self.terminal.out.write(text)

    def mended(self, kind, text):
        """A piece whose last character waits for its other half."""
        text = paired(self.halves.pop(kind, "") + text)
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.halves[kind] = text[:-1], text[-1]
        return text

    def event(self, kind, payload):
        """Show that a vendor event came, on one dim line."""
        if str(kind).startswith("x_"):
            self.spinner.stop()
            self.terminal.out.flush()
            more = {k: v for k, v in payload.items() if k != "type"}
            err = self.terminal.err
            line = one_line(err.shown(f"{kind} {compact_json(more)}"))
            self.terminal.note(cut_to(line, err.columns() - 1))

    def footer(self, usage):
        """-- 312 tokens in 4.2s (74.3 tok/s), from the first token on.

        As the server counts them in its usage, else the pieces of text.
        """
        if self.began_at is None:
            return
        tokens = counted(USAGE_COLUMNS[1].value(usage)) or self.deltas
        took = max(0.001, self.clock.monotonic() - self.began_at)
        self.terminal.note(f"-- {tokens} tokens in {took:.1f}s"
                           f" ({tokens / took:.1f} tok/s)")


def take_events(app, talk, answer, reply):
    """Take the events of an answer in, each shown as it comes.

    Once all of it has ended there is a second's grace for what may follow.
    """
    shows_events = app.out.form == JSONL
    for kind, payload in answer_events(reply, let_go_after(
            reply.blocks(), app.terminal.out.flush)):
        if shows_events:
            app.out.json_line(payload)
        if kind == WHOLE:
            JUDGES["/v1" + answer.PATH](payload)
            pieces = [(each, app.terminal.secrets.masked(text))
                      for each, text in answer.add(payload, kind)]
        else:
            pieces = answer.add(payload, kind)
        if pieces:
            talk.show(pieces)
        elif pieces is None:
            talk.event(kind, payload)
        if answer.is_finished:
            if answer.failure:
                raise answer.failure
            reply.wire.limits.end_in(GRACE_S)


def raise_if_broken(answer, error):
    """Raise the error of a stream, worse once a delta has arrived.

    A connection that is lost after the last finish_reason does no harm.
    """
    if isinstance(error, ConnectionFailed) and answer.is_finished:
        return
    if not answer.has_begun:
        raise error
    raise StreamBroken(str(error), "what arrived is not the whole answer",
                       **error.facts)


def with_params(body, pairs):
    """A body with --param KEY=JSON; null takes a field of ours out."""
    for key, value in pairs or ():
        if value is None and key in body:
            del body[key]
        else:
            body[key] = value
    return body


def ask_answer(app, args, talk, answer, body):
    """Ask for an answer and show it, at once or as it comes.

    answer takes it in, and holds what has come even if this raises.  Of the
    form that was asked for and the one that comes, the latter counts.
    """
    is_stream = bool(args.stream or args.interactive)
    body = with_params(dict(body, **(
        answer.STREAMED if is_stream else {"stream": False})), args.param)
    if "stream" in body:
        body["stream"] = is_stream
    answer.wanted = counted(body.get("n")) or 1
    media = "text/event-stream" if is_stream else "application/json"
    try:
        with app.api.open("POST", answer.PATH, slug=app.slug(), body=body,
                          headers=sent_headers(args), accept=media,
                          silence=INFERENCE_TIMEOUT_S) as reply:
            take_events(app, talk, answer, reply)
    except (ConnectionFailed, StreamError, AnswerError) as error:
        raise_if_broken(answer, error)
    if not answer.whole():
        raise AnswerError("the stream ended without an answer in it")


ANSWERS = {"/v1" + each.PATH: each for each in (ChatAnswer, ResponseAnswer)}


def whole_reply(reply, url):
    """The JSON of an answer; a stream that nobody asked for is joined."""
    answer = ANSWERS.get(url, ChatAnswer)()
    for kind, payload in answer_events(reply, reply.blocks()):
        if kind == WHOLE:
            return payload
        answer.add(payload, kind)
        if answer.failure:
            raise answer.failure
    return answer.whole()


def show_rest(app, answer):
    """Show what is known only at the end, on lines of its own."""
    for text in answer.rest():
        app.terminal.err.end_line()
        app.terminal.out.end_line()
        app.out.text(text)
        app.terminal.out.end_line()


def tell_ends(app, args, turns):
    """Say why an answer stopped early, and what it cost."""
    answer, hint = turns.answer, turns.answer.hint()
    if hint:
        app.terminal.note("hint: " + hint)
    if args.show_usage:
        told = ", ".join(f"{column.head} {column.text(answer.usage, 0)}"
                         for column in USAGE_COLUMNS)
        app.terminal.say("usage: " + (
            told if isinstance(answer.usage, dict)
            else "not reported by the server"))
        if answer.id:
            app.terminal.say(f"id: {as_text(answer.id)}")
    if not turns.is_kept and (args.interactive or args.session):
        app.terminal.note("the answer has no text: the question is taken back")


def first_block(text):
    """The first fenced block of a text, without its fences (CommonMark).

    One without an end is none: it was cut, and is not to be run.
    """
    found = re.search(r"(?ms)^([ \t]*)(`{3,}(?=[^`\n]*$)|~{3,})[^\n]*\n(.*?)"
                      r"^[ \t]*\2[`~]*[ \t\r]*$", text)
    if not found:
        raise XeroctlError("the answer has no fenced block: "
                           + (body_summary(text) or "it has no text"))
    return re.sub("(?m)^" + found.group(1), "", found.group(3))


def answer_once(app, args, turns, content, fields=None):
    """Take one turn: show the answer in the form that is due."""
    try:
        with Talk(app, args) as talk:
            turns.ask(talk, content)
            if talk.is_text:
                show_rest(app, turns.answer)
        if args.extract:
            app.out.text(first_block(turns.answer.text()))
        elif app.out.form not in (TABLE, WIDE, JSONL):
            app.out.show(turns.answer.whole(), fields)
    finally:
        if turns.is_kept:
            turns.write()
    if args.stream:
        talk.footer(turns.answer.usage)
    tell_ends(app, args, turns)


# == downloads: whole or not at all, and taken up again ======================

class OpenEnd(AbstractContextManager):
    """Where bytes go that cannot be taken back: a pipe, or a device."""

    is_resumed = False

    def __init__(self, write):
        self.write_block, self.count = write, 0
        self.begin(None, None)

    def __exit__(self, _, error, *__):
        """Nothing is undone; what breaks off is a broken stream."""
        if self.count and isinstance(error, (ApiError, ConnectionFailed)):
            raise StreamBroken(str(error), error.hint)

    def finish(self):
        """What has been written is in its place."""

    def restart(self):
        if self.count:
            raise StreamBroken("the server cannot go on where the download"
                               f" has stopped, after {self.count} bytes",
                               "download to a file: it is taken up again")

    def begin(self, version, size):
        self.known = {"version": version, "size": size}

    def write(self, block):
        with writing("the output"):
            self.write_block(block)
        self.count += len(block)


def download_target(app, path, url):
    """Open what a download writes to; - is standard output."""
    if path == "-":
        return OpenEnd(app.out.write_bytes)
    place = on_disk(path)
    if os.path.exists(place) and is_special(place) and (
            not os.path.isdir(place)):
        with writing(path, UsageError):
            return OpenEnd(open(place, "wb", 0).write)
    return NewFile(path, app.args.force, url)


def version_of(answer):
    """What If-Range may name: a strong ETag, or a date (RFC 9110, 13.1.5)."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def range_of(headers):
    """(first byte, whole size) that Content-Range tells; None for unknown."""
    found = re.match(r"bytes (?:(\d{1,18})-\d+|\*)/(?:(\d{1,18})|\*)\Z",
                     headers.get("Content-Range", ""))
    return [text and int(text)
            for text in (found.groups() if found else (None, None))]


def in_place_of_file(text, media, names):
    """What a server has sent in place of a file; None if it may be the file.

    HTML is one if a name (a line each) says so, an error if it has an id.
    """
    if is_html(text) or media == "text/html" and text.lstrip()[:1] == "<":
        is_named = re.search(r"\.html?(\n|\Z)", names, re.I)
        return None if is_named else html_summary(text)
    value = json_or_text(text, SERVER_DECODER)
    is_error = dig(value, "error") or dig(value, "object") == "error"
    if not is_error or "custom_id" in value:
        return None
    return "an error: " + (error_message(value) or body_summary(text))[:300]


class Download:
    """Fetches one file; what breaks off is taken up again by Range.

    patience is how many 404s are borne: a file may be named before it can
    be read.  about is the file's object, asked for if None: its bytes, where
    it tells them, decide whether all has come, else the content does.
    """

    target = doubt = None

    def __init__(self, app, file_id, slug, patience=0, about=None,
                 content=None):
        self.app, self.slug, self.file = app, slug, path_of("files", file_id)
        self.path = content or self.file + "/content"
        self.label, self.patience = f"downloading {file_id}", patience
        self.about = about

    def to(self, path, may_replace=True):
        """Fetch all of it to a path; return the number of bytes."""
        request = self.request()
        if self.app.plan:
            self.app.plan.requests.append(request)
            raise PlanEnds()
        self.app.api.check_transport()
        with download_target(self.app, path, request.url) as self.target:
            self.target.may_replace, self.name = may_replace, path
            if 0 < self.target.count == self.target.known["size"]:
                # Its last byte tells whether it is still that file's.
                self.target.restart(self.target.count - 1)
            if self.about is None:
                with suppress(XeroctlError):  # the content will tell
                    self.about = self.app.api.once(lambda: self.app.api.call(
                        "GET", self.file, slug=self.slug))
            self.size = counted(dig(self.about, "bytes"))
            try:
                self.persist(request)
            except FAILURES as error:
                count = self.target.count
                if count and self.target.is_resumed:
                    error.facts["kept"] = f"{count} bytes in {path}.part"
                    error.add_hint("the same command goes on there")
                raise
        return self.target.count

    def persist(self, request):
        """Fetch until all is there, or trying again is no use."""
        attempt = 1
        while True:
            before = self.target.count
            try:
                while not self.fetch(attempt):
                    pass
                return self.target.finish()
            except (ApiError, ConnectionFailed) as error:
                if self.target.count > before:
                    attempt = 1
                self.app.api.wait_for_retry(request, error, attempt)
                attempt += 1

    def request(self):
        headers, count = {}, self.target.count if self.target else 0
        if count:
            headers["Range"] = f"bytes={count}-"
            if self.target.known["version"]:
                headers["If-Range"] = self.target.known["version"]
        return self.app.api.request("GET", self.path, slug=self.slug,
                                    headers=headers, accept="*/*")

    def fetch(self, attempt):
        """Ask for what is left; False to ask once more, and at once."""
        try:
            answer = self.app.api.follow(self.request(), attempt)
        except ApiError as error:
            if error.status == 416 and self.target.count:
                self.target.restart()
            elif error.status == 404 and self.patience:
                self.patience -= 1
                self.app.clock.sleep(POLL_S)
            else:
                raise
            return False
        with answer:
            return self.take(answer)

    def take(self, answer):
        """Add a body to the target; False if it must be asked for anew."""
        if answer.status not in (200, 206):
            raise AnswerError(f"{answer.url} answered with no content (HTTP"
                              f" {answer.status})")
        is_zipped, blocks = answer.coding is not None, answer.blocks()
        start, size = range_of(answer.headers)
        if answer.status == 206:
            size = size or self.target.known["size"]
            if not self.continues(answer, start, size) or is_zipped:
                self.target.restart()
                return False
        else:
            size = None if is_zipped else answer.response.length
            blocks = self.judged(answer, blocks, size)
            self.target.restart()
        self.target.begin(version_of(answer), size)
        self.target.is_resumed &= not (is_zipped or self.doubt)
        self.copy(answer, blocks, size)
        count, has_end = self.target.count, answer.response.chunked or size
        if self.size not in (0, count):
            self.target.is_resumed &= not has_end and count < self.size
            raise self.refused(answer, count)
        return True

    def judged(self, answer, blocks, size):
        """A whole body, unless its head or size tells of another's.

        Nothing is held back longer than it may be a page or an error.
        """
        def all_of_it():
            yield head
            if lost:
                raise lost  # what came before is in the target by now
            yield from blocks
        head, text, lost = b"", "", None
        try:
            for block in blocks:
                head += block
                text = decoded(head)
                if (self.size or len(head) >= BLOCK
                        or text.lstrip()[:1] not in "<{"):
                    break
        except ConnectionFailed as error:
            lost = error
        names = f"{self.name}\n{as_text(dig(self.about, 'filename'))}"
        self.doubt = in_place_of_file(text, answer.media, names)
        is_other = (size not in (None, self.size) if self.size
                    else self.doubt)
        if is_other:
            raise self.refused(answer, size)
        return all_of_it()

    def refused(self, answer, count):
        """The error for a body that is not the file's."""
        what = self.doubt or f"{count} bytes of {self.size}"
        return AnswerError(f"{answer.url} answered with {what}",
                           self.doubt and "is the base URL that of an API?",
                           request_id=answer.request_id)

    def continues(self, answer, start, size):
        """Whether a 206 is the rest of the very file that was begun."""
        known = self.target.known
        if not self.target.count:
            raise AnswerError(f"{answer.url} answered with a range that was"
                              " not asked for")
        return (start == self.target.count
                and known["size"] in (None, size)
                and known["version"] in (None, version_of(answer)))

    def copy(self, answer, blocks, size):
        target = self.target
        with Progress(self.app.terminal, as_size) as progress:
            for block in chain([b""], blocks):
                target.write(block)
                progress.show(self.label, target.count, size or self.size)
        count = target.count
        if size not in (None, count):
            if count > size:
                target.restart()
            raise ConnectionFailed("HTTP", f"{answer.url}: {count} bytes came"
                                   f" of {size}", sent=True)


# == model uploads: in parts, from a file or a folder ========================

CHUNK_BYTES = {XEROTIER: 100 * 1024 * 1024, OPENAI: 64 * 1024 * 1024}
LEAVING, DANGLING = NOT_SENT = (
    "a link that leaves the folder", "a link to nothing")
NULS = bytes(1024)  # two blocks of them end a tar, and some each file


def why_skipped(path, folder, follows):
    """Why a path in a folder is not uploaded; None if it is."""
    if os.path.basename(path).startswith("."):
        return "hidden"
    if os.path.islink(path) and not os.path.exists(path):
        return DANGLING
    if os.path.islink(path) and not follows:
        root = os.path.join(os.path.realpath(folder), "")
        if not os.path.join(os.path.realpath(path), "").startswith(root):
            return LEAVING
        if os.path.isdir(path):
            return "a link to a folder"
    if not os.path.isdir(path):
        return None if os.path.isfile(path) else "no regular file"
    return "it is in itself" if any(
        path[at] == os.sep and os.path.samefile(path, path[:at + 1])
        for at in range(len(folder) - 1, len(path))) else None


def folder_files(app, args, folder):
    """Return (path below the folder with /, path) of all files to upload."""
    found, leaving = [], []

    def refuse(problem):
        raise UsageError(f"cannot read {from_disk(problem.filename)}:"
                         f" {problem.strerror}")
    for parent, folders, names in os.walk(folder, onerror=refuse,
                                          followlinks=args.follow_links):
        for name in sorted(folders + names):
            path = os.path.join(parent, name)
            below = from_disk(os.path.relpath(path, folder)).replace(
                os.sep, "/")
            reason = why_skipped(path, folder, args.follow_links)
            if reason in NOT_SENT and not args.skip_links:
                leaving.append(below)
            elif reason:
                app.terminal.note(f"skipped {from_disk(path)} ({reason})")
                folders[:] = [each for each in folders if each != name]
            elif name in names:
                found.append((below, path))
    if leaving:
        raise UsageError(f"links lead out of {from_disk(folder)}, or to"
                         " nothing: " + ", ".join(first_of(sorted(leaving))),
                         "--follow-links sends what they lead to,"
                         " --skip-links leaves them out")
    if not found:
        raise UsageError(f"there are no files in {from_disk(folder)}")
    return sorted(found)


class TarFolder:
    """A folder as an uncompressed tar (POSIX), made while it is read.

    Sorted by path, and the same bytes each time; it can be read in any
    place, as a Source can.
    """

    is_stdin = False

    def __init__(self, app, args, folder):
        top = from_disk(os.path.basename(os.path.abspath(folder)))
        self.app, self.name, self.pieces, self.size = app, top + ".tar", [], 0
        for below, path in folder_files(app, args, folder):
            self.add_file(path, f"{top}/{below}")
        self.add(NULS, len(NULS))

    def add_file(self, path, inside):
        import tarfile
        about, head = os.stat(path), tarfile.TarInfo(inside)
        head.size, head.mtime = about.st_size, about.st_mtime_ns // 10 ** 9
        head.mode = 0o755 if about.st_mode & 0o100 else 0o644
        raw = head.tobuf(tarfile.PAX_FORMAT)
        self.add(raw, len(raw))
        self.add((path, (head.size, about.st_mtime_ns)), head.size)
        self.add(NULS, -head.size % 512)

    def add(self, piece, size):
        """Add so much of bytes, or of a file: its path and stamp."""
        self.pieces.append((self.size, self.size + size, piece))
        self.size += size

    def blocks(self, spans):
        """Yield the bytes of (start, end) spans, one after the other."""
        for start, end in spans:
            for begin, stop, piece in self.pieces:
                first, last = max(start, begin) - begin, min(end, stop) - begin
                if first < last and isinstance(piece, bytes):
                    yield piece[first:last]
                elif first < last:
                    yield from self.read(*piece, (first, last))

    def read(self, path, stamp, span):
        """Yield a part of a file, which must be as it was at first."""
        source = self.app.open_source(from_disk(path))
        source.stamp = stamp
        with source.file:
            yield from source.blocks([span])


class ModelUpload:
    """Sends a model in parts, each with its SHA-256, and completes it.

    parts are {number, from 1: id} of those that the server has.
    """

    def __init__(self, app, group, source, upload):
        self.app, self.group, self.source = app, group, source
        self.id, self.parts = id_in(upload), {}
        style = app.settings.style()
        self.is_ours = style == XEROTIER
        self.chunk = counted(dig(upload, "chunk_size")) or CHUNK_BYTES[style]

    def post(self, action, body, stand_in):
        return self.group.call(
            self.app, "POST", path_of(self.id, action), body=body,
            silence=INFERENCE_TIMEOUT_S, stand_in=stand_in)

    def refresh(self):
        answer = self.post("resume", None, {})
        parts = dig(answer, "parts") or []
        if not isinstance(parts, list) or not all(
                counted(dig(part, "part_number")) for part in parts):
            raise no_answer(answer, "has no list of parts with numbers")
        self.parts = {part["part_number"]: id_in(part) for part in parts}

    def run(self):
        """Send what has not arrived; return the upload as it is then.

        A plan has no hashes: it would have to read everything.
        """
        import hashlib
        of_all, size = hashlib.sha256(), self.source.size
        with Progress(self.app.terminal, as_size) as self.progress:
            self.tell(min(len(self.parts) * self.chunk, size))
            for number, start in enumerate(range(0, size, self.chunk), 1):
                part = Excerpt(self.source, f"part-{number}", [
                    (start, min(start + self.chunk, size))])
                of_part = hashlib.sha256()
                for block in () if self.app.plan else part.blocks():
                    of_part.update(block)
                    of_all.update(block)
                if number not in self.parts:
                    self.send(number, part, self.shown(of_part))
        return self.complete(self.shown(of_all))

    def shown(self, digest):
        return "<sha256>" if self.app.plan else digest.hexdigest()

    def tell(self, count):
        name = os.path.basename(self.source.name)
        self.progress.show(f"uploading {name}", count, self.source.size)

    def send(self, number, part, sha256):
        fields = [("part_number", str(number)), ("sha256", sha256)]
        form = Multipart(
            fields * self.is_ours, part,
            lambda count: self.tell(part.spans[0][0] + count), "data")

        def look_up():
            self.refresh()
            return self.parts.get(number)
        self.parts[number] = made_once(
            self.app, lambda: id_in(self.post(
                "parts", form, {"id": f"<part {number}>"})),
            self.is_ours and look_up)

    def complete(self, sha256):
        body = {"part_ids": [self.parts[each] for each in sorted(self.parts)]}
        if self.is_ours:
            body["sha256"] = sha256

        def look_up():
            upload = self.group.call(self.app, "GET", path_of(self.id))
            return (None if dig(upload, "status") in ("pending", "uploading",
                                                      None) else upload)
        return made_once(self.app, lambda: self.post("complete", body, {}),
                         self.is_ours and look_up)


# == batch inputs: checked before a byte of them is sent =====================

CHAT_URL = "/v1/chat/completions"
GONE = "gone"  # our word for what is not found any more
ENDED = "completed", "failed", "cancelled", "expired", GONE
API_PATH = r"/v1(/(?!\.\.?(/|\Z))[\w.~-]+)+\Z"  # one that climbs nowhere


def wrong_field(request, name, wanted):
    """What is wrong with a field: that it is missing, or what it is."""
    if name not in request:
        return f"{name} is missing"
    return f"{name} {compact_json(request[name])[:80]} is not {wanted}"


def line_problems(request, url):
    """Yield what is wrong with one decoded line (OpenAI, Batch API)."""
    if not isinstance(request, dict):
        yield "not a JSON object"
        return
    body = request.get("body")
    if not is_filled(request.get("custom_id")):
        yield wrong_field(request, "custom_id", "a text with something in it")
    if request.get("method") != "POST":
        yield wrong_field(request, "method", '"POST"')
    asked = request.get("url")
    is_right = (asked == url if url else
                re.match(API_PATH, as_text(asked), re.A))
    if not is_right:
        told = wrong_field(request, "url", url or "a path below /v1/")
        yield told + (": the batch would fail (--batch-endpoint names another)"
                      if url and is_filled(asked) else "")
    if not isinstance(body, dict):
        yield wrong_field(request, "body", "an object")
        return
    if not is_filled(body.get("model")):
        yield "body." + wrong_field(body, "model", "a text")
    if asked == CHAT_URL and not isinstance(body.get("messages"), list):
        yield "body." + wrong_field(body, "messages", "a list of messages")


def id_of(request):
    """The custom_id of a decoded line; None if it has none that can be."""
    custom_id = dig(request, "custom_id")
    return custom_id if is_filled(custom_id) else None


def json_bytes(value):
    """A value as compact JSON in UTF-8, as files and digests have it."""
    return whole(compact_json(value)).encode("utf-8")


def line_bytes(value):
    """A value as a line of JSON Lines."""
    return json_bytes(value) + b"\n"


def send_file(app, excerpt, slug=None, label=None, **fields):
    """Send a file (POST /files); return the file object."""
    label = label or f"uploading {excerpt.name}"
    with Progress(app.terminal, as_size) as progress:
        return app.api.call(
            "POST", "/files", {"id": StandIn("<file id>")}, slug=slug,
            silence=INFERENCE_TIMEOUT_S, body=Multipart(
                list(fields.items()), excerpt, lambda count: progress.show(
                    label, count, excerpt.size)))


class BatchInput:
    """What a batch input holds, and what is wrong with it.

    url is what each line's url must be; None takes any path below /v1/.
    Of each line 8 bytes are kept, in 256 arrays the hash of its id; with
    places 8 more, where it begins, and of the file its SHA-256.  largest is
    the size of a line as it is sent, and its number.
    """

    def __init__(self, source, url, hint=None, places=False):
        import array
        self.source, self.url, self.hint, self.count = source, url, hint, 0
        self.wrong, self.problems = 0, []
        self.models, self.max_tokens = set(), 0
        self.hashes = [array.array("q") for _ in range(256)]
        self.starts, self.digest = array.array("q", [source.start]), None
        self.size, self.largest = 0, (0, 0)
        if places:
            import hashlib
            self.digest = hashlib.sha256()

    def check(self):
        """Read all of it; raise a UsageError that names what is wrong."""
        digest = self.digest
        for raw in self.source.lines():
            self.take(raw)
            if digest:
                digest.update(raw)
                self.starts.append(self.starts[-1] + len(raw))
        if not self.count:
            self.complain(1, "the file is empty")
        repeated = {code for codes in self.hashes
                    if len(set(codes)) < len(codes)
                    for code, count in Counter(codes).items() if count > 1}
        self.hashes = None
        if repeated:
            self.find_repeats(repeated)
        if self.wrong:
            raise self.error()
        return self

    def take(self, raw):
        self.count += 1
        try:
            request = self.source.parse(raw, self.count)
        except ValueError as problem:
            return self.complain(self.count, str(problem))
        size = len(line_bytes(request) if self.source.is_made else raw)
        self.size += size
        if size >= self.largest[0]:
            self.largest = size, self.count
        problem = None
        for problem in line_problems(request, self.url):
            self.complain(self.count, problem)
        custom_id = id_of(request) if problem else request["custom_id"]
        if custom_id:
            code = hash(custom_id)
            self.hashes[code & 255].append(code)
        if not problem:
            body = request["body"]
            self.models.add(body["model"])
            self.max_tokens += counted(body.get("max_tokens")
                                       or body.get("max_completion_tokens"))

    def complain(self, number, text):
        """Note a problem: the first lines' in full, the rest counted."""
        self.wrong += 1
        self.problems = sorted(
            self.problems + [(number, text)])[:MOST_PROBLEMS]

    def find_repeats(self, codes):
        """Read again, and compare the ids that have one of these hashes."""
        first = {}
        for number, raw in enumerate(self.source.lines(), 1):
            with suppress(ValueError):
                custom_id = id_of(self.source.parse(raw, number))
                before = (first.setdefault(custom_id, number)
                          if hash(custom_id) in codes else number)
                if before < number:
                    self.complain(
                        number, f"custom_id {compact_json(custom_id)} repeats"
                                f" {self.source.unit} {before}")

    def error(self):
        """All that is wrong, in the order of the lines."""
        name = self.source.name
        found = [f"{name}: {self.source.unit} {number}: {text}"
                 for number, text in self.problems]
        if self.wrong == 1:
            return UsageError(found[0], self.hint)
        return UsageError(
            f"{name}: {self.wrong} things are wrong, nothing was sent",
            self.hint, first_of(found, self.wrong))

    def request(self, number):
        """The decoded line of a number, from 1."""
        self.source.check_unchanged()
        return self.source.parse(self.raw(number), number)

    def raw(self, number):
        """The bytes of a line, from 1."""
        return self.source.read(*self.span(number, number))

    def span(self, first, last):
        """Where lines begin and end in the file."""
        return self.starts[first - 1], self.starts[last]

    def as_sent(self, number):
        """The line of a batch that a line, from 1, is or makes."""
        return (line_bytes(self.request(number)) if self.source.is_made
                else self.raw(number))


def check_size(name, size):
    """Raise for what the Batch API takes for too large."""
    if size > MOST_INPUT_BYTES:
        raise UsageError(f"{name}: Input file exceeds 100 MB ({size} bytes)",
                         "xeroctl batches run --split sends it in parts")


def check_metadata(args):
    """Raise for metadata that the Batch API takes for too large."""
    size = len(json_bytes(dict(args.metadata or ())))
    if size > MOST_METADATA_BYTES:
        raise UsageError("Metadata exceeds maximum size of 16KB"
                         f" ({size} bytes)", "drop the largest value")


# == prompts: requests made of the rows that people have =====================

DELIMITERS = {"csv": ",", "tsv": "\t"}
ROW_FORMS = tuple(DELIMITERS) + ("jsonl", "txt")


def digest_of(value):
    import hashlib
    return hashlib.sha256(json_bytes(value)).hexdigest()


def extension_of(path):
    return os.path.splitext(path)[1][1:].lower()


class Rows(Source):
    """A file of rows: CSV or TSV below a head, JSON objects, or lines.

    lines() yields each as bytes, and with it what is empty before it.
    columns are those of the head, of the objects read so far, or line.
    """

    unit = "row"

    def __init__(self, source, form):
        super().__init__(source.file, source.name)
        self.form, self.delimiter = form, DELIMITERS.get(form)
        self.columns = ["line"] if form == "txt" else []
        self.file.seek(0)
        first = self.file.readline()
        self.bom = first[:3] if first.startswith(codecs.BOM_UTF8) else b""
        self.line_end = "\r\n" if first.endswith(b"\r\n") else "\n"
        self.start = len(self.bom)
        if self.delimiter:
            head = next(self.lines(), b"")
            self.columns, self.start = self.cells(head), self.start + len(head)
        for name, count in Counter(self.columns).items():
            if count > 1:
                raise ValueError(f"the head has {compact_json(name)} twice")

    def lines(self):
        self.file.seek(self.start)
        taken = []
        for row in self.split(self.texts(taken)):
            if row:
                yield b"".join(taken)
                del taken[:]

    def texts(self, taken):
        """Yield lines in which only what ends a row is told apart."""
        for raw in self.file:
            taken.append(raw)
            raw = raw.replace(b"\0", b"0").replace(b"\r", b"")
            yield raw.decode("latin-1")

    def split(self, texts, **how):
        """Yield each row of some lines; of an empty line, what is empty."""
        if not self.delimiter:
            return map(str.strip, texts)
        import csv
        csv.field_size_limit(2 ** 31 - 1)
        return csv.reader(texts, delimiter=self.delimiter, **how)

    def cells(self, raw):
        """The cells of a row of CSV, strictly as RFC 4180 has it."""
        import csv
        text = utf8_text(raw)
        if "\0" in text:  # which the module takes from 3.11 on only
            raise ValueError("not CSV: it holds a NUL")
        try:
            for row in filter(None, self.split(
                    io.StringIO(text, newline="\n"), strict=True)):
                return row
        except csv.Error as problem:
            told = str(problem).partition(" - ")[0]
            raise ValueError("not CSV: " + told.replace(
                "unexpected end of data", "a quote is not closed"))
        raise ValueError("the file is empty")

    def record(self, raw):
        """What a row holds, by column; a short one ends with empty cells."""
        if self.delimiter:
            cells = self.cells(raw)
            if len(cells) > len(self.columns):
                raise ValueError(f"{len(cells)} cells below a head of"
                                 f" {len(self.columns)}")
            return dict(zip_longest(self.columns, cells, fillvalue=""))
        line = raw.rstrip(b"\r\n").rpartition(b"\n")[2]
        if self.form == "txt":
            return {"line": utf8_text(line)}
        found = parse_line(line)
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        self.columns += [name for name in found if name not in self.columns]
        return found


class Prompts(Rows):
    """Rows, and the requests for chat completions that are made of them.

    {column} in the template is filled, once; {word} has to be one, any other
    brace stays.  {{ and }} are braces in a template with a {{: without one,
    JSON ends so.  body is that of each request, but for the messages.
    """

    is_made = True

    def __init__(self, source, form, template, body, args):
        super().__init__(source, form)
        self.template, self.body, self.args = template, body, args
        self.places = re.compile(
            r"\{\{|\}\}|" * ("{{" in template) + r"\{([^{}]+)\}")
        self.digest = digest_of([form, self.columns, template, body,
                                 args.id_column, args.system, args.param])
        if self.columns:
            self.texts_of(dict.fromkeys(self.columns, ""))

    def texts_of(self, record):
        """The prompt and the id that a row gives."""
        def cell(name):
            if name not in record:
                raise ValueError(f"no column {compact_json(name)}: there are "
                                 + ", ".join(map(compact_json, record)))
            return cell_text(record[name])

        def piece(found):
            name, text = found.group(1), found.group()
            is_cell = name in record or re.match(r"\w[\w.-]*\Z", name or "")
            return cell(name) if is_cell else text if name else text[0]
        return (self.places.sub(piece, self.template),
                self.args.id_column and cell(self.args.id_column))

    def parse(self, raw, number):
        prompt, custom_id = self.texts_of(self.record(raw))
        if custom_id == "":
            raise ValueError(f"{self.args.id_column} is empty")
        messages = [{"role": "user", "content": prompt}]
        if self.args.system is not None:
            messages.insert(0, {"role": "system", "content": self.args.system})
        body = with_params(dict(self.body, messages=messages), self.args.param)
        return {"custom_id": custom_id or f"row-{number}", "method": "POST",
                "url": CHAT_URL, "body": body}


# == batches: made, waited for, and how they have ended ======================

def new_batch(app, group, args, file_id, **metadata):
    """Create a batch of an uploaded file; return the batch object."""
    body = {"input_file_id": file_id, "endpoint": args.batch_endpoint,
            "completion_window": "24h"}
    if args.metadata or metadata:
        body["metadata"] = dict(args.metadata or (), **metadata)
    return group.call(app, "POST", body=body, stand_in={
        "id": StandIn("<batch id>"), "status": "validating"})


def batch_problem(error, line_of):
    line, code, param = (dig(error, key) for key in ("line", "code", "param"))
    place = f"{line_of(line)}: " if isinstance(line, int) else ""
    more = ", ".join(as_text(fact) for fact in (code, param) if fact)
    return (place + (error_message(error) or as_text(error))
            + (f" ({more})" if more else ""))


def batch_problems(batch, line_of="line {}".format):
    """What a batch says of itself that is wrong, a text each.

    It stands in `errors`, a list, alone or under data, or a text, or in
    `error`.  line_of says what a line of the batch is in the input.
    """
    found = dig(batch, "errors")
    found = found.get("data", found) if isinstance(found, dict) else found
    found = found or dig(batch, "error") or []
    return [batch_problem(each, line_of) for each in (
        found if isinstance(found, list) else [found])]


def seconds_taken(batch):
    """How long a batch took from create to end; None if it does not say."""
    begun, *ends = [seconds_of(dig(batch, name + "_at")) or 0
                    for name in ("created",) + ENDED]
    return max(ends) - begun if begun and max(ends) else None


def has_ended(batch):
    return dig(batch, "status") in ENDED


def is_unclear(batch):
    """Whether an end is contradicted by counts of what is in no file."""
    missing = [name for name, file in (("completed", "output_file_id"),
                                       ("failed", "error_file_id"))
               if not dig(batch, file)]
    return batch["status"] in ("completed", "expired", "cancelled") and (
        any(counted(dig(batch, "request_counts." + name)) for name in missing)
        or len(missing) == 2 and batch["status"] == "completed")


def wait_command(app, batch_ids):
    return " and ".join(call_again(app, "batches", batch_id, "--wait")
                        for batch_id in batch_ids) + " resumes the wait"


class BatchWait:
    """Polls batches until all of them have ended.

    What fails for one of them is raised once all others have ended.
    look_at(batch_id) gives each as it is.  If they are the parts of a run,
    total is how many lines they have, and tokens() what it has cost so far.
    """

    def __init__(self, app, group, batch_ids, look_at=None, total=None,
                 tokens=lambda: 0):
        self.app, self.total, self.tokens = app, total, tokens
        self.batches, self.failure = dict.fromkeys(batch_ids), None
        self.look_at = look_at or (lambda batch_id: with_status(
            group.call(app, "GET", path_of(batch_id))))

    def run(self):
        """Return the batches as they have ended."""
        resume = ("the same command goes on" if self.total
                  else wait_command(self.app, self.batches))
        return wait_until(self.app, self.poll, lambda batches: all(map(
            has_ended, batches)), self.describe, resume)

    def poll(self):
        passing = None
        for batch_id, batch in self.batches.items():
            try:
                if not has_ended(batch):
                    self.batches[batch_id] = self.look_at(batch_id)
            except FAILURES as error:
                error.facts["batch"] = batch_id
                if is_passing(error):
                    passing = error
                else:
                    self.failure = self.failure or error
                    if len(self.batches) > 1:
                        self.app.terminal.note(f"{batch_id}: {error}")
                    self.batches[batch_id] = {"id": batch_id, "status": GONE}
        batches = list(self.batches.values())
        if passing or self.failure and all(map(has_ended, batches)):
            raise passing or self.failure
        return batches

    def describe(self, batches):
        """What a Progress shows: which has not ended, and all counts."""
        left = [each for each in batches if not has_ended(each)]
        place = f"{len(batches) - len(left[1:])}/{len(batches)}"
        status = (left or batches)[0]["status"]
        label = (f"part {place}" if self.total else f"batch {place}"
                 if len(batches) > 1 else next(iter(self.batches)))
        if not self.total or status != "in_progress":
            label += " " + status
        done, failed, total = (
            sum(counted(dig(batch, "request_counts." + each))
                for batch in batches)
            for each in ("completed", "failed", "total"))
        tokens = self.tokens() + sum(
            counted(dig(batch, "usage.total_tokens")) for batch in left)
        total = self.total or total
        return (label, done + failed if total else None, total, failed, tokens)


# == batch runs: a whole job, that no kill makes begin again =================

RECORD = (rb'(?s)\{"line":(\d{1,18}),"ok":(true|false),"round":(\d\d?|100),'
          rb'"tokens":(\d{1,300}),"result":(null|\{.*\})\}\r?\n\Z')
HEAD = b'{"run":"'
SYNC_S = 5


class Journal:
    """The results of a run, appended as they come, one JSON text a line:

    {"line":17,"ok":true,"round":0,"tokens":12,"result":{…}}

    The last one for a line of the input counts; a result of null takes it
    back.  9 bytes for each of those are kept in memory: where the result
    stands, and a mark.  What is no line's, but was paid for, stands under
    line 0, and counts once.
    """

    NONE, OK, FAILED = 0, 1, 2  # FAILED + n: failed in round n
    TAKEN_BACK = b"null"

    def __init__(self, path, clock):
        self.path, self.file = path, open_to_write(path)
        self.clock, self.synced = clock, clock.monotonic()
        self.tokens, self.is_ours = 0, HEAD.startswith(
            self.file.read(len(HEAD)))

    def load(self, count, head, is_anew):
        """Read what is there of a run; whatever has another head is dropped.

        A last line that a kill has torn is cut off; a power cut leaves holes.
        """
        import array
        self.places = array.array("q", bytes(8 * count))
        self.marks, self.extras = bytearray(count), {}
        self.is_ours = True
        with writing(self.path):
            self.file.seek(0)
            if is_anew or self.file.readline(BLOCK) != head:
                self.file.seek(0)
                self.file.truncate()
                self.put(head)
            self.end = len(head)
            for raw in self.file:
                if not raw.endswith(b"\n"):
                    break
                with suppress(ValueError):
                    self.read(raw)
                self.end += len(raw)
            self.file.seek(self.end)
            self.file.truncate()

    def read(self, raw):
        """Note what a line holds; raise ValueError if that is no record."""
        parse_line(raw)
        found = re.match(RECORD, raw)
        if not found:
            raise ValueError("no record of a run")
        number, round_number, tokens = map(int, found.group(1, 3, 4))
        self.note(number, found.group(2) == b"true", round_number,
                  found.group(5), tokens, raw)

    def note(self, number, is_good, round_number, result, tokens, raw):
        """Remember a record by its place."""
        if number == 0:
            self.extras.setdefault(hash(raw), self.end)
        elif number <= len(self.marks):
            self.places[number - 1] = self.end
            self.marks[number - 1] = (
                self.NONE if result == self.TAKEN_BACK else
                self.OK if is_good else self.FAILED + round_number)
            self.tokens += tokens

    def put(self, data):
        with writing(self.path):
            self.file.write(data)
            self.file.flush()

    def add(self, number, is_good, round_number, result, tokens=0):
        """Append the result of a line; result is JSON as bytes."""
        raw = b'{"line":%d,"ok":%b,"round":%d,"tokens":%d,"result":%b}\n' % (
            number, b"true" if is_good else b"false", round_number, tokens,
            result)
        self.put(raw)
        self.note(number, is_good, round_number, result, tokens, raw)
        self.end += len(raw)
        if self.clock.monotonic() - self.synced >= SYNC_S:
            self.sync()

    def sync(self):
        """Have the disk hold what was added."""
        with writing(self.path):
            os.fsync(self.file.fileno())
        self.synced = self.clock.monotonic()

    def todo(self, round_number):
        """Yield the lines to send: with no result, or failed before."""
        for number, mark in enumerate(self.marks, 1):
            if mark == self.NONE or (0 <= mark - self.FAILED < round_number):
                yield number

    def results(self):
        """Yield (is it good, tokens, result as bytes), those of none last."""
        for place in chain(self.places, self.extras.values()):
            self.file.seek(place)
            is_good, tokens, result = re.match(
                RECORD, self.file.readline()).group(2, 4, 5)
            yield is_good == b"true", int(tokens), result


def ranges_of(numbers):
    """Join ascending numbers to [first, last] ranges."""
    ranges = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def numbers_in(ranges):
    return chain.from_iterable(range(first, last + 1)
                               for first, last in ranges)


def failure(custom_id, code, message, response=None, **more):
    """A result line for a request that failed (OpenAI, Batch API)."""
    return {"id": None, "custom_id": custom_id, "response": response,
            "error": dict(code=code, message=message, **more)}


def read_result(raw):
    """(value, bytes) of a server's line: as it is, or NaN as null."""
    try:
        return parse_line(raw), raw.strip(b" \t\r\n")
    except ValueError:
        value = parse_line(raw, SERVER_DECODER)
        return value, json_bytes(value)


def body_of(result):
    """The body of a result line, which some servers send as a JSON text."""
    body = dig(result, "response.body")
    return json_or_text(body, SERVER_DECODER) if is_filled(body) else body


def tokens_of(result):
    return counted(dig(body_of(result), "usage.total_tokens"))


def failure_kind(raw):
    """What a failed result says, as others may, too."""
    result = parse_line(raw)
    status = counted(dig(result, "response.status_code"))
    said = next(filter(None, map(error_message, (
        result, body_of(result), dig(result, "response")))), None)
    said = said or as_text(dig(result, "error") or "")
    if status >= 300 and not said.startswith("HTTP"):
        said = f"HTTP {status} {said}".rstrip()
    return one_line(said)[:200] or "no reason told"


def judged(result, request):
    """Return a result line, and whether it holds what its url promises.

    One that says nothing of why it does not is told it in "error".
    """
    status = dig(result, "response.status_code")
    is_told = told_error(result) or not (
        str(status or 200).startswith("2"))
    try:
        if not is_told:
            check_line(body_of(result), request)
        return result, not is_told
    except AnswerError as error:
        told = {"code": error.facts.get("code") or error.kind,
                "message": str(error)}
        return dict(result, error=told), False


class Accounts:
    """Holds the server's files against what was asked of it.

    Every custom_id of a part has to stand in them exactly once; any other
    line was paid for, too, and is kept word for word.
    """

    def __init__(self, run, part):
        self.run, self.part, self.spare = run, part, []
        self.left = {run.input.request(number)["custom_id"]: number
                     for number in numbers_in(part["lines"])}

    def take(self, lines, name):
        """Put the results of one of the server's files into the journal."""
        for number, raw in enumerate(lines, 1):
            if number == 1 and raw.startswith(codecs.BOM_UTF8):
                raw = raw[3:]
            if not raw.strip():
                continue
            place = f"{self.part['batch']}, {name} file, line {number}"
            try:
                result, text = read_result(raw)
                line = self.left.pop(id_of(result))
            except ValueError as problem:
                self.leave(raw, "unreadable", f"{place}: {problem}")
            except KeyError as found:
                if dig(result, "custom_id") is None and dig(
                        result, "error.line"):
                    self.add(0, False, text)  # left by a finished run
                else:
                    self.leave(raw, "unexpected",
                               f"{place}: nobody waits for custom_id {found}")
            else:
                told, is_good = judged(result, self.run.input.request(line))
                text = text if told is result else json_bytes(told)
                self.add(line, name == "output" and is_good, text,
                         tokens_of(result))

    def add(self, line, is_good, result, tokens=0):
        self.run.journal.add(line, is_good, self.part["round"], result, tokens)

    def leave(self, raw, code, message):
        """Keep a line for the end: by then its id may be missing."""
        text = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
        custom_id = re.search(r'"custom_id"\s*:\s*"([^"\\]+)"', text)
        self.spare.append((custom_id and custom_id.group(1),
                           failure(None, code, message, line=text)))

    def settle(self, what, status):
        """Give the lines that have no result one that says why."""
        for custom_id, result in self.spare:
            line = self.left.pop(custom_id, 0)
            result["custom_id"] = custom_id if line else None
            self.add(line, False, json_bytes(result))
        code = "missing" if status == "completed" else "batch_" + status
        for custom_id, line in self.left.items():
            text = f"no result: {what} is {status}"
            self.add(line, False, json_bytes(failure(custom_id, code, text)))


class Sheet:
    """OUT as CSV or TSV: each row of the input, and its answer beside it.

    A cell is written as it is, whatever a spreadsheet takes it for; but NUL,
    which no reader of CSV takes, is U+FFFD.
    """

    ADDED = ["answer", "finish_reason", "error", "tokens"]

    def __init__(self, run, form):
        self.run, self.source, self.form = run, run.source, form

    def check(self):
        """Raise for a column that the answers need."""
        for name in set(self.ADDED) & set(self.source.columns):
            raise UsageError(
                f"{self.source.name} has a column {name} of its own",
                "rename it, or let --output-file end in .jsonl")

    def line(self, cells):
        """A row as bytes, with the line end of the input."""
        return csv_text([cells], self.source.line_end,
                        DELIMITERS[self.form]).encode("utf-8")

    def columns(self):
        return list(map(self.text, self.source.columns)) + self.ADDED

    @staticmethod
    def text(value):
        return whole(cell_text(value)).replace("\0", "\ufffd")

    def cells(self, number):
        """The cells that a row has in the input."""
        record = self.source.record(self.run.input.raw(number))
        return [self.text(record.get(name)) for name in self.source.columns]

    def row(self, number, is_good, raw):
        """A row of the input, and what has come of it."""
        body = body_of(parse_line(raw))
        pieces = content_pieces(dig(body, "choices.0.message.content")
                                or dig(body, "choices.0.message.refusal")
                                or dig(body, "choices.0.text"))
        answer = "".join(text for kind, text in pieces if kind != REASONING)
        return self.line(self.cells(number) + list(map(self.text, [
            answer * is_good, dig(body, "choices.0.finish_reason"),
            None if is_good else failure_kind(raw),
            dig(body, "usage.total_tokens")])))

    def results(self):
        """Yield the result lines of an OUT; raise for what is not ours."""
        rows = Rows(self.run.app.open_source(self.run.output), self.form)
        if rows.columns != self.columns():
            raise ValueError("its head is another")
        for number, raw in enumerate(rows.lines(), 1):
            *cells, answer, reason, error, tokens = rows.record(raw).values()
            if number > self.run.input.count or cells != self.cells(number):
                raise ValueError(f"row {number} is not that of the input")
            body = {"choices": [{"message": {"content": answer},
                                 "finish_reason": reason or None}],
                    "usage": {"total_tokens": json_or_text(tokens)}}
            if not error:
                yield line_bytes({
                    "custom_id": self.run.input.request(number)["custom_id"],
                    "response": {"body": body}})


class Run:
    """A whole job: from an input file to its results, in input order.

    OUT.state.json says how far it is, and OUT.journal.jsonl holds the
    results so far.  With them the same command goes on where a kill or a
    lost network has stopped it; both are gone once OUT stands complete, but
    the state stays as long as there are errors: what has failed is sent again
    by the same command, too.

    A subclass answers the lines: do_round(number) has the journal hold a
    result for each that lacks one, plan() shows what that would send.
    """

    def __init__(self, app, group, args, slug, source):
        self.app, self.group, self.args = app, group, args
        self.terminal, self.clock = app.terminal, app.clock
        self.slug, self.source = slug, source
        self.output = on_disk(args.output_file)
        self.errors = on_disk(args.errors_file
                              or args.output_file + ".errors.jsonl")
        form = extension_of(self.output)
        self.sheet = (Sheet(self, form) if source.is_made
                      and form in DELIMITERS else None)
        self.state_path = self.output + ".state.json"
        self.journal_path = self.output + ".journal.jsonl"
        self.check_paths()
        self.is_over = False

    def check_paths(self):
        """Raise unless input and outputs are files of their own."""
        if "-" in (self.output, self.errors):
            raise UsageError("a run keeps its state beside its output: name"
                             " a file, not -")
        taken, named = {}, {"the input": on_disk(self.source.name),
                            "the state": self.state_path,
                            "the journal": self.journal_path}
        for end in "", ".part", ".part.json":
            named["--output-file" + end] = self.output + end
            named["--errors-file" + end] = self.errors + end
        for what, path in named.items():
            other = taken.setdefault(os.path.realpath(path), what)
            if other != what:
                raise UsageError(f"{path} cannot be both {other} and {what}")

    def check(self):
        """Read the input; raise for what is wrong with it."""
        url = None if self.args.direct else self.args.batch_endpoint
        self.input = BatchInput(self.source, url, places=True).check()

    def run(self):
        """Do the job, or the rest of it; return its summary."""
        self.check()
        if self.sheet:
            self.sheet.check()
        if self.app.plan:
            return self.plan()
        self.journal = Journal(self.journal_path, self.clock)
        try:
            with NewFile(self.errors, self.args.force) as errors, \
                    NewFile(self.output, self.args.force) as output:
                self.open_state()
                for round_number in range(self.args.retry_failed + 1):
                    self.do_round(round_number)
                return self.merge(output, errors)
        except INTERRUPTS:
            self.terminal.note("the same command goes on where this one has"
                               " stopped")
            raise
        finally:
            # A journal without a run under way is of no more use.
            if self.journal.is_ours and (
                    self.is_over or not os.path.exists(self.state_path)):
                remove_quietly(self.journal_path)
            with suppress(OSError):  # told before, by the write
                self.journal.file.close()

    def purpose(self):
        """What the state of another run must not differ in."""
        return {"version": 1, "prompts": self.source.digest,
                "input": {"bytes": self.source.size,
                          "sha256": self.input.digest.hexdigest(),
                          "lines": self.input.count},
                "direct": bool(self.args.direct),
                "base_url": self.app.api.deployment.base_url,
                "endpoint": self.slug,
                "batch_endpoint": self.args.batch_endpoint}

    def new_state(self):
        return dict(self.purpose(), run=os.urandom(6).hex(),
                    started=self.clock.now(), parts=[])

    def open_state(self):
        """Take up the state and journal that are there, or begin anew."""
        state = self.read_state()
        if state is None:
            self.check_free()
        is_again = self.is_over and not self.args.force
        if is_again and not self.args.retry_failed:
            raise UsageError(
                f"{self.output} is done, and {state['failed']} of"
                f" {self.input.count} requests failed",
                "--retry-failed N sends only those again; --force begins anew")
        self.state = (None if self.is_over else state) or self.new_state()
        self.journal.load(
            self.input.count, line_bytes({"run": digest_of(self.purpose())}),
            self.is_over)
        if is_again:
            self.take_up()
        if self.state is not state:
            self.save()
            self.is_over = False

    def take_up(self):
        """Have the journal hold what a finished run has left.

        Raise unless OUT and the errors have each id of the input once.
        """
        accounts = Accounts(self, {"batch": self.output, "round": 0,
                                   "lines": [[1, self.input.count]]})
        wrong = []
        accounts.take(self.app.open_source(self.errors).lines(), "error")
        try:
            accounts.take(
                self.sheet.results() if self.sheet else
                self.app.open_source(self.output).lines(), "output")
        except ValueError as problem:
            wrong.append(f"{self.output}: {problem}")
        wrong += [result["error"]["message"] for _, result in accounts.spare]
        wrong += [f"neither has {name}" for name in accounts.left]
        if wrong:
            raise UsageError(
                f"{self.output} and {self.errors} do not have each id of the"
                " input once", "--force begins anew", first_of(wrong))

    def read_state(self):
        """The state that is there; None to begin anew."""
        if not os.path.exists(self.state_path):
            return None
        state = json_or_text(decoded(read_file(self.state_path)))
        self.is_over = dig(state, "failed") is not None
        other = " and ".join(name for name, value in self.purpose().items()
                             if dig(state, name) != value)
        if not other and state.pop("seal", None) == digest_of(state):
            return state
        if self.args.force:
            return None
        if not other or not isinstance(state, dict):
            raise UsageError(
                f"{self.state_path} is broken: not as a run leaves it",
                "--force begins anew: what the journal has is kept, batches"
                " that are not fetched are lost")
        raise UsageError(
            f"{self.state_path} is of another run: not the same {other}",
            "finish that run, or begin anew with --force")

    def check_free(self):
        foreign = [] if self.journal.is_ours else [self.journal_path]
        for path in foreign + [self.output, self.errors]:
            if os.path.exists(path) and not self.args.force:
                raise UsageError(f"{path} exists, and no run is under way"
                                 " there", "--force replaces it")

    def announce(self, count, how):
        """Say how many requests there are to send."""
        if count:
            size = self.input.size * count // self.input.count
            self.terminal.note(f"{as_many(count, 'request')},"
                               f" {as_size(size)}, {how}")

    def save(self):
        """Have the disk hold the state, old or new, never torn."""
        if not self.app.plan:
            with writing(self.state_path):
                write_privately(self.state_path, json_bytes(
                    dict(self.state, seal=digest_of(self.state))))

    def merge(self, output, errors):
        """Write the results in input order, and end the run."""
        self.journal.sync()
        spent, self.kinds = 0, Counter()
        if self.sheet:
            output.write(self.source.bom
                         + self.sheet.line(self.sheet.columns()))
        for number, (is_good, tokens, result) in enumerate(
                self.journal.results(), 1):
            if self.sheet and number <= self.input.count:
                output.write(self.sheet.row(number, is_good, result))
            elif is_good:
                output.write(result + b"\n")
            spent += tokens
            if not is_good:
                errors.write(result + b"\n")
                self.kinds[failure_kind(result)] += 1
        output.finish()
        self.clear_away()
        summary = self.summary(spent)
        if errors.count:
            errors.finish()
            self.state["failed"] = summary["failed"]
            self.save()
        else:
            remove_quietly(self.errors)
            with writing(self.state_path):
                os.unlink(self.state_path)
        self.is_over = True
        return summary

    def clear_away(self):
        """Remove what kills have left behind."""
        import glob
        places = [(f"{self.output}.xeroctl-{self.state['run']}-", "*")] + [
            (os.path.realpath(path) + end, ".????????.tmp") for path, end in (
                (self.state_path, ""), (self.output, ".part.json"),
                (self.errors, ".part.json"))]
        for begin, end in places:
            for path in glob.glob(glob.escape(begin) + end):
                remove_quietly(path)

    def summary(self, tokens):
        count, done = self.input.count, self.journal.marks.count(Journal.OK)
        took = self.clock.now() - self.state["started"]
        return {"requests": count, "done": done, "failed": count - done,
                "tokens": tokens, "seconds": round(took, 3),
                "rate": round(count / max(took, 0.001), 3),
                "slowest_part": self.slowest_part(),
                "output_file": from_disk(self.output),
                "errors_file": from_disk(self.errors) if self.kinds else None,
                "batches": [part["batch"] for part in self.state["parts"]],
                "problems": [problem for part in self.state["parts"]
                             for problem in part["problems"]]}

    def slowest_part(self):
        """Which of several parts took longest, and how long; or None."""
        parts = [(part["seconds"] or 0, part["batch"])
                 for part in self.state["parts"]]
        took, name = max(parts) if len(parts) > 1 else (0, None)
        return f"{name}, {as_duration(took)}" if took else None


# == runs in batches: each part uploaded once, each batch created once =======

NO_LIST, GONE_STATUSES, MOST_PAGES = (404, 405, 501), (404, 410), 1000
PATIENCE, CLEARING_POLLS = 3, 25  # with what is gone, with an unclear end


def lines_in(parts):
    """How many lines the parts of a run have."""
    return sum(last - first + 1 for part in parts
               for first, last in part["lines"])


class BatchRun(Run):
    """Answers the lines by batches, one for each part of them."""

    def check(self):
        super().check()
        self.limit = PART_BYTES if self.args.split else MOST_INPUT_BYTES
        found = self.input
        is_over = (found.size > MOST_INPUT_BYTES
                   or found.count > self.args.max_requests)
        if is_over and not self.args.split:
            raise UsageError(
                f"{found.source.name} is over the limit of one batch"
                f" ({found.count} requests, {found.size} bytes)",
                "--split sends it in several")
        size, number = found.largest
        if size > self.limit:
            raise UsageError(
                f"{found.source.name}: {found.source.unit} {number} alone is"
                f" larger than a batch may be ({size} bytes)")

    def plan(self):
        self.state = self.new_state()
        if self.source.is_made:
            self.terminal.note("the first request: " + compact_json(
                self.input.request(1)))
        self.do_round(0)

    def do_round(self, round_number):
        self.parts = [part for part in self.state["parts"]
                      if part["round"] == round_number]
        self.parts = self.parts or self.divide(round_number)
        left = [part for part in self.parts if not part["is_done"]]
        self.announce(lines_in(left), "in " + as_many(len(left), "part"))
        begun, self.doubts = [], Counter()
        try:
            for part in self.parts:
                self.begin(part)
                begun.append(part)
        except FAILURES as error:
            error.facts["part"] = part["name"]
            if begun:
                self.terminal.note(f"{part['name']}: {error}")
                self.collect(begun)
            elif error.status in NO_LIST:
                error.add_hint("--direct --force needs no Batch API")
            raise
        if begun and not self.app.plan:
            self.collect(begun)

    def begin(self, part):
        """Have the file and the batch of a part made.

        A file that create refuses is uploaded again, once.
        """
        def is_file(file):
            return (dig(file, "filename") == part["name"] + ".jsonl"
                    and dig(file, "bytes") == self.excerpt(part).size
                    and dig(file, "id") != part.get("refused"))

        def is_batch(batch):
            return (dig(batch, "metadata.xeroctl_run") == part["name"]
                    or dig(batch, "input_file_id") == part["file"])
        self.ensure(part, "file", self.upload, "/files?purpose=batch", is_file)
        try:
            self.ensure(part, "batch", self.create, self.group.path, is_batch)
        except ApiError as error:
            if "refused" in part or not self.is_refused(part["file"], error):
                raise
            self.change(part, file=None, refused=part["file"], making=None)
            self.begin(part)

    def is_refused(self, file_id, error):
        """Whether create failed for the file: it is gone, or of no use."""
        try:
            file = self.app.api.call("GET", path_of("files", file_id),
                                     slug=self.slug)
        except XeroctlError as found:
            return found.status in GONE_STATUSES
        return (error.facts.get("param") == "input_file_id" or dig(
            file, "status") in ("error", "deleted", "expired"))

    def divide(self, round_number):
        """Cut the lines to send into parts, and note them in the state."""
        numbers = (self.journal.todo(round_number) if not self.app.plan
                   else range(1, self.input.count + 1))
        parts = [{"name": f"xeroctl-{self.state['run']}-{number}",
                  "round": round_number, "lines": lines, "file": None,
                  "batch": None, "making": None, "is_done": False}
                 for number, lines in enumerate(
                     self.cut(numbers), len(self.state["parts"]) + 1)]
        self.state["parts"] += parts
        self.save()
        return parts

    def cut(self, numbers):
        """Yield ranges for each part, within its bytes and requests."""
        lines, size = [], 0
        for number in numbers:
            more = len(self.input.as_sent(number))
            if lines and (size + more > self.limit
                          or len(lines) == self.args.max_requests):
                yield ranges_of(lines)
                lines, size = [], 0
            lines.append(number)
            size += more
        if lines:
            yield ranges_of(lines)

    def change(self, part, **changes):
        part.update(changes)
        self.save()

    def ensure(self, part, name, make, path, is_made):
        """Have the file or the batch of a part made exactly once.

        The state says that it is being made before it is.  What a kill, a
        lost answer or a refusal has left in doubt is looked up before it is
        made again.
        """
        if part[name]:
            return
        is_doubtful = part["making"] == name or (
            name == "batch" and "refused" in part)

        def look_up():
            return dig(self.search(path, is_made, self.args.assume_lost), "id")
        self.change(part, making=name)
        made = made_once(self.app, lambda: make(part), look_up, is_doubtful)
        self.change(part, **{name: made, "making": None})

    def excerpt(self, part):
        """What is uploaded of a part; what is made of rows is made now."""
        name = part["name"] + ".jsonl"
        if self.source.is_made:
            made = map(self.input.as_sent, numbers_in(part["lines"]))
            return Excerpt(Source(spooled(made), name))
        return Excerpt(self.source, name, [
            self.input.span(*lines) for lines in part["lines"]])

    def upload(self, part):
        place = f"{self.parts.index(part) + 1}/{len(self.parts)}"
        return id_in(send_file(self.app, self.excerpt(part), self.slug,
                               f"part {place} upload", purpose="batch"))

    def create(self, part):
        return id_in(new_batch(self.app, self.group, self.args, part["file"],
                               xeroctl_run=part["name"]))

    def search(self, path, is_wanted, may_lack=True):
        """The first record of a list that is wanted, or None.

        may_lack tells whether a server without that list answers so, too.
        """
        lists = record_lists(self.app, path, {"limit": 100}, slug=self.slug)
        try:
            for number, records in enumerate(lists, 1):
                for record in filter(is_wanted, records):
                    return record
                if number == MOST_PAGES:
                    raise AnswerError(f"{path} goes on after {number} pages")
        except (AnswerError, ApiError) as error:
            if error.status not in (None, *NO_LIST):
                raise
            if not may_lack:
                raise AnswerError("this server has no list that tells what"
                                  f" has been made: {error}",
                                  "--assume-lost makes it again")
        return None

    def collect(self, parts):
        """Wait for the batches; take over the results of each as it ends."""
        by_batch = {part["batch"]: part for part in parts}
        BatchWait(self.app, self.group, by_batch,
                  lambda batch_id: self.watch(by_batch[batch_id]),
                  lines_in(parts), lambda: self.journal.tokens).run()

    def watch(self, part):
        """The batch of a part as it is; at its end the results are taken."""
        batch, marks = self.look_at(part["batch"]), self.journal.marks
        is_settled = part["is_done"] and all(
            marks[number - 1] for number in numbers_in(part["lines"]))
        if has_ended(batch) and not is_settled:
            self.settle(part, batch)
        return batch

    def look_at(self, batch_id):
        """A batch as it is; a doubtful end counts only after a while.

        Not found, it may not be known everywhere; the list decides then.
        """
        try:
            batch = with_status(self.group.call(self.app, "GET",
                                                path_of(batch_id)))
            patience = CLEARING_POLLS if is_unclear(batch) else 0
        except ApiError as error:
            if error.status not in GONE_STATUSES:
                raise
            batch, patience = {"id": batch_id, "status": GONE}, PATIENCE
        self.doubts[batch_id] = self.doubts[batch_id] + 1 if patience else 0
        if 0 < self.doubts[batch_id] <= patience:
            return dict(batch, status="in_progress")
        if batch["status"] == GONE:
            batch = self.search(self.group.path, lambda listed: dig(
                listed, "id") == batch_id) or batch
        return with_status(batch)

    def settle(self, part, batch):
        """Fetch the results of a batch that has ended, and account for them.

        Failed in validation, it has none, and says why.
        """
        accounts, paths = Accounts(self, part), []
        what, status = part["batch"], batch["status"]
        for name in ("output", "error"):
            if dig(batch, name + "_file_id"):
                file_id = id_in(batch, name + "_file_id")
                path = f"{self.output}.{part['name']}.{name}"
                paths.append(path)
                if self.fetch(file_id, path):
                    accounts.take(self.app.open_source(path).lines(), name)
                else:
                    what, status = f"{file_id} of {part['batch']}", GONE
        numbers = dict(enumerate(numbers_in(part["lines"]), 1))
        told = batch_problems(batch, lambda line: (
            f"{self.source.unit} {numbers.get(line, line)}"))
        accounts.settle(what, status)
        self.journal.sync()
        self.change(part, is_done=True, problems=first_of(told),
                    seconds=seconds_taken(batch))
        for path in paths:
            remove_quietly(path)

    def fetch(self, file_id, path):
        """Download a file, unless an earlier run has; False if it is gone."""
        try:
            if not os.path.exists(path):
                Download(self.app, file_id, self.slug, PATIENCE).to(path)
            return True
        except ApiError as error:
            if error.status not in GONE_STATUSES or self.search(
                    "/files", lambda file: dig(file, "id") == file_id):
                raise
            return False


# == direct runs: line by line, where there is no Batch API ==================

LONGEST_ROW = 20
LINE_STATUSES = 400, 413, 422  # they are about the line, not the place
LAST_STATUSES = 401, 403, 429, 503, 529  # every other line would meet them


def kept_result(result):
    """A result as bytes; one that cannot be written is a failure."""
    try:
        return json_bytes(result)
    except (RecursionError, ValueError) as problem:
        result["error"] = {"code": "unkept", "message": str(problem)}
        return json_bytes(dict(result, response=None))


class DirectRun(Run):
    """Answers the lines one by one, with workers in parallel.

    Each of them takes a line, sends it and keeps its result; only sending
    is done in parallel.  The main thread waits, and takes the signals.
    """

    until = strikes = 0  # when the wait of all is over, and what for

    def do_round(self, round_number):
        self.app.api.check_transport()
        self.app.network.keeps = True
        self.todo = self.journal.todo(round_number)
        total = sum(1 for _ in self.journal.todo(round_number))
        self.announce(total, f"{self.args.concurrency} at a time")
        self.round, self.row, self.lock = round_number, [], RLock()
        self.error, self.is_stopped = None, False
        self.done = self.input.count - total
        self.failures = self.journal.marks.count(Journal.FAILED + round_number)
        try:
            with Progress(self.terminal) as self.progress:
                self.tell()
                self.work_together(min(self.args.concurrency, total))
        finally:
            with self.lock:
                self.is_stopped = True
            self.journal.sync()
            self.app.network.close()
        if self.error:
            raise self.error

    def work_together(self, count):
        """Return when so many workers have answered all lines, or stopped."""
        import threading
        workers = [threading.Thread(target=self.work, daemon=True)
                   for _ in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if isinstance(self.error, FAILURES):
            self.error.add_hint("the same command goes on")

    def plan(self):
        """Show the first requests in place of all."""
        count = self.input.count
        self.announce(count, "of which these are the first")
        for number in range(1, min(count, 3) + 1):
            self.app.plan.requests.append(
                self.request(self.input.request(number)))

    def work(self):
        """What each worker does: answer line after line until none is left.

        What ends the run waits for the requests that are under way.
        """
        try:
            for number, request in iter(self.take, None):
                self.keep(number, *self.answer(request))
        except Exception as error:
            with self.lock:
                self.error = self.error or error

    def take(self):
        """The number of the next line and what it holds, or None."""
        with self.lock:
            is_over = self.error or self.is_stopped
            number = None if is_over else next(self.todo, None)
            return number and (number, self.input.request(number))

    def keep(self, number, result, fault):
        """Put a result into the journal, unless nobody waits for it.

        After many faults in a row that are not the lines' own it is the
        place that is at fault, and those lines have no result.
        """
        with self.lock:
            if result is None or self.is_stopped:
                return
            raw, journal = kept_result(result), self.journal
            journal.add(number, not result["error"], self.round, raw,
                        tokens_of(result))
            self.row = self.row + [number] if fault else []
            if len(self.row) >= LONGEST_ROW:
                for number in self.row:
                    journal.add(number, False, self.round, journal.TAKEN_BACK)
                fault.details.append(f"{LONGEST_ROW} requests in a row failed:"
                                     " they count as unanswered")
                raise fault
            self.done += 1
            self.failures += bool(result["error"])
            self.tell()

    def tell(self):
        self.progress.show("sending" + " again" * (self.round > 0), self.done,
                           self.input.count, self.failures,
                           self.journal.tokens)

    def request(self, request):
        body = {name: value for name, value in request["body"].items()
                if not name.startswith("stream_")}
        if body.get("stream"):
            body["stream"] = False
        return self.app.api.request(
            "POST", request["url"][len("/v1"):], slug=self.slug, body=body,
            silence=INFERENCE_TIMEOUT_S)

    def answer(self, request):
        """Send a line until it is answered; return (result line, fault).

        A failure that is not the moment's is a result; the fault is None if
        it is the line's own.  No result: nothing is to be sent any more.
        """
        wire_request = self.request(request)
        while not (self.error or self.is_stopped):
            wait = self.until - self.clock.monotonic()
            if wait > 0:
                self.clock.sleep(min(wait, 1))
                continue
            try:
                return self.send(request, wire_request)
            except (StreamError,) + FAILURES as error:
                if not is_worth_repeating(wire_request, error):
                    return self.failed(request["custom_id"], error)
                self.slow(error)
        return None, None

    def slow(self, error):
        """Have all wait, at each strike longer; raise what lasts too long."""
        with self.lock:
            now = self.clock.monotonic()
            if now < self.until:
                return  # what was on its way when the first of them struck
            self.since = self.since if self.strikes else now
            self.strikes += 1
            wait = retry_wait(error, self.strikes, self.clock)
            if wait > LONGEST_WAIT_S or now - self.since > LONGEST_OUTAGE_S:
                raise error
            self.until = now + wait
            self.terminal.note(f"{error}: all wait {as_duration(wait)}")

    def send(self, request, wire_request):
        with self.app.api.follow(wire_request, 1) as answer:
            body = self.terminal.secrets.masked_json(
                whole_reply(answer, request["url"]))
        with self.lock:
            self.strikes = 0
        return judged({"id": "direct-" + request["custom_id"],
                       "custom_id": request["custom_id"],
                       "response": {"status_code": answer.status,
                                    "request_id": answer.request_id,
                                    "body": body},
                       "error": None}, request)[0], None

    def failed(self, custom_id, error):
        """The result line of a request that failed for good, and its fault.

        It goes to a file: what a server quotes of the key does not.
        """
        status, code = error.status, error.facts.get("code") or error.kind
        if (error.lasting or status in LAST_STATUSES
                or code == "endpoint_not_found"):
            raise error
        response = status and {
            "status_code": status, "request_id": error.facts.get("request_id"),
            "body": error.body}
        found = failure(custom_id, *self.terminal.secrets.masked_json(
            [code, str(error), response]))
        is_of_line = isinstance(error, StreamError) or status in LINE_STATUSES
        return found, None if is_of_line else error


# == sessions: many turns, in one terminal or in one file =====================

def read_message(app, args, what="message"):
    """Have the message be what the user says; `-` is standard input."""
    args.message = app.given_text(args.message)
    if args.message == "":
        raise UsageError(f"the {what} is empty")


def fenced(app, path):
    """A file's text in a fence that it cannot close, below its name."""
    text = app.read_text(path, may_be_odd=True)
    ticks = max([2] + list(map(len, re.findall("`+", text)))) + 1
    name = "stdin" if path == "-" else os.path.basename(path)
    return f"{whole(name)}\n{'`' * ticks}\n{text}\n{'`' * ticks}"


def image_url(app, source):
    """The URL of an image; a file becomes a data: URL (RFC 2397)."""
    if re.match("(https?|data):", source, re.I):
        return source
    import base64
    data = app.read_bytes(source)
    found = re.match(  # names lie, and some say nothing
        rb"(?s)(?P<png>\x89PNG)|(?P<jpeg>\xff\xd8\xff)|(?P<gif>GIF8[79]a)|"
        rb"(?P<webp>RIFF....WEBP)|(?P<bmp>BM....\0{4})|(?P<tiff>II\*\0|"
        rb"MM\0\*)|....ftyp(?:(?P<avif>avi[fs])|(?P<heic>hei|hev|m[is]f1))",
        data)
    if not found:
        raise UsageError(
            f"{whole(source)} is " + ("no image" if data else "empty"),
            "PNG, JPEG, GIF, WEBP, BMP, TIFF, AVIF and HEIC are known")
    data = base64.b64encode(data).decode("ascii")
    return f"data:image/{found.lastgroup};base64,{data}"


def attached(app, args):
    """The texts and the images that go along with a message."""
    return ([fenced(app, path) for path in args.attach or ()],
            [image_url(app, source) for source in args.image or ()])


def content_of(text, blocks, images):
    """The content of a user's message: a text, or parts with images."""
    text = "\n\n".join([text] * bool(text) + blocks)
    if not images:
        return text
    return [{"type": "text", "text": text}] * bool(text) + [
        {"type": "image_url", "image_url": {"url": url}} for url in images]


def recall(readline, text):
    """Put a text within reach of Up, in a locale that lacks it, too."""
    raw = text.replace("\0", "").encode("utf-8", "replace")
    readline.add_history(raw.decode("ascii", "surrogateescape"))


def typed_line(prompt):
    """input(), which reads UTF-8 whatever PYTHONIOENCODING says."""
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(before.buffer, "utf-8", "surrogateescape")
    try:
        return input(prompt)
    finally:
        sys.stdin.detach()
        sys.stdin = before


class LineEditor:
    """Reads messages: one a line where nobody sits, without a word.

    A person has readline, if there is one and stdout is a terminal; else the
    terminal is asked to bracket what is pasted, so that a paste of many lines
    is one message.  words may begin a line; what {"/load ": True} says of
    one: behind it stands a file.
    """

    PROMPT, MORE = "> ", ". "
    PASTE, PASTED = "\033[200~", "\033[201~"

    def __init__(self, terminal, history, words):
        self.terminal, self.history, self.words = terminal, history, words
        self.is_live = terminal.stdin.isatty()
        self.readline = self.load_readline()
        self.brackets = (self.is_live and not self.readline
                         and terminal.err.is_live)

    def load_readline(self):
        """Import and set up readline; None where it cannot be used.

        Imported here only: it may print a sequence, and may be missing.
        """
        streams = (self.terminal.stdin, self.terminal.out.stream)
        if streams != (sys.stdin, sys.stdout) or not all(
                each.isatty() for each in streams):
            return None
        try:
            import readline
        except ImportError:
            return None
        readline.set_completer_delims(" ")
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit
                                else "tab: complete")
        if not libedit:
            # Without Meta: a C locale takes bytes over 127 as such keys.
            for each in ("enable-bracketed-paste on", "input-meta on",
                         "output-meta on", "convert-meta off"):
                readline.parse_and_bind("set " + each)
        readline.set_auto_history(False)
        readline.clear_history()
        with suppress(OSError):  # as where there is no history
            for line in self.history.lines():
                recall(readline, line)
        return readline

    def complete(self, text, state):
        """Complete a line, as readline asks for it."""
        import glob
        line = self.readline.get_line_buffer()[:self.readline.get_endidx()]
        name, space, path = line.partition(" ")
        found = [word for word in self.words if word.startswith(line)]
        if space:
            begun = len(os.path.expanduser(path[:len(path) - len(text)]))
            path = glob.escape(os.path.expanduser(path)) + "*"
            found = [each[begun:] + "/" * os.path.isdir(each) for each
                     in sorted(glob.glob(path)) if self.words.get(name + " ")]
        return found[state] if state < len(found) else None

    def read(self, prompt=PROMPT):
        """Return one message, Tab in a block as it is; raise EOFError."""
        if self.readline:
            self.readline.set_completer(
                self.complete if prompt == self.PROMPT else
                lambda text, state: None if state else text + "\t")
            return whole(typed_line(prompt)).rstrip("\n")
        if not self.is_live:
            return self.terminal.read_line()
        if self.brackets:  # each time: an editor may have ended it
            self.terminal.err.control("\033[?2004h")
        self.terminal.err.write(prompt)
        line = self.terminal.read_line()
        while line.count(self.PASTE) > line.count(self.PASTED):
            line += "\n" + self.terminal.read_line()
        return line.replace(self.PASTE, "").replace(self.PASTED, "")

    def remember(self, text):
        """Keep a message within reach of Up, and in the history file."""
        if self.readline:
            recall(self.readline, text)
        self.history.add(text)

    def close(self):
        if self.brackets:
            self.terminal.err.control("\033[?2004l")


class History:
    """The last messages, one JSON text a line, for their owner only.

    path is None for none.  Where it cannot be written, it is done without;
    a message with a secret in it is not kept.
    """

    MOST = 1000

    def __init__(self, path, secrets):
        self.path, self.secrets = path, secrets

    def lines(self):
        """The last messages on file; a line that is none is left out."""
        found = []
        if self.path and os.path.lexists(self.path):
            for raw in read_file(self.path, OSError).split(b"\n"):
                with suppress(ValueError):
                    found.append(parse_line(raw))
        return [line for line in found if isinstance(line, str)][-self.MOST:]

    def add(self, text):
        if not self.path or self.secrets.masked_json(text) != text:
            return
        try:
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            write_privately(self.path, b"".join(map(
                line_bytes, (self.lines() + [text])[-self.MOST:])))
        except OSError:
            self.path = None


def as_conversation(raw, path):
    """The conversation that a file holds: as it was saved, or a bare list."""
    try:
        data = parse_json(decoded(raw))
    except ValueError as problem:
        raise UsageError(f"{whole(path)} is not JSON: {problem}")
    data = {"messages": data} if isinstance(data, list) else data
    messages = dig(data, "messages")
    roles = "system", "developer", "user", "assistant", "tool"
    if not isinstance(messages, list) or not all(
            dig(each, "role") in roles
            and isinstance(dig(each, "content"), (str, list))
            for each in messages):
        raise UsageError(f"{whole(path)} is no conversation: it has no list"
                         " of messages with role and content")
    return data


class ConversationFile:
    """The file that a conversation lives in, for one process at a time.

    Read when it is opened, and written whole when it has changed.  What is
    not there, or empty, is a conversation that begins.  A plan neither locks
    nor writes; without a path there is no file.
    """

    def __init__(self, path, is_plan=False):
        self.path, self.raw, self.lock = path, b"", None
        if path == "-" or "\0" in (path or ""):
            raise UsageError(f"cannot write {visible(path)}: a conversation"
                             " is kept in a file")
        self.place = path and os.path.realpath(on_disk(path))
        self.is_new = bool(path) and not os.path.exists(self.place)
        if path is not None and not is_plan:
            self.lock = open_to_write(self.place)

    def read(self):
        """The conversation as it stands there."""
        if self.path is not None and os.path.isfile(self.place):
            self.raw = read_file(self.path)
        return (as_conversation(self.raw, self.path) if self.raw
                else {"messages": []})

    def is_saved(self):
        """Whether nothing is lost there but a conversation that was saved."""
        with suppress(UsageError):
            return "version" in self.read() or not self.raw
        return False

    def write(self, data):
        """Have the disk hold the conversation, old or new, never torn."""
        raw, held = whole(pretty_json(data) + "\n").encode("utf-8"), []

        def hold(number):
            held.append(os.fdopen(os.dup(number), "rb"))
            try_lock(number)
        if raw != self.raw:
            with writing(self.path, UsageError):
                write_privately(self.place, raw, hold)
            self.raw = raw
            self.close()
            self.lock = held[0]

    def close(self):
        """Let it go; what was begun for nothing is not left behind."""
        if self.lock:
            if self.is_new and not self.raw:
                remove_quietly(self.place)
            with suppress(OSError):  # nothing was written through it
                self.lock.close()


class ChatTurns:
    """A conversation kept here and sent whole with each request.

    messages are those of the API; one that was cut short has "cut": true,
    which is saved but not sent.  options are the fields of each request.
    """

    ANSWER = ChatAnswer
    SAYS, FIXED = "message", ("messages",)  # which a session decides on
    link = dict  # what a turn holds beside its text, for the next to follow

    def __init__(self, app, args, file, data):
        self.app, self.args, self.file = app, args, file
        self.options = dict({"model": args.model or app.endpoint(),
                             self.FIXED[0]: None}, **sent_fields(args))
        self.messages, self.spent = data["messages"], Counter()
        self.count(data.get("usage"))
        self.answer, self.is_kept = None, False

    def ask(self, talk, content):
        """Send one more user message, and keep both turns.

        What had come when somebody, or the loss of the terminal, stopped it
        is kept as a cut turn; what the server broke off is not.
        """
        self.messages.append({"role": "user", "content": content})
        self.answer, self.is_kept = self.ANSWER(), False
        try:
            self.send(talk)
        except BaseException as error:
            is_lost = isinstance(error, XeroctlError) and not (
                self.app.terminal.out.is_broken)
            self.keep(not self.answer.is_finished, is_lost)
            raise
        self.keep(False)

    def send(self, talk):
        ask_answer(self.app, self.args, talk, self.answer, self.body())

    def body(self):
        return dict(self.options, messages=[
            {key: m[key] for key in m if key not in ("cut", "response_id")}
            for m in self.messages])

    def keep(self, is_cut, is_lost=False):
        """Keep the answer as a turn; without one, take the question back."""
        said = (self.answer.text(), self.answer.text(REFUSAL),
                "\n".join(self.answer.rest()))
        text = next(filter(str.strip, said), "")
        if is_lost or not text:
            self.messages.pop()
            return
        more = {"cut": True} if is_cut else self.link()
        self.messages.append(dict(role="assistant", content=text, **more))
        self.count(self.answer.usage)
        self.is_kept = True

    def count(self, usage):
        for column, name in zip(USAGE_COLUMNS, ("prompt_tokens",
                                                "completion_tokens")):
            self.spent[name] += counted(column.value(usage))

    def endpoint(self):
        """The endpoint; None where there is but a model (style openai)."""
        return self.app.api.deployment.endpoint(
            self.app.settings.get("endpoint"))

    def turns(self):
        """How many messages there are, the system message aside."""
        return sum(m["role"] != "system" for m in self.messages)

    def set_system(self, text):
        rest = [m for m in self.messages if m["role"] != "system"]
        self.messages = [{"role": "system", "content": text}] + rest

    def clear(self):
        self.messages = [m for m in self.messages if m["role"] == "system"]
        self.options.pop("previous_response_id", None)

    def undo(self):
        """Drop the last question and its answer; return the question."""
        for place in reversed(range(len(self.messages))):
            if self.messages[place]["role"] == "user":
                content = self.messages[place]["content"]
                del self.messages[place:]
                return content
        raise UsageError("there is no question yet")

    def saved(self):
        return {"version": 1, "endpoint": self.endpoint(),
                "model": self.options.get("model"),
                "messages": self.messages,
                "usage": dict(self.spent)}

    def write(self):
        """Have the file hold the conversation, once there is one."""
        if self.file.lock and (self.turns() or self.file.raw):
            self.file.write(self.saved())


def input_parts(content):
    """A content of chat as the Responses API has it."""
    if isinstance(content, str):
        return content
    return [{"type": "input_image", "image_url": dig(part, "image_url.url")}
            if dig(part, "type") == "image_url"
            else {"type": "input_text", "text": content_text(part)}
            for part in content]


class ResponseTurns(ChatTurns):
    """A conversation that the server keeps, each response on the last one.

    What it does not know (a loaded conversation, an answer that was cut, no
    store) is sent along with the next message; the whole, where it does not
    know the last response.  A turn that it forgot has "response_id": null.
    """

    ANSWER = ResponseAnswer
    SAYS, FIXED = "input", ("input", "background")

    def known(self):
        """The last response that the server knows, and what came after."""
        for place, message in reversed(list(enumerate(self.messages))):
            if message.get("response_id"):
                return message["response_id"], self.messages[place + 1:]
        return None, self.messages

    def send(self, talk):
        last, _ = self.known()
        try:
            super().send(talk)
        except XeroctlError as error:
            if not last or self.answer.has_begun or not re.search(
                    "previous.response|" + re.escape(last),
                    f"{error} {error.facts}", re.I):
                raise
            self.unlink()
            self.answer = self.ANSWER()
            super().send(talk)

    def unlink(self):
        """Have the conversation sent whole, from now on."""
        for message in self.messages:
            if message.get("response_id"):
                message["response_id"] = None
        self.app.terminal.note("the server does not know what was said: the"
                               " conversation is sent whole")

    def link(self):
        """The id of a response that can be followed."""
        response, (last, _) = self.answer.response, self.known()
        if last and "conversation" not in self.options and (
                response.get("previous_response_id") != last):
            self.unlink()  # what it takes without a word it has not obeyed
        is_kept = self.answer.id and False not in (
            self.options.get("store"), response.get("store")) and all(
                m.get("response_id", "") is not None for m in self.messages)
        return {"response_id": self.answer.id} if is_kept else {}

    def body(self):
        body, (last, unknown) = dict(self.options), self.known()
        items = [{"type": "message", "role": m["role"],
                  "content": input_parts(m["content"])}
                 for m in unknown if m["role"] != "system"]
        if "conversation" in body:
            items = items[-1:]
        elif last:
            body["previous_response_id"] = last
        is_text = len(items) == 1 and isinstance(items[0]["content"], str)
        body["input"] = items[0]["content"] if is_text else items
        for message in self.messages:
            if message["role"] == "system":
                body["instructions"] = message["content"]
        return body


def edited(environ):
    """The text that a person writes in the editor of the environment."""
    import shlex
    import subprocess
    import tempfile
    command = environ.get("VISUAL") or environ.get("EDITOR") or "vi"
    with tempfile.NamedTemporaryFile(suffix=".md") as file:  # mode 0600
        try:
            editor = subprocess.Popen(shlex.split(command) + [file.name],
                                      env=environ)
        except (OSError, ValueError, IndexError) as problem:
            raise UsageError(f"cannot run {command}: {reason_of(problem)}",
                             "VISUAL or EDITOR names an editor")
        while editor.poll() is None:
            with suppress(KeyboardInterrupt):  # it is the editor's
                editor.wait()
        if editor.returncode:
            raise UsageError(f"{command} ended with exit code"
                             f" {editor.returncode}: nothing is sent")
        return decoded(read_file(file.name)).rstrip("\r\n")


def adopt(app, args, data):
    """Take endpoint and model from a conversation, unless a flag has one.

    With style openai the endpoint is the model.
    """
    endpoint, model = (value if isinstance(value, str) else None
                       for value in map(data.get, ("endpoint", "model")))
    if not args.model and model != endpoint and not (
            args.endpoint and app.settings.style() == OPENAI):
        args.model = model
    args.endpoint = args.endpoint or endpoint


class Session:
    """An interactive session over any kind of turns.

    turns keep the conversation and know how to ask; the session reads lines,
    runs slash commands and shows.  Answers go to stdout, all else to stderr.
    """

    KEYS = (('"""', "opens and closes a message of several lines"),
            ("Up / Down", "recall earlier messages"),
            ("Tab", "complete slash commands and file names"),
            ("Ctrl+A / Ctrl+E", "start or end of the line"),
            ("Ctrl+U / Ctrl+K", "clear before or after the cursor"),
            ("Ctrl+W", "delete the previous word"),
            ("Ctrl+C", "stop the answer; at the prompt clear the line, twice"
                       " leaves"),
            ("Ctrl+D", "end the session"))

    def __init__(self, app, turns, args):
        self.app, self.turns, self.terminal = app, turns, app.terminal
        self.args = args
        self.is_live = self.terminal.stdin.isatty()
        self.unsaid, self.files = None, attached(app, args)
        folder = self.is_live and not args.no_history and home_path(
            app.settings.environ, "XDG_STATE_HOME", ".local", "state")
        self.lines = LineEditor(self.terminal, History(
            folder and os.path.join(folder, "history"),
            self.terminal.secrets), {
                name + " " * bool(usage): "file" in usage for
                name, (usage, _, _) in sorted(self.COMMANDS.items())})

    def run(self, first=None):
        """Read and answer until the end of input, /quit or two Ctrl-C."""
        failed = None
        try:
            if first is not None or any(self.files):
                failed = self.tried(self.say, first or "")
            with suppress(EOFError):
                while True:
                    failed = self.tried(self.turn) or failed
        finally:
            self.lines.close()
            self.turns.write()
        self.terminal.note(self.totals())
        if failed and not self.is_live:
            raise failed

    def tried(self, act, *given):
        """Do something that may fail; return the error, once it is told.

        The session goes on, unless nobody can read what it says.
        """
        try:
            act(*given)
            self.turns.write()
        except XeroctlError as error:
            if self.terminal.out.is_broken:
                raise
            say_error(error, self.terminal)
            error.is_told = True
            return error
        return None

    def turn(self):
        """One message or command, and what it asks for."""
        text, is_block = self.read_message()
        if is_block or not text.startswith("/"):
            if text.strip():
                self.say(text)
        elif text.startswith("//"):
            self.say(text[1:])
        else:
            self.command(text)

    def read_message(self):
        """Read (message, is it a block); raise EOFError at the end of input.

        A block, and what has several lines, is never a command.
        """
        interrupted = False
        while True:
            try:
                self.show_bar()
                return self.block(self.lines.read())
            except EOFError:
                if self.is_live:
                    self.terminal.end_echo()
                raise
            except KeyboardInterrupt:
                if interrupted or not self.is_live:
                    raise
                line = self.lines.readline  # else nothing is known of it
                interrupted = not (line and line.get_line_buffer())
                self.terminal.end_echo()
                if interrupted:
                    self.terminal.note("(Ctrl-C again leaves, Ctrl-D ends)")

    def block(self, line):
        """The whole message that a line begins, and whether it is a block."""
        if not line.startswith('"""'):
            return line, "\n" in line
        text = line[3:]
        with suppress(EOFError):
            while not text.rstrip().endswith('"""'):
                text += "\n" + self.lines.read(LineEditor.MORE)
            text = text.rstrip()[:-3]
        return re.sub(r"\A\n|\n\Z", "", text), True

    def show_bar(self):
        """endpoint: E | model: M | tokens: 148/532 | msgs: 6"""
        if self.is_live:
            asked = [("endpoint", self.turns.endpoint()),
                     ("model", self.args.model)]
            self.terminal.note("".join(
                f"{name}: {value} | " for name, value in asked if value)
                + "tokens: {prompt_tokens}/{completion_tokens} | msgs: {}"
                .format(self.turns.turns(), **self.turns.spent))

    def totals(self):
        return ("total: {prompt_tokens} input tokens, {completion_tokens}"
                " output tokens, {}".format(
                    as_many(self.turns.turns(), "message"),
                    **self.turns.spent))

    def say(self, text):
        """Send a message and the files that wait for it.

        If that fails they wait on, and /retry and Up have the message.
        """
        if text:
            self.lines.remember(text)
        self.unsaid = text
        self.answer(content_of(text, *self.files))
        if self.turns.is_kept:
            self.unsaid, self.files = None, ([], [])

    def answer(self, content):
        """Ask, and show the answer; Ctrl-C stops it, and it alone."""
        try:
            answer_once(self.app, self.args, self.turns, content)
        except KeyboardInterrupt:
            if not self.is_live:
                raise
            self.terminal.end_echo()
            self.terminal.note("stopped; " + (
                "what came is kept" if self.turns.is_kept else
                "the question is taken back, /retry asks it again"))

    def command(self, line):
        """Run a slash command."""
        name, _, rest = line.strip().partition(" ")
        self.lines.remember(line)
        if name not in self.COMMANDS:
            raise UsageError(f"unknown command {name}",
                             did_you_mean(name, self.COMMANDS) or "/help")
        usage, _, command = self.COMMANDS[name]
        rest = rest.strip()
        if usage and not rest:
            raise UsageError(f"{name} needs {usage}")
        command(self, os.path.expanduser(rest) if "file" in usage else rest)

    def show_commands(self, _):
        rows = [(f"{name} {usage}".rstrip(), summary)
                for name, (usage, summary, _) in self.COMMANDS.items()]
        for name, summary in rows + list(self.KEYS):
            self.terminal.say(f"  {name:17} {summary}")

    def clear(self, _):
        self.turns.clear()
        self.terminal.say("conversation cleared")

    def set_system(self, text):
        self.turns.set_system(text)
        self.terminal.say("system message set")

    def save(self, path, is_any=False):
        """Write the conversation to a file, whole or not at all.

        What is no saved conversation is replaced only if any file may be.
        """
        if path == self.args.session:
            return self.terminal.say(f"{path} has it after each turn")
        with closing(ConversationFile(path)) as file:
            if not (is_any or file.is_saved()):
                raise UsageError(f"{path} is no conversation that was saved",
                                 "/save! replaces it")
            file.write(self.turns.saved())
        self.terminal.say("saved " + as_many(self.turns.turns(), "message")
                          + f" to {path}")

    def load(self, path):
        """Replace the conversation by that of a file; else change nothing."""
        messages = as_conversation(read_file(path), path)["messages"]
        self.turns.clear()
        self.turns.messages = messages
        self.terminal.say("loaded " + as_many(self.turns.turns(), "message"))

    def attach(self, source, place=0, read=fenced):
        """Have a file go with the next message, or an image."""
        self.files[place].append(read(self.app, source))
        self.terminal.say(f"{source} goes with the next message")

    def edit(self, _):
        """Have a message written in the editor, and send it."""
        text = edited(self.app.settings.environ)
        if text.strip():
            self.say(text)

    def quit(self, _):
        raise EOFError()

    def retry(self, _):
        """Ask the last question again; if that fails, forget nothing."""
        if self.unsaid is not None:
            return self.say(self.unsaid)
        before = list(self.turns.messages)
        try:
            self.answer(self.turns.undo())
        finally:
            if not self.turns.is_kept:
                self.turns.messages = before

    def undo(self, _):
        self.turns.undo()
        self.terminal.say("the last question and its answer are forgotten")

    def set_model(self, name):
        self.args.model = self.turns.options["model"] = name
        self.terminal.say(f"model: {name}" + " (a name: the endpoint decides)"
                          * (self.app.slug() is not None))

    def set_endpoint(self, slug):
        """Ask another endpoint; a model that was named stays."""
        self.args.endpoint = slug
        if not self.args.model or self.app.slug() is None:
            self.turns.options["model"] = slug
        self.terminal.say(f"endpoint: {slug}")

    # name: (argument, summary, what runs it)
    COMMANDS = {
        "/help": ("", "show commands and keys", show_commands),
        "/clear": ("", "forget the conversation, keep the system message",
                   clear),
        "/system": ("<msg>", "set or replace the system message",
                    set_system),
        "/attach": ("<file>", "add a file's text to the next message",
                    attach),
        "/image": ("<file|url>", "add an image to the next message",
                   lambda self, source: self.attach(source, 1, image_url)),
        "/edit": ("", "write the message in $VISUAL or $EDITOR", edit),
        "/save": ("<file>", "save the conversation as JSON", save),
        "/save!": ("<file>", "the same, whatever the file was before",
                   lambda self, path: self.save(path, True)),
        "/load": ("<file>", "load a saved conversation", load),
        "/tokens": ("", "show token usage and message count",
                    lambda self, _: self.terminal.say(self.totals())),
        "/retry": ("", "ask the last question again, failed or not", retry),
        "/undo": ("", "take the last question and its answer back", undo),
        "/model": ("<name>", "use another model", set_model),
        "/endpoint": ("<slug>", "ask another endpoint", set_endpoint),
        "/quit": ("", "end the session (also Ctrl+D)", quit),
    }


def check_turn(app, args, kind):
    """Raise for what is missing or does not go together.

    A session and a block are text, whatever form is set, unless by a flag.
    """
    given = {**sent_fields(args), **dict(args.param or ())}
    fixed = (kind.FIXED * bool(args.interactive or args.session)
             + ("previous_response_id",) * bool(args.session))
    for name in fixed:
        if name in given:
            raise UsageError(f"a session decides on {name} itself")
    if not (args.interactive or args.attach or kind.FIXED[0] in given
            or args.message is not None):
        raise UsageError(f"--{kind.SAYS} is missing", "-m TEXT, or -m - to"
                         " read it from standard input; --interactive asks"
                         " for it")
    texts = [name for name in ("--interactive", "--extract")
             if getattr(args, name[2:])]
    forms = texts + [f"-o {args.output}"] * (
        args.output not in (None, TABLE, WIDE))
    if texts and len(forms) > 1:
        raise UsageError("{} and {} cannot be combined".format(*forms))
    if texts:
        app.out.form, app.out.is_table = TABLE, True


def converse(app, args, kind, fields):
    """Take one turn of a conversation, or many in an interactive session.

    Of a conversation on file endpoint and model are taken where no flag
    names others; args.system replaces its system message.
    """
    check_turn(app, args, kind)
    read_message(app, args, kind.SAYS)
    system = (app.read_text(args.from_file) if args.from_file is not None
              else args.system)
    with closing(ConversationFile(args.session, bool(app.plan))) as file:
        data = file.read()
        adopt(app, args, data)
        turns = kind(app, args, file, data)
        if system is not None:
            turns.set_system(system)
        if args.interactive:
            Session(app, turns, args).run(args.message)
        else:
            answer_once(app, args, turns, content_of(
                args.message, *attached(app, args)), fields)
    return turns


# == the doctor: every step of a connection, one by one ======================

def ask_health(api):
    """GET /healthz at the root of the host; return what it says.

    Without a key.  A text, or nothing at all, under a good status is well.
    """
    url = api.deployment.base_url
    root = url[:len(url) - len(url_path(url))]
    request = api.request("GET", root + "/healthz", accept="*/*")
    request.headers.pop("Authorization", None)
    if api.plan.takes(request):
        return api.plan.add(request, {})
    with api.send(request, api.settled) as answer:
        text = decoded(answer.read()).strip()
    if is_html(text):
        json_of(answer, text)  # which says that it is none
    value = json_or_text(text)
    if isinstance(value, str):
        value = {"status": body_summary(value) or "ok"}
    return check_answer(value)


def certificate(app, sock, host, limits):
    """Speak TLS on a socket; tell its version and the certificate's end."""
    with start_tls(sock, host, app.network.context(), limits) as sock:
        until = (sock.getpeercert() or {}).get("notAfter")
        if until is None:
            return f"{sock.version()}, certificate not checked"
        import ssl
        left = ssl.cert_time_to_seconds(until) - app.clock.now()
        return (f"{sock.version()}, certificate valid for "
                + as_many(round(left / 86400), "more day"))


def ask_whether_well(api):
    """GET /healthz; many servers keep it behind the key, or have none."""
    try:
        found = ask_health(api)
        return "ok", "the server says: " + as_text(
            dig(found, "status") or found)
    except (ApiError, AnswerError) as error:
        # LM Studio has a 200 for paths that it does not know.
        if error.status not in (None, 401, 403, 404, 405, 410, 501):
            raise
        return "-", ("behind the key" if error.status in (401, 403)
                     else "this server has no /healthz")


def try_key(api):
    try:
        page = api.send(api.request("GET", "/models"), api.read_json)
    except ApiError as error:
        if error.status not in NO_LIST or api.deployment.style == XEROTIER:
            raise
        return "-", "not tried: this server has no /models"
    key = api.deployment.key
    said = f"{redacted_key(key)} is accepted" if key else "none is needed"
    return "ok", f"{said}; " + as_many(len(page_records(page)), "model")


def connection_steps(app):
    """Yield status and detail of each step; raise the failure of one."""
    url, settings = app.api.deployment.base_url, app.settings
    scheme, host, port = origin_of(url)
    name = settings.context() or "flags and environment"
    settings.tell_beaten(name)
    limits = Limits(app.clock, settings.get("timeout") or TIMEOUT_S,
                    app.deadline)
    yield "ok", f"{name}: {url}"
    relay = app.network.proxy(scheme, host, port)
    yield ("ok", str(relay)) if relay else ("-", "none")
    place = (relay.host, relay.port) if relay else (host, port)
    try:
        found = look_up(*place)
    except ConnectionFailed as error:
        raise relay.failed(str(error)) if relay else error
    addresses = ", ".join(sorted({each[4][0] for each in found}))
    yield "ok", f"{place[0]}: {addresses}"
    with (open_proxy(relay, limits) if relay
          else open_socket(host, port, limits)) as sock:
        yield "ok", "{}:{}".format(*sock.getpeername()[:2])
        if scheme != "https":
            yield "-", "http: nothing is encrypted"
        else:
            if relay:
                open_tunnel(sock, relay, host, port, limits)
            yield "ok", certificate(app, sock, host, limits)
    yield ask_whether_well(app.api)
    started = app.clock.monotonic()
    yield try_key(app.api)
    took = (app.clock.monotonic() - started) * 1000
    yield "ok", f"{took:.0f} ms for GET /models"


def examine(app):
    """Take the steps of a connection; return (rows, the first failure).

    A row is {step, status, detail, ms}; behind a failure all are skipped.
    """
    rows, failure, steps = [], None, connection_steps(app)
    for name in ("config", "proxy", "DNS", "connect", "TLS", "healthz", "key",
                 "latency"):
        started = app.clock.monotonic()
        try:
            status, detail = next(steps, ("skipped", None))
        except XeroctlError as error:
            failure, status = error, "failed"
            detail = app.terminal.err.secrets.masked(str(error))
        took = round((app.clock.monotonic() - started) * 1000, 1)
        rows.append({"step": name, "status": status, "detail": detail,
                     "ms": None if status == "skipped" else took})
    return rows, failure


# ---------------------------------------------------------------------------
# 11. Groups
# ---------------------------------------------------------------------------

# == chat: answers from a model, and chats from a template ===================

def response_format(app, text):
    """text, json_object, or a JSON schema from @FILE, as OpenAI has it."""
    if not text.startswith("@"):
        return {"type": text}
    schema = app.read_json(text[1:])
    if dig(schema, "type") == "json_schema":
        return schema
    if not isinstance(dig(schema, "schema"), dict):
        stem = os.path.splitext(os.path.basename(text[1:]))[0]
        name = re.sub("[^a-zA-Z0-9_-]", "_", stem)[:64] or "schema"
        schema = {"name": name, "schema": schema}
    return {"type": "json_schema", "json_schema": schema}


def schema_or_word(text):
    """Convert text, json_object or @FILE."""
    return text if text.startswith("@") else choice("text",
                                                    "json_object")(text)


CHAT_FIELDS = ("ID", "Model", "Created:time", "Finish=choices.0.finish_reason",
               "Prompt tokens=usage.prompt_tokens",
               "Completion tokens=usage.completion_tokens",
               "Content=choices.0.message.content")


def send_chat(app, group, args):
    """Send a message and show the answer; or hold a session."""
    if args.agentic:
        app.terminal.note("-> agentic mode")
    if args.response_format:
        args.response_format = response_format(app, args.response_format)
    if (args.interactive and args.max_tokens is None
            and app.settings.style() == XEROTIER):
        args.max_tokens = SESSION_TOKENS
    converse(app, args, ChatTurns, CHAT_FIELDS)


def post_message(app, chat, text):
    """Post a user message to a chat that was just made."""
    chat_id = as_column("chat_id").value(chat)
    try:
        app.api.call("POST", path_of("chats", id_in(
            {"chat_id": chat_id}, "chat_id"), "messages"), body={
                "role": "user", "content": text}, stand_in={})
    except XeroctlError as error:
        chat_id = as_text(chat_id)
        raise XeroctlError(
            f"the chat {chat_id} was created, but its message was not"
            f" posted: {error}", "the chat is kept; to post the message: "
            + call_again(app, "chats", "send", chat_id, "--message", "TEXT"),
            **error.facts)


def only_named(name, templates, workspace):
    """Return the id of the one template of a name, or raise."""
    found = [t for t in templates if dig(t, "name") == name]
    if len(found) > 1:
        ids = ", ".join(as_text(dig(t, "id")) for t in found)
        raise UsageError(f"{len(found)} templates are named {name}",
                         f"give the id: {ids}")
    if not found:
        names = dict.fromkeys(t["name"] for t in templates
                              if isinstance(dig(t, "name"), str))
        near = nearest(name, names) or list(names)
        where = f"workspace {workspace}" if workspace else "the project"
        raise NotFound(f"{where} has no template {name}",
                       near and "there is " + ", ".join(near[:5]))
    return id_in(found[0])


def templates_path(workspace):
    """Where templates live: below the project or a workspace."""
    above = [] if workspace is None else ["workspaces", workspace]
    return path_of(*above, "chat-templates")


def all_templates(app, workspace, stand_in=None, **query):
    return list(chain(*record_lists(app, templates_path(workspace), query,
                                    stand_in=stand_in)))


def shared_templates(templates):
    """Those of a project's list that are not one workspace's own."""
    return [t for t in templates if dig(t, "workspace_id") is None]


def template_id(app, workspace, name):
    """Return the id of a template given by id (ctpl_…) or by name.

    Those of the project and of the platform are visible in a workspace, too;
    the project's list has those of other workspaces as well.
    """
    if name.startswith("ctpl_"):
        return name
    unknown = StandIn(f"<id of {name}>")
    if app.plan.dry_run:
        return unknown  # the product's page: "without hitting the router"
    templates = all_templates(app, workspace, {
        "data": [{"id": unknown, "name": name}]})
    if all(dig(t, "name") != name for t in templates):
        templates += shared_templates(all_templates(app, None))
    return only_named(name, templates, workspace)


NEW_CHAT_FIELDS = "chat_id", "url", "template_id", "template_version"


def new_chat(app, group, args):
    """Apply a template to a workspace; post a first message if there is one.

    POST /workspaces/{w}/chat-templates/{t}/apply, then
    POST /chats/{chat_id}/messages.
    """
    read_message(app, args)
    template = template_id(app, args.workspace, args.template)
    chat = app.api.call(
        "POST", templates_path(args.workspace) + path_of(template, "apply"),
        body={}, stand_in={"chat_id": StandIn("<chat id>")})
    if args.message is not None:
        post_message(app, chat, args.message)
    if app.out.is_table:
        app.out.line("chat created from template")
        app.out.labels(chat, NEW_CHAT_FIELDS, is_aligned=False)
    else:
        app.out.record(chat, NEW_CHAT_FIELDS, id_path="chat_id")


TEMPERATURE = field("--temperature F", "sampling temperature, 0.0 to 2.0",
                    number(0, 2))
TOP_P = field("--top-p F", "nucleus sampling threshold, 0.0 to 1.0",
              number(0, 1))
ANY_FIELD = flag("--param KEY=JSON…", "any other field of the request",
                 json_pair)
THE_WORKSPACE = flag("--workspace ID", "the workspace", required=True,
                     sample="ws_1")
ASKING = (
    ANY_FIELD,
    flag("--stream", "show the answer token by token"),
    flag("--attach FILE…",
         "add a file's text to the message; - is standard input",
         from_stdin=True),
    flag("--image FILE|URL…", "add an image; - is standard input",
         from_stdin=True, completes="file"),
    flag("--interactive",
         "hold a session of many turns; /help lists its commands"),
    flag("--session FILE",
         "go on with the conversation in this file, and keep it there"),
    flag("--no-history", "keep no history file of the session"),
    flag("--extract", "print the first fenced block of the answer alone"),
    flag("--show-reasoning", "print the model's reasoning, dimmed, on stderr"),
    flag("--show-usage", "print token usage, and the id of what is kept, on"
         " stderr"),
    flag("--enrich", "ask for the router's enrichment events", const="1",
         header="X-Xerotier-Vendor-Events"),
    flag("--slo-ttft-ms N", "wanted time to the first token, a routing hint",
         header="X-SLO-TTFT-Ms"),
    flag("--slo-tpot-ms N", "wanted time per output token, a routing hint",
         header="X-SLO-TPOT-Ms"))
MESSAGE = flag("-m, --message TEXT",
               "the user's message; - reads standard input", from_stdin=True)

CHAT = Group(
    "chat", "Ask a model; start chats from templates.",
    scope=ENDPOINT, default="send", verbs=(
        Verb("send", "Send a message to an endpoint and show the answer.",
             send_chat, SLUG, MESSAGE,
             flag("--system TEXT", "system message"),
             flag("--from-file PATH",
                  "read the system message from a file (beats --system); - is"
                  " standard input", from_stdin=True),
             field("--model NAME",
                   "model name passed to the API (informational: the endpoint"
                   " decides)"),
             field("--max-tokens N",
                   "most tokens to generate (in a session 4096, if none is"
                   " given)"),
             TEMPERATURE, TOP_P,
             field("--frequency-penalty F", "against repetition, -2.0 to 2.0",
                   number(-2, 2)),
             field("--presence-penalty F", "for new topics, -2.0 to 2.0",
                   number(-2, 2)),
             field("--seed N", "random seed for reproducible output",
                   integer()),
             field("--response-format FORMAT",
                   "text, json_object, or @FILE with a JSON schema",
                   schema_or_word),
             field("--stop TEXT…", "end the answer before this text"),
             field("--store", "keep the completion on the server"),
             field("--agentic", "let the router run its tool-calling loop",
                   is_ours=True, sends="web_search_options.x_agentic"),
             *ASKING, writes=True, usage="--endpoint SLUG -m TEXT",
             examples=(
                 'xeroctl chat send --endpoint my-llm -m "Hello" --stream',
                 "xeroctl chat --endpoint my-llm --interactive",
                 "git diff | xeroctl chat --endpoint my-llm -m -")),
        Verb("new", "Start a chat in a workspace from a template.",
             new_chat, THE_WORKSPACE,
             flag("--template ID|NAME", "template: its ctpl_ id or its name",
                  required=True, sample="triage"),
             MESSAGE, writes=True),
    ))


# == batches: JSON Lines in, JSON Lines out ==================================

BATCH_COUNTS = ("Completed=request_counts.completed",
                "Failed=request_counts.failed")
BATCH_COLUMNS = (
    "ID", "Status:state", "Total requests=request_counts.total",
    *BATCH_COUNTS, "Created=created_at:time", "+Endpoint", "+Input File ID",
    "+Output File ID", "+Error File ID")
BATCH_FIELDS = (
    "ID", "Status:state", "Endpoint", "Input File ID", "Output File ID",
    "Error File ID", "Completion Window", "Total=request_counts.total",
    *BATCH_COUNTS, "Created=created_at:time", "Started At=in_progress_at:time",
    "Expires=expires_at:time", "Completed At:time", "Cancelled At:time",
    "Metadata:pairs")
ENDED_FIELDS = ("ID", "Status:state", "Total=request_counts.total",
                *BATCH_COUNTS, "Output File ID", "Error File ID")
RUN_FIELDS = (
    "Requests", "Done", "Failed", "Tokens", "Time=seconds:seconds",
    "Rate:rate", "Output=output_file", "Errors=errors_file")


def show_batch(app, group, args):
    """Show a batch, and below it what it says is wrong with its lines."""
    batch = group.call(app, "GET", path_of(args.id))
    app.out.record(batch, group.fields)
    for problem in batch_problems(batch) if app.out.is_table else ():
        app.out.line(one_line(f"  {problem}"))


def check_ended_well(batches):
    bad = [batch for batch in batches if batch["status"] != "completed"]
    if bad:
        told = [problem for batch in bad for problem in batch_problems(batch)]
        raise XeroctlError(
            ", ".join(f"batch {as_text(dig(each, 'id'))} {each['status']}"
                      for each in bad), details=first_of(told))


def wait_batch(app, group, args):
    """Wait for a batch, and show how it has ended."""
    batch, = BatchWait(app, group, [args.id]).run()
    app.out.record(batch, ENDED_FIELDS)
    check_ended_well([batch])


def create_batch(app, group, args):
    """Upload a file, make a batch of it, and wait if asked to."""
    source = app.open_source(args.input)
    if not args.no_validate:
        check_size(source.name, source.size)
        check_metadata(args)
        BatchInput(source, args.batch_endpoint,
                   "--no-validate lets the server judge").check()
    file_id = id_in(send_file(app, Excerpt(source), group.slug(app),
                              purpose="batch"))
    if not app.plan:
        app.terminal.note(f"uploaded {source.name} -> {file_id}")
    try:
        batch = new_batch(app, group, args, file_id)
        args.id = id_in(batch)
    except FAILURES as error:
        error.facts["file_id"] = file_id
        raise
    if app.plan:
        return
    if args.wait:
        return wait_batch(app, group, args)
    app.out.record(batch, group.fields)


def relative_path(file):
    """Where an uploaded file is said to belong; None if nowhere."""
    found = dig(file, "x_relative_path") or dig(file, "relative_path")
    if not found and "/" in as_text(dig(file, "filename")):
        found = file["filename"]  # where servers know no such field
    return found if isinstance(found, str) else None


def files_below(app, group, prefix):
    """The uploaded batch files whose relative path begins so, by path."""
    lists = record_lists(app, "/files", {"purpose": "batch", "limit": 100},
                         slug=group.slug(app))
    found = [(relative_path(file), id_in(file)) for file in chain(*lists)]
    return sorted((path, file_id) for path, file_id in found
                  if path is not None and path.startswith(prefix))


def submit_prefix(app, group, args):
    """Make one batch for each uploaded file below a path."""
    check_metadata(args)
    files = files_below(app, group, args.input_prefix)
    if not files:
        app.out.outcome(args.input_prefix, None, "no files found for prefix")
        raise XeroctlError(f"no files found for prefix {args.input_prefix}:"
                           " nothing was submitted", "xeroctl files --purpose"
                           " batch --tree shows what there is")
    outcomes = [
        tried(app, path, lambda: id_in(new_batch(app, group, args, file_id)),
              relative_path=path, file_id=file_id) for path, file_id in files]
    if app.plan:
        for request, (path, _) in zip(app.plan.requests, files):
            request.about = path
    made = [about["id"] for about in outcomes if about["ok"]]
    wait = BatchWait(app, group, made)
    if args.wait and made and not app.plan:
        wait.run()
        if app.out.is_table:
            app.out.line("")
            app.out.table(list(wait.batches.values()), ENDED_FIELDS)
        outcomes = [dict(wait.batches.get(about["id"], {}), **about)
                    for about in outcomes]
    end_bulk(app, outcomes, "submitted")
    check_ended_well(filter(None, wait.batches.values()))


def say_instead(app, text, is_data_due=False):
    """Say in words what there is no record of: on stdout, if a person reads
    that and no data is due there."""
    say = (app.out.line if app.out.is_table and not is_data_due
           else app.terminal.say)
    say(text)


def download(app, slug, file_id, path, may_replace=True, **options):
    """Download to a path, and say so; standard output is full of it."""
    count = Download(app, file_id, slug, **options).to(path, may_replace)
    text = f"{file_id} -> {path} ({as_size(count)})"
    if path == "-":
        return app.terminal.note(text)
    app.out.done({"id": file_id, "path": path, "bytes": count}, text, file_id)


# By verb: the name of its file id, the end of a file's, and the other's.
RESULT_FILES = {"download": ("output", "output", "error", "--errors"),
                "errors": ("error", "errors", "output", "--download")}


def fetch_result(app, group, args):
    """Download one of the two result files of a batch."""
    name, end, other, action = RESULT_FILES[args.verb.name]
    batch = group.call(app, "GET", path_of(args.id), stand_in={
        name + "_file_id": StandIn(f"<{name} file id>")})
    file_id = dig(batch, name + "_file_id")
    if not file_id and name == "error" and dig(batch, "status") == (
            "completed") and not dig(batch, "request_counts.failed"):
        return say_instead(app, "no request failed", args.output_file == "-")
    if not file_id:
        raise XeroctlError(
            f"{name.capitalize()} file not yet available (status: "
            f"{as_text(dig(batch, 'status'))})",
            wait_command(app, [args.id]) if not has_ended(batch) else
            dig(batch, other + "_file_id") and f"{action} has the others",
            first_of(batch_problems(batch)))
    file_id = id_in(batch, name + "_file_id")
    path = args.output_file or f"{safe_name(args.id)}-{end}.jsonl"
    download(app, group.slug(app), file_id, path, patience=PATIENCE)


def open_requests(app, args, path, model=None):
    """The source of a batch: its lines, or the rows that --template fills.

    Without --model the model is this one, or the endpoint.
    """
    form, text = args.input_format or extension_of(path), args.template
    if text is None and form in DELIMITERS:
        raise UsageError(f"{path} holds rows, and no requests",
                         "--template 'TEXT {COLUMN}' makes them")
    if text is None:
        return app.open_source(path)
    if form not in ROW_FORMS:
        raise UsageError(f"nothing tells in what form {path} is",
                         "--input-format " + ", ".join(ROW_FORMS))
    source = app.open_source(path, f"stdin.{form}")
    text = app.read_text(text[1:]) if text.startswith("@") else text
    if not text:
        raise UsageError("the template is empty")
    body = dict({"model": args.model or model or app.endpoint(),
                 "messages": None}, **sent_fields(args))
    try:
        return Prompts(source, form, text, body, args)
    except ValueError as problem:
        raise UsageError(f"{source.name}: {problem}")


def check_batch_input(app, group, args):
    """Check a batch input offline, and say what is in it."""
    source = open_requests(app, args, args.file, "<endpoint>")
    if not (args.split or source.is_made):
        check_size(source.name, source.size)
    found = BatchInput(source, args.batch_endpoint).check()
    if not args.split:
        check_size(source.name, found.size)
    about = {"file": source.name, "lines": found.count, "bytes": found.size,
             "models": sorted(found.models), "max_tokens": found.max_tokens}
    if source.is_made:
        first = source.parse(next(source.lines()), 1)
        about["first"] = pretty_json(first) if app.out.is_table else first
    app.out.record(about, (
        "File", "Lines", "Bytes:size", "Models:list",
        "Sum of max_tokens=max_tokens") + (
            "First request=first:lines",) * source.is_made, id_path="file")


def run_batches(app, group, args):
    """Do a whole job, from an input file to its results."""
    check_metadata(args)
    run = (DirectRun if args.direct else BatchRun)(
        app, group, args, group.slug(app),
        open_requests(app, args, args.input))
    summary = run.run()
    if summary is None:
        return
    app.out.record(summary, RUN_FIELDS + ("Slowest part",) * bool(
        summary["slowest_part"]), id_path="output_file")
    if run.kinds or summary["problems"]:
        raise XeroctlError(
            f"{summary['failed']} of {summary['requests']} requests failed",
            details=first_of(summary["problems"]) + first_of([
                f"{count} x {kind}"
                for kind, count in run.kinds.most_common()]))


METADATA = flag("--metadata K=V…",
                "metadata, at most 16 KB; several pairs after one flag, or"
                " repeated", text_pair, many=is_pair)
BATCH_ENDPOINT = flag("--batch-endpoint PATH",
                      f"what the batch's lines call (default: {CHAT_URL})",
                      default=CHAT_URL, completes="")
WAIT = flag("--wait", "poll every 2 s until the batch has ended")
WAIT_TIMEOUT = flag("--wait-timeout SECONDS", "wait no longer than this",
                    seconds, needs="--wait")
OUTPUT_FILE = flag("--output-file PATH",
                   "where to write to; - is standard output (default:"
                   " ID-output.jsonl, ID-errors.jsonl)")
SPLIT = flag("--split", "take what is over a limit, in several batches")
PROMPTS = (
    flag("--template TEXT|@FILE",
         "make a chat request of each row of the input, {COLUMN} filled"),
    *changed((
        flag("--system TEXT", "system message of these requests"),
        field("--model NAME", "their model (default: the endpoint)"),
        field("--max-tokens N", "most tokens to generate for each"),
        TEMPERATURE, ANY_FIELD,
        flag("--id-column NAME", "column with the custom_id (default: row-N)"),
        flag("--input-format FORM",
             "csv, tsv, jsonl or txt (default: by name)",
             choice(*ROW_FORMS))), needs="--template"))

BATCH_NOTES = """
the input file:
  JSON Lines in UTF-8: each line one request, whole, and no blank line:

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
     "body": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}}

  (two lines here, one there.)  custom_id is yours, a text that no other line
  has; body is what the url takes, model included.  A file has 100 MB
  (104,857,600 bytes) at most: batches run --split cuts a larger one.
  batches check FILE tells by number which lines are wrong, offline.

the output file:
  One line for each request that was answered, in any order (batches run
  puts them in that of the input):

    {"id": "…", "custom_id": "a", "response": {"status_code": 200,
     "request_id": "…", "body": {…}}, "error": null}

  Requests that failed stand in the errors file, in the same form.

rows and --template (batches run and batches check):
  A request is made of each row of a .csv or .tsv with a head, each object of
  a .jsonl, each line of a .txt.  {title} is the row's cell below title,
  {line} a line; {{ and }} are braces, and what is no {word} stays.  Where
  OUT ends in .csv or .tsv, it has the rows, and behind their cells answer,
  finish_reason, error and tokens.  A cell that begins with = + - or @ is
  written as it is: to a spreadsheet it may be a formula.
"""

BATCHES = Group(
    "batches", "Run JSON Lines files of requests, of any size.", main="run",
    path="/batches", scope=ENDPOINT, thing="batch", notes=BATCH_NOTES,
    columns=BATCH_COLUMNS, fields=BATCH_FIELDS, verbs=by_flag(
        lists("List the batches of an endpoint.", SLUG),
        Verb("show", "Show one batch in full.", show_batch, ITEM, SLUG),
        Verb("create", "Upload a file and make a batch of it.", create_batch,
             SLUG, METADATA, WAIT, WAIT_TIMEOUT, BATCH_ENDPOINT,
             flag("--no-validate",
                  "leave the check of the file to the server"),
             by=flag("--input FILE",
                     "upload this JSON Lines file and make a batch of it; - is"
                     " standard input", from_stdin=True),
             writes=True, examples=(
                 "xeroctl batches --endpoint my-llm --input requests.jsonl"
                 " --wait",)),
        Verb("submit", "Make a batch of each file below a path.",
             submit_prefix, SLUG, METADATA, WAIT, WAIT_TIMEOUT,
             BATCH_ENDPOINT,
             by=flag("--input-prefix PATH",
                     "make a batch of each uploaded file whose relative path"
                     " begins so", some_text, completes="", sample="exp/2/"),
             excludes=("--input", "--cancel", "--download", "--errors"),
             writes=True),
        acts("cancel", "Cancel a batch; what is done is kept.", SLUG,
             asks="Cancel batch {id}?", columns=ENDED_FIELDS),
        Verb("download", "Download the results of a batch.",
             fetch_result, ITEM, SLUG, OUTPUT_FILE),
        Verb("errors", "Download the failed requests of a batch.",
             fetch_result, ITEM, SLUG, OUTPUT_FILE),
        Verb("wait", "Wait until a batch has ended.",
             wait_batch, ITEM, SLUG, WAIT_TIMEOUT),
    ) + (
        Verb("run", "Do a whole job: check, send, wait, fetch, merge.",
             run_batches, SLUG,
             flag("--input FILE",
                  "the JSON Lines file of requests, or rows for --template;"
                  " - is standard input", required=True, from_stdin=True),
             *PROMPTS,
             flag("--output-file OUT", "where the results go, in input order",
                  required=True, completes="file"),
             flag("--errors-file ERR",
                  "where failed requests go (default: OUT.errors.jsonl)",
                  completes="file"),
             SPLIT,
             flag("--max-requests N",
                  f"most requests in one batch (default: {MOST_REQUESTS})",
                  default=MOST_REQUESTS),
             flag("--retry-failed N",
                  "send failed requests again, up to N times (default: 0);"
                  " of a run that has ended, only those",
                  integer(0, 100), default=0),
             METADATA, BATCH_ENDPOINT, *changed((WAIT_TIMEOUT,), needs=None),
             flag("--assume-lost",
                  "make again what may be made, and no list tells"),
             flag("--direct",
                  "send line by line, where there is no Batch API"),
             flag("--concurrency N",
                  "requests under way at a time (default: 8)",
                  integer(1, 1000), default=8, needs="--direct"),
             writes=True, examples=(
                 "xeroctl batches run --endpoint my-llm --input in.jsonl"
                 " --output-file out.jsonl",
                 "xeroctl batches run --endpoint my-llm --input in.csv "
                 "--template 'Sum up {title}: {text}' --output-file out.csv")),
        Verb("check", "Check a batch file, offline.", check_batch_input,
             flag("FILE", "the file, as for run; - is standard input",
                  from_stdin=True),
             *PROMPTS, SPLIT, BATCH_ENDPOINT, examples=(
                 "xeroctl batches check requests.jsonl",)),
    ))


# == models: the whole life of a model =======================================

GOOD_MODEL_STATES = "active", "ready", "validated"
BAD_MODEL_STATES = "error", "failed", "invalid"
CONTEXT = "context_length|max_model_len|max_input_tokens"  # vLLM's, LiteLLM's
MODEL_FIELDS = (
    "ID", "Name", "Created=created|created_at:time", "Owner=owned_by|owner",
    "Format", "Size=size_bytes|size|bytes:size", "Status:state", "Version",
    "Is Latest", "Description:brief", "Architecture", "Quantization",
    "Context Length=" + CONTEXT, "Parameters=parameter_count:count",
    "Workload Type", "Shared=shared|is_shared")
SEMVER = (
    r"(?a)(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}"
    r"(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
    r"(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?\Z")


def semver(text):
    """Convert a version (semver.org)."""
    if not re.match(SEMVER, text):
        raise UsageError(f"{text!r} is no semantic version, as 2.0.0 is")
    return text


def ask_extended(app, args):
    """Ask for the extended fields where the form shows them."""
    if app.out.form in (WIDE, CSV) and app.settings.style() == XEROTIER:
        args.extended = True


def show_model(app, group, args):
    """Show a model; out of the list, where there is no more (llama.cpp)."""
    try:
        return run_show(app, group, args)
    except ApiError as error:
        models = []
        if app.settings.style() == OPENAI and error.status in NO_LIST:
            with suppress(XeroctlError):  # the first error says more
                models = page_records(group.call(app, "GET"))
        for model in models:
            if dig(model, "id") == args.id:
                return show_item(app, group, args, model)
        raise


def model_title(app, group, args):
    """NAME (ID), for a question; the id where the name is not to be had."""
    if app.terminal.stdin.isatty() and not (app.plan or args.force):
        with suppress(XeroctlError):
            name = dig(group.call(app, "GET", path_of(args.id)), "name")
            return f"{name} ({args.id})" if is_filled(name) else args.id
    return args.id


def delete_models(app, group, args):
    """Delete one model, or go on through several."""
    if len(args.id) == 1:
        args.id, = args.id
        app.confirm(f"Delete model {model_title(app, group, args)}?")
        return run_write(app, group, args)
    app.confirm(f"Delete {len(args.id)} models?")
    outcomes = [tried(app, each, lambda: (group.call(
        app, "DELETE", path_of(each), stand_in={}), each), id=each)
                for each in args.id]
    if app.out.is_table:
        app.out.line(f"{sum(each['ok'] for each in outcomes)} of"
                     f" {len(outcomes)} deleted")
    end_bulk(app, outcomes, "deleted")


def revalidate_model(app, group, args):
    """Have a model checked, and wait for the outcome if asked to.

    The first polls may still see the status from before: an end counts once
    the status has changed, or from the third poll on.
    """
    if not args.wait:
        return run_write(app, group, args)
    seen = []

    def is_over(status):
        seen.append(status)
        return status in GOOD_MODEL_STATES + BAD_MODEL_STATES and (
            status != seen[0] or len(seen) >= 3)
    group.call(app, "POST", place_of(args))
    see_end(app, group, args, is_over, GOOD_MODEL_STATES,
            call_again(app, "models", args.id) + " shows its status",
            ("ID", "Name", "Status:state"))


def show_any(app, value):
    """Show JSON of which nothing is known; a person reads it as JSON."""
    is_list = isinstance(value, list) or any(
        isinstance(dig(value, key), list) for key in RECORD_KEYS)
    if app.out.is_table or app.out.form == JSON:
        app.out.json(value)
    elif is_list:
        app.out.rows([value], columns_of(page_records(value)))
    else:
        app.out.record(value, columns_of([value]))


def probe_model(app, group, args):
    """Show what a deployed model can do, if this router tells."""
    try:
        found = group.call(app, "GET", path_of(args.id, "probe"))
    except ApiError as error:
        if error.status != 501:
            raise
        return say_instead(app, "Model probing is not available on this"
                           " router deployment (501).")
    show_any(app, found)


VERSION_COLUMNS = (
    "Version", "ID", "Latest=is_latest", "Status:state",
    "Notes=version_notes|notes", "Created=created|created_at:time")


def version_flag(name, summary, **options):
    return flag(f"--{name} VERSION", summary, semver, sample="2.0.0",
                **options)


EXTENDED = field("--extended", "ask for the extended fields (for -o json)",
                 is_ours=True)
FULL = flag("--full", "do not cut the description", dest="columns", const=[
    name.partition(":brief")[0] for name in MODEL_FIELDS])

MODELS = Group(
    "models", "List, describe, version, share and delete models.",
    path="/models", scope=GIVEN, fields=MODEL_FIELDS, columns=(
        "ID", "Name", "Format", "Size=size_bytes|size|bytes:size",
        "Status:state", "Version", "Shared=shared|is_shared", "+Architecture",
        "+Quantization", "+Context=" + CONTEXT,
        "+Parameters=parameter_count:count",
        "+Created=created|created_at:time"), verbs=by_flag(
        lists("List the models of the project.", EXTENDED,
              flag("--endpoint SLUG", "list what this endpoint serves"),
              paging="offset", checks=ask_extended, examples=(
                  "xeroctl models -o wide",)),
        shows("Show one model in full.", FULL, EXTENDED, run=show_model),
        updates(
            "Change what is said about a model.",
            DESCRIPTION, field("--license TEXT", "license name or URL"),
            field("--architecture TEXT", "as transformer or mamba"),
            field("--quantization METHOD",
                  "what the backend applies when it runs"),
            field("--context-length N", "most tokens of context"),
            field("--parameter-count N", "how many parameters it has"),
            field("--hidden-size N", "size of its hidden layers"),
            field("--num-layers N", "how many layers it has"),
            field("--vocab-size N", "size of its vocabulary"),
            field("--workload-type TYPE",
                  "as inference, embedding or reranking"),
            field("--torch-dtype DTYPE", "float16, bfloat16 or float32",
                  choice("float16", "bfloat16", "float32")),
            field("--num-experts N", "how many experts it has (MoE)"),
            field("--num-experts-per-tok N",
                  "experts at work for a token (MoE)"),
            field("--pre-quantized", "its weights are stored quantized"),
            field("--pre-quantization-method METHOD",
                  "gptq, awq or compressed-tensors",
                  choice("gptq", "awq", "compressed-tensors")),
            field("--pre-quantization-bits N", "4 or 8", choice(4, 8)),
            FULL, method="PATCH", by=BARE, usage="ID --description TEXT",
            examples=("xeroctl models model_1 --context-length 8192",
                      "xeroctl models model_1 --pre-quantized"
                      " --pre-quantization-bits 4")),
        deletes("Delete one model, or several.", flag("ID…", "the models"),
                run=delete_models, asks=None),
        acts("share", "Share a model to the catalog.", said="shared {id}"),
        acts("unshare", "Take a model out of the catalog.",
             said="unshared {id}"),
        acts("revalidate", "Have a model's files checked again.",
             flag("--wait", "wait until the check has ended"),
             *changed((WAIT_TIMEOUT,), default=600,
                      help="wait no longer than this (default: 600)"),
             run=revalidate_model, said="revalidation of {id} queued",
             examples=("xeroctl models model_1 --revalidate --wait",)),
        shows("Show a model as the catalog has it.", name="catalog-info",
              path="{id}/catalog", columns=ALL_FIELDS),
    ) + below("versions", *by_flag(
        lists("List the versions of a model.", path="{id}/versions",
              columns=VERSION_COLUMNS),
        acts("create", "Make a new version.",
             field("--notes TEXT", "what is new in it", sends="version_notes"),
             by=version_flag("create", "make this version",
                             sends="version"),
             path="{id}/versions", columns=VERSION_COLUMNS),
        acts("promote", "Make a version the latest one.",
             by=version_flag("promote", "make this version the latest"),
             path="{id}/versions/{promote}/promote",
             said="{promote} is the latest version of {id}"),
        acts("rollback", "Go back to an earlier version.",
             by=version_flag("rollback", "go back to this version"),
             path="{id}/versions/{rollback}/rollback",
             said="{id} is back at version {rollback}"),
    )) + (
        Verb("probe", "Show what a deployed model can do.", probe_model, ITEM),
        acts("set-capabilities", "Say all that a model can do (admin).",
             field("CAPABILITY…", "as chat or tool-use", sends="capabilities",
                   sample="chat"),
             path="{id}/capabilities", method="PATCH",
             said="{id} can {capability}"),
        lists("List what suits a workspace best.",
              name="recommend-for-workspace", paging=None,
              path="//workspaces/{id}/recommended-models", sample="ws_1",
              id_path="model_id|id",
              columns=("Model ID=model_id|id", "Name", "Score", "Reason")),
    ))


# == embeddings, rerank, score: texts to numbers =============================

def line_text(line, where):
    """The text on a line of a file: plain, or as JSON, or in "text"."""
    if line[0] not in '{"':
        return line
    value = json_or_text(line)
    text = value if isinstance(value, str) else dig(value, "text")
    if not isinstance(text, str):
        raise UsageError(f"{where} has no text")
    return text


def given_texts(app, args, read=lambda line, where: line):
    """The texts that are given, one as -, and those of a file, by line.

    read(line, where) makes the text of a line.
    """
    found = list(map(app.given_text, args.texts or ()))
    path = args.texts_file
    lines = [] if path is None else app.read_text(path).split("\n")
    for number, line in enumerate(lines, 1):
        where, line = f"{path}: line {number}", line.rstrip("\r")
        if not line.strip():
            raise UsageError(f"{where} is blank")
        found.append(read(line, where))
    if not found:
        name = next(f.long_name for f in args.verb.own if f.dest == "texts")
        raise UsageError(f"{name} is missing", f"{name} TEXT or"
                         f" {name}-file FILE says what to send")
    return found


def floats_of(value):
    """The numbers of an embedding; base64 holds little-endian float32."""
    if isinstance(value, list) and all(is_number(number) for number in value):
        return value
    if not isinstance(value, str):
        raise AnswerError("an embedding is no list of numbers (a vector for"
                          " each token? the server has to pool them)")
    import base64
    import struct
    try:
        raw = base64.b64decode(value, validate=True)
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))
    except (ValueError, struct.error):
        raise AnswerError("an embedding is no base64 of float32")


def embedded(app, group, args, texts):
    """Yield the answers for the texts, at most so many in a request.

    The product's page has "default" where no model is named.
    """
    model = args.model or (app.endpoint() if app.settings.style() == OPENAI
                           else "default")
    for start in range(0, len(texts), args.batch_size):
        some = texts[start:start + args.batch_size]
        is_one = len(texts) == 1 and not args.texts_file
        body = dict({"model": model, "input": texts[0] if is_one else some},
                    **sent_fields(args))
        answer = group.call(app, "POST", body=body, stand_in={"data": []},
                            silence=INFERENCE_TIMEOUT_S)
        if app.plan:
            continue
        check_vectors(answer, body)
        data = sorted(answer["data"], key=lambda item: index_in(item) or 0)
        for number, item in enumerate(data, start):
            item["index"] = number
        yield dict(answer, data=data)


def joined_embeddings(answers):
    """One answer out of those of several requests."""
    usages = [answer["usage"] for answer in answers
              if isinstance(dig(answer, "usage"), dict)]
    joined = merged(answers or [{"data": []}])
    for key, value in usages[0].items() if usages else ():
        if isinstance(value, int):
            usages[0][key] = sum(counted(usage.get(key)) for usage in usages)
    return dict(joined, usage=usages[0]) if usages else joined


def vector_row(item, form):
    """A row on a vector; that of a person has the first of its numbers."""
    vector = floats_of(dig(item, "embedding"))
    if form == JSONL:
        return dict(item, embedding=vector)
    norm = sum(value * value for value in vector) ** 0.5
    row = {"index": dig(item, "index"), "dimensions": len(vector),
           "norm": norm, "values": vector}
    shown = " ".join(f"{value:.4f}" for value in vector[:6])
    return row if form == CSV else dict(
        row, norm=f"{norm:.4f}", values=shown + " …" * (len(vector) > 6))


def npy_head(count, dimensions):
    """The head of an NPY 1.0 file of float32 (numpy.lib.format)."""
    text = ("{'descr': '<f4', 'fortran_order': False, 'shape': "
            f"({count}, {dimensions}), }}")
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return (b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little")
            + text.encode("ascii"))


def write_vectors(path, answers, count, force):
    """Write vectors as they come, as NPY or JSON Lines by the name."""
    import struct
    is_npy, size = path.endswith(".npy"), None
    with NewFile(path, force) as target:
        for item in (item for answer in answers for item in answer["data"]):
            vector = floats_of(dig(item, "embedding"))
            if is_npy and size not in (None, len(vector)):
                raise AnswerError("the embeddings differ in size")
            if is_npy and size is None:
                target.write(npy_head(count, len(vector)))
            size = len(vector)
            target.write(
                struct.pack(f"<{size}f", *vector) if is_npy else
                (compact_json({"index": item["index"], "embedding": vector})
                 + "\n").encode())
        target.finish()


def create_embeddings(app, group, args):
    """Embed texts; show the vectors, or write them to a file."""
    texts, path = given_texts(app, args), args.output_file
    if path and not path.endswith((".npy", ".jsonl")):
        raise UsageError(f"{path} has to end in .npy or .jsonl")
    answers = embedded(app, group, args, texts)
    if path and not app.plan:
        write_vectors(path, answers, len(texts), args.force)
        return app.out.done({"path": path, "count": len(texts)},
                            f"vectors: {len(texts)} -> {path}", path)
    answer = joined_embeddings(list(answers))
    if app.out.form != JSON:
        answer["data"] = [vector_row(item, app.out.form)
                          for item in answer["data"]]
    app.out.rows([answer], ("Index", "Dimensions", "Norm", "Values"),
                 "embeddings", "index")
    usage = dig(answer, "usage")
    known = {name: value for name, value in usage.items()
             if value is not None} if isinstance(usage, dict) else {}
    if app.out.is_table and known:
        app.terminal.note("usage: " + as_pairs(known))


def ranked_row(rank, item, texts):
    index = index_in(item)
    return {"rank": rank, "index": index,
            "score": as_column("Score=relevance_score|score").value(item),
            "document": content_text(dig(item, "document")) or (
                dict(enumerate(texts)).get(index))}


def score_texts(app, group, args):
    """Show scores, with the texts from the input where none came back.

    Those that have a rank are in the order of the answer, else of the input.
    """
    texts = args.texts = given_texts(app, args, line_text)
    answer = group.call(app, "POST", body=dict(
        {"model": args.model or app.endpoint()}, **sent_fields(args)),
        stand_in={"data": []}, silence=INFERENCE_TIMEOUT_S)
    records = page_records(answer)
    if not app.plan:
        most = getattr(args, "top_n", None) or len(texts)
        check_count(records, min(len(texts), most), "scores")
    if app.out.form not in (JSON, JSONL):
        if "Rank" not in group.columns:
            records = sorted(records, key=lambda item: index_in(item) or 0)
        answer = {"data": [ranked_row(rank, item, texts)
                           for rank, item in enumerate(records, 1)]}
    app.out.rows([answer], group.columns, "scores", "index")


MODEL = flag("--model NAME",
             "the model's name (with style xerotier only for information)")

EMBEDDINGS = Group(
    "embeddings", "Turn texts into vectors.", path="/embeddings",
    scope=ENDPOINT, default="create", verbs=(
        Verb("create", "Embed texts; show the vectors or write them.",
             create_embeddings, SLUG,
             flag("--input TEXT…", "a text; - is standard input",
                  from_stdin=True, dest="texts"),
             flag("--input-file FILE", "one text per line", from_stdin=True,
                  dest="texts_file"),
             MODEL,
             field("--dimensions N", "size of the vectors, if the model can"),
             field("--encoding-format FORMAT", "how vectors travel",
                   choice("float", "base64")),
             flag("--batch-size N", "most texts in a request (default: 256)",
                  default=256),
             flag("--output-file PATH",
                  "write the vectors to a .npy or .jsonl file"),
             usage="--endpoint SLUG --input TEXT", writes=True, examples=(
                 'xeroctl embeddings --endpoint my-embed --input "Hello"',
                 "xeroctl embeddings --endpoint my-embed --input-file in.txt"
                 " --output-file out.npy")),
    ))

ONE_PER_LINE = 'one per line: plain, JSON, or {"text": …}'

RERANK = only(
    "rerank", "Rank documents by how well they answer a query.",
    score_texts, SLUG, field("--query TEXT", "what is asked", required=True),
    field("--documents TEXT…", "the documents, several after one flag",
          many=bool, from_stdin=True, dest="texts", sends="documents"),
    flag("--documents-file FILE", ONE_PER_LINE, from_stdin=True,
         dest="texts_file"),
    field("--top-n N", "only the best so many"),
    field("--return-documents", "have the server send the documents back"),
    MODEL, path="/rerank", scope=ENDPOINT, writes=True,
    columns=("Rank", "Index", "Score", "Document"), examples=(
        "xeroctl rerank --endpoint my-rank --query kernel --documents linux"
        " bread",
        "xeroctl rerank --endpoint my-rank --query kernel --documents-file"
        " in.txt"))

SCORE = only(
    "score", "Score how alike texts are.", score_texts, SLUG,
    field("--text TEXT", "what to compare with", required=True,
          sends="text_1"),
    field("--candidates TEXT…", "the texts to score, several after one flag",
          many=bool, from_stdin=True, dest="texts", sends="text_2"),
    flag("--candidates-file FILE", ONE_PER_LINE, from_stdin=True,
         dest="texts_file"),
    MODEL, path="/score", scope=ENDPOINT, writes=True,
    columns=("Index", "Score", "Text=document"), examples=(
        "xeroctl score --endpoint my-rank --text kernel --candidates linux"
        " bread",
        "xeroctl score --endpoint my-rank --text kernel --candidates-file"
        " in.txt"))


# == responses: answers that the server keeps ================================

RESPONSE_FIELDS = (
    "ID", "Model", "Status:state", "Created=created_at:time",
    "Completed=completed_at:time", "Input tokens=usage.input_tokens",
    "Output tokens=usage.output_tokens", "Total tokens=usage.total_tokens",
    "Service tier", "Previous response=previous_response_id", "Store",
    "Metadata:pairs", "Error=error.message",
    "Incomplete=incomplete_details.reason", "Answer=output|output_text:said")
ITEM_CONTENT = ("Content=content|output|arguments|input|action|tool_calls"
                "|summary:item")


def create_response(app, group, args):
    """Ask for a response and show it; or hold a session."""
    answer = converse(app, args, ResponseTurns, RESPONSE_FIELDS).answer
    response_id, status = (dig(answer and answer.response, key)
                           for key in ("id", "status"))
    if status in ("queued", "in_progress") and not answer.has_begun:
        again = call_again(app, "responses", response_id, "--wait")
        app.terminal.say(f"{response_id} is {status}: {again} waits for it")


def wait_response(app, group, args):
    """Wait until a background response has ended."""
    see_end(app, group, args, lambda status: status not in (
        "queued", "in_progress"), ("completed", "incomplete"),
            call_again(app, "responses", args.id, "--wait")
            + " resumes the wait")


CREATED_METADATA = field("--metadata K=V…",
                         "metadata; several pairs after one flag, or repeated",
                         text_pair, many=is_pair)
RESPONSES = Group(
    "responses", "Ask for responses, and keep track of them.",
    path="/responses", scope=ENDPOINT, sample="resp_1", main="create",
    columns=("ID", "Model", "Status:state", "Input tokens=usage.input_tokens",
             "Output tokens=usage.output_tokens", "Created=created_at:age"),
    fields=RESPONSE_FIELDS, verbs=by_flag(
        lists("List responses.", SLUG, *changed((OF_STATUS,), type=choice(
                  "queued", "in_progress", "completed", "failed", "cancelled",
                  "incomplete"))),
        shows("Show one response.", SLUG, columns=RESPONSE_FIELDS[:-1] + (
            "Answer=output|output_text:lines",)),
        deletes("Delete a response.", SLUG),
        acts("cancel", "Cancel a background response.", SLUG),
        lists("List what was sent.", SLUG, name="input-items",
              path="{id}/input_items",
              columns=("ID", "Type", "Role", ITEM_CONTENT)),
        Verb("wait", "Wait until a background response has ended.",
             wait_response, ITEM, SLUG, WAIT_TIMEOUT),
    ) + (
        Verb("create", "Ask for a response and show it.", create_response,
             SLUG,
             flag("-m, --input TEXT", "what to answer; - is standard input",
                  from_stdin=True, dest="message"),
             flag("--instructions TEXT", "system message", dest="system"),
             flag("--from-file PATH",
                  "read the instructions from a file (beats --instructions)",
                  from_stdin=True),
             flag("--model NAME", "the model's name"),
             field("--max-output-tokens N", "most tokens to generate"),
             TEMPERATURE, TOP_P,
             field("--previous-response-id ID", "follow this response"),
             field("--conversation ID", "add to this conversation"),
             field("--background", "do not wait for the answer"),
             field("--store", "keep the response on the server"),
             field("--no-store", "do not keep it", const=False, dest="store"),
             CREATED_METADATA,
             field("--reasoning-effort WORD", "as low, medium or high",
                   sends="reasoning.effort"),
             *ASKING, writes=True, usage="--endpoint SLUG -m TEXT",
             examples=(
                 'xeroctl responses create --endpoint my-llm -m "Hello"'
                 " --stream",
                 "xeroctl responses create --endpoint my-llm"
                 " --interactive")),
    ))


# == completions: chat completions that were stored ==========================

def ask_metadata(app, args):
    """Ask for what has some metadata, as the API names it in a query."""
    args.metadata = [(f"metadata[{key}]", value)
                     for key, value in args.metadata or ()]


ORDER = field("--order ORDER", "asc or desc, by time", choice("asc", "desc"))

COMPLETIONS = Group(
    "completions", "Look at what chat send --store has kept.",
    path="/chat/completions", scope=ENDPOINT, sample="chatcmpl-1",
    columns=("ID", "Model", "Finish=choices.0.finish_reason",
             "Tokens=usage.total_tokens", "Created:time"),
    more=("Metadata:pairs", "Content=choices.0.message:said"),
    verbs=by_flag(
        lists("List stored completions.", SLUG, ORDER,
              field("--model NAME", "only those of a model"),
              flag("--metadata K=V…", "only those with this; several pairs"
                   " after one flag, or repeated", text_pair, many=is_pair,
                   sends="*"), checks=ask_metadata),
        shows("Show one stored completion.", SLUG),
        lists("List the messages of a completion.", SLUG, ORDER,
              name="messages", columns=("Role", ITEM_CONTENT)),
        updates("Change the metadata of a completion.", SLUG,
                CREATED_METADATA),
        deletes("Delete a stored completion.", SLUG),
    ))


# == conversations: items that responses add to ==============================

CONVERSATION_ROLES = "user", "assistant", "system", "developer"
CONVERSATION_COLUMNS = ("ID", "Object", "Created=created_at:time",
                        "Updated=updated_at:time")
CONVERSATION_ITEM_COLUMNS = "ID", "Type", "Role", "Status:state", ITEM_CONTENT


def role_pair(text):
    """Convert ROLE:TEXT to a message item."""
    role, colon, content = text.partition(":")
    if not colon or role not in CONVERSATION_ROLES:
        raise UsageError(f"{text!r} is not ROLE:TEXT with a role of "
                         + ", ".join(CONVERSATION_ROLES))
    return {"type": "message", "role": role, "content": content}


def complete_item(app, args):
    """Have args.json be the item: bare, or as OpenAI has it, in a list."""
    path = args.json
    if path is not None:
        if args.role or args.content:
            raise UsageError("--json and --role, --content cannot be combined")
        args.json = app.read_json(path)
        if not isinstance(args.json, dict):
            raise UsageError(f"{path} is no JSON object")
    elif args.role is None or args.content is None:
        raise UsageError("--role and --content, or --json, say what to add")
    else:
        args.json = {"type": "message", "role": args.role,
                     "content": app.given_text(args.content)}
    if app.settings.style() == OPENAI:
        args.json = {"items": [args.json]}


CONVERSATIONS = Group(
    "conversations", "Keep conversations that responses add to.",
    path="/conversations", scope=ASKED, default="list", sample="conv_1",
    columns=CONVERSATION_COLUMNS + ("Metadata:keys",),
    fields=CONVERSATION_COLUMNS + ("Metadata:pairs",), verbs=(
        lists("List conversations.", SLUG),
        shows("Show one conversation.", SLUG, name="get"),
        creates("Begin a conversation.", SLUG, CREATED_METADATA,
                field("--item ROLE:TEXT…",
                      "its first messages, several after one flag", role_pair,
                      many=bool, sends="items", sample="user:hi")),
        updates("Change the metadata of a conversation.", SLUG,
                CREATED_METADATA),
        deletes("Delete a conversation.", SLUG),
        lists("List the items of a conversation.", SLUG, ORDER,
              name="list-items", path="{id}/items",
              columns=CONVERSATION_ITEM_COLUMNS),
        acts("add-item", "Add an item to a conversation.", SLUG,
             flag("--role ROLE", "user, assistant, system or developer",
                  choice(*CONVERSATION_ROLES)),
             flag("--content TEXT", "what is said; - is standard input",
                  from_stdin=True),
             flag("--json FILE", "any item as JSON; - is standard input",
                  from_stdin=True, sends="*"),
             path="{id}/items", checks=complete_item,
             columns=CONVERSATION_ITEM_COLUMNS, examples=(
                 "xeroctl conversations add-item conv_1 --endpoint my-llm"
                 " --role user --content hi",)),
        acts("delete-item", "Delete an item of a conversation.", SLUG,
             flag("--item-id ID", "the item", required=True, sample="msg_1"),
             path="{id}/items/{item_id}", method="DELETE",
             asks="Delete item {item_id}?", said="deleted {item_id}"),
    ))


# == uploads: models on their way to the server ==============================

LINKS = (flag("--follow-links",
              "send what links of a folder lead to, in it or not"),
         flag("--skip-links", "leave out links that leave the folder"))
BAD_ENDS = "failed", "cancelled", "expired"


def new_upload(app, group, args, source):
    """Begin an upload; say its id at once, so that it can be resumed."""
    import mimetypes
    name = args.name if args.path == "-" else os.path.basename(source.name)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    body = {"purpose": "model", "filename": name, "bytes": source.size,
            "mime_type": kind, "name": args.name}
    if app.settings.style() == OPENAI:
        body.update(purpose="assistants", filename=body.pop("name"))
    body.update(sent_fields(args))
    upload = group.call(app, "POST", body=body,
                        stand_in={"id": StandIn("<upload id>")})
    if not app.plan:
        app.terminal.note(f"upload {id_in(upload)}")
    return upload


def check_status(upload, *ends):
    """Raise if an upload has ended in one of these ways."""
    status = as_text(dig(upload, "status") and with_status(upload)["status"])
    if status in ends:
        raise XeroctlError(f"upload {id_in(upload)} is {status}: " + (
            error_message(upload) or "it cannot go on"))


def resumed_upload(app, group, upload_id, source):
    """Look up an upload that is to go on; raise if it is another file's."""
    upload = group.call(app, "GET", path_of(upload_id),
                        stand_in={"id": upload_id})
    size = dig(upload, "bytes")
    check_status(upload, "completed", *BAD_ENDS)
    if size not in (None, source.size):
        raise UsageError(f"upload {upload_id} is of {size} bytes,"
                         f" {source.name} has {source.size}")
    return upload


def upload_model(app, group, args):
    """Send a model in parts, from a file or a folder."""
    path = on_disk(args.path)
    source = (TarFolder(app, args, path) if os.path.isdir(path)
              else app.open_source(args.path))
    if not source.size:
        raise UsageError(f"{source.name} is empty")
    upload = (resumed_upload(app, group, args.resume, source)
              if args.resume else new_upload(app, group, args, source))
    engine = ModelUpload(app, group, source, upload)
    if args.resume:
        engine.refresh()
    try:
        done = engine.run()
    except (XeroctlError,) + INTERRUPTS:
        links = [f.long_name for f in LINKS if getattr(args, f.dest)]
        app.terminal.note(call_again(
            app, "upload", args.path, args.name, "--resume", engine.id,
            *links) + " goes on there")
        raise
    if isinstance(done, dict):  # an action need not tell of what
        done = dict(done, id=done.get("id") or engine.id)
    check_status(done, *BAD_ENDS)
    app.out.record(done, group.fields)


UPLOAD_FIELDS = (
    "ID", "Status:state", "Filename", "Size=bytes:size", "Type=mime_type",
    "Chunk Size:size", "Total Chunks", "Uploaded Chunks", "Progress:progress",
    "Created=created_at:time", "Expires=expires_at:time")

UPLOADS = Group(
    "uploads", "Look at models on their way to the server.",
    path="/uploads",
    columns=("ID", "Filename", "Size=bytes:size", "Status:state",
             "Progress:progress", "Created=created_at:time"),
    fields=UPLOAD_FIELDS, verbs=by_flag(
        lists("List uploads.", *changed((OF_STATUS,), type=choice(
                  "pending", "uploading", "completed", *BAD_ENDS))),
        shows("Show one upload."),
        acts("cancel", "Cancel an upload; its parts are dropped.",
             asks="Cancel upload {id}?"),
        deletes("Delete an upload."),
    ))

UPLOAD = only(
    "upload", "Upload a model: a file, or a folder as a tar.", upload_model,
    flag("PATH", "the file or folder", sample="model.gguf"),
    flag("NAME", "what the model will be called", sample="my-model"),
    field("--format WORD", "as gguf or safetensors", is_ours=True),
    field("--description TEXT", "what it is for", is_ours=True),
    flag("--resume ID", "go on with this upload"), *LINKS,
    path="/uploads", columns=UPLOAD_FIELDS + (
        "Model ID=model_id|model.id|model|file.id",),
    writes=True, examples=(
        "xeroctl upload model.gguf my-model --format gguf",))


# == files: what has been uploaded ===========================================

def tree_of(files):
    """Nested dicts of (is a file, text, number), at most 100 deep."""
    tree = {}
    for number, file in enumerate(files):
        path = relative_path(file) or as_text(dig(file, "filename"))
        *folders, name = list(filter(None, path.split("/", 99))) or [path]
        place, size = tree, as_size(dig(file, "bytes"))
        for folder in folders:
            place = place.setdefault((False, folder + "/", 0), {})
        place[True, f"{name}  {size}", number] = {}
    return tree


def tree_lines(tree, indent=""):
    """Draw a tree: folders first, by name, and the files."""
    last = max(tree, default=None)
    for branch in sorted(tree):
        fork, more = ("└── ", "    ") if branch == last else ("├── ", "│   ")
        yield indent + fork + one_line(branch[1])
        yield from tree_lines(tree[branch], indent + more)


def list_files(app, group, args):
    """List files; below a prefix, or as a tree, all pages are followed.

    Of what is found there --limit is the most, but with --all the page size.
    """
    if not args.tree and args.prefix is None:
        return run_list(app, group, args)
    most = None if args.all else args.limit
    args.limit, args.all = args.all and args.limit or 100, True
    page = merged(pages_of(app, group, args))
    args.limit, args.all = most, most is None
    found = [file for file in page_records(page)
             if (relative_path(file) or "").startswith(args.prefix or "")]
    page_records(page)[:] = files = found[:most]
    if len(found) > len(files) and isinstance(page, dict):
        page.update(has_more=True, last_id=id_in(files[-1]))
    if args.tree and app.out.is_table and files:
        for line in tree_lines(tree_of(files)):
            app.out.line(line)
    else:
        app.out.rows([page], group.columns, group.name)
    tell_rest(app, args, page)


def upload_file(app, args, path, relative):
    source = app.open_source(path)
    if source.size > MOST_FILE_BYTES:
        raise UsageError(f"{source.name} is larger than 500 MB"
                         f" ({source.size} bytes)")
    is_ours = app.settings.style() == XEROTIER
    fields = {"relative_path": relative} if relative and is_ours else {}
    with source.file:
        excerpt = Excerpt(source, None if is_ours else relative)
        return send_file(app, excerpt, purpose=args.purpose, **fields)


def upload_folder(app, group, args):
    """Upload what is in a folder, each file with its path below it."""
    folder = on_disk(args.upload)
    files = folder_files(app, args, folder)
    top = args.relative_path
    if top is None:
        top = from_disk(os.path.basename(os.path.abspath(folder)))
    top = top.rstrip("/") + "/" if top else ""
    outcomes = [
        tried(app, top + below, lambda: id_in(upload_file(
            app, args, path, top + below)), relative_path=top + below)
        for below, path in files]
    end_bulk(app, outcomes, "files uploaded")


def upload_path(app, group, args):
    """Upload a file, or with --recursive what is in a folder."""
    if not os.path.isdir(on_disk(args.upload)):
        return app.out.record(upload_file(
            app, args, args.upload, args.relative_path), group.fields)
    if not args.recursive:
        raise UsageError(f"{args.upload} is a folder",
                         "-r/--recursive uploads what is in it")
    upload_folder(app, group, args)


def download_file(app, group, args):
    """Download a file to a path, or into a folder under its own name."""
    path = args.download
    if path == "-" or not os.path.isdir(on_disk(path)):
        return download(app, None, args.id, path)
    about = group.call(app, "GET", path_of(args.id), stand_in={})
    name = safe_name(as_text(dig(about, "filename") or ""))
    path = os.path.join(path, name or safe_name(args.id) or "file")
    if os.path.lexists(on_disk(path)) and not args.force:
        raise UsageError(f"{path} exists, and it was the server that chose"
                         " the name", "--force replaces it")
    download(app, None, args.id, path, bool(args.force), about=about)


FILES = Group(
    "files", "Upload, list and download files.", path="/files",
    sample="file-1", main="upload",
    columns=("ID", "Filename", "Purpose", "Size=bytes:size", "Status:state",
             "Created=created_at:time", "+Expires=expires_at:time",
             "+Relative path=x_relative_path|relative_path"),
    fields=("ID", "Filename", "Purpose", "Status:state", "Size=bytes:size",
            "Created=created_at:time", "Expires=expires_at:time",
            "Relative path=x_relative_path|relative_path"), verbs=by_flag(
        lists("List files.", field("--purpose WORD", "of this purpose"),
              flag("--prefix PATH", "whose relative path begins so",
                   completes=""),
              flag("--tree", "as a tree of relative paths, with sizes"),
              run=list_files, examples=(
                  "xeroctl files --purpose batch --tree",)),
        shows("Show one file."),
        Verb("upload", "Upload a file, or a folder with --recursive.",
             upload_path,
             flag("--purpose WORD", "what it is for (default: assistants)",
                  default="assistants"),
             flag("--relative-path PATH",
                  "where it belongs, with forward slashes", completes="",
                  is_ours=True),
             flag("-r, --recursive", "upload what is in a folder"),
             *LINKS,
             by=flag("--upload PATH", "upload this file; - is standard input",
                     from_stdin=True, sample="prompts.jsonl"),
             writes=True, examples=(
                 "xeroctl files --upload prompts.jsonl --purpose batch",
                 "xeroctl files --upload prompts --recursive")),
        Verb("download", "Download a file.", download_file, ITEM,
             by=flag("--download PATH",
                     "write the file there, or into this folder; - is standard"
                     " output", sample="out.jsonl"),
             examples=("xeroctl files file-1 --download .",)),
        deletes("Delete a file."),
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


def api_path(path):
    """Make a path of the command line fit for a request line."""
    from urllib.parse import quote
    if not re.match(r"https?://|/", path):
        path = "/" + path
    return quote(whole(path), safe=URL_CHARACTERS.replace("#", ""))


def show_pages(app, method, path, query, parts):
    """Follow every page of a list and show it as one."""
    if method != "GET":
        raise UsageError(f"--all follows the pages of a GET, not of {method}")
    fetch = partial(app.api.call, "GET", path, **parts)
    pages = each_page(app, fetch, None, dict(query))
    if app.out.form not in (JSONL, CSV, ID):
        return show_any(app, merged(pages))
    first = next(pages)
    app.out.rows(chain([first], pages), columns_of(page_records(first)))


def show_head(app, answer):
    """Print status and headers: on stdout only where JSON is not due."""
    lines = [f"HTTP {answer.status} {answer.response.reason}".rstrip()]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    for line in lines + [""]:
        say_instead(app, line)


def show_events(app, answer):
    """Show an event stream as it comes: as it is, or event by event."""
    seen = ChatAnswer()
    try:
        if app.out.form != JSONL:
            for block in answer.blocks():
                app.out.write_bytes(block)
                seen.has_begun = True
            return
        for kind, payload in answer_events(answer, let_go_after(
                answer.blocks(), app.terminal.out.flush)):
            if kind == WHOLE:
                check_answer(payload)
            app.out.json_line(payload)
            if isinstance(payload, dict):
                seen.add(payload, kind)
            seen.has_begun = True
    except (ConnectionFailed, StreamError, AnswerError) as error:
        raise_if_broken(seen, error)


def show_body(app, answer):
    """Show an answer of any type: JSON in the form asked for, else bytes."""
    if answer.kept == b"":
        return
    is_held = answer.kept is not None or not (
        app.out.is_table or app.out.form == JSON)
    if answer.media.endswith("json") and is_held:
        value = answer.json()
        show_any(app, value)
        if dig(value, "has_more") is True:
            app.terminal.note("more exist: --all shows everything")
    elif answer.media == "text/event-stream":
        show_events(app, answer)
    else:
        for block in answer.blocks():
            app.out.write_bytes(block)


def call_api(app, group, args):
    """Make one authenticated call and show what comes back."""
    body, query = api_body(app, args), ()
    method = (args.method or ("GET" if body is None else "POST")).upper()
    app.out.writes = method not in ("GET", "HEAD")
    if isinstance(body, dict) and method in ("GET", "HEAD"):
        body, query = None, [(key, text_or_json(value))
                             for key, value in body.items()]
    path = api_path(args.path)
    parts = {"slug": app.slug() if args.endpoint else None,
             "silence": INFERENCE_TIMEOUT_S if args.endpoint else TIMEOUT_S}
    if args.all and args.include:
        raise UsageError("--all and --include cannot be combined")
    if args.all:
        return show_pages(app, method, path, query, parts)
    answer = app.api.open(method, path, query=query, body=body, accept="*/*",
                          **parts)
    if answer is None:
        return app.terminal.note("it is gone, as a lost answer has left it")
    with answer:
        if args.include:
            show_head(app, answer)
        show_body(app, answer)


API = only(
    "api", "Make any other call, with its retries and output.", call_api,
    flag("[METHOD]", "GET, or POST when there is a body"),
    flag("PATH", "below the project's /v1, or a URL on its origin",
         completes=""),
    flag("--endpoint SLUG", "call below this endpoint, not below the project"),
    flag("--field KEY=JSON…", "a member of the body; of the query with GET",
         json_pair),
    flag("--raw-field KEY=TEXT…", "the same, as text", text_pair),
    flag("--input FILE", "send this file as the body; - is standard input",
         from_stdin=True),
    ALL, flag("--include", "show status and headers, too"),
    writes=True, examples=(
        "xeroctl api /models",
        "xeroctl api /conversations --all -o id",
        "xeroctl api POST /conversations --field"
        " 'metadata={\"a\":\"b\"}'"))


# == webhooks: what the platform tells others ================================

def check_webhook(app, args):
    """Raise for a webhook URL that is not https (loopback http is)."""
    if args.url is not None:
        try:
            scheme, host, _ = origin_of(check_url(args.url))
        except NotConfigured as error:
            raise UsageError(f"webhook URL: {error}")
        if scheme != "https" and not is_loopback(host):
            raise UsageError(f"{args.url} is not https")
    if getattr(args, "secret", None):
        app.terminal.err.secrets.add(args.secret)


def check_signature(secret, signature, timestamp, body, now):
    """Raise unless a delivery is signed so, and of the last 5 minutes.

    The signature is hex HMAC-SHA256(secret, timestamp + "." + body).
    """
    import hashlib
    import hmac
    message = timestamp.encode("utf-8", "surrogateescape") + b"." + body
    wanted = hmac.new(secret, message, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted.encode(), signature.strip().encode(
            "utf-8", "surrogateescape")):
        raise XeroctlError("the signature is not that of this body")
    seconds = (float(timestamp) if re.match(r"\d{1,12}(\.\d+)?\Z", timestamp)
               else seconds_of(timestamp))
    if seconds is None or abs(now - seconds) > span_of("5m"):
        raise XeroctlError("the timestamp is not within 5 minutes of now")


def verify_webhook(app, group, args):
    """Check the signature of a delivery."""
    secret = app.read_bytes(args.secret_file).rstrip(b"\r\n")
    if not secret:
        raise UsageError(f"{args.secret_file} holds no secret")
    check_signature(secret, args.signature, args.timestamp,
                    app.read_bytes(args.body), app.clock.now())
    app.out.done({"ok": True}, "the signature is good", None)


def find_endpoint(app, args):
    """Have --endpoint, which may be a slug, be the id of the endpoint."""
    slug = args.endpoint
    if slug and not re.match(r"[\da-fA-F]{8}(-[\da-fA-F]{4}){3}-", slug):
        args.endpoint = id_in(app.api.call(
            "GET", path_of("endpoints", slug),
            stand_in={"id": StandIn(f"<id of {slug}>")}))


ENDPOINT_ID = field("--endpoint SLUG|UUID", "only for this endpoint",
                    sends="endpoint_id")
WEBHOOK_FLAGS = (
    field("--url URL", "where events go (https)", required=True,
          sample="https://example.com/hook"),
    field("--events A,B", "what to tell of", listed, required=True,
          sample="batch.completed"),
    DESCRIPTION, field("--active", "deliver"),
    field("--inactive", "do not deliver", const=False, dest="active"))

WEBHOOKS = Group(
    "webhooks", "Have events delivered, and check deliveries.",
    path="/webhooks",
    columns=("ID", "URL", "EVENTS:list", "ACTIVE=active|is_active",
             "CREATED=created_at:time"),
    more=("UPDATED=updated_at:time", "DESCRIPTION"), verbs=by_flag(
        lists("List webhooks."), shows("Show one webhook."),
        creates("Make one; its secret is shown once.", *WEBHOOK_FLAGS,
                field("--secret TEXT",
                      "sign with this (default: the router's choice)"),
                once="secret", checks=check_webhook),
        updates("Change a webhook.", *WEBHOOK_FLAGS, method="PUT",
                checks=check_webhook),
        deletes("Delete a webhook."),
        acts("test", "Have a test event delivered.",
             said="a test event is on its way"),
        lists("List what was delivered.", name="deliveries",
              columns=("ID", "EVENT=event|event_type", "STATUS:state",
                       "ATTEMPTS", "RESPONSE=response_status|response",
                       "CREATED=created_at:time")),
    ) + (
        Verb("verify", "Check the signature of a delivery.", verify_webhook,
             flag("--secret-file FILE", "the file with the secret",
                  required=True, from_stdin=True),
             flag("--signature HEX", "X-Webhook-Signature", required=True,
                  sample="HEX"),
             flag("--timestamp TIME", "X-Webhook-Timestamp", required=True),
             flag("--body FILE", "the body; - is standard input",
                  required=True, from_stdin=True),
             examples=("xeroctl webhooks verify --secret-file secret.txt"
                       ' --signature "$SIGNATURE" --timestamp "$TIMESTAMP"'
                       " --body body.json",)),
    ))


# == keys: who may call ======================================================

def scopes(text):
    """Convert A,B to a list of scopes."""
    scope = choice("inference", "management", "execution", "research")
    return list(map(scope, listed(text)))


def network(text):
    """Convert a network address (CIDR)."""
    import ipaddress
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise UsageError(f"{text!r} is no CIDR range")


def or_cleared(empty, *names):
    """A check of what is sent whole, that is empty where it is not given."""
    def check(app, args):
        given = {name: getattr(args, name) for name in names}
        if any(given.values()) == bool(args.clear):
            raise UsageError(" and ".join("--" + name.replace("_", "-")
                                          for name in names)
                             + ", or --clear alone, say what it is to be")
        vars(args).update((name, given[name] or empty) for name in names)
    return check


def rotate_key(app, group, args):
    run_write(app, group, args)
    if not app.plan:
        app.terminal.say("the previous value works for 24 hours more")


EXPIRES = field("--expires TIME", "ISO time, or 30d from now", moment,
                sends="expires_at", sample="30d")

KEYS = Group(
    "keys", "Make, rotate and revoke API keys.",
    path="/management/api-keys", main="create",
    columns=("ID", "NAME", "PREFIX", "SCOPES:list", "ACTIVE=active|is_active",
             "LAST_USED=last_used_at:time", "EXPIRES=expires_at:time"),
    more=("ENDPOINT=endpoint_id", "IP FILTER", "QUOTA"), verbs=by_flag(
        lists("List keys."), shows("Show one key."),
        creates("Make a key; its value is shown once.",
                field("--name NAME", "what it is for", required=True),
                field("--scopes, --scope A,B",
                      "inference, management, execution, research", scopes,
                      required=True, sample="inference"),
                ENDPOINT_ID, EXPIRES, once="key",
                checks=(fixes(1, "expires"), find_endpoint), examples=(
                    "xeroctl keys --create --name ci --scopes inference"
                    " --expires 30d",)),
        deletes("Revoke a key.", also=("revoke",)),
        acts("rotate", "Give a key a new value, shown once.", run=rotate_key,
             once="key", asks="Rotate key {id}?"),
        acts("ip-filter", "Say from where a key may be used.",
             field("--allow CIDR…", "only from these ranges", network,
                   many=bool),
             field("--block CIDR…", "not from these ranges", network,
                   many=bool),
             flag("--clear", "from everywhere"), method="PUT",
             asks="Replace the IP filter of key {id}?",
             checks=or_cleared([], "allow", "block"),
             usage="ID --ip-filter --allow CIDR", examples=(
                 "xeroctl keys key_1 --ip-filter --allow 10.0.0.0/8",
                 "xeroctl keys key_1 --ip-filter --clear")),
        acts("quota", "Limit how often a key may be used.",
             field("--quota-requests N", "so many requests",
                   sends="requests", needs="--quota-window"),
             field("--quota-window SECONDS", "in so many seconds", integer(1),
                   sends="window_seconds", needs="--quota-requests"),
             flag("--clear", "without limit"), method="PUT",
             checks=or_cleared(Null, "quota_requests", "quota_window"),
             usage="ID --quota --quota-requests N …", examples=(
                 "xeroctl keys key_1 --quota --quota-requests 1000"
                 " --quota-window 3600",
                 "xeroctl keys key_1 --quota --clear")),
    ))


# == agents: where models run ================================================

def router_address(text):
    """Convert tcp://HOST:PORT."""
    if not re.match(r"tcp://[^\s/:]+:\d{1,5}\Z|tcp://\[[\da-f:]+\]:\d{1,5}\Z",
                    text, re.I):
        raise UsageError(f"{text!r} is not tcp://HOST:PORT")
    return text


AGENT_FLAGS = (
    NAME_FLAG, REGION,
    field("--max-concurrent N",
          "most requests at a time; 0: the agent decides", integer(0),
          sends="max_concurrent_requests"),
    DESCRIPTION)
WORKSPACE = field("--workspace ID", "only for this workspace",
                  sends="workspace_id")
JOIN_KEYS = "//management/join-keys"
JOIN_KEY_COLUMNS = ("ID", "NAME", "REGION", "STATUS:state",
                    "EXPIRES=expires_at:time")

AGENTS = Group(
    "agents", "Look after the agents that run models.",
    path="/management/agents",
    columns=("ID", "NAME", "REGION", "STATUS:state",
             "TIERS=supported_tiers|tiers:list",
             "LAST SEEN=last_seen_at|last_seen:time"),
    more=("DESCRIPTION", "MAX CONCURRENT=max_concurrent_requests",
          "EXEC PAUSED", "PAUSED WORKSPACES:list", "CREATED=created_at:time"),
    verbs=by_flag(
        lists("List agents."), shows("Show one agent."),
        creates("Make an agent.", *AGENT_FLAGS),
        updates("Change an agent.", *AGENT_FLAGS, method="PATCH"),
        deletes("Delete an agent."),
        lists("List what happened to an agent.", name="events",
              columns=("TIME=created_at|time:time", "TYPE", "MESSAGE")),
    ) + below("join-keys", *by_flag(
        lists("List join keys.", path=JOIN_KEYS, columns=JOIN_KEY_COLUMNS),
        creates("Make a join key; its value is shown once.",
                NAME_FLAG, *changed((REGION,), required=True),
                field("--router-addr tcp://H:P",
                      "where the agent finds the router", router_address,
                      required=True, sample="tcp://router:7777"),
                field("--expires-in-hours N", "how long it can be used"),
                path=JOIN_KEYS, once="key", columns=JOIN_KEY_COLUMNS),
        acts("revoke", "Revoke a join key.", path=JOIN_KEYS + "/{id}",
             method="DELETE", asks="Revoke join key {id}?",
             said="revoked {id}", sample="jk_1"),
    )) + below("candidates", *by_flag(
        lists("List agents that wait for approval.", path="candidates",
              columns=("ID", "NAME", "REGION", "STATUS:state",
                       "CREATED=created_at:time")),
        acts("approve", "Let an agent in.", path="candidates/{id}/approve",
             said="approved {id}", sample="cand_1"),
        acts("reject", "Keep an agent out.", path="candidates/{id}/reject",
             said="rejected {id}", sample="cand_1"),
    )) + (
        acts("pause-exec", "Pause executions on an agent.", WORKSPACE),
        acts("resume-exec", "Resume executions on an agent.", WORKSPACE),
        acts("revoke-credentials", "Take an agent's credentials away.",
             asks="Revoke the credentials of agent {id}?"),
        acts("curve-rotate", "Give an agent new transport keys.",
             field("--reason TEXT", "why")),
    ))


# == slos: what is promised ==================================================

SLO_FLAGS = (
    NAME_FLAG,
    field("--metric METRIC", "as availability or latency_p99", required=True,
          sample="availability"),
    field("--target F", "what to reach", positive, required=True,
          sample="99.9"),
    field("--comparison WORD",
          "greater_than_or_equal or less_than_or_equal (default: by metric)",
          choice("greater_than_or_equal", "less_than_or_equal")),
    field("--window-days N", "over so many days, 1 to 90", integer(1, 90)),
    DESCRIPTION)


def complete_slo(app, args):
    """Choose the comparison that a metric asks for."""
    if args.comparison is None:
        is_low = re.search("latency|error|ttft|tpot", args.metric)
        args.comparison = ("less" if is_low else "greater") + "_than_or_equal"
    args.window_days = args.window_days or 30


def place_slos(app, args):
    """List all objectives, or those of an endpoint."""
    find_endpoint(app, args)
    if args.endpoint:
        args.place = "/" + path_of("endpoints", args.endpoint, "slos")


def list_series(app, group, args):
    """List what was measured, by time, and draw a line of each thing.

    Its first column is the time; what is in per cent stands for all.
    """
    page = merged(pages_of(app, group, args))
    time, *columns = map(as_column, args.verb.columns)
    app.out.rows([page], [time] + columns, "measurements",
                 args.verb.id_path or group.id_path)
    rows = sorted(page_records(page), key=lambda row: str(time.value(row)))
    columns = [c for c in columns if c.format == "percent"] or columns
    width = max(len(column.paths[0]) for column in columns)
    for column in columns if app.out.is_table else ():
        values = [column.value(row) for row in rows]
        if any(value is not None for value in values):
            app.out.bars(padded(column.paths[0], width), values)
    tell_rest(app, args, page)


def show_overview(app, group, args):
    """Show the whole on a line, and below it the parts that it is of."""
    whole = group.call(app, "GET", place_of(args))
    if not app.out.is_table:
        return app.out.record(whole, columns_of([whole]))
    check_record(whole, columns_of([whole]))
    parts = next((value for value in whole.values() if isinstance(
        value, list) and all(isinstance(each, dict) for each in value)), None)
    told = [key.replace("_", " ") + ": " + (
        as_pairs(value) if isinstance(value, dict) else
        key_column(key).text(whole, app.clock.now()))
        for key, value in whole.items() if value is not parts
        and not re.search("^object$|_percentage$", key)]
    app.out.line(one_line("; ".join(told)))
    columns = args.verb.columns or group.columns
    if parts is None and columns:  # of a project they are 50 at most
        parts = page_records(group.call(app, "GET", query=[("limit", 100)]))
    if parts:
        app.out.table(parts, columns or columns_of(parts))


COMPLIANCE = "COMPLIANCE=compliance|compliance_percentage:percent"

SLOS = Group(
    "slos", "Keep service level objectives.", path="/slos", thing="SLO",
    sample="slo_1",
    columns=("ID", "NAME", "METRIC", "TARGET", COMPLIANCE, "STATUS:state"),
    more=("COMPARISON", "WINDOW DAYS", "ENDPOINT=endpoint_id", "DESCRIPTION"),
    verbs=by_flag(
        lists("List objectives.", flag(
                  "--endpoint SLUG|UUID", "those of an endpoint, and of the"
                  " whole project"), checks=place_slos),
        shows("Show one objective."),
        creates("Make an objective.", *SLO_FLAGS, ENDPOINT_ID,
                checks=(complete_slo, find_endpoint)),
        updates("Change an objective.", *SLO_FLAGS, method="PUT"),
        deletes("Delete an objective."),
        lists("List how an objective was met.", name="history", columns=(
                  "TIME=created_at|measured_at|time:time", COMPLIANCE,
                  "VALUE"), run=list_series),
        acts("calculate", "Measure an objective now."),
        # A narrow terminal leaves out the last columns first.
        Verb("summary", "Show how all objectives are met.", show_overview,
             path="summary", columns=("NAME", "TARGET", COMPLIANCE,
                                      "STATUS:state", "METRIC", "+ID")),
    ))


# == endpoints, workspaces, chats, maintenance, project, settings ============

PARAM = field("--param K=V…", "any field; a value of JSON or a text", any_pair,
              many=is_pair, sends="*", sample="max_model_len=8192")

ENDPOINTS = Group(
    "endpoints", "Manage the endpoints that serve models.",
    path="/endpoints", default="list", sample="my-llm", item="SLUG",
    id_path="slug",
    columns=("SLUG", "MODEL=model|model_name", "TIER", "REGION",
             "STATUS:state", "+ID"),
    more=("Parameters",), verbs=(
        lists("List endpoints."), shows("Show one endpoint.", name="get"),
        creates("Make an endpoint.",
                field("SLUG", "its slug", sample="new-llm"),
                field("--model NAME", "the model it serves", required=True,
                      sample="demo-model"),
                field("--tier TIER", "its tier"), REGION,
                *changed((PARAM,), sends="parameters",
                         help="a parameter; a value of JSON or a text")),
        updates("Change an endpoint.", PARAM, method="PATCH"),
        deletes("Delete an endpoint."),
    ))

WORKSPACE_FLAGS = (NAME_FLAG, field("--type TYPE", "its type"), DESCRIPTION,
                   PARAM)
IN_WORKSPACE, = changed((THE_WORKSPACE,), sends="workspace_id")
AGENT = field("--agent ID", "the agent", required=True, sends="agent_id",
              sample="agent_1")

WORKSPACES = Group(
    "workspaces", "Manage workspaces, and bind agents to them.",
    path="/workspaces", default="list", sample="ws_1",
    columns=("ID", "NAME", "TYPE=type|workspace_type", "STATUS:state",
             "CREATED=created_at:time"),
    more=("DESCRIPTION",), verbs=(
        lists("List workspaces."), shows("Show one workspace."),
        creates("Make a workspace.", *WORKSPACE_FLAGS),
        updates("Change a workspace.", *WORKSPACE_FLAGS, method="PATCH"),
        deletes("Delete a workspace."),
        acts("bind", "Bind an agent to a workspace.", AGENT,
             path="{id}/agents", said="bound {agent} to {id}"),
        acts("unbind", "Take an agent from a workspace.",
             *changed((AGENT,), sends=None),
             path="{id}/agents/{agent}", method="DELETE",
             asks="Unbind agent {agent} from {id}?",
             said="unbound {agent} from {id}"),
        lists("List the agents of a workspace.", name="agents",
              columns=AGENTS.columns),
        lists("List the tools of a workspace.", name="tools",
              id_path="name", columns=("Name", "Risk", "Description")),
    ))


def export_chat(app, group, args):
    """Write out a chat, as the server formats it."""
    with app.api.open("GET", group.path + place_of(args), accept="*/*",
                      query=[("format", args.format)]) as answer:
        answer.kept = answer.read()
        doubt = in_place_of_file(decoded(answer.kept), answer.media, "")
        if doubt:
            raise AnswerError(f"{answer.url} answered with {doubt}")
        show_body(app, answer)


CHATS = Group(
    "chats", "Manage the chats of workspaces.", path="/chats",
    default="list",
    columns=("ID=id|chat_id", "TITLE", "WORKSPACE=workspace_id",
             "MESSAGES=message_count|messages", "UPDATED=updated_at:time"),
    more=("STATUS:state",), verbs=(
        lists("List chats.", WORKSPACE), shows("Show one chat."),
        creates("Begin a chat.", IN_WORKSPACE,
                field("--title TEXT", "its title")),
        acts("rename", "Give a chat another title.",
             field("--title TEXT", "its title", required=True),
             path="{id}", method="PATCH"),
        deletes("Delete a chat."),
        acts("archive", "Put a chat away."),
        acts("restore", "Take a chat out again."),
        lists("List the messages of a chat.", name="messages",
              columns=("ROLE", "CREATED=created_at:time",
                       "CONTENT=content|tool_calls:item")),
        acts("send", "Post a message to a chat.",
             field("-m, --message TEXT", "what to say; - is standard input",
                   sends="content", required=True, from_stdin=True),
             field("--role ROLE", "as whom (default: user)", default="user"),
             path="{id}/messages", checks=read_message,
             columns=("ID", "ROLE", "CREATED=created_at:time",
                      "CONTENT:content")),
        Verb("export", "Write out a chat.", export_chat, ITEM,
             flag("--format FORMAT", "md or json (default: md)",
                  choice("md", "json"), default="md"),
             path="{id}/export"),
    ))


MAINTENANCE_FLAGS = (
    field("--title TEXT", "what", required=True, sample="Disks"),
    field("--starts-at TIME", "ISO time with its zone", moment, required=True,
          sample="2026-12-01T10:00:00Z"),
    field("--ends-at TIME", "ISO time with its zone", moment, required=True,
          sample="2026-12-01T12:00:00Z"),
    field("--description TEXT", "more on it"),
    field("--severity WORD", "info, warning or critical",
          choice("info", "warning", "critical")))
MAINTENANCE = Group(
    "maintenance", "Schedule maintenance.", path="/management/maintenance",
    default="list", sample="mnt_1", main="schedule",
    columns=("ID", "TITLE", "SEVERITY", "STATUS:state",
             "STARTS=starts_at:time", "ENDS=ends_at:time"),
    more=("DESCRIPTION",), verbs=(
        lists("List maintenance.", OF_STATUS), shows("Show one maintenance."),
        creates("Schedule maintenance.", *MAINTENANCE_FLAGS, name="schedule",
                checks=fixes(1, "starts_at", "ends_at")),
        updates("Change a maintenance.", *MAINTENANCE_FLAGS, method="PATCH",
                checks=fixes(1, "starts_at", "ends_at")),
        acts("cancel", "Cancel a maintenance.", asks="Cancel {id}?"),
        acts("complete", "Say that a maintenance is over."),
        creates("Forget what was over before a time.",
                field("--before TIME", "ISO time or date", moment,
                      required=True, sample="2026-01-01"),
                name="purge", path="purge", checks=fixes(-1, "before"),
                asks="Forget all maintenance that was over before {before}?",
                columns=("Purged", "Before:time")),
    ))

MEMBER_COLUMNS = ("ID", "EMAIL", "ROLE", "JOINED=joined_at:time")
INVITATION_COLUMNS = ("ID", "EMAIL", "ROLE", "STATUS:state",
                      "EXPIRES=expires_at:time")

PROJECT_GROUP = Group(
    "project", "Manage the project and its members.",
    path="/management/project", default="show", sample="usr_1", thing="member",
    columns=("ID", "Name", "Description", "Tier", "Created=created_at:time"),
    verbs=(
        shows("Show the project.", path=""),
        updates("Change the project.", NAME_FLAG, DESCRIPTION, path="",
                method="PATCH"),
        lists("List the members, with their ids.", name="members",
              path="members", columns=MEMBER_COLUMNS),
        acts("set-role", "Give a member another role.",
             field("--role ROLE", "as owner or member", required=True,
                   sample="member"),
             path="members/{id}", method="PATCH", columns=MEMBER_COLUMNS),
        acts("remove-member", "Remove a member.", path="members/{id}",
             method="DELETE", asks="Remove member {id}?", said="removed {id}"),
        creates("Invite somebody.",
                field("--email ADDRESS", "whom", required=True,
                      sample="a@example.com"),
                field("--role ROLE", "as what"),
                name="invite", path="invitations", columns=INVITATION_COLUMNS),
        lists("List the invitations.", name="invitations",
              path="invitations", columns=INVITATION_COLUMNS),
        acts("revoke-invitation", "Take an invitation back.",
             path="invitations/{id}", method="DELETE",
             asks="Revoke invitation {id}?", said="revoked {id}",
             sample="invite_1"),
    ))

SETTINGS = Group(
    "settings", "Read and change the project's settings.", path="/settings",
    default="list", sample="theme", item="KEY",
    columns=("Key=key|id", "Value", "Description"), verbs=(
        lists("List settings.", paging=None),
        shows("Show one setting.", name="get"),
        acts("set", "Change a setting.",
             field("VALUE", "JSON, or a text", json_value, sample="dark"),
             path="{id}", method="PUT"),
    ))


# == usage, exports, health: how it has been =================================

FROM = field("--from TIME", "ISO time or date, or 7d ago", moment, sample="7d")
TO = field("--to TIME", "ISO time or date, or 1d ago (default: now)", moment,
           sample="1d")
fix_span = fixes(-1, "from", "to")
USAGE_FLAGS = (
    FROM, TO, field("--endpoint SLUG", "only of this endpoint"),
    field("--model NAME", "only of this model"))
USAGE_NUMBER_COLUMNS = (
    "Requests", "Errors", "Input tokens", "Output tokens", "Cached tokens",
    "Total tokens", "TTFT ms", "Latency ms")

USAGE = Group(
    "usage", "See requests, tokens and times of a span of days.",
    path="/usage", default="summary", verbs=(
        shows("Show the sums.", *USAGE_FLAGS, name="summary", path="summary",
              checks=fix_span,
              columns=("From:time", "To:time") + USAGE_NUMBER_COLUMNS),
        lists("List usage by day.", *USAGE_FLAGS, name="daily",
              path="daily", paging=None, checks=fix_span, id_path="date",
              run=list_series, columns=("Date",) + USAGE_NUMBER_COLUMNS),
        lists("List usage by endpoint.", *USAGE_FLAGS, name="endpoints",
              path="endpoints", paging=None, checks=fix_span,
              id_path="endpoint_slug",
              columns=("Endpoint=endpoint_slug", "Model=model_name")
              + USAGE_NUMBER_COLUMNS),
        lists("List requests.", *USAGE_FLAGS, name="requests",
              path="requests", checks=fix_span,
              columns=("ID", "Time=created_at:time", "Endpoint=endpoint_slug",
                       "Model=model_name", "Status=status_code",
                       "Input tokens", "Output tokens", "TTFT ms",
                       "Latency ms")),
    ))


def create_export(app, group, args):
    """Have an export made, and wait for it if asked to."""
    start, end = getattr(args, "from"), args.to
    if seconds_of(end) - seconds_of(start) > span_of("90d"):
        raise UsageError("an export spans at most 90 days: --from "
                         f"{start} --to {end}")
    if not args.wait:
        return run_write(app, group, args)
    args.id = id_in(group.call(app, "POST", place_of(args),
                               body=sent_fields(args)))
    see_end(app, group, args, lambda status: status not in (
        "pending", "processing"), ("completed",),
            call_again(app, "exports", "get", args.id) + " shows it")


def download_export(app, group, args):
    path = args.output_file or safe_name(args.id) + ".jsonl"
    download(app, None, args.id, path, about={},
             content=group.path + path_of(args.id, "download"))


EXPORTS = Group(
    "exports", "Export logs, metrics, usage and executions.",
    path="/exports", default="list", sample="exp_1", main="create",
    columns=("ID", "KIND=kind|type", "STATUS:state", "FORMAT",
             "FROM=start_date:time", "TO=end_date:time", "ROWS=row_count",
             "SIZE=size_bytes:size", "CREATED=created_at:time"), verbs=(
        lists("List exports.", OF_STATUS, paging="offset"),
        creates("Have an export made.",
                flag("KIND", "logs, metrics, usage or executions",
                     choice("logs", "metrics", "usage", "executions")),
                *changed((FROM,), sends="start_date", required=True),
                *changed((TO,), sends="end_date", default="0d"),
                field("--format FORMAT", "csv, json or jsonl (default: jsonl)",
                      choice("csv", "json", "jsonl"), default="jsonl"),
                field("--filter K=V…",
                      "only what has this, as model_name=m or"
                      " 'status_codes=[200,500]' (a list is JSON); several,"
                      " or repeated", any_pair, many=is_pair,
                      sends="filters"),
                flag("--wait", "wait until it is there"), WAIT_TIMEOUT,
                path="{kind}", run=create_export, checks=fix_span, examples=(
                    "xeroctl exports create logs --from 7d"
                    " --filter 'status_codes=[500]'",
                    "xeroctl exports create usage --from 30d --wait")),
        shows("Show one export.", name="get"),
        Verb("download", "Download its content, JSON Lines (NDJSON).",
             download_export, ITEM,
             flag("--output-file PATH",
                  "where to write to; - is standard output (default:"
                  " ID.jsonl)")),
        deletes("Delete an export."),
    ))


def check_health(app, group, args):
    """Ask the host whether it lives, without a key."""
    answer = ask_health(app.open_api(needs_key=False))
    app.out.record(answer, columns_of([answer]), "status")


HEALTH = Group(
    "health", "See whether the platform is well.", path="/health",
    default="dashboard", verbs=(
        Verb("dashboard", "Show the health of everything.", show_overview,
             path="dashboard"),
        Verb("check", "Ask the host whether it lives, without a key.",
             check_health),
    ))


# == exec: tools that run elsewhere ==========================================

OUTCOME_FIELDS = ("Arguments=args|arguments", "Error",
                  "Output=result|output:lines")
INVOCATION_FIELDS = ("ID", "Tool=tool|tool_name", "Status:state",
                     "Workspace=workspace_id", "Approval=approval_id",
                     *OUTCOME_FIELDS)
INVOCATION_ENDS = "completed", "failed", "cancelled", "rejected", "timeout"


def read_arguments(app, args):
    """Have --args, JSON, @FILE with JSON or - for stdin, be an object."""
    text = app.given_text(args.args, may_be_file=True)
    try:
        args.args = parse_json(text)
    except ValueError as problem:
        raise UsageError(f"--args is not JSON: {problem}")
    if not isinstance(args.args, dict):
        raise UsageError("--args is no JSON object")


def watch_again(app, item_id):
    return call_again(app, "exec", "watch", item_id) + " watches it"


def tell_approval(app, invocation):
    """Say what an invocation waits for, and who can end that."""
    approval = dig(invocation, "approval_id")
    if dig(invocation, "status") == "pending_approval":
        again = call_again(app, "approvals", "approve", as_text(approval))
        app.terminal.say(
            f"it waits for approval {as_text(approval)}: {again}, or reject")


def watch_tool(app, group, args):
    """Poll an invocation to its end, and tell each change of status."""
    told = []

    def tell(found):
        if told[-1:] != [found["status"]]:
            told.append(found["status"])
            app.terminal.note(f"{args.id} {told[-1]}")
            tell_approval(app, found)
        return ()
    see_end(app, group, args, INVOCATION_ENDS.__contains__, ("completed",),
            watch_again(app, args.id), INVOCATION_FIELDS, "/invocations", tell)


def invoke_tool(app, group, args):
    """Start a tool, and wait for its end if asked to."""
    found = group.call(app, "POST", place_of(args), body=sent_fields(args))
    if args.wait:
        args.id = id_in(found)
        return watch_tool(app, group, args)
    app.out.record(found, INVOCATION_FIELDS)
    if dig(found, "status") == "pending_approval":
        tell_approval(app, found)
        app.terminal.say(watch_again(app, id_in(found)))


def show_raw_execution(app, group, args):
    """Write out what a tool has printed."""
    with app.api.open("GET", group.path + place_of(args),
                      accept="*/*") as answer:
        for block in answer.blocks():
            app.out.write_bytes(block)


EXEC = Group(
    "exec", "Run tools, and look at what they did.", path="/exec",
    sample="inv_1", thing="invocation", main="invoke",
    columns=("ID", "Tool=tool|tool_name", "Workspace=workspace_id",
             "Status:state", "Created=created_at:time"),
    more=("Completed=completed_at:time", "Risk", "Approval=approval_id",
          "Exit code", "Duration ms", *OUTCOME_FIELDS), verbs=(
        lists("List the tools.", name="tools", path="tools", paging=None,
              id_path="name",
              columns=("Name", "Description", "+Risk", "+Domain")),
        Verb("tool-show", "Show all about a tool.", run_show,
             flag("NAME", "the tool", sample="kubectl_get", dest="id"),
             path="tools/{id}", columns=ALL_FIELDS),
        creates("Start a tool.", IN_WORKSPACE,
                field("--tool NAME", "the tool", an_id, required=True,
                      sample="kubectl_get"),
                field("--args JSON",
                      "its arguments; @FILE reads them from a file, -"
                      " standard input", required=True, from_stdin=True,
                      sample="'{\"kind\": \"pod\"}'"),
                flag("--wait", "wait for its end"), WAIT_TIMEOUT,
                name="invoke", path="invocations", run=invoke_tool,
                checks=read_arguments),
        Verb("watch", "Wait for the end of an invocation.", watch_tool, ITEM,
             *changed((WAIT_TIMEOUT,), needs=None)),
        acts("cancel", "Cancel an invocation.",
             path="invocations/{id}/cancel", columns=INVOCATION_FIELDS),
        lists("List executions.", path="executions"),
        shows("Show one execution.", path="executions/{id}"),
        Verb("raw", "Write out what a tool has printed.", show_raw_execution,
             ITEM, path="executions/{id}/raw"),
    ))


# == templates: how chats begin ==============================================

TEMPLATE_FIELDS = ("name", "scope", "description", "system_prompt",
                   "allowed_tools", "approval_policy",
                   "applicable_workspace_types", "metadata")
TEMPLATE_OF_SERVER = ("id", "object", "version", "workspace_id",
                      "created_at", "updated_at", "notes")
TEMPLATE_WORKSPACE = flag("--workspace ID", "the templates of this workspace")
TEMPLATE = flag("ID|NAME", "the template: its id or its name", sample="triage",
                dest="id")
ONE_TEMPLATE = TEMPLATE, TEMPLATE_WORKSPACE
TEMPLATE_WORDS = {"scope": ("platform", "project", "workspace"),
                  "approval_policy": ("standard", "elevated", "restricted")}


def template_problems(template):
    """Yield what is wrong with a template; null is as good as left out."""
    if not isinstance(template, dict):
        yield "it is no JSON object"
        return
    for name, value in template.items():
        words = TEMPLATE_WORDS.get(name)
        if name not in TEMPLATE_FIELDS + TEMPLATE_OF_SERVER:
            yield f"unknown field {name}"
        elif words and value not in (None,) + words:
            yield f"{name} is none of {', '.join(words)}"
    for name in ("name", "system_prompt"):
        if not template.get(name):
            yield f"{name} is missing"
        elif not isinstance(template[name], str):
            yield f"{name} is not a text"
        elif name == "name" and not re.match(r"[a-z0-9]+(-[a-z0-9]+)*\Z",
                                             template["name"]):
            yield "name is not kebab-case"


def template_in(app, path):
    """Read a template from a file, without what is the server's."""
    template = app.read_json(path)
    problems = list(template_problems(template))
    if problems:
        raise UsageError(f"{path}: {'; '.join(problems)}")
    return {key: value for key, value in template.items()
            if key in TEMPLATE_FIELDS and value is not None}


def place_templates(app, args):
    """Have a verb be about all templates, with one from a file perhaps."""
    if getattr(args, "file", None):
        args.file = template_in(app, args.file)
    args.place = "/" + templates_path(args.workspace)


def place_template(app, args):
    """Have a verb be about the one that is given by id or by name."""
    place_templates(app, args)
    found = args.id
    if not found.startswith("ctpl_"):
        known = all_templates(app, args.workspace, limit=100)
        found = only_named(found, known, args.workspace)
    args.place += path_of(found)


def apply_file(app, args, path, known, names):
    """Create or update the template in a file; return its id, and what is
    told of it.  names is {name: file} of those before it."""
    template, file = template_in(app, path), from_disk(os.path.basename(path))
    name, place = template["name"], templates_path(args.workspace)
    found = [each for each in known if dig(each, "name") == name]
    if names.setdefault(name, file) != file:
        raise UsageError(f"{names[name]} has the name {name}, too")
    if len(found) > 1:
        raise UsageError(f"{len(found)} templates are named {name}")
    if found and dict(found[0], **template) == found[0]:
        app.terminal.note(f"{file} is unchanged")
        return id_in(found[0]), None
    made = app.api.call(
        "PUT" if found else "POST",
        place + "".join(path_of(id_in(each)) for each in found),
        body=template, stand_in={"id": StandIn("<id>"), "version": 1})
    return id_in(made), f"{id_in(made)} v{as_text(dig(made, 'version'))}"


def apply_folder(app, group, args):
    """Create or update the templates in the *.json files of a folder."""
    try:
        files = sorted(name for name in os.listdir(on_disk(args.folder))
                       if name.endswith(".json"))
    except OSError as problem:
        raise UsageError(f"cannot read {args.folder}: {problem.strerror}")
    if not files:
        raise UsageError(f"there is no *.json in {args.folder}")
    known, names = all_templates(app, args.workspace, limit=100), {}
    known = known if args.workspace else shared_templates(known)
    outcomes = [
        tried(app, from_disk(name), lambda: apply_file(
            app, args, os.path.join(args.folder, name), known, names),
            file=from_disk(name)) for name in files]
    end_bulk(app, outcomes, "files applied")


TEMPLATE_FILE = flag("--file FILE",
                     "the template as JSON: name and system_prompt, and more"
                     " that show -o json has", required=True, from_stdin=True,
                     sends="*", sample="template.json")

TEMPLATES = Group(
    "templates", "Keep the templates that chats begin with.",
    path="/chat-templates", default="list",
    columns=("ID", "Name", "Scope", "Version", "Policy=approval_policy",
             "Updated=updated_at:time"),
    more=("Description", "Tools=allowed_tools:list",
          "Workspace types=applicable_workspace_types:list",
          "Prompt=system_prompt"), verbs=(
        lists("List templates.", field(
                  "--scope SCOPE", "all, platform, project or workspace",
                  choice("all", "platform", "project", "workspace")),
              TEMPLATE_WORKSPACE, checks=place_templates),
        shows("Show one template.", *ONE_TEMPLATE,
              field("--version N", "an earlier version",
                    dest="version_number", sends="version"),
              path="", checks=place_template),
        creates("Make a template.", TEMPLATE_FILE, TEMPLATE_WORKSPACE,
                checks=place_templates),
        creates("Make a new version of a template.", *ONE_TEMPLATE,
                TEMPLATE_FILE, name="update", method="PUT",
                checks=place_template),
        deletes("Delete a template.", *ONE_TEMPLATE, path="",
                checks=place_template),
        acts("promote", "Offer a template to more.", *ONE_TEMPLATE,
             field("--scope SCOPE", "platform or project",
                   choice("platform", "project"), required=True),
             path="promote", checks=place_template),
        lists("List the versions of a template.", *ONE_TEMPLATE,
              name="versions", path="versions", checks=place_template,
              columns=("Version", "Created=created_at:time", "Notes")),
        Verb("apply", "Begin a chat from a template, as chat new does.",
             new_chat, *changed((TEMPLATE,), dest="template"), THE_WORKSPACE,
             MESSAGE, writes=True),
        Verb("apply-from-dir", "Create or update templates from files.",
             apply_folder,
             flag("DIR", "the folder with *.json files", sample="templates",
                  dest="folder"),
             TEMPLATE_WORKSPACE, writes=True),
    ))


# == approvals and learnings =================================================

RISKS = "read", "write", "destructive", "irreversible"
RISK = field("--risk RISK", ", ".join(RISKS), choice(*RISKS))
DECIDED_ON = ("Tool=tool|tool_name", "Risk", "Arguments=args|arguments",
              "Workspace=workspace_id", "Agent=agent_id|agent", "Requested by",
              "Expires=expires_at:time")


def check_tool_name(app, args, tool):
    """Raise unless the name of an irreversible tool was given or typed."""
    refusal = UsageError if args.confirm is not None else XeroctlError
    if args.confirm is None and not app.terminal.stdin.isatty():
        raise UsageError(f"{tool} cannot be undone, and there is no terminal"
                         " to ask on", f"--confirm {tool} approves it")
    if args.confirm is None:
        args.confirm = app.terminal.ask(
            f"{tool} cannot be undone. Type its name to approve: ")
    if args.confirm != tool:
        raise refusal(f"{args.confirm!r} is not {tool}: nothing was approved")


def check_approval(app, args):
    """Show on stderr what is asked for; ask, unless it harms nothing.

    What cannot be undone asks for the tool's name.
    """
    found = app.api.call("GET", path_of("exec", "approvals", args.id),
                         stand_in={})
    if app.plan:
        return
    check_record(found, [as_column("ID")])
    for column in map(as_column, DECIDED_ON):
        app.terminal.say(f"{column.head + ':':13} "
                         + column.text(found, app.clock.now()))
    tool = as_column(DECIDED_ON[0]).text(found, 0)
    risk = dig(found, "risk")
    if risk == "irreversible":
        check_tool_name(app, args, tool)
    elif risk not in ("read", "write"):
        app.confirm(f"Approve {tool}?")


def watch_approvals(app, group, args):
    """Print each request for approval once, until Ctrl-C."""
    if app.out.form == CSV:  # one after the other, there is no head row
        raise UsageError("watch has no -o csv: -o jsonl is for programs")
    seen = set()
    query = dict({"status": "pending"}, **sent_fields(args))
    while True:
        for each in poll_patiently(app, lambda: list(chain(*record_lists(
                app, group.path, query)))):
            item_id = as_text(dig(each, "id"))
            if item_id not in seen:
                app.out.passing(each, "id", "risk", "tool", "workspace_id",
                                "args")
            seen.add(item_id)
        app.clock.sleep(args.interval)


DELEGATION_COLUMNS = ("ID", "To=delegate_to", "Risk", "Workspace=workspace_id",
                      "Expires=expires_at:time")

APPROVALS = Group(
    "approvals", "Decide what tools may do.", path="/exec/approvals",
    default="list",
    columns=("ID", "Status:state", "Risk", "Tool=tool|tool_name",
             "Created=created_at:time"),
    fields=("ID", "Status:state", *DECIDED_ON, "Note", "Reason",
            "Created=created_at:time", "Decided=decided_at:time"), verbs=(
        lists("List requests for approval.", RISK, WORKSPACE, OF_STATUS),
        shows("Show one request."),
        acts("approve", "Approve a request.",
             field("--note TEXT", "a word on it"),
             field("--confirm TOOL",
                   "the tool's name, where it cannot be undone"),
             checks=check_approval),
        acts("reject", "Reject a request.", field("--reason TEXT", "why")),
        Verb("watch", "Print each new request once, until Ctrl-C.",
             watch_approvals, RISK,
             field("--agent ID", "only what this agent is to do",
                   sends="agent_id"),
             flag("--interval SECONDS", "how often to look (default: 5)",
                  seconds, default=5)),
        lists("List who decides in your place.", name="delegations",
              path="delegations", columns=DELEGATION_COLUMNS),
        creates("Have somebody decide in your place.",
                field("--to WHO", "whom", required=True,
                      sample="grace@example.com", sends="delegate_to"),
                RISK, WORKSPACE, EXPIRES, name="delegate", path="delegations",
                columns=DELEGATION_COLUMNS, checks=fixes(1, "expires")),
        acts("revoke-delegation", "Take a delegation back.",
             path="delegations/{id}", method="DELETE",
             asks="Revoke delegation {id}?", said="revoked {id}",
             sample="dlg_1"),
    ))

LEARNINGS = Group(
    "learnings", "See what executions have taught.", path="/exec/learnings",
    default="list", sample="lrn_1",
    columns=("ID", "Source=source_type|source", "Score",
             "Created=created_at:time", "Content:content"),
    fields=("ID", "Content:content", "Workspace ID", "Score",
            "Source Type=source_type|source", "Created=created_at:time"),
    verbs=(
        shows("Show one learning."), lists("List learnings.", WORKSPACE),
    ))


# == config: the deployments on file =========================================

@contextmanager
def changed_config(app, name, text, is_new=False):
    """Have the config's tables changed, and say so; a plan says would."""
    config = app.settings.config
    if not is_new:  # told before the file is locked
        config.deployment(name)
    with config.changing(app.plan) as tables:
        if not is_new:
            config.deployment(name)
        yield tables
    done = {"id": name, "name": name, "path": config.path}
    if app.plan:
        done["would"] = text
        text = f"would write {config.path}: {text}"
    app.out.done(done, text, name)


def new_deployment(values):
    """The table of a deployment of values, checked; None is not given."""
    values = {key: checked(key, value, key) for key, value in values.items()
              if value is not None}
    if "base_url" not in values:
        raise UsageError("--base-url is missing: https://HOST/PROJECT/v1")
    style = values.get("style", XEROTIER)
    if key_source(values, UsageError) is None and style == XEROTIER:
        raise UsageError(
            "a key source is missing", "--api-key @FILE or --api-key-env NAME;"
            " xeroctl help config add names others")
    Deployment(values["base_url"], None, style).endpoint(
        values.get("endpoint"))
    return values


def put_deployment(app, name, table, may_replace):
    """Add or replace a deployment; the first one becomes current."""
    with changed_config(app, name, f"added {name}", is_new=True) as tables:
        if (DEPLOYMENT, name) in tables and not may_replace:
            raise UsageError(f"there is a deployment {name} already",
                             f"config set {name} KEY VALUE changes it,"
                             " --force replaces it")
        tables[DEPLOYMENT, name] = table
        tables[()].setdefault(CURRENT, name)


def add_deployment(app, group, args):
    values = {key: getattr(args, key, None) for key in DEPLOYMENT_KEYS
              if key not in ("output", "timeout")}
    values["api_key"] = app.settings.typed_key(args.api_key)
    put_deployment(app, args.name, new_deployment(values), args.force)


def use_deployment(app, group, args):
    app.settings.tell_beaten(args.name)
    with changed_config(app, args.name, f"current is {args.name}") as tables:
        tables[()][CURRENT] = args.name


def deployment_record(app, name, table):
    """A deployment as it is shown: never with its key."""
    source = key_source(table)
    value = table.get(source)
    shown = (None if source is None else redacted_key(str(value))
             if source == "api_key" else f"{source} {value}")
    record = {"id": name, "name": name, "key": shown,
              "current": name == app.settings.context()}
    record.update((key, value) for key, value in table.items()
                  if key not in KEY_SOURCES)
    return app.terminal.err.secrets.masked_json(record)


def list_deployments(app, group, args):
    found = app.settings.config.deployments()
    rows = [deployment_record(app, *each) for each in found.items()]
    app.out.rows([{"object": "list", "data": rows}], group.columns,
                 "deployments")
    app.settings.tell_beaten(app.settings.config.current())


def show_deployment(app, group, args):
    name = args.name or app.settings.context()
    if name is None:
        raise NotConfigured("no deployment is current", CONFIG_HELP)
    table = app.settings.config.deployment(name)
    app.out.record(deployment_record(app, name, table), group.fields)
    app.settings.tell_beaten(name)


def set_value(app, group, args):
    """Set a key of a deployment; one key source replaces another."""
    value = checked(args.key, app.given_text(args.setting), args.key)
    text = f"set {args.key} of {args.name}"
    with changed_config(app, args.name, text) as tables:
        table = tables[DEPLOYMENT, args.name]
        for source in KEY_SOURCES if args.key in KEY_SOURCES else ():
            table.pop(source, None)
        table[args.key] = value


def unset_value(app, group, args):
    text = f"removed {args.key} of {args.name}"
    with changed_config(app, args.name, text) as tables:
        if args.key not in tables[DEPLOYMENT, args.name]:
            raise UsageError(f"{args.name} has no {args.key}")
        del tables[DEPLOYMENT, args.name][args.key]


def remove_deployment(app, group, args):
    """Remove a deployment, and that it is current if it is."""
    app.settings.config.deployment(args.name)
    app.confirm(f"Remove deployment {args.name}?")
    with changed_config(app, args.name, f"removed {args.name}") as tables:
        del tables[DEPLOYMENT, args.name]
        if tables[()].get(CURRENT) == args.name:
            del tables[()][CURRENT]


def show_path(app, group, args):
    path = app.settings.config.place()
    app.out.done({"id": path, "path": path}, path, path)


def init_config(app, group, args):
    """Ask for a deployment, try it, and store it."""
    terminal = app.terminal
    if not terminal.stdin.isatty():
        raise UsageError(
            "config init asks questions: it needs a terminal",
            "xeroctl config add NAME --base-url URL --api-key @FILE asks none")
    name = terminal.ask("Name of the deployment [default]: ", "default")
    is_known = name in app.settings.config.deployments()
    if is_known:
        app.confirm(f"Replace deployment {name}?")
    url = checked("base_url", terminal.ask(
        "Base URL, https://HOST/PROJECT/v1: "), "base URL")
    style = XEROTIER if url.count("/") > 3 else OPENAI
    style = checked("style", terminal.ask(
        f"Style, xerotier or openai [{style}]: ", style), "style")
    key = terminal.ask_secret().strip() or None
    table = new_deployment({"base_url": url, "api_key": key, "style": style})
    # The try goes by what is about to be stored, and by no variable.
    app.settings.config.tables[DEPLOYMENT, name] = table
    args.context = name
    try:
        models = page_records(app.api.call("GET", "/models"))
        terminal.say("the server answers, with "
                     + as_many(len(models), "model"), GREEN)
    except XeroctlError as error:
        say_error(error, terminal)
        app.confirm("Store it all the same?")
    put_deployment(app, name, table, is_known)


NAME = flag("NAME", "the deployment", completes="context", sample="prod")
KEY = flag("KEY", ", ".join(DEPLOYMENT_KEYS), choice(*DEPLOYMENT_KEYS),
           sample="endpoint")

CONFIG_NOTES = """
the config file (~/.config/xeroctl/config.toml):

    current = "prod"

    [deployment.prod]
    base_url = "https://api.xerotier.ai/acme-prod/v1"
    api_key_file = "prod.key"
    endpoint = "my-llm"

  A deployment has base_url and one source of its key: api_key (the key
  itself), api_key_env (a variable), api_key_file (seen from the config's
  folder), api_key_command (what it prints) or api_key_keychain (macOS
  keychain, secret-tool); with style = "openai" it may have none.  endpoint,
  output, timeout, cacert and frontend_url hold as the flags do.  Flags beat
  variables, and those the deployment, but for one that --context names.
"""

CONFIG = Group(
    "config", "Manage the deployments on file.", notes=CONFIG_NOTES,
    columns=("Name", "Current", "Base URL", "Style", "Key"),
    fields=("Name", "Current", "Base URL", "Style", "Endpoint", "Key",
            "Output", "Frontend URL", "Timeout", "CA bundle=cacert"),
    thing="deployment", verbs=(
        Verb("init", "Ask for a deployment, try it, and store it.",
             init_config, writes=True),
        Verb("add", "Store a deployment; the first becomes current.",
             add_deployment, flag("NAME", "the new deployment", some_text),
             flag("--api-key-env VARIABLE", "read the key from this variable"),
             flag("--api-key-file FILE", "read the key from this file"),
             flag("--api-key-command COMMAND",
                  "run this command, which prints the key"),
             flag("--api-key-keychain NAME",
                  "ask the keychain (macOS security, secret-tool)"),
             flag("--endpoint SLUG", "the endpoint of commands that need one"),
             writes=True, examples=(
                 "xeroctl config add prod --api-key @key.txt"
                 " --base-url https://HOST/PROJECT/v1",
                 "xeroctl config add local --style openai --base-url"
                 " http://127.0.0.1:8080/v1")),
        Verb("use", "Make a deployment current.", use_deployment, NAME,
             writes=True),
        Verb("list", "List the deployments.", list_deployments),
        Verb("show", "Show a deployment; its key is redacted.",
             show_deployment,
             flag("[NAME]", "the deployment (default: the current one)",
                  completes="context")),
        Verb("set", "Set a key of a deployment.", set_value, NAME, KEY,
             flag("VALUE", "its value; - reads standard input",
                  from_stdin=True, dest="setting"),
             writes=True,
             examples=("xeroctl config set prod endpoint my-endpoint",
                       "xeroctl config set prod api_key -")),
        Verb("unset", "Remove a key of a deployment.", unset_value, NAME,
             *changed((KEY,), type=None), writes=True),
        Verb("remove", "Remove a deployment.", remove_deployment, NAME,
             writes=True),
        Verb("path", "Print the path of the config file.", show_path),
    ))


# == status: where a connection fails ========================================

def show_status(app, group, args):
    """Take every step of a connection; the first failure is the exit code."""
    if app.plan.curl:
        return app.api.call("GET", "/models", stand_in={})
    rows, failure = examine(app)
    app.out.rows([{"object": "list", "data": rows}], group.columns,
                 "steps", "step")
    if failure:
        raise failure


STATUS = only(
    "status", "Check the connection to the server, step by step.",
    show_status, columns=("Step", "Status:state", "Time (ms)=ms", "Detail"))


GROUPS = (CHAT, BATCHES, MODELS, EMBEDDINGS, RERANK, SCORE, RESPONSES,
          COMPLETIONS, CONVERSATIONS, FILES, UPLOADS, UPLOAD, WEBHOOKS,
          KEYS, AGENTS, SLOS, ENDPOINTS, WORKSPACES, CHATS, MAINTENANCE,
          PROJECT_GROUP, SETTINGS, USAGE, EXPORTS, HEALTH, EXEC, TEMPLATES,
          APPROVALS, LEARNINGS, API, CONFIG, STATUS)


# ---------------------------------------------------------------------------
# 12. Parser
# ---------------------------------------------------------------------------

# Not by argparse, which refuses values that begin with a dash
# (cpython#53580), loses those that are --, lets one flag eat the value or the
# positionals of another, and forgets what stood before a sub-command.

VERSION = flag("--version", "print the version")
HELP_FLAG = flag("-h, --help", "print this help")
GLOBALS = (
    flag("--context NAME",
         "go by this deployment, not by variables (XEROTIER_CONTEXT)",
         completes="context"),
    flag("-o, --output FMT",
         "table, wide, json, jsonl, csv or id (XEROTIER_OUTPUT)",
         choice(*FORMS, of_file="a file goes with --output-file, or >")),
    flag("--pick PATH",
         "of the JSON only what a path leads to, as data.*.id: texts as they"
         " are, all else as JSON", path_steps),
    flag("--base-url URL", "https://HOST/PROJECT/v1 (XEROTIER_BASE_URL)"),
    flag("--api-key KEY",
         "the key (XEROTIER_API_KEY); @FILE reads a file, - standard input. As"
         " an argument it shows in the process list", from_stdin=True),
    flag("--frontend-url URL",
         "origin of /management, slos and learnings (XEROTIER_FRONTEND_URL)"),
    flag("--style STYLE",
         "xerotier, or openai for any other server (XEROTIER_STYLE)",
         choice(*STYLES)),
    flag("--timeout SECONDS",
         "to connect, and longest silence (60; inference 600)", seconds),
    flag("--max-time SECONDS", "limit on the whole call", seconds),
    flag("--retries N", f"attempts after the first (default {RETRIES})",
         integer(0), default=RETRIES),
    flag("--header 'NAME: VALUE'…", "extra request header", header_pair),
    flag("--dry-run", "print what would be sent; change nothing"),
    flag("--curl", "print the curl command instead of sending"),
    flag("-y, --force", "ask no question, on commands that ask"),
    flag("-q, --quiet", "no spinner, progress or hint on stderr"),
    flag("-v, --verbose",
         "a line per request on stderr; -vv headers and bodies", default=0,
         counts=True),
    flag("--cacert FILE", "trust the CAs in this file"),
    flag("--cert FILE", "client certificate"),
    flag("--cert-key FILE", "its key (XEROTIER_CERT_PASSWORD if encrypted)",
         needs="--cert"),
    flag("--insecure", "do not check the server's certificate"),
    flag("--proxy URL", "proxy to use; '' is none (beats HTTPS_PROXY)"),
    flag("--raw", "let server text reach a terminal unchanged"),
    flag("--color WHEN", "auto, always or never",
         choice("auto", "always", "never")),
    flag("--no-color", "as --color never", const="never", dest="color"),
    VERSION, HELP_FLAG)
# What people type because other tools have it.
FOREIGN = {"login": "xeroctl config init asks for a key and stores it",
           "auth": "xeroctl config init asks for a key and stores it",
           "logout": "xeroctl config unset NAME api_key takes a key away",
           "completion": "xeroctl shell-completion bash, zsh or fish"}

# What stands for the word that completion is about: no argument can hold it.
CURSOR = "\0"
STANDARD_WORDS = "list", "show", "get", "create", "update", "delete"
# The command line that names no group: global flags only.
TOP = only("", "", None)


def flag_table(verbs=(), others=()):
    """{name: flag} of the globals, and of all that the verbs take.

    What others take is known by a name that is free.
    """
    taken = chain(*(verb.own for verb in others), GLOBALS,
                  *(verb.own for verb in verbs))
    return {name: declared for declared in taken if not declared.is_word
            for name in declared.names}


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
            yield declared, (rest[1:] if rest[:1] == "=" else rest) or None
            return
        yield declared, None


def is_known(word, table):
    """Whether a word is a known flag: --name, --name=…, -n, or -vv."""
    if word == "--" or word.partition("=")[0] in table:
        return True
    switches = {name for name in table if not table[name].takes_value}
    return is_flag_like(word) and switches.issuperset(
        "-" + letter for letter in word[1:])


def next_value(declared, rest, table):
    """The value of a flag: the next word, unless it is a known flag."""
    name = declared.long_name
    if not rest:
        raise UsageError(f"{name} needs a value")
    if is_known(rest[0], table):
        raise UsageError(f"{name} needs a value, and {rest[0]} is a flag",
                         f"{name}={rest[0]} takes it as the value")
    return rest[0]


def tokens(words, table):
    """Yield (index, flag, value) for flags, (index, None, word) for words."""
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
            while (declared.many and position < len(words)
                   and not is_flag_like(words[position])
                   and declared.many(words[position])):
                yield position, declared, words[position]
                position += 1


def first_word(words, table):
    """(the first word that is no flag, the words before it, those behind)."""
    for index, declared, word in tokens(words, table):
        if declared is None and word != CURSOR:
            return word, words[:index], words[index + 1:]
    return None, words, []


def find_group(words, groups):
    """Return (group, the words without its name); TOP if none is named."""
    word, before, behind = first_word(words, flag_table())
    names = {group.name: group for group in groups}
    if word in (None, "version"):
        return TOP, [VERSION.long_name] if word else words
    if word not in names:
        noun, _, more = first_word(behind, flag_table())
        verb = "list" if word == "get" and not more else word  # as kubectl
        meant = verb in STANDARD_WORDS and noun in names
        raise UsageError(f"unknown command {word!r}", FOREIGN.get(word)
                         or meant and f"xeroctl {noun} {verb}"
                         or did_you_mean(word, names)
                         or "xeroctl help lists the commands")
    return names[word], before + behind


def name_at(group, level):
    """The name of a group, and of the word that a verb stands behind."""
    return f"{group.name} {level}" if level else group.name


def by_word(group, level=None):
    """{word: verb} for the words that may come first at a level.

    The levels are that of the group, and those behind each word that holds
    verbs of its own: that word is for the first of them.
    """
    named = {}
    for verb in group.verbs:
        if verb.word == level:
            named.update(dict.fromkeys(verb.words, verb))
        elif level is None:
            named.setdefault(verb.word, verb)
    return named


def unnamed_in(group, verbs):
    """Those that no word has to call: the default, or all by flag."""
    return [verb for verb in verbs
            if verb.by is not None or verb.name == group.default]


def where_texts_go(verbs):
    """What to say of a word where a text is given by a flag: -m TEXT."""
    return next((f": a text goes with {f.names[0]} TEXT, in quotes"
                 for verb in verbs for f in verb.flags
                 if f.long_name in ("--message", "--input")), "")


def check_no_verb(group, level, unnamed, word):
    """Raise unless the first word can be something else than a verb.

    A verb of another level is no id here, nor is one of many groups.
    """
    named, name = by_word(group, level), name_at(group, level)
    is_verb = any(verb.by == BARE for verb in unnamed) and (
        word in STANDARD_WORDS or any(word in verb.words
                                      for verb in group.verbs))
    if word == "ls" and "list" in named:
        hint = f"xeroctl {name} list"
    elif not is_verb and any(verb.places for verb in unnamed):
        return
    else:
        hint = did_you_mean(word, named) or "it has " + ", ".join(named)
    raise UsageError(f"{name} has no verb {word!r}" + where_texts_go(unnamed),
                     hint)


def find_verb(group, words, level=None):
    """Return (verbs, called, words): those of a level, and the called one.

    Only the first word is read as a verb, and the one behind a word that
    holds verbs; -- makes it an id.  Where a verb is missing, or help stands
    for it, the words ask for help.
    """
    word, before, behind = first_word(words, flag_table(group.verbs))
    rest, verbs = before + behind, [
        verb for verb in group.verbs if verb.word == level]
    unnamed = unnamed_in(group, verbs)
    if word is not None and "--" not in before:
        verb = by_word(group, level).get(word)
        if verb and verb.word != level:
            return find_verb(group, rest, word)
        if verb:
            return verbs, verb, rest
        if word == "help":
            return verbs, None, [HELP_FLAG.long_name] + rest
        check_no_verb(group, level, unnamed, word)
    return verbs, None, [HELP_FLAG.long_name] * (not unnamed) + words


def choose_verb(verbs, names, words):
    """Choose among verbs by the flags that are given, and by the words.

    An action that another given action has as a flag of its own modifies it
    (--wait with --input).
    """
    actions = [verb for verb in verbs if verb.by_flag and verb.called in names]
    for verb in actions:
        if not any(other.has(verb.called) for other in actions):
            return verb
    bare = [verb for verb in verbs if verb.by == BARE]
    return min(bare or verbs, key=lambda verb: (
        not flag_table([verb]).keys() >= set(names)
        or bool(words) and not verb.places,
        verb.name != ("show" if words else "list")))


def check_goes_with(verb, verbs, names):
    """Raise for a flag that belongs to another verb, naming both."""
    own = flag_table([verb])
    for name in (name for name in names if name not in own):
        actions = [each for each in verbs if each is verb
                   or each.by_flag and each.called == name]
        if len(actions) > 1:
            told = [f"{each.called} cannot be combined with "
                    + " / ".join(each.excludes)
                    for each in actions if each.excludes]
            raise UsageError(told[0] if told else " and ".join(
                each.called for each in actions)
                + " cannot be combined: give one action")
        homes = [each.called for each in verbs if each.has(name)]
        name = "/".join(flag_table(verbs)[name].names)
        if verb.by_flag:
            name += f" cannot be combined with {verb.called}: it"
        raise UsageError(f"{name} goes with " + " or ".join(homes))


def store(args, declared, value):
    """Store one given argument: the last one wins, or all count."""
    before = getattr(args, declared.dest)
    if not declared.takes_value:
        value = before + 1 if declared.counts else declared.const
    elif declared.type:
        try:
            value = declared.type(value)
        except UsageError as problem:
            name = (declared.metavar if declared.is_word
                    else "/".join(declared.names))
            raise UsageError(f"{name}: {problem}", problem.hint)
    setattr(args, declared.dest, (before or []) + [value]
            if declared.is_several else value)


def unexpected(args, group, first, word):
    """The error for a word that no argument takes; first may be a verb."""
    called = args.verb.called
    if ITEM in args.verb.flags:
        told = f"{called} takes one {group.thing} ID: {word!r} is one more"
    elif args.verb.by_flag and not args.by_word:
        return UsageError(f"{called} cannot be combined with"
                          f" a positional {group.thing} ID ({word!r})")
    else:
        told = f"unexpected argument {word!r}" + where_texts_go([args.verb])
    return UsageError(told, None if args.by_word else did_you_mean(
        first, by_word(group)))


def bind_words(args, group, places, words):
    """Pair the plain words with the arguments that take them, in order."""
    left, pairs = list(words), []
    for number, declared in enumerate(places):
        after = len(places) - number - 1
        count = (len(left) - after if declared.is_several else
                 declared.required or len(left) > after)
        taken, left = left[:max(count, 0)], left[max(count, 0):]
        pairs += [(declared, word) for word in taken]
    if left:
        raise unexpected(args, group, words[0], left[0])
    return pairs


def check_given(args, places):
    """Raise unless everything required has been given."""
    for declared in places + [f for f in args.verb.own if f not in places]:
        is_needed = declared.required or declared in places and (
            not declared.is_word)
        if is_needed and getattr(args, declared.dest) is None:
            name = (declared.metavar if declared in places
                    else declared.long_name)
            raise UsageError(
                f"{args.verb.called} needs {name}" if args.verb.by_flag
                and not args.by_word else f"{name} is missing")


def check_together(given):
    """Raise for a modifier without the flag that it modifies, and if two
    inputs are to be read from standard input."""
    names = {name for declared, _ in given for name in declared.names}
    for declared, _ in given:
        if declared.needs and declared.needs not in names:
            raise UsageError(f"{declared.long_name} goes with"
                             f" {declared.needs}")
    readers = [declared.long_name for declared, value in given
               if declared.from_stdin and value == "-"]
    if len(readers) > 1:
        raise UsageError(" and ".join(readers) + " cannot both read standard"
                         " input")


def places_of(verb, given=()):
    """The arguments that plain words are for, in order.

    The last is the value of the flag that calls the verb, if a word did.
    """
    is_last = verb.by_flag and verb.by.takes_value and not any(
        declared.long_name == verb.called for declared, _ in given)
    return verb.places + [verb.by] * is_last


def with_help(error, *names):
    """An error that names a page of the help, if it hints at nothing."""
    page = " ".join(filter(None, ("xeroctl help",) + names))
    error.hint = error.hint or page
    return error


def read_args(group, verb, given, words=(), is_called=False):
    """Make the arguments of a verb out of what tokens() took apart."""
    places = places_of(verb, given)
    args = SimpleNamespace(verb=verb, by_word=is_called, **{
        declared.dest: declared.default for declared in GLOBALS + verb.own})
    try:
        if verb.by_flag and not verb.by.takes_value:
            given = given + [(verb.by, None)]
        given = given + bind_words(args, group, places, words)
        for declared, value in given:
            store(args, declared, value)
        check_given(args, places)
        check_together(given)
    except UsageError as error:
        raise with_help(error, group.name, verb.word, is_called and verb.name)
    return args


def help_first(words):
    """The words with one --help before all, if it is among the flags."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word not in HELP_FLAG.names]
    return [HELP_FLAG.long_name] * (len(kept) < end) + kept + words[end:]


def verbs_for_help(group, verbs, called, words=()):
    """What help is about: a verb, those below a word, or the whole group."""
    given = {word.partition("=")[0] for word in words}
    found = [called] if called else [
        verb for verb in verbs if verb.by_flag and verb.called in given]
    return found if len(found) == 1 else (
        verbs if verbs[0].word else group.verbs)


def parse(argv, groups):
    """Return (group, args) of a command line; args.verb is what to run.

    Raise HelpWanted where help is asked for, also by a line that is broken,
    and where there is no verb.
    """
    words, group, verbs, called = help_first(argv), TOP, TOP.verbs, None
    try:
        group, words = find_group(words, groups)
        verbs = group.verbs
        verbs, called, words = find_verb(group, words)
        meant = [called] if called else unnamed_in(group, verbs)
        taken = list(tokens(words, flag_table(meant, verbs)))
    except UsageError as error:
        if words[:1] != [HELP_FLAG.long_name]:
            raise with_help(error, group.name, called and called.name)
        taken = [(0, HELP_FLAG, None)]
    given = [(declared, value) for _, declared, value in taken if declared]
    plain = [word for _, declared, word in taken if not declared]
    flags = [declared for declared, _ in given]
    names = [declared.long_name for declared in flags]
    if VERSION in flags:
        return TOP, read_args(TOP, TOP.verbs[0], [(VERSION, None)])
    if HELP_FLAG in flags:
        raise HelpWanted(group, verbs_for_help(group, verbs, called, words))
    verb = choose_verb(meant, names, plain)
    check_goes_with(verb, verbs, names)
    return group, read_args(group, verb, given, plain, verb is called)


# == help: all of it from the declarations ===================================

def usage_of(group, declared):
    if declared is ITEM:
        return group.item
    return (declared.spec if declared.is_word
            else f"{declared.long_name} {declared.metavar}".rstrip())


def command_of(group, verb):
    """The name of a verb, from that of its group on."""
    return f"{name_at(group, verb.word)} {verb.name}".rstrip()


def call_begin(group, verb):
    """The words of a call before its arguments."""
    return (command_of(group, verb) if verb.by is None
            else name_at(group, verb.word))


def call_form(group, verb, width):
    """A call as it is typed, and what it requires, as far as that fits."""
    words = [call_begin(group, verb)]
    if verb.usage:
        return " ".join(words + [verb.usage])
    words += [usage_of(group, f)
              for f in verb.places + [verb.by] * verb.by_flag]
    needed = [usage_of(group, f) for f in verb.flags
              if f.required and not f.is_word]
    form = " ".join(words + needed)
    while needed and len(form) > width:
        needed.pop()
        form = " ".join(words + needed + ["…"])
    return form


def verb_usage(group, verb):
    room = HELP_WIDTH - len("usage: xeroctl  [flags]")
    return f"xeroctl {call_form(group, verb, room)} [flags]"


SAMPLES = {"SLUG": "my-llm", "FILE": "in.jsonl", "OUT": "out.jsonl",
           "K=V": "team=ml", "KEY=JSON": "'size=1'", "TEXT": '"Hello"',
           "REGION": "eu-central", "N": "10"}


def sample_of(group, verb, declared):
    """A value to show an argument with: its first choice, or a common one."""
    is_id = declared.is_word and declared.dest == "id"
    words = getattr(declared.type, "words", ())
    common = dict(SAMPLES, NAME="my-" + group.name.rstrip("s"))
    return (words[0] if words else declared.sample
            or is_id and (verb.sample or group.sample)
            or common.get(declared.metavar, declared.metavar.lower()))


def sample_call(group, verb):
    """A command line that calls a verb with what it needs."""
    flags = [f for f in verb.own if not f.is_word]
    shown = [f for f in verb.places if f.required] + [
        f for f in flags if f.required or f in (verb.by, SLUG)]
    if verb.run is run_update:  # it takes at least one
        shown += [f for f in flags if f.sends and f not in shown][:1]
    words = ["xeroctl", call_begin(group, verb)]
    for declared in shown:
        if not declared.is_word:
            words.append(declared.long_name)
        if declared.takes_value:
            words.append(sample_of(group, verb, declared))
    return " ".join(words)


def examples_of(group, verb):
    """One to three command lines that call a verb."""
    return list(verb.examples) or [sample_call(group, verb)]


def section(head, rows):
    """A table below its head, if it has any rows: two aligned columns, the
    second one wrapped."""
    import textwrap
    if not rows:
        return []
    wide = max(len(str(name)) for name, _ in rows) + 4
    return ["", head] + [textwrap.fill(
        text, HELP_WIDTH, initial_indent=f"  {name!s:{wide - 2}}",
        subsequent_indent=" " * wide, break_on_hyphens=False)
        for name, text in rows]


def example_lines(examples):
    """The examples in a help text; a long one is continued."""
    lines = ["", "examples:"]
    for line in examples:
        while len(line) > HELP_WIDTH - 4:
            end = line.rfind(" -", 0, HELP_WIDTH - 4)
            lines.append(f"  {line[:end]} \\")
            line = "  " + line[end + 1:]
        lines.append("  " + line)
    return lines


def verb_help(group, verb):
    """The help text of one verb; what its usage says, no flag repeats."""
    return "\n".join(
        ["usage: " + verb_usage(group, verb), "", verb.summary]
        + section("arguments:", [(usage_of(group, f), f.help)
                                 for f in verb.places if f is not ITEM])
        + section("flags:", [(f.spec, f.help) for f in verb.own
                             if not f.is_word
                             and (f.takes_value or f is not verb.by)])
        + example_lines(examples_of(group, verb))
        + ["", "global flags: xeroctl help flags"])


def group_examples(group, verbs):
    """Three examples of a group, one a verb if there are as many: first of
    verbs that have their own."""
    verbs = sorted(verbs, key=lambda verb: not verb.examples)
    rounds = zip_longest(*(examples_of(group, verb) for verb in verbs[:3]))
    return list(filter(None, chain.from_iterable(rounds)))[:3]


def group_help(group, verbs):
    """The help text of a group, or of the verbs below one of its words."""
    import textwrap
    level, is_whole = verbs[0].word, len(verbs) == len(group.verbs)
    verbs = sorted(verbs, key=lambda verb: verb.name != group.main)
    name = name_at(group, level)
    more = f"xeroctl help {name} VERB tells more"
    words = [verb.name for verb in verbs if verb.word == level and verb.by]
    if words:
        more += ", and each has a word, too: " + ", ".join(words)
    rows = [(call_form(group, verb, 38), verb.summary) for verb in verbs]
    lines = ([group.summary] + section("verbs:", rows) if is_whole
             else section(name + ":", rows)[1:])
    lines += example_lines(group_examples(group, verbs))
    lines += ["", textwrap.fill(more, HELP_WIDTH, break_on_hyphens=False)]
    if is_whole and group.notes:
        lines += ["", group.notes.strip()]
    return "\n".join(lines)


TOPICS = {
    "flags": ("Global flags, before the command or behind it (…: repeatable):",
              [(f.spec, f.help) for f in GLOBALS]),
    "exit-codes": ("Exit codes:", EXIT_CODES),
    "environment": ("Environment variables (an empty one counts as unset;"
                    " flags beat them):", ENVIRONMENT),
}


FAMILIES = (
    ("inference", "chat responses embeddings rerank score batches"),
    ("resources", "models upload uploads files completions conversations"),
    ("operate", "keys webhooks agents slos endpoints workspaces chats"
                " maintenance project settings usage exports health"),
    ("execute", "exec templates approvals learnings"),
    ("local", "api config status commands shell-completion help"),
)


def family_lines(groups):
    """The groups, family by family."""
    known = {group.name: group for group in groups}
    for family, names in FAMILIES:
        for name in filter(known.get, names.split()):
            yield f"{family:11}{name:18}{known[name].summary}"
            family = ""


def top_help(groups):
    """The help text of the whole program."""
    return "\n".join(
        ["usage: xeroctl COMMAND [VERB] [ID] [flags]", ""]
        + list(family_lines(groups)) + example_lines((
            'xeroctl chat --endpoint my-llm -m "Hello" --stream',
            "xeroctl batches run --input in.jsonl --output-file out.jsonl",
            "xeroctl models list -o json"))
        + section("more:", (
            ("xeroctl help COMMAND [VERB]", "a command, or one of its verbs"),
            ("xeroctl help WORD", "what has to do with it, as rotate"),
            ("xeroctl help TOPIC", ", ".join(TOPICS)))))


def mentions(groups, word):
    """A line for each verb, then each flag, that has a word in its line."""
    import textwrap
    rows, flags = [], {declared: "" for declared in GLOBALS}
    for group in groups:
        for verb in group.verbs:
            rows.append((command_of(group, verb), verb.summary))
            for declared in verb.own:
                if declared.takes_value and not declared.is_word:
                    flags.setdefault(declared, rows[-1][0])
    rows += [(f"{name} {declared.long_name}".strip(), declared.help)
             for declared, name in flags.items()]
    rows.sort(key=lambda row: word not in row[0])
    found = [line for line in map(": ".join, rows) if word in line.lower()]
    return [textwrap.fill(line, HELP_WIDTH, subsequent_indent="    ")
            for line in first_of(found)]


def help_text(groups, group, verbs):
    """The help on verbs, on a group, or on everything."""
    if group is TOP:
        return top_help(groups)
    if len(verbs) == 1:
        return verb_help(group, verbs[0])
    return group_help(group, verbs)


def help_on(groups, words):
    """The help text for the words behind `help`."""
    name = words[0] if words else ""
    if name in TOPICS:
        return "\n".join(section(*TOPICS[name])[1:])
    if name not in ["", *(group.name for group in groups)]:
        found = mentions(groups, " ".join(words).lower())
        if found:
            return "\n".join(found)
    group, words = find_group(words, groups)
    verbs, called, words = find_verb(group, words)
    word, _, _ = first_word(words, flag_table(verbs))
    if word is not None:
        raise UsageError(f"{group.name} has no verb {word!r}",
                         did_you_mean(word, by_word(group)))
    return help_text(groups, group, verbs_for_help(group, verbs, called))


def write_help(terminal, text):
    """Print a help text, its heads bold where colour is on."""
    for line in text.split("\n"):
        is_head = line.endswith(":") and line[:1].islower()
        terminal.out.write(line, BOLD if is_head else None)
        terminal.out.write("\n")


def show_help(app, group, args):
    """Print the help of a command, a verb or a topic: config or no config."""
    write_help(app.terminal, help_on(app.groups, args.words or []))


HELP = only(
    "help", "Show help on a command, a verb or a topic.", show_help,
    flag("[COMMAND…]",
         "a command and a verb, or a topic: " + ", ".join(TOPICS),
         completes="command", dest="words"),
    examples=("xeroctl help chat send", "xeroctl help exit-codes"))


# == completion: the shells ask the program ==================================

COMPLETE = "__complete"
FILE_OFFERS = {"FILE": "file", "PATH": "file", "DIR": "folder"}


def value_offers(declared, contexts):
    """(word, summary) of what a value can be; :file has the shell do it.

    contexts() is asked only where the name of a deployment is wanted.
    """
    kind = declared.completes
    if kind is None:
        kind = FILE_OFFERS.get(declared.metavar)
    words = (contexts() if kind == "context" else [":" + kind] if kind
             else getattr(declared.type, "words", ()))
    return [(word, "") for word in words]


def offers_in(group, words, typed, groups, contexts):
    """What may stand at CURSOR in the words behind the name of a group."""
    verbs, called, words = find_verb(group, words)
    meant = [called] if called else unnamed_in(group, verbs)
    *before, (_, declared, _) = tokens(words, flag_table(meant, verbs))
    if declared:
        return value_offers(declared, contexts)
    if typed.startswith("-") and "--" not in words:
        return [(name, each.help) for name, each in flag_table(meant).items()
                if name.startswith("--")]
    count = sum(declared is None for _, declared, _ in before)
    named = ({each.name: each for each in groups} if group is TOP
             else {} if "--" in words else by_word(group, verbs[0].word))
    found = [] if called or count else [
        (name, each.summary) for name, each in named.items()]
    places = places_of(meant[0]) if len(meant) == 1 else []
    if places and places[-1].is_several:
        places += places[-1:] * count
    if count < len(places):
        found += value_offers(places[count], contexts)
    return found


def offers(words, groups, contexts):
    """(word, summary) of all that may stand in place of the last word."""
    *before, typed = words or [""]
    name, equals, _ = typed.partition("=")
    is_value = typed.startswith("--") and bool(equals)
    group, before = find_group(before + [name] * is_value + [CURSOR], groups)
    found = offers_in(group, before, typed, groups, contexts)
    if found == [(":command", "")]:  # what help is about
        return offers(before[:-1] + [typed], groups, contexts)
    prefix = name + "=" if is_value else ""
    return [(word if word[:1] == ":" else prefix + word, summary)
            for word, summary in found]


def show_offers(words, environ, terminal, groups):
    """Print a line for each word that may follow, its summary behind a tab."""
    def contexts():
        return ConfigFile(environ, terminal).deployments()
    terminal.adjust(True, "never", False)
    try:
        found = offers(words, groups, contexts)
    except XeroctlError:
        return  # nothing fits, or a config that is broken
    for word, summary in found:
        if word[:1] == ":" or word.startswith(words[-1] if words else ""):
            terminal.out.write(f"{one_line(word)}\t{one_line(summary)}\n")


# Bash cuts words at = and :, so that they are put together again, and what
# stands before the last cut is taken off the answers.
STUBS = {"bash": r"""
_xeroctl() {
  local left=" $COMP_LINE" words=() out word part
  local -i n=-1
  for word in "${COMP_WORDS[@]:0:COMP_CWORD + 1}"; do
    [[ $left != [[:space:]]* ]] || n+=1
    words[n]+=$word left=${left#*"$word"}
  done
  [[ $word == *[!=:]* ]] || word=
  part=${words[n]%"$word"} COMPREPLY=()
  mapfile -t out < <("${words[0]/#\~/$HOME}" __complete "${words[@]:1}" \
    2>/dev/null | cut -f 1)
  [[ ${out-} != :* ]] || { compopt -o default; return; }
  for n in "${!out[@]}"; do
    printf -v "COMPREPLY[n]" %q "${out[n]#"$part"}"
  done
}
complete -F _xeroctl xeroctl xeroctl.py
""", "zsh": r"""
#compdef xeroctl xeroctl.py
_xeroctl() {
  local -a out
  out=("${(@f)$("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT-1]}" \
    "$PREFIX" 2>/dev/null)}")
  [[ $out[1] == :* && $PREFIX == --*=* ]] && compset -P '*='
  case $out[1] in
    :folder*) _files -/ ;;
    :*) _files ;;
    ?*) compadd -l -d out -- "${(@)out%%$'\t'*}" ;;
  esac
}
[[ $0 == _xeroctl ]] && _xeroctl || compdef _xeroctl xeroctl xeroctl.py
""", "fish": r"""
function __xeroctl
  set -l words (commandline -opc) (commandline -ct)
  set -l out ($words[1] __complete $words[2..-1] 2>/dev/null)
  set -l flag (string match -r '^--[^=]*=' -- $words[-1])
  set -l part (string replace -r '^--[^=]*=' '' -- $words[-1])
  switch "$out[1]"
    case ':*'; string replace -r '^' -- "$flag" (__fish_complete_path $part)
    case '*'; printf '%s\n' $out
  end
end
complete -c xeroctl -c xeroctl.py -f -a '(__xeroctl)'
"""}


# == the command map =========================================================

def flag_map(declared):
    """A flag as data: names, type, choices, default, and so on."""
    return {"names": list(declared.names),
            "metavar": declared.metavar or None,
            "type": "count" if declared.counts
            else getattr(declared.type, "kind", "string")
            if declared.takes_value else "boolean",
            "choices": list(getattr(declared.type, "words", ())) or None,
            "default": declared.default, "required": declared.required,
            "repeatable": bool(declared.many) or declared.is_several,
            "needs": declared.needs, "sample": declared.sample,
            "help": declared.help}


def verb_map(group, verb):
    """A verb as data."""
    return {"command": command_of(group, verb),
            "group": group.name, "word": verb.word, "verb": verb.name,
            "called_by": BARE if verb.by == BARE else verb.called or None,
            "default": verb.name == group.default,
            "usage": verb_usage(group, verb), "summary": verb.summary,
            "writes": verb.writes,
            "arguments": list(map(flag_map, verb.places)),
            "flags": [flag_map(f) for f in verb.own if not f.is_word],
            "examples": examples_of(group, verb)}


def show_commands(app, group, args):
    """Print the whole command line as JSON, from its declarations."""
    whole_map = {
        "object": "list", "version": __version__,
        "data": [verb_map(g, verb) for g in app.groups for verb in g.verbs],
        "global_flags": list(map(flag_map, GLOBALS)),
        "exit_codes": [{"code": code, "meaning": meaning}
                       for code, meaning in EXIT_CODES]}
    if app.out.is_table:
        return app.out.json(whole_map)
    app.out.rows([whole_map], ("Command",), id_path="command")


COMMANDS = only(
    "commands", "Print all commands as JSON, for programs.", show_commands)


def complete_shell(app, group, args):
    """Print the completion script of a shell."""
    app.out.text(STUBS[args.shell].lstrip("\n"))


COMPLETION = only(
    "shell-completion", "Print the completion script of a shell.",
    complete_shell,
    flag("SHELL", "bash, zsh or fish", choice(*STUBS)), examples=(
        "source <(xeroctl shell-completion bash)",
        "xeroctl shell-completion fish | source"))

ABOUT = COMMANDS, COMPLETION, HELP


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
        self.shown = None
        self.deadline = (self.clock.monotonic() + args.max_time
                         if args.max_time else None)
        self.network = Network(self.settings, terminal)
        self.opened = self.refused = None

    @property
    def out(self):
        if self.shown is None:
            writes = self.args.verb.writes
            is_held = self.plan and (writes or self.plan.curl)
            pick = None if is_held else self.args.pick
            self.shown = Out(self.terminal, JSON if pick else
                             self.settings.form(), self.plan, pick, writes)
        return self.shown

    @property
    def api(self):
        return self.opened or self.open_api()

    def open_api(self, needs_key=True):
        """Make the API of this run; without a key, one that sends none."""
        self.settings.get("output")  # told before anything is sent
        self.opened = Api(
            self.settings.deployment(needs_key), self.network, self.args,
            self.settings.get("timeout"), self.terminal, self.plan,
            self.deadline)
        return self.opened

    def endpoint(self):
        """The endpoint slug of this run."""
        slug = self.api.deployment.endpoint(self.settings.get("endpoint"))
        if not slug:
            raise UsageError(
                "no endpoint", "pass --endpoint SLUG, set XEROTIER_ENDPOINT,"
                " or xeroctl config set NAME endpoint SLUG")
        return slug

    def slug(self):
        """The slug for a path: style openai has none."""
        return None if self.settings.style() == OPENAI else self.endpoint()

    def guess(self, error):
        """Have the hint name the endpoint, or the model, that was meant."""
        is_model = self.settings.style() == OPENAI
        path, name = ("/models", "id") if is_model else ("/endpoints", "slug")
        try:
            asked = (is_model and getattr(self.args, "model", None)
                     or self.endpoint())
            if (error.status == 404 and asked in str(error) if is_model
                    else error.facts.get("code") == "endpoint_not_found"):
                request = self.api.request("GET", path)
                page = self.api.read_json(self.api.follow(request, 1))
                known = [as_text(dig(each, name))
                         for each in page_records(page)]
                error.hint = (asked not in known and did_you_mean(
                    asked, known) or error.hint)
        except XeroctlError:
            pass  # the error that there is says enough

    def confirm(self, question):
        """Ask before a change, unless --force or only a plan is made."""
        if self.args.force or self.plan:
            return
        if not self.terminal.stdin.isatty():
            raise UsageError(f"{question} There is no terminal to ask on",
                             "pass --force to go ahead without a question")
        if self.terminal.ask(f"{question} [y/N] ").lower() not in ("y", "yes"):
            raise XeroctlError("not confirmed: nothing was changed")

    def open_source(self, path, name="stdin.jsonl"):
        """Open an input file to be read in pieces; - is standard input.

        What can be read only once is kept in a temporary file.
        """
        if path == "-":
            return Source(spooled(blocks_of(self.terminal.input)), name, True)
        try:
            file = open(on_disk(path), "rb", 4 * BLOCK)
        except (OSError, ValueError) as problem:
            raise UsageError(f"cannot read {path}: {reason_of(problem)}")
        if not file.seekable() or not os.fstat(file.fileno()).st_size:
            with file:
                file = spooled(blocks_of(file))
        return Source(file, path)

    def read_bytes(self, path):
        """Read an input file whole; - is standard input."""
        return self.terminal.input.read() if path == "-" else read_file(path)

    def read_text(self, path, may_be_odd=False):
        """Read an input text, without its last line end."""
        raw = self.read_bytes(path)
        try:
            text = decoded(raw, "strict")
        except UnicodeDecodeError as problem:
            found = (f"{'standard input' if path == '-' else path} is no"
                     f" UTF-8 text (byte {problem.start + 1})")
            if not may_be_odd:
                raise UsageError(found, "iconv converts to it")
            self.terminal.warn(found)
            text = decoded(raw)
        return re.sub(r"\r?\n\Z", "", text)

    def given_text(self, text, may_be_file=False):
        """The text of an argument; - is standard input, @FILE a file."""
        if may_be_file and text.startswith("@"):
            return self.read_text(text[1:])
        return self.read_text("-") if text == "-" else text

    def read_json(self, path):
        """Read an input file as JSON."""
        try:
            return parse_json(self.read_text(path))
        except ValueError as problem:
            raise UsageError(f"{path} is not JSON: {problem}")

    def finish(self):
        """Print what was planned; raise if there was nothing to pick from."""
        if self.plan.requests:
            key, name = self.api.deployment.key, "XEROTIER_API_KEY"
            self.out.show_plan(key, self.network)
            if self.args.curl and key and key != (
                    self.settings.environ.get(name)):
                self.terminal.note(f"{name} is to be the key of this call")
        elif self.args.pick and not self.plan and not self.out.has_picked:
            raise XeroctlError("the answer is no JSON to pick from")


def check_pick(args):
    """Raise where no JSON is printed that something could be picked of."""
    given = vars(args)
    if args.output not in (None, JSON):
        raise UsageError(f"--pick and -o {args.output} cannot be combined")
    if ("-" in (given.get("output_file"), given.get("download"))
            or given.get("format") == "md" or given.get("interactive")
            or given.get("extract")
            or args.verb.run in (show_help, complete_shell,
                                 show_raw_execution)):
        raise UsageError("--pick takes its pick of JSON, and none is printed")


def tell_unread(args, terminal):
    """Say that a pipe with bytes in it was not read by who had its input."""
    readers = [f for f in args.verb.own if f.from_stdin]
    stdin = terminal.stdin
    try:
        import fcntl
        import termios
        if (any(getattr(args, f.dest) for f in readers)
                and not (getattr(args, "interactive", False)
                         or stdin.seekable() or stdin.isatty())
                and any(fcntl.ioctl(stdin.fileno(), termios.FIONREAD,
                                    bytes(4)))):
            terminal.note("standard input was not read: " + " or ".join(
                "-" if f.is_word else f"{f.names[0]} -" for f in readers)
                + " takes it")
    except (AttributeError, ImportError, OSError, ValueError):
        pass  # no pipe, or no way to look


def run(argv, environ, terminal, groups):
    """Run one command line; raise what goes wrong."""
    if argv[:1] == [COMPLETE]:
        return show_offers(argv[1:], environ, terminal, groups)
    try:
        group, args = parse(argv, groups)
    except HelpWanted as wanted:
        return write_help(terminal, help_text(groups, *wanted.args))
    terminal.adjust(args.quiet, args.color or "auto", args.raw)
    if args.version:
        return terminal.out.write(f"xeroctl {__version__}\n")
    if group is TOP:
        return write_help(terminal, help_text(groups, group, group.verbs))
    app = App(args, environ, terminal, groups)
    if args.pick:
        check_pick(args)
    ours = [f.long_name for f in args.verb.flags
            if f.is_ours and getattr(args, f.dest)]
    if ours and app.settings.style() == OPENAI:
        raise UsageError(f"{ours[0]} is Xerotier's: a server of style openai"
                         " has none")
    try:
        checks = args.verb.checks
        for check in [checks] if callable(checks) else checks:
            check(app, args)
        args.verb.run(app, group, args)
    except PlanEnds:
        pass
    except XeroctlError as error:
        error.settings = app.settings
        if isinstance(error, ApiError):
            app.guess(error)
        raise
    app.finish()
    tell_unread(args, terminal)


def early_args(argv):
    """The global flags of a command line that may be broken, but for that."""
    args, table = SimpleNamespace(), flag_table()
    vars(args).update((f.dest, f.default) for f in GLOBALS)
    for word, following in zip(argv, argv[1:] + [""]):
        if word[:2] in table or word.partition("=")[0] in table:
            with suppress(UsageError):
                for declared, value in flags_in(word, table):
                    store(args, declared,
                          following if value is None else value)
    return args


def wants_json(error, args, environ, terminal):
    """Whether an error is due as JSON; args are what could be read."""
    settings = error.settings or Settings(args, environ, terminal)
    try:
        return (settings.get("output") in (JSON, JSONL)
                or args.pick is not None)
    except XeroctlError:
        return environ.get("XEROTIER_OUTPUT") in (JSON, JSONL)


def fail(error, args, environ, terminal):
    """Say what went wrong, as JSON where that is due; return the exit code."""
    if environ.get("XEROTIER_DEBUG"):
        import traceback
        for line in traceback.format_exc().split("\n"):
            terminal.say(line)
    terminal.out.end_line()
    if error.is_told:
        return error.exit_code
    if wants_json(error, args, environ, terminal):
        told = terminal.err.secrets.masked_json(error.envelope())
        terminal.err.write_json(pretty_json(told) + "\n")
        terminal.err.flush()
    else:
        say_error(error, terminal)
    return error.exit_code


def internal_error(problem):
    """The error for an exception that nobody foresaw, or not in its place."""
    if isinstance(problem, ImportError):
        return XeroctlError(f"this Python has no {problem.name} module",
                            "it lacks a part of the standard library")
    if isinstance(problem, RecursionError):
        return AnswerError("JSON that is nested too deeply")
    if isinstance(problem, MemoryError):
        return XeroctlError("there is not enough memory for this",
                            "what is written to a file takes little")
    return XeroctlError(f"internal error: {type(problem).__name__}: "
                        f"{problem}", "XEROTIER_DEBUG=1 shows where; please"
                        " report it")


def main(argv=None, environ=None, streams=None, clock=None, groups=GROUPS):
    """Run one command line; return its exit code.

    argv is without the program's name; what is left out is the process's.
    What can still fail once an error was told, the last write, is one more.
    """
    if argv is None:  # read as UTF-8 in any locale (PEP 383)
        argv = (os.fsencode(word).decode("utf-8", "surrogateescape")
                for word in sys.argv[1:])
    argv = list(argv)
    environ = os.environ if environ is None else environ
    streams = streams or Streams(sys.stdin, sys.stdout, sys.stderr)
    terminal = Terminal(streams, environ, clock or Clock())
    args, code = early_args(argv), 0
    terminal.adjust(args.quiet, args.color or "auto", args.raw)
    try:
        try:
            run(argv, environ, terminal, groups + ABOUT)
        except XeroctlError as error:
            code = fail(error, args, environ, terminal)
        terminal.out.flush()
        return code
    except ReaderGone:
        return 141
    except KeyboardInterrupt:
        terminal.end_echo()
        return 130
    except XeroctlError as error:
        return fail(error, args, environ, terminal)
    except Exception as problem:
        return fail(internal_error(problem), args, environ, terminal)


def let_go(stream, number, is_stopped):
    """Flush, once stopped without waiting for a reader that has, too.

    What cannot be written, the interpreter shall not try again.
    """
    is_hasty = is_stopped and hasattr(os, "set_blocking")  # Windows has not
    try:
        if is_hasty:
            os.set_blocking(number, False)
        try:
            stream.flush()
        finally:
            if is_hasty:
                os.set_blocking(number, True)
    except (AttributeError, OSError, ValueError):
        spare = os.pipe()[1]
        with suppress(OSError):  # takes all; a bare root may lack it
            spare = os.open(os.devnull, os.O_WRONLY)
        os.dup2(spare, number)


def open_closed_streams():
    """Put /dev/null where a stream is closed: no socket gets its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):  # a bare root may lack it
                os.open(os.devnull, os.O_RDWR)


def on_signal(name, handler=None):
    """Let a signal call this, or end the process; ignored (nohup) it stays."""
    import signal
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    if number and signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, handler or signal.SIG_DFL)


STOP_SIGNALS = ("SIGTERM", 143), ("SIGHUP", 129)


def stop(code):
    """Unwind the program, as Ctrl-C does; no second signal comes between."""
    import signal
    for name, _ in STOP_SIGNALS:
        on_signal(name, lambda *_: None)
    if hasattr(signal, "pthread_sigmask"):  # the last of exit has no handlers
        signal.pthread_sigmask(signal.SIG_BLOCK,
                               {signal.SIGTERM, signal.SIGHUP})
    sys.exit(code)


def interrupt(_, frame):
    """Have Ctrl-C unwind main(); the last moments have no room for it."""
    while frame and frame.f_code is not main.__code__:
        frame = frame.f_back
    if frame:
        raise KeyboardInterrupt


def console():
    """Run as the program: the entry point of script and package alike."""
    if hasattr(gc, "freeze"):  # 3.7; no search for garbage reads the program
        gc.freeze()
    open_closed_streams()
    on_signal("SIGINT", interrupt)
    for name, code in STOP_SIGNALS:
        on_signal(name, lambda *_, code=code: stop(code))
    code, last = 130, ["SIGINT", *dict(STOP_SIGNALS)]
    try:
        code = main()
    except KeyboardInterrupt:
        pass
    except SystemExit as stopped:
        code, last = stopped.code, ["SIGINT"]
    for name in last:
        on_signal(name)
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        let_go(stream, number, code in (129, 130, 143))
    sys.exit(code)


if __name__ == "__main__":
    console()
