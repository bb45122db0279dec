"""The examples of the product's own pages, run as they are written there."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from conftest import STARTED, Result, costly, sampled

BASH = shutil.which("bash")
LIMIT_S = 20
FOOTER = re.compile(r"-- (\d+) tokens in \d+\.\ds \(\d+\.\d tok/s\)\n\Z")
USAGE = re.compile(r"usage: prompt \d+, completion \d+, total \d+,"
                   r" cached \d+, reasoning \d+\n\Z")
WIPED = re.compile(r"[^\n]*\r\x1b\[K")     # the spinner, and its end
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CTRL_D = b"\x04"


# == the page of chat ========================================================

def kill(process):
    """End a shell with all its children, if it still runs."""
    if process and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Pipe:
    """A shell whose three streams are pipes."""

    is_terminal = False

    def __init__(self, start):
        self.start = start

    def __call__(self, text):
        return self.talk(text, [], b"")

    def talk(self, text, lines, end):
        """Run a text with all of these lines, and their end, on stdin."""
        process = self.start(text, subprocess.PIPE)
        stdout, stderr = process.communicate(b"".join(lines) + end, LIMIT_S)
        return Result(stdout.decode(), stderr.decode(), process.returncode)

    def close(self):
        """Nothing is left open."""


class Terminal:
    """A shell on a pseudo-terminal; a Result is the screen, without stderr.
    """

    is_terminal = True

    def __init__(self, start):
        # Imported here: where there is no such terminal, pipes still do.
        import termios
        from test_terminal import Screen
        self.start, self.screen, self.process = start, Screen(80), None
        modes = termios.tcgetattr(self.screen.near)
        modes[3] |= termios.ECHO
        termios.tcsetattr(self.screen.near, termios.TCSANOW, modes)

    def __call__(self, text):
        self.process = self.start(text, self.screen.near)
        return self.result()

    def talk(self, text, lines, end):
        """Type each of the lines, and their end, when the prompt is there."""
        self.process = self.start(text, self.screen.near)
        for number, line in enumerate(lines + [end]):
            self.screen.output.until(f"msgs: {2 * number}".encode(), b"> ")
            os.write(self.screen.far, line)
        return self.result()

    def result(self):
        status = self.process.wait(LIMIT_S)
        shown = SEQUENCE.sub("", WIPED.sub("", self.screen.shown()))
        return Result(shown.replace("\r", ""), None, status)

    def close(self):
        kill(self.process)      # while it runs the screen has no end
        self.screen.close()


@pytest.fixture
def start(router, tmp_path):
    """Start a page's text in a shell where xeroctl is a command."""
    command = tmp_path / "bin" / "xeroctl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}"'
                       f' "{STARTED}" "$@"\n')
    command.chmod(0o755)
    started = []

    def starter(text, stream):
        # A session of its own: kill() ends its children too.
        started.append(subprocess.Popen(
            [BASH, "-c", text], cwd=str(tmp_path), start_new_session=True,
            env={"PATH": str(command.parent) + os.pathsep + os.defpath,
                 "HOME": str(tmp_path), "INPUTRC": os.devnull,
                 "TERM": "xterm", "XEROTIER_BASE_URL": router.base_url,
                 "XEROTIER_API_KEY": router.key},
            stdin=stream, stdout=stream, stderr=stream))
        return started[-1]
    yield starter if BASH else pytest.skip("there is no bash")
    for process in started:
        kill(process)
        for stream in filter(None, (process.stdin, process.stdout,
                                    process.stderr)):
            stream.close()


def opened(kind, start):
    """A shell of this kind, for a fixture."""
    if kind is Terminal:
        pytest.importorskip("pty")
    one = kind(start)
    yield one
    one.close()


@pytest.fixture(params=[Pipe, Terminal], ids=["pipe", "pty"])
def shell(request, start):
    """Run a page's text: shell(text) is a Result."""
    yield from opened(request.param, start)


@pytest.fixture
def terminal(start):
    """As shell, but only on a pseudo-terminal."""
    yield from opened(Terminal, start)


def answer_to(message, slug="my-endpoint"):
    """What the router's endpoints say to a message."""
    return (f'Hello! You said: "{message}". I am the {slug} endpoint of the'
            " reference router; I repeat what I am told.\n")


def remarks(done, answer):
    """What was told beside the answer: stderr, or the rest of the screen."""
    if done.stderr is not None:
        assert done == answer
        return done.stderr
    assert done.startswith(answer), done
    return done[len(answer):]


def body(message, system=None, model="my-endpoint", **fields):
    """What a chat completion sends for a message, and nothing else."""
    messages = [] if system is None else [
        {"role": "system", "content": system}]
    messages.append({"role": "user", "content": message})
    return dict({"model": model, "messages": messages, "stream": False},
                **fields)


