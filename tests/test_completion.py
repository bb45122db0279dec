"""Completion: the program says what may follow, and the shells ask it.

What it offers is seen in this process, by a table of command lines; each
stub is driven in its own shell, with the real file behind it.
"""

import os
import shutil
import subprocess
import sys
from shlex import quote

import pytest

from conftest import INTERPRETERS, STARTED, environment, text_stream
from conftest import written
import xeroctl

FORMS = set(xeroctl.FORMS)
CONFIG = """current = "prod"
[deployment.prod]
base_url = "http://127.0.0.1:9/p/v1"
[deployment."staging:eu"]
base_url = "http://127.0.0.1:9/p/v1"
[deployment."it's $5"]
base_url = "http://127.0.0.1:9/p/v1"
"""

# What is typed before Tab, and what is offered.
CASES = [
    ("ch", {"chat", "chats"}),
    ("nonsense ", set()), ("nonsense --o", set()),
    ("chat n", {"new"}),
    ("--output json -q cha", {"chat", "chats"}),
    ("--output=json cha", {"chat", "chats"}),
    ("-o js", {"json", "jsonl"}),
    ("chat send --output js", {"json", "jsonl"}),
    ("chat --output=js", {"--output=json", "--output=jsonl"}),
    ("--output=", {"--output=" + form for form in FORMS}),
    ("chat send --color a", {"auto", "always"}),
    ("chat --st", {"--stream", "--style", "--store", "--stop"}),
    ("chat new --st", {"--style"}),
    ("chat new --te", {"--template"}),
    ("chat -m --stream --from", set()),     # -m lacks its text
    ("chat -m ", set()), ("chat -m new ", {"send", "new"}),
    ("chat -m x -- --st", set()), ("chat send -- -", set()),
    ("files --del", {"--delete"}), ("files file_1 --up", {"--upload"}),
    ("files -5 --up", {"--upload"}),
    ("models m --revalidate --wait", {"--wait", "--wait-timeout"}),
    ("models versions m --pr", {"--proxy", "--promote"}),
    ("models de", {"delete"}), ("models get m de", set()),
    ("models -- de", set()), ("models m de", set()),
    ("models versions pr", {"promote"}), ("models versions promote pr",
                                          set()),
    ("models delete m --for", {"--force"}),
    ("keys re", {"revoke"}), ("endpoints sh", {"show"}),
    ("files upload ", {":file"}), ("files download x ", {":file"}),
    ("files download ", set()), ("batches create ", {":file"}),
    ("agents jo", {"join-keys"}),
    ("agents join-keys --rev", {"--revoke"}),
    ("agents --rev", set()),
    ("config use p", {"prod"}), ("config use prod p", set()),
    ("config us", {"use"}),
    ("--context p", {"prod"}), ("--context=p", {"--context=prod"}),
    ("--context staging:", {"staging:eu"}),
    ("help co", {"completions", "conversations", "config", "commands"}),
    ("help config us", {"use"}), ("api --inc", {"--include"}),
    ("files --upload ", {":file"}), ("files --upload=fi", {":file"}),
    ("batches check ", {":file"}), ("batches run --input ", {":file"}),
    ("shell-completion ", {"bash", "zsh", "fish"}),
    ("__comp", set()), ("-- cha", {"chat", "chats"}), ("-- --o", set()),
    ("config --api-key-file ", {":file"}), ("exec -- to", set()),
]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return str(path)


def asked(line, config=""):
    """(words that are offered, stderr) for a line that is cut at spaces."""
    streams = xeroctl.Streams(text_stream(), text_stream(), text_stream())
    code = xeroctl.main(["__complete"] + line.split(" "), environment(
        XEROTIER_CONFIG=config), streams)
    assert code == 0, line
    lines = written(streams.stdout).splitlines()
    assert all(line.count("\t") == 1 for line in lines)
    return {line.split("\t")[0] for line in lines}, written(streams.stderr)


@pytest.mark.sampled(None)
@pytest.mark.parametrize("line, offered", CASES)
def test_what_may_follow_is_offered(config, line, offered):
    assert asked(line, config) == (offered, "")


