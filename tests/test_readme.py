"""Every command of the README does what the text beside it says.

Each block of commands runs in a shell of its own, against the router.  What
it needs beside xeroctl (scp, ssh, docker, git) is played by small scripts.
"""

import os
import re
import stat
import subprocess
import sys
import time

import pytest

from conftest import ROOT, STARTED, environment, every_case
from router import DEMO_PROJECT, OPENAI_MODEL, PROJECTS, Router
from world import LINE, Remembering, World

pytestmark = every_case

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as source:
    README = source.read()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.S)
LIMIT_S = 60

# What a command leads to: a request at the router, a text in the output, or
# a file that is not empty.
CHAT = "POST /chat/completions"
LEADS_TO = {
    "python3 tests/router.py -- python3 xeroctl.py chat": "Hello!",
    "export XEROTIER_BASE_URL": "",
    "export XEROTIER_API_KEY": "",
    "export XEROTIER_STYLE": "",
    "python3 xeroctl.py status": "GET /models",
    "python3 xeroctl.py chat --endpoint my-endpoint": CHAT,
    "mkdir -p ~/.local/bin": "",
    "cp xeroctl.py ~/.local/bin/xeroctl": "./.local/bin/xeroctl",
    "chmod 755 ~/.local/bin/xeroctl": "",
    "export PATH=~/.local/bin:$PATH": "",
    "xeroctl --version": "xeroctl 1.",
    "printf %s \"$XEROTIER_API_KEY\" | xeroctl config add prod":
        "./config.toml",
    "xeroctl config set prod endpoint": "my-endpoint",
    "xeroctl chat -m \"Hello\"": CHAT,
    "xeroctl chat --interactive": CHAT,
    "sha256sum xeroctl.py": "  xeroctl.py",
    "scp ": "./server/xeroctl",
    "ssh server sha256sum xeroctl": "  xeroctl",
    "ssh server chmod": "",
    "ssh server ./xeroctl --version": "xeroctl 1.",
    "to=~/.local": "",
    "mkdir -p \"$to/lib/xeroctl\"": "",
    "cp xeroctl.py \"$to": "./.local/lib/xeroctl/xeroctl.py",
    "python=$(python3": "",
    "\"$python\" -I -m compileall": "./.local/lib/xeroctl/__pycache__",
    "cat > \"$to": "./.local/bin/xeroctl",
    "chmod 755 \"$to": "",
    "docker build": "",
    "docker run --rm -e XEROTIER_BASE_URL -e XEROTIER_API_KEY xeroctl models":
        "GET /models",
    "echo \"Hello\" | docker run": CHAT,
    "xeroctl models -o id": "GET /models",
    "xeroctl chat --endpoint my-model": CHAT,
    "xeroctl embeddings --model my-model": "POST /embeddings",
    "xeroctl batches run --input in.jsonl --output-file out.jsonl --direct":
        "./out.jsonl",
    "xeroctl chat --endpoint my-endpoint -m \"Hello\" -o json":
        "./answer.json",
    "git diff | xeroctl chat": "./review.txt",
    "xeroctl chat --endpoint my-endpoint --session talk.json": "./talk.json",
    "xeroctl chat --session talk.json -m \"What takes": CHAT,
    "xeroctl chat --session talk.json -m \"Write": "./fast.sh",
    "xeroctl chat --session talk.json --interactive": CHAT,
    "xeroctl models --all -o id | head -1": "GET /models",
    "xeroctl files --all -o csv > files.csv": "./files.csv",
    "xeroctl chat --endpoint my-endpoint -m \"Hello\" -q --max-time": CHAT,
    "xeroctl batches check in.jsonl": "1 ",
    "xeroctl batches run --endpoint my-endpoint": "./out.jsonl",
    "xeroctl batches --endpoint my-endpoint --input in.jsonl --wait":
        "POST /batches",
    "xeroctl batches --endpoint my-endpoint\n": "GET /batches",
    "xeroctl batches batch_1 --endpoint my-endpoint --download":
        "GET /content",
    "xeroctl --api-key @key.txt models": "GET /models",
    "cat key.txt | xeroctl --api-key - models": "GET /models",
    "XEROTIER_API_KEY=$(cat key.txt) xeroctl models": "GET /models",
    "xeroctl --proxy": "/chat/completions",
    "xeroctl --cacert ca.pem --dry-run": "/chat/completions",
    "xeroctl --cert client.pem": "/chat/completions",
    "xeroctl config set prod cacert": "set cacert of prod",
    "source <(xeroctl shell-completion bash)": "",
    "xeroctl shell-completion fish > xeroctl.fish": "./xeroctl.fish",
    "xeroctl chat --endpoint my-endpoint -m \"What is wrong": CHAT,
    "xeroctl chat new --workspace": "POST /apply",
    "xeroctl files --upload prompts/": "POST /files",
    "xeroctl models -o wide": "GET /models",
    "xeroctl responses create": "POST /responses",
    "xeroctl embeddings --endpoint my-endpoint": "./vectors.npy",
    "xeroctl upload model.gguf": "POST /complete",
    "xeroctl keys create": "POST /management/api-keys",
    "xeroctl exec invoke": "POST /exec/invocations",
    "xeroctl usage daily": "GET /usage/daily",
    "xeroctl api /conversations": "GET /conversations",
    "xeroctl commands": "./commands.json",
}