STREAMED = {"stream": True, "stream_options": {"include_usage": True}}

# Each command of the page, and the body that reaches the endpoint.
SENDS = [
    ('xeroctl chat send --endpoint my-endpoint'
     ' --message "Hello, how are you?"',
     body("Hello, how are you?")),
    ('xeroctl chat send --endpoint my-endpoint \\\n'
     '--system "You are a helpful coding assistant." \\\n'
     '--message "Write a Python function to reverse a string"',
     body("Write a Python function to reverse a string",
          "You are a helpful coding assistant.")),
    ('xeroctl chat send --endpoint my-endpoint \\\n'
     '--from-file ./system-prompt.txt \\\n'
     '--message "What is the policy on refunds?"',
     body("What is the policy on refunds?", "You know every policy.")),
    ('xeroctl chat send --endpoint my-endpoint \\\n'
     '--message "Tell me a story about a robot learning to paint" \\\n'
     '--stream',
     body("Tell me a story about a robot learning to paint", **STREAMED)),
    ('xeroctl chat send --endpoint my-endpoint \\\n'
     '--message "Summarize quantum entanglement" \\\n'
     '--show-usage',
     body("Summarize quantum entanglement")),
    ('xeroctl chat send --endpoint my-endpoint \\\n'
     '--message "Draft a release announcement" \\\n'
     '--store',
     body("Draft a release announcement", store=True)),
    ('xeroctl chat send --endpoint my-endpoint --message "Hello" -o json',
     body("Hello")),
    ('xeroctl chat send --endpoint my-endpoint --message "What is 2+2?"',
     body("What is 2+2?")),
    ('xeroctl chat send --endpoint my-endpoint \\\n'
     '--message "Pick a random number between 1 and 10" \\\n'
     '--seed 42 \\\n'
     '--temperature 0.0',
     body("Pick a random number between 1 and 10", seed=42,
          temperature=0.0)),
    ('xeroctl chat send --endpoint my-endpoint \\\n'
     '--message "Write a 500-word essay on renewable energy" \\\n'
     '--max-tokens 700 \\\n'
     '--stream',
     body("Write a 500-word essay on renewable energy", max_tokens=700,
          **STREAMED)),
    ('xeroctl chat --endpoint my-endpoint --message "Hello, how are you?"',
     body("Hello, how are you?")),
]


@pytest.mark.parametrize("text, sent", [
    pytest.param(*case, marks=[costly] if number % 3 else [])
    for number, case in enumerate(SENDS)], ids=[
        sent["messages"][-1]["content"][:24] for _, sent in SENDS])
def test_each_example_of_send_does_what_the_page_says(shell, router, tmp_path,
                                                      text, sent):
    (tmp_path / "system-prompt.txt").write_text("You know every policy.\n")
    done = shell(text)
    assert done.exit_status == 0, done
    seen, = router.requests
    assert seen.path == "/proj_demo/my-endpoint/v1/chat/completions"
    assert seen.json == sent
    answer = answer_to(sent["messages"][-1]["content"])
    if "-o json" in text:
        said = json.loads(done)["choices"][0]["message"]["content"]
        assert said + "\n" == answer and not done.stderr
    else:
        told = remarks(done, answer)
        footer, usage = FOOTER.match(told), USAGE.match(told)
        assert bool(footer) == sent["stream"], told
        assert bool(usage) == ("--show-usage" in text), told
        assert footer or usage or told == ""
        assert not footer or int(footer.group(1)) == len(answer.split())
    assert len(router.completions) == ("--store" in text)


@sampled(1)
def test_the_page_tests_several_endpoints_in_one_script(shell, router):
    done = shell('#!/bin/bash\n'
                 'for ep in endpoint-prod endpoint-staging endpoint-dev; do\n'
                 'echo "=== $ep ==="\n'
                 'xeroctl chat send --endpoint "$ep" \\\n'
                 '--message "Respond with the word OK only." \\\n'
                 '--show-usage\n'
                 'done')
    slugs = ["endpoint-prod", "endpoint-staging", "endpoint-dev"]
    message = "Respond with the word OK only."
    assert done.exit_status == 0, done
    assert [seen.path for seen in router.requests] == [
        f"/proj_demo/{slug}/v1/chat/completions" for slug in slugs]
    assert [seen.json for seen in router.requests] == [
        body(message, model=slug) for slug in slugs]
    lines = done.splitlines(True)
    usages = lines[2::3] if shell.is_terminal else (
        done.stderr.splitlines(True))
    assert len(usages) == 3 and all(map(USAGE.match, usages)), done
    if shell.is_terminal:
        del lines[2::3]
    assert "".join(lines) == "".join(
        f"=== {slug} ===\n{answer_to(message, slug)}" for slug in slugs)