def test_no_offer_needs_a_config_or_words(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("[deployment")
    for config in ("/no/such/file", str(broken)):
        assert asked("config use ", config) == (set(), "")
        assert asked("chat n", config) == ({"new"}, "")
    streams = xeroctl.Streams(text_stream(), text_stream(), text_stream())
    assert xeroctl.main(["__complete"], environment(), streams) == 0
    assert "chat\t" in written(streams.stdout)


def test_every_word_of_every_command_is_offered():
    """Walk the map: what stands before a word of a call offers it."""
    for group in xeroctl.GROUPS:
        for verb in group.verbs:
            call = xeroctl.sample_call(group, verb).split()[1:]
            names = list(filter(None, (group.name, verb.word)))
            places = [place for place in range(len(call))
                      if place < len(names) or call[place][:2] == "--"]
            lines = [call[:place + 1] for place in places]
            for line in lines + [names + [word] for word in verb.words]:
                assert line[-1] in asked(" ".join(line))[0], line


def test_a_completion_imports_little():
    said = subprocess.run(
        [sys.executable, "-S", "-X", "importtime", STARTED, "__complete",
         "chat", "--st"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={})
    assert b"--stream" in said.stdout
    for module in (b"urllib", b"http", b"ssl", b"socket", b"readline"):
        assert b" " + module + b"\n" not in said.stderr, module


# == the shells ==============================================================

@pytest.fixture
def place(tmp_path, config):
    """A folder with a program to complete, its stubs, and some files."""
    (tmp_path / "xeroctl").write_text(
        f'#!/bin/sh\nXEROTIER_CONFIG={config} exec {INTERPRETERS[0]}'
        f' {STARTED} "$@"\n')
    (tmp_path / "xeroctl").chmod(0o755)
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "home").mkdir()
    for shell, stub in xeroctl.STUBS.items():
        (tmp_path / f"script.{shell}").write_text(stub.lstrip("\n"))
    return tmp_path


def bashes():
    more = os.environ.get("MORE_BASH", "").split()
    return [shell for shell in ["bash"] + more if shutil.which(shell)]


def needs(shell):
    return pytest.mark.skipif(not shutil.which(shell),
                              reason=f"there is no {shell}")


def shell_run(place, argv, text):
    done = subprocess.run(
        argv, input=text.encode(), cwd=str(place), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, timeout=60,
        env={"PATH": f"{place}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8",
             "HOME": str(place / "home"), "TERM": "dumb"})
    assert done.stderr.decode() == ""
    return done.stdout.decode().splitlines()


# -- bash ---------------------------------------------------------------------

# Cuts a line as readline does, then calls the function as bash does.
BASH_CALL = r"""
source ./script.bash
try() {
  local line=$1 rest=$1 part pieces='^([[:blank:]]*)([=:]+|[^=:[:blank:]]+)'
  COMP_WORDS=() COMP_LINE=$1 COMP_POINT=${#1}
  while [[ $rest =~ $pieces ]]; do
    COMP_WORDS+=("${BASH_REMATCH[2]}") rest=${rest#"${BASH_REMATCH[0]}"}
  done
  if [[ $line == *' ' ]]; then COMP_WORDS+=(''); fi
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  part=${COMP_WORDS[COMP_CWORD]}
  if [[ $part == [=:]* ]]; then part=; fi
  COMPREPLY=()
  _xeroctl "${COMP_WORDS[0]}" "$part" "${COMP_WORDS[COMP_CWORD - 1]}"
  printf '%s\n' "${COMPREPLY[@]}"
}
compopt() { [[ $2 == filenames ]] || COMPREPLY=("<$2>"); }
"""


def bash_offers(place, line, shell="bash", more=""):
    text = BASH_CALL + more + "\ntry " + quote(line)
    return {line for line in shell_run(place, [shell], text) if line}


@pytest.mark.parametrize("shell", bashes())
@pytest.mark.parametrize("line, offered", [
    ("cha", {"chat", "chats"}),
    ("chat --output=js", {"json", "jsonl"}), ("chat --output=", FORMS),
    ("--context=", {"prod", "staging:eu", r"it\'s\ \$5"}),
    ("--context staging:", {"eu"}), ("--context=staging:e", {"eu"}),
    ("--base-url http://h/v1 chat --output=c", {"csv"}),
    ("files --upload ", {"<default>"}), ("files --upload=fi", {"<default>"}),
    ("nonsense ", set()),
])
def test_bash(place, shell, line, offered):
    assert bash_offers(place, "xeroctl " + line, shell) == offered


@pytest.mark.parametrize("shell", bashes())
@pytest.mark.parametrize("options", [
    "set -u", "set -f", "shopt -s failglob", "shopt -s nullglob", "IFS=:"])
def test_bash_under_any_options(place, shell, options):
    assert bash_offers(place, "xeroctl chat --sty", shell,
                       options) == {"--style"}


@pytest.mark.parametrize("shell", bashes())
def test_bash_runs_the_very_word(place, shell):
    shutil.move(str(place / "xeroctl"), str(place / "home" / "other"))
    assert bash_offers(place, "~/other config us", shell) == {"use"}
    assert bash_offers(place, "gone config us", shell) == set()


# -- zsh ----------------------------------------------------------------------

# Types a line and a Tab into a real zsh.  A compadd of the test's own writes
# down each match that is offered; -O, -A and -D only ask, and offer nothing.
ZSH_RC = r"""
PS1= fpath=($PWD $fpath)
setopt no_auto_list no_auto_menu
autoload -Uz compinit
compinit -u -D
[[ -e _xeroctl ]] || source <(cat script.zsh)
compadd() {
  local -a found
  if (( ! ${argv[(I)-[OAD]*]} )); then
    builtin compadd -O found "$@"
    print -rl -- $found >> out
  fi
  builtin compadd "$@"
}
answer() { zle complete-word; : > done; BUFFER=; }
zle -N answer
bindkey '^I' answer
: > ready
"""
ZSH_CALL = r"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'source ./rc'
until [[ -e ready ]]; do sleep 0.02; done
sleep 0.2
for line in "$@"; do
  rm -f done; : > out
  zpty -w -n z "$line"$'\t'
  until [[ -e done ]]; do sleep 0.02; done
  print -r -- "= $line"; cat out
  while zpty -r -t z; do done >/dev/null
done
zpty -d z
"""


def zsh_offers(place, lines):
    (place / "rc").write_text(ZSH_RC)
    (place / "call").write_text(ZSH_CALL)
    offers = {}
    for line in shell_run(place, ["zsh", "-f", "call"] + lines, ""):
        if line.startswith("= "):
            found = offers.setdefault(line[2:], set())
        elif line:
            found.add(line)
    return offers


@needs("zsh")
def test_zsh(place):
    lines = {"xeroctl cha": {"chat", "chats"},
             "xeroctl chat --output=js": {"--output=json", "--output=jsonl"},
             "xeroctl --context ": {"prod", "staging:eu", "it's $5"},
             "xeroctl files --upload=fi": {"file.txt"},
             "xeroctl batches check f": {"file.txt"},
             "xeroctl nonsense ": set()}
    assert zsh_offers(place, list(lines)) == lines


@needs("zsh")
def test_zsh_finds_it_in_its_path_of_functions(place):
    """Such a file is read at the first Tab, which it answers already."""
    shutil.copy(str(place / "script.zsh"), str(place / "_xeroctl"))
    lines = {"xeroctl cha": {"chat", "chats"}, "xeroctl mo": {"models"}}
    assert zsh_offers(place, list(lines)) == lines


# -- fish ---------------------------------------------------------------------

@needs("fish")
def test_fish(place):
    lines = {"xeroctl cha": {"chat", "chats"},
             "xeroctl chat --output=js": {"--output=json", "--output=jsonl"},
             "xeroctl --context ": {"prod", "staging:eu", "it's $5"},
             "xeroctl files --upload=fi": {"--upload=file.txt"},
             "xeroctl batches check f": {"file.txt"},
             "xeroctl nonsense ": set()}
    text = "source ./script.fish\n" + "".join(
        f"echo '= {line}'\ncomplete -C '{line}'\n" for line in lines)
    offers = {}
    for line in shell_run(place, ["fish"], text):
        if line.startswith("= "):
            found = offers.setdefault(line[2:], {})
        else:
            name, _, summary = line.partition("\t")
            found[name] = summary
    assert {line: set(found) for line, found in offers.items()} == lines
    assert offers["xeroctl cha"]["chat"].startswith("Ask a model")


@pytest.mark.parametrize("shell", sorted(xeroctl.STUBS))
def test_a_stub_parses_and_fits(tmp_path, shell, run):
    shown = run("shell-completion", shell)
    assert max(map(len, shown.splitlines())) <= 79
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    path = tmp_path / "script"
    path.write_text(str(shown))
    subprocess.check_call([shell, "-n", str(path)])