TOOLS = {
    "python3": 'exec %(python)s "$@"',
    "xeroctl": 'exec %(python)s %(started)s "$@"',
    "scp": 'mkdir -p server; cp "$1" server/"${2#server:}"',
    "ssh": 'shift; cd server; exec "$@"',
    "git": "echo '+a line'",
    "docker": 'while [ "$1" != xeroctl ] && [ "$1" != build ]; do shift;'
              ' done; [ "$1" = build ] || exec "$@"',
}


@pytest.fixture(scope="module")
def first_world(tmp_path_factory):
    with Remembering() as router:
        router.store.clock, router.exec_polls = time.time, 0
        world = World(router, tmp_path_factory.mktemp("world"))
        os.symlink(os.path.join(ROOT, "xeroctl.py"), world.place("xeroctl.py"))
        os.symlink(os.path.join(ROOT, "tests"), world.place("tests"))
        for name in ("prompts/one.txt", "app.log", "ca.pem", "slow.sh",
                     "profile.txt"):
            world.write(name, "one line\n")
        world.write("screen.png", b"\x89PNG\r\n\x1a\n")
        for name, script in TOOLS.items():
            path = world.place("bin/" + name)
            world.write("bin/" + name, "#!/bin/sh\n" + script % {
                "python": sys.executable, "started": STARTED} + "\n")
            os.chmod(path, stat.S_IRWXU)
        world.saved[None] = router.save(), world.files_now()
        yield world


@pytest.fixture
def world(first_world):
    first_world.reset(None)
    return first_world


def made_true(text, world, other):
    """The block, with addresses, keys and ids that are there."""
    text = text.replace("https://api.xerotier.ai/PROJECT/v1",
                        world.router.base_url)
    text = text.replace("http://127.0.0.1:8080/v1", other.base_url)
    text = text.replace("xero_…", world.router.key)
    text = text.replace("http://USER:PASSWORD@proxy.example:3128",
                        "http://u:p@127.0.0.1:9")
    text = re.sub("xeroctl chat .*--interactive", r"echo Hello | \g<0>", text)
    if "XEROTIER_STYLE" in text:
        text = text.replace("my-model", OPENAI_MODEL)
        world.write("in.jsonl", LINE.replace("demo-model", OPENAI_MODEL))
    return re.sub(r"\b(batch_1|ws_1|triage)\b",
                  lambda found: world.ids[found.group()], text)


def play(text, world, more, exit_status=0):
    """Run a block as a person would; return its output."""
    environ = environment(
        world.router, PATH=world.place("bin") + ":/usr/bin:/bin",
        HOME=world.folder, XEROTIER_CONFIG=world.place("config.toml"), **more)
    process = subprocess.Popen(
        ["bash", "-eu", "-c", text], cwd=world.folder, env=environ,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)
    try:
        output = process.communicate(timeout=LIMIT_S)[0].decode()
    finally:
        process.kill()
    assert process.returncode == exit_status, (text, output)
    return output