@sampled(0, 3)
@pytest.mark.parametrize("text, messages", [
    ("xeroctl chat new --workspace ws_kube_prod"
     " --template drain-kubernetes-node", []),
    ('xeroctl chat new --workspace ws_kube_prod'
     ' --template drain-kubernetes-node \\\n'
     '--message "Drain node worker-07 for maintenance"',
     ["Drain node worker-07 for maintenance"]),
    ('xeroctl chat new --workspace ws_kube_prod \\\n'
     '--template drain-kubernetes-node \\\n'
     '--message "Drain node worker-07 for maintenance"',
     ["Drain node worker-07 for maintenance"]),
])
def test_each_example_of_new_does_what_the_page_says(shell, router, text,
                                                     messages):
    done = shell(text)
    assert done.exit_status == 0 and not done.stderr, done
    chat, = router.chats.values()
    assert done == (
        "chat created from template\n"
        f"chat_id: {chat['chat_id']}\n"
        f"url: /chats/{chat['chat_id']}\n"
        "template_id: ctpl_01HDRAIN\n"
        "template_version: 3\n")
    assert [(m["role"], m["content"]) for m in chat["messages"]] == [
        ("user", message) for message in messages]


# Each session of the page, and the system message that it starts with.
SESSIONS = [
    ("xeroctl chat send --endpoint my-endpoint --interactive", None),
    ('xeroctl chat send --endpoint my-endpoint \\\n'
     '--interactive \\\n'
     '--system "You are a SQL expert. Keep answers concise."',
     "You are a SQL expert. Keep answers concise."),
    ('xeroctl chat send --endpoint my-endpoint \\\n'
     '--interactive \\\n'
     '--from-file ./persona.txt',
     "You are a pirate."),
    ('echo "You are a terse senior engineer. Answer only in bullet points."'
     ' > persona.txt\n'
     'xeroctl chat send --endpoint my-endpoint --interactive'
     ' --from-file persona.txt',
     "You are a terse senior engineer. Answer only in bullet points."),
]
FIRST, SECOND = "What is an index?", "And a view?"


def turns(system):
    """The bodies of a session's two requests."""
    first = body(FIRST, system, max_tokens=4096, **STREAMED)
    return [first, dict(first, messages=first["messages"] + [
        {"role": "assistant", "content": answer_to(FIRST).rstrip("\n")},
        {"role": "user", "content": SECOND}])]


def spent(bodies, answers):
    """The tokens of these: the router counts each word as one."""
    return (sum(len(message["content"].split()) for sent in bodies
                for message in sent["messages"]),
            sum(len(answer.split()) for answer in answers))


def session_screen(bodies):
    """All that a session shows on a terminal, from bar to totals."""
    answers, text = [answer_to(FIRST), answer_to(SECOND)], ""
    for count, typed in enumerate([f"{FIRST}\n{answers[0]}",
                                   f"{SECOND}\n{answers[1]}", "\n"]):
        into, out = spent(bodies[:count], answers[:count])
        text += (f"endpoint: my-endpoint | tokens: {into}/{out}"
                 f" | msgs: {2 * count}\n> {typed}")
    return text + session_totals(bodies)


def session_totals(bodies):
    into, out = spent(bodies, [answer_to(FIRST), answer_to(SECOND)])
    return f"total: {into} input tokens, {out} output tokens, 4 messages\n"


@sampled(0, 3, 6)
@pytest.mark.parametrize("text, system", SESSIONS, ids=[
    "plain", "system", "file", "persona"])
def test_each_session_does_what_the_page_says(shell, router, tmp_path, text,
                                              system):
    if "./persona.txt" in text:
        (tmp_path / "persona.txt").write_text(system + "\n")
    done = shell.talk(text, [f"{line}\n".encode()
                             for line in (FIRST, SECOND)],
                      CTRL_D if shell.is_terminal else b"/quit\n")
    assert done.exit_status == 0, done
    sent = turns(system)
    assert [seen.json for seen in router.requests] == sent
    assert {seen.path for seen in router.requests} == {
        "/proj_demo/my-endpoint/v1/chat/completions"}
    if shell.is_terminal:
        # Some versions of readline end the line of Ctrl+D themselves.
        assert done.replace("> \n\n", "> \n") == session_screen(sent)
    else:
        assert done == answer_to(FIRST) + answer_to(SECOND)
        assert done.stderr == session_totals(sent)


