"""The examples of the product's own pages, run as they are written there."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

import xeroctl

BASH = shutil.which("bash")
FOOTER = re.compile(r"-- \d+ tokens in \d+\.\ds \(\d+\.\d tok/s\)\n\Z")
USAGE = re.compile(r"usage: prompt \d+, completion \d+, total \d+,"
                   r" cached \d+, reasoning \d+\n\Z")


# == the page of chat ========================================================

@pytest.fixture
def shell(router, tmp_path):
    """Run a page's text in a shell where xeroctl is a command."""
    command = tmp_path / "bin" / "xeroctl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}"'
                       f' "{xeroctl.__file__}" "$@"\n')
    command.chmod(0o755)

    def runner(text):
        return subprocess.run(
            [BASH, "-c", text], cwd=str(tmp_path), timeout=20,
            env={"PATH": str(command.parent) + os.pathsep + os.defpath,
                 "XEROTIER_BASE_URL": router.base_url,
                 "XEROTIER_API_KEY": router.key},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, universal_newlines=True)
    return runner if BASH else pytest.skip("there is no bash")


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


@pytest.mark.parametrize("text, sent", SENDS, ids=[
    sent["messages"][-1]["content"][:24] for _, sent in SENDS])
def test_each_example_of_send_does_what_the_page_says(shell, router, tmp_path,
                                                      text, sent):
    (tmp_path / "system-prompt.txt").write_text("You know every policy.\n")
    done = shell(text)
    assert done.returncode == 0, done.stderr
    seen, = router.requests
    assert seen.path == "/proj_demo/my-endpoint/v1/chat/completions"
    assert seen.json == sent
    answer = done.stdout
    if "-o json" in text:
        answer = json.loads(answer)["choices"][0]["message"]["content"]
    assert answer.startswith(
        f'Hello! You said: "{sent["messages"][-1]["content"]}".')
    assert bool(FOOTER.match(done.stderr)) == sent["stream"]
    assert bool(USAGE.match(done.stderr)) == ("--show-usage" in text)
    assert len(router.completions) == ("--store" in text)


def test_the_page_tests_several_endpoints_in_one_script(shell, router):
    done = shell('#!/bin/bash\n'
                 'for ep in endpoint-prod endpoint-staging endpoint-dev; do\n'
                 'echo "=== $ep ==="\n'
                 'xeroctl chat send --endpoint "$ep" \\\n'
                 '--message "Respond with the word OK only." \\\n'
                 '--show-usage\n'
                 'done')
    slugs = ["endpoint-prod", "endpoint-staging", "endpoint-dev"]
    assert done.returncode == 0, done.stderr
    assert [seen.path for seen in router.requests] == [
        f"/proj_demo/{slug}/v1/chat/completions" for slug in slugs]
    assert [seen.json for seen in router.requests] == [
        body("Respond with the word OK only.", model=slug) for slug in slugs]
    heads = [line for line in done.stdout.splitlines() if "===" in line]
    assert heads == [f"=== {slug} ===" for slug in slugs]
    lines = done.stderr.splitlines(True)
    assert len(lines) == 3 and all(map(USAGE.match, lines))


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
    assert (done.returncode, done.stderr) == (0, "")
    chat, = router.chats.values()
    assert done.stdout == (
        "chat created from template\n"
        f"chat_id: {chat['chat_id']}\n"
        f"url: /chats/{chat['chat_id']}\n"
        "template_id: ctpl_01HDRAIN\n"
        "template_version: 3\n")
    assert [(m["role"], m["content"]) for m in chat["messages"]] == [
        ("user", message) for message in messages]


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