def is_seen(effect, output, world, other):
    if effect.startswith(("GET ", "POST ")):
        return any(router.seen(*effect.split()) for router in (world.router,
                                                               other))
    if effect.startswith("./"):
        path = world.place(effect)
        return os.path.exists(path) and os.path.getsize(path) > 0
    return effect in output


def effects_of(text):
    """(line, what it leads to) for each line; a line without is an error."""
    text = re.sub(r"(?s)(<<END\n).*?\nEND\n", r"\1", text)
    for line in text.splitlines(True):
        found = [effect for begin, effect in LEADS_TO.items()
                 if line.startswith(begin)]
        assert found, f"nobody says what this does: {line}"
        yield line, found[-1]


def is_playable(text):
    return "-m venv" not in text        # that command runs these very tests


@pytest.mark.parametrize("text", list(filter(is_playable, BLOCKS)),
                         ids=lambda text: text.split("\n")[0][:40])
def test_a_block_of_the_readme_does_what_is_said(text, world):
    effects = list(effects_of(text))
    if "config add" in text:
        os.unlink(world.place("config.toml"))
    with Router(openai=True) as other:
        output = play(made_true(text, world, other), world, {})
        for line, effect in effects:
            assert is_seen(effect, output, world, other), (line, output)


def test_a_script_of_the_readme_holds_one_conversation(world):
    text, = [each for each in BLOCKS if "--session" in each]
    world.write("slow.sh", "sleep 9\n")
    with Router(openai=True) as other:
        play(made_true(text, world, other), world, {})
    asked = [seen.json["messages"] for seen in world.router.requests]
    assert [len(each) for each in asked] == [2, 4, 6, 8]
    assert {each[0]["content"] for each in asked} == {"Be brief."}
    with open(world.place("fast.sh")) as source:
        assert source.read() == "sleep 9\n"  # the router repeats it


def shown_steps():
    """(command, exit status, lines shown) of each step that is shown."""
    for block in re.findall(r"```console\n(.*?)```", README, re.S):
        for step in re.split(r"(?m)^\$ ", block)[1:]:
            command, *lines = step.splitlines()
            yield command, "error: " in step, lines


def assert_shown(lines, output):
    """Each line is shown; … stands for anything."""
    for line in lines:
        parts = map(re.escape, line.split("…"))
        assert re.search(f"(?ms)^{'.*'.join(parts)}$", output), (line, output)


def test_a_night_of_the_readme_goes_as_it_is_shown(world):
    """Its steps in their order, on one machine."""
    steps = list(shown_steps())
    world.write("prompts.csv", "\n".join(steps[0][2]) + "\n")
    world.router.batch_plan(fail_lines={"row-2": 500})
    for command, fails, lines in steps:
        output = play(command, world, {}, int(fails))
        assert_shown(lines, output)
    assert len(steps) == 5 and not os.path.exists(world.place(
        "answers.csv.state.json"))


def test_the_exit_codes_of_the_readme_are_those_of_the_program(run):
    known = re.findall(r"(?m)^  (\d+)", run("help", "exit-codes",
                                            against=None))
    told = re.findall(r"(?m)^\| ([\d, ]+) \|", README)
    assert ", ".join(told).split(", ") == known


def test_the_demo_router_has_the_endpoints_of_the_readme():
    told = re.findall(r"--endpoint ([a-z-]+)|endpoint = \"(.*?)\"|"
                      r"prod endpoint (\S+)", README)
    assert {"".join(names) for names in told} - set(
        PROJECTS[DEMO_PROJECT]) == {"my-model"}  # what style openai is told


def test_the_command_is_named_once_it_is_on_the_path():
    first = next(number for number, text in enumerate(BLOCKS)
                 if re.search(r"(?m)^xeroctl |\| xeroctl ", text))
    assert "export PATH=" in BLOCKS[first]


def test_the_changelog_has_this_version(run):
    version = run("--version", against=None).split()[1]
    assert f"\n### {version}\n" in README