def frames_that_cost(into, out):
    """The frames of an answer for which these tokens are charged."""
    return [b"data: " + json.dumps(data).encode() + b"\n\n" for data in (
        {"choices": [{"index": 0, "delta": {"content": "Aye."},
                      "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": into,
                                  "completion_tokens": out}})] + [
                                      b"data: [DONE]\n\n"]


def test_the_status_bar_is_that_of_the_page_to_the_letter(terminal, router):
    for into, out in ((8, 132), (40, 150), (100, 250)):
        router.order("POST /chat/completions",
                     frames=frames_that_cost(into, out))
    done = terminal.talk(
        "xeroctl chat send --endpoint my-endpoint --interactive"
        " --model llama-3", [b"one\n", b"two\n", b"three\n"],
        b"/quit\n")
    assert done.exit_status == 0, done
    bars = [line for line in done.splitlines() if "endpoint:" in line]
    assert bars[0] == ("endpoint: my-endpoint | model: llama-3"
                       " | tokens: 0/0 | msgs: 0")
    assert bars[-1] == ("endpoint: my-endpoint | model: llama-3"
                        " | tokens: 148/532 | msgs: 6")
    assert done.endswith("> /quit\ntotal: 148 input tokens,"
                         " 532 output tokens, 6 messages\n")


# == the introduction ========================================================

DOCS = "/proj_ABC123/my-endpoint/v1"
MODEL = "deepseek-r1-distill-llama-70b"

# The body of each curl call, letter by letter, and the flags that say it.
CURL_CALLS = [
    ('{\n'
     '"model": "deepseek-r1-distill-llama-70b",\n'
     '"messages": [{"role": "user", "content": "Hello!"}]\n'
     '}',
     ["-m", "Hello!"]),
    ('{\n'
     '"model": "deepseek-r1-distill-llama-70b",\n'
     '"messages": [\n'
     '{"role": "system", "content": "You are a helpful assistant."},\n'
     '{"role": "user", "content": "What is the capital of France?"}\n'
     '],\n'
     '"max_tokens": 100\n'
     '}',
     ["--system", "You are a helpful assistant.",
      "-m", "What is the capital of France?", "--max-tokens", "100"]),
    ('{\n'
     '"model": "deepseek-r1-distill-llama-70b",\n'
     '"messages": [\n'
     '{"role": "user", "content": "What is the capital of France?"}\n'
     '],\n'
     '"stream": true\n'
     '}',
     ["-m", "What is the capital of France?", "--stream"]),
]


@pytest.fixture
def run_docs(run, router):
    """Run with the project, the key and the endpoint of the page."""
    def runner(*argv, **more):
        return run(*argv, "--endpoint", "my-endpoint",
                   XEROTIER_BASE_URL=router.origin + "/proj_ABC123/v1",
                   XEROTIER_API_KEY="xero_myproject_your_api_key", **more)
    return runner


def check_as_curl(seen):
    """The call has the URL and the two headers of the page."""
    assert seen.method == "POST"
    assert seen.target == DOCS + "/chat/completions"
    assert seen.headers.get_all("Authorization") == [
        "Bearer xero_myproject_your_api_key"]
    assert seen.headers.get_all("Content-Type") == ["application/json"]


@pytest.mark.parametrize("text, flags", CURL_CALLS)
def test_chat_sends_what_curl_sends_in_the_introduction(run_docs, router,
                                                        text, flags):
    shown = run_docs("chat", "send", "--model", MODEL, *flags)
    assert shown.exit_status == 0, shown
    message = flags[flags.index("-m") + 1]
    assert shown.startswith(f'Hello! You said: "{message}".')
    seen, = router.requests
    check_as_curl(seen)
    # Beside the page's members there is only what is always sent.
    always = STREAMED if "--stream" in flags else {"stream": False}
    assert seen.json == dict(json.loads(text), **always)


@pytest.mark.parametrize("text, flags", CURL_CALLS)
def test_api_sends_the_very_bytes_of_the_introduction(run_docs, router, text,
                                                      flags):
    shown = run_docs("api", "POST", "/chat/completions", "--input", "-",
                     stdin=text.encode())
    assert shown.exit_status == 0, shown
    seen, = router.requests
    check_as_curl(seen)
    assert seen.body == text.encode()
    if "--stream" in flags:
        assert shown.startswith("data: {")
        assert shown.endswith("data: [DONE]\n\n")
    else:
        assert json.loads(shown)["model"] == MODEL


def test_the_models_of_an_endpoint_can_be_discovered(run_docs, router):
    shown = run_docs("api", "GET", "/models", "-o", "id")
    assert shown == MODEL + "\n"
    seen, = router.requests
    assert (seen.method, seen.target) == ("GET", DOCS + "/models")
