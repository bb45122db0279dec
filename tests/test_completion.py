"""The completion scripts, run by the shells themselves."""

import os
import shutil
import subprocess

import pytest

from conftest import costly
import xeroctl
from xeroctl import Group, Verb, by_flag, choice, field, flag

NASTY = "It's \"100%\" [sic]: $HOME `id` $(id) \\n {a,b} <x> |y| é; # ~ !1"
NEWLINE = "Two\nlines\tand a tab."


def marked(declared, completes):
    declared.completes = completes
    return declared


def verb(name, *flags, summary="A summary.", **options):
    return Verb(name, summary, None, *flags, **options)


ID = flag("id", metavar="ID", nargs="?", help=NASTY)
FILES = Group("files", NASTY, verbs=by_flag(
    verb("list", field("--purpose", type=choice("batch", "fine:tune"),
                       metavar="P", help=NASTY)),
    verb("show", ID), verb("delete", ID, summary=NASTY)) + (
    verb("upload", marked(flag("--into", metavar="F", help=NASTY), "folder"),
         flag("-r", "--recursive", action="store_true", help=NASTY),
         by=flag("--upload", metavar="PATH", help=NASTY)),
    verb("download", ID, by=flag("--download", metavar="PATH", help="To."))))
CONFIG = Group("config", NEWLINE, verbs=(
    verb("use", marked(flag("name", metavar="NAME", help="x"), "context"),
         summary=NASTY),
    verb("list", summary="List."),
    verb("path", flag("--dir", metavar="DIR", help="A folder."),
         flag("--key", metavar="KEY", help="A key.")),
    verb("check", flag("file", metavar="FILE", help="x")),
    verb("copy", flag("what", metavar="WHAT", help="x"),
         marked(flag("names", metavar="NAME", nargs="+", help="x"),
                "context"))))
CHAT = Group("chat", "Ask a model.", default="send", verbs=(
    verb("send", flag("-m", "--message", metavar="TEXT", help="Text."),
         flag("--from-file", metavar="PATH", help="A file."),
         flag("--stream", action="store_true", help="Stream.")),
    verb("new", flag("--template", metavar="T", help="T."))))
GROUPS = (FILES, CONFIG, CHAT, xeroctl.API, xeroctl.HELP)
GLOBALS = tuple(
    declared for declared in xeroctl.GLOBALS if declared.long_name in (
        "--output", "--base-url", "--style", "--dry-run", "--color",
        "--quiet")) + (
    marked(flag("--context", metavar="NAME", help=NASTY), "context"),)

PROGRAM = """#!/bin/sh
[ "$*" = "config list -o id" ] || exit 9
printf '%s\\n' prod staging:eu "it's \\$5"
echo noise >&2
"""

GLOBAL_NAMES = {name for flag in GLOBALS for name in flag.names}

# What is typed before Tab, and what is offered: the words as they would
# stand in the line (of bash, only what replaces the last part).
CASES = [
    ("", {"files", "config", "chat", "api", "help"}),
    ("ch", {"chat"}),
    ("nonsense ", GLOBAL_NAMES),
    ("chat ", {"send", "new"}),
    ("--output json -q ch", {"chat"}),
    ("--output=json ch", {"chat"}),
    ("-o js", {"json", "jsonl"}),
    ("chat send --output js", {"json", "jsonl"}),
    ("chat send --color a", {"auto", "always"}),
    ("chat --st", {"--stream", "--style"}),
    ("chat send --st", {"--stream", "--style"}),
    ("chat new --st", {"--style"}),
    ("chat new --te", {"--template"}),
    ("chat -m --stream --fr", {"--from-file"}),
    ("chat -m new ", {"send", "new"}),
    ("chat -m ", set()),
    ("chat -m x -- --st", set()),
    ("chat send -- -", set()),
    ("files --d", {"--delete", "--download", "--dry-run"}),
    ("files file_1 --up", {"--upload"}),
    ("files -5 --up", {"--upload"}),
    ("files file_1 --purpose ba", {"batch"}),
    ("config ", {"use", "list", "path", "check", "copy"}),
    ("config use p", {"prod"}),
    ("config use prod p", set()),
    ("config copy p", set()),
    ("config copy p q p", {"prod"}),
    ("--context p", {"prod"}),
    ("help co", {"config"}),
    ("help config us", {"use"}),
    ("api --inc", {"--include"}),
]
FILE_CASES = [
    ("files --upload fi", {"file.txt", "fiddle/"}),
    ("files --into fi", {"fiddle/"}),
    ("chat --from-file file", {"file.txt"}),
    ("config path --dir fi", {"fiddle/"}),
    ("config path --key fi", set()),
    ("config check fil", {"file.txt"}),
    ("files --upload fiddle/s", {"fiddle/string"}),
]
PROGRAMS = "xeroctl", "xeroctl.py", "./xeroctl.py"


@pytest.fixture
def place(tmp_path):
    """A folder with the scripts, a program, and files to complete."""
    for name in ("xeroctl", "xeroctl.py"):
        (tmp_path / name).write_text(PROGRAM)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "fiddle").mkdir()
    (tmp_path / "fiddle" / "string").write_text("")
    (tmp_path / "home").mkdir()
    for shell in ("bash", "zsh", "fish"):
        (tmp_path / f"script.{shell}").write_text(
            xeroctl.completion_script(shell, GROUPS, GLOBALS),
            encoding="utf-8")
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
    text = BASH_CALL + more + "\ntry " + xeroctl.script_word(line, "bash")
    return {line for line in shell_run(place, [shell], text) if line}


@pytest.mark.parametrize("shell", bashes())
@pytest.mark.parametrize("line, offered", CASES)
def test_bash(place, shell, line, offered):
    assert bash_offers(place, "xeroctl " + line, shell) == offered


@pytest.mark.parametrize("shell", bashes())
@pytest.mark.parametrize("line, offered", [
    ("chat --output=js", {"json", "jsonl"}),
    ("chat --output=", set(xeroctl.FORMS)),
    ("chat --color=a", {"auto", "always"}),
    ("--context=p", {"prod"}),
    ("--context=", {"prod", "staging:eu", r"it\'s\ \$5"}),
    ("--context staging:", {"eu"}),
    ("--context=staging:e", {"eu"}),
    ("files --purpose fine:", {"tune"}),
    ("--base-url http://h/v1 chat --output=c", {"csv"}),
    ("--output = ch", {"chat"}),
    ("files --upload ", {"<default>"}),
    ("files --upload=fi", {"<default>"}),
    ("files --into ", {"<dirnames>"}),
    ("config check ", {"<default>"}),
    ("chat > fi", {"<default>"}),
    ("chat send - ", GLOBAL_NAMES | {"-m", "--message", "--from-file",
                                     "--stream"}),
])
def test_bash_words_are_cut_at_equals_and_colon(place, shell, line, offered):
    assert bash_offers(place, "xeroctl " + line, shell) == offered


@pytest.mark.parametrize("shell", bashes())
def test_bash_without_equals_in_wordbreaks(place, shell):
    call = BASH_CALL.replace("[=:]", "[:]").replace("[^=:", "[^:")
    for line, offered in (
            ("chat --output=js", ["--output=json", "--output=jsonl"]),
            ("files --upload=fil", ["--upload=file.txt"]),
            ("files --into=f", ["--into=fiddle"])):
        assert shell_run(place, [shell],
                         call + f"try 'xeroctl {line}'") == offered


@pytest.mark.parametrize("shell", bashes())
@pytest.mark.parametrize("options", [
    "set -u", "set -f", "shopt -s nullglob", "shopt -s failglob",
    "IFS=:", "shopt -s extglob nocasematch", "shopt -s nocaseglob"])
def test_bash_under_any_options(place, shell, options):
    for line, offered in (("chat --st", {"--stream", "--style"}),
                          ("-o js", {"json", "jsonl"}),
                          ("config use p", {"prod"}),
                          ("", {"files", "config", "chat", "api", "help"})):
        assert bash_offers(place, "xeroctl " + line, shell,
                           options) == offered


@pytest.mark.parametrize("shell", bashes())
def test_bash_runs_the_very_word(place, shell):
    for program in PROGRAMS + (f"{place}/xeroctl",):
        assert bash_offers(place, program + " config use p",
                           shell) == {"prod"}
    (place / "xeroctl").rename(place / "home" / "xeroctl")
    assert bash_offers(place, "~/xeroctl config use p", shell) == {"prod"}
    assert bash_offers(place, "gone config use p", shell) == set()


@pytest.mark.parametrize("shell", bashes())
def test_bash_defines_only_its_own(place, shell):
    text = ("before= after=; echo x | cat >/dev/null\n"
            "before=$(compgen -v; compgen -A function)\nsource ./script.bash\n"
            "after=$(compgen -v; compgen -A function)\n"
            "diff <(echo \"$before\") <(echo \"$after\") | grep '^[<>]'\n"
            "complete -p")
    lines = shell_run(place, [shell], text)
    assert {"complete -F _xeroctl xeroctl", "complete -F _xeroctl xeroctl.py"
            } == {line for line in lines if line.startswith("complete")}
    assert all(line.startswith("> _xeroctl")
               or line[2:] in ("_", "BASH_LINENO")
               for line in lines if not line.startswith("complete"))


# -- zsh ----------------------------------------------------------------------

# Types a line and a Tab into a real zsh.  A compadd of the test's own writes
# down each match that is offered; -O, -A and -D only ask, and offer nothing.
ZSH_RC = r"""
PS1= fpath=($PWD $fpath)
setopt no_auto_list no_auto_menu
autoload -Uz compinit
compinit -u -D
LOAD
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
ZSH_LOADS = {"source": "source <(cat script.zsh)", "fpath": "",
             "eval": 'eval "$(cat script.zsh)"'}


def zsh_offers(place, lines, load="source"):
    if load == "fpath":
        shutil.copy(str(place / "script.zsh"), str(place / "_xeroctl"))
    (place / "rc").write_text(ZSH_RC.replace("LOAD", ZSH_LOADS[load]))
    (place / "call").write_text(ZSH_CALL)
    offers = {}
    for line in shell_run(place, ["zsh", "-f", "call"] + lines, ""):
        if line.startswith("= "):
            found = offers.setdefault(line[2:], set())
        elif line:
            found.add(line)
    return offers


@needs("zsh")
@pytest.mark.parametrize("load", [
    load if load == "source" else pytest.param(load, marks=costly)
    for load in sorted(ZSH_LOADS)])
def test_zsh(place, load):
    # All cases in one way of loading; the others show that they load.
    cases = CASES if load == "source" else CASES[:4]
    lines = {"xeroctl " + line: offered for line, offered in cases}
    assert zsh_offers(place, list(lines), load) == lines


@needs("zsh")
@costly
def test_zsh_values_files_and_programs(place):
    lines = {"xeroctl " + line: {name.rstrip("/").split("/")[-1]
                                 for name in offered}
             for line, offered in FILE_CASES + [
                 ("chat --output=js", {"json", "jsonl"}),
                 ("--context=", {"prod", "staging:eu", "it's $5"}),
                 ("files --upload=file", {"file.txt"}),
                 ("files --purpose=fine:", {"fine:tune"})]}
    lines["./xeroctl.py ch"] = lines["xeroctl.py ch"] = {"chat"}
    lines["./xeroctl.py config use p"] = {"prod"}
    assert zsh_offers(place, list(lines)) == lines


@needs("zsh")
def test_zsh_defines_only_its_own(place):
    text = ("autoload -Uz compinit; compinit -u -D\n"
            "before=(${(k)functions} ${(k)parameters}); after=()\n"
            "source ./script.zsh\n"
            "after=(${(k)functions} ${(k)parameters})\n"
            "print -rl -- ${${after:|before}:#(before|after)}\n")
    lines = shell_run(place, ["zsh", "-f"], text)
    assert lines and all(line.startswith("_xeroctl") for line in lines)


# -- fish ---------------------------------------------------------------------

def fish_offers(place, lines):
    text = "source ./script.fish\n" + "".join(
        f"echo '= '{line}\ncomplete -C {line}\n"
        for line in (xeroctl.script_word(line, "fish") for line in lines))
    offers = {}
    for line in shell_run(place, ["fish", "--no-config"], text):
        if line.startswith("= "):
            found = offers.setdefault(line[2:], {})
        else:
            name, _, summary = line.partition("\t")
            found[name] = summary
    return offers


@needs("fish")
def test_fish(place):
    lines = {"xeroctl " + line: offered for line, offered in CASES}
    offers = fish_offers(place, list(lines))
    assert {line: set(found) for line, found in offers.items()} == lines


@needs("fish")
def test_fish_values_files_and_programs(place):
    lines = {"xeroctl " + line: offered for line, offered in FILE_CASES + [
        ("chat --output=js", {"--output=json", "--output=jsonl"}),
        ("--context=p", {"--context=prod"}),
        ("--context ", {"prod", "staging:eu", "it's $5"}),
        ("files --upload=file", {"--upload=file.txt"})]}
    for program in PROGRAMS:
        lines[program + " ch"] = {"chat"}
        lines[program + " config use p"] = {"prod"}
    offers = fish_offers(place, list(lines))
    assert {line: set(found) for line, found in offers.items()} == lines


@needs("fish")
def test_fish_shows_summaries_to_the_letter(place):
    offers = fish_offers(place, ["xeroctl ", "xeroctl files --del"])
    assert offers["xeroctl "]["files"] == NASTY
    assert offers["xeroctl "]["config"] == "Two lines and a tab."
    assert offers["xeroctl files --del"] == {"--delete": NASTY}


@needs("fish")
def test_fish_defines_only_its_own(place):
    text = ("set -g before; set -g after\n"
            "set before (functions -n -a) (set -n); source ./script.fish\n"
            "for name in (functions -n -a) (set -n)\n"
            "contains -- $name $before; or echo $name\nend")
    lines = shell_run(place, ["fish", "--no-config"], text)
    assert lines and all(line.startswith("_xeroctl") or line == "name"
                         for line in lines)


# -- all ----------------------------------------------------------------------

@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_parses_with_the_real_tables(tmp_path, shell):
    script = xeroctl.completion_script(
        shell, xeroctl.GROUPS + (xeroctl.HELP,), xeroctl.GLOBALS)
    assert "PROGRAM" not in script and "WALK" not in script
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    path = tmp_path / "script"
    path.write_text(script, encoding="utf-8")
    subprocess.check_call([shell, "-n", str(path)])


def test_another_program():
    script = xeroctl.completion_script("bash", GROUPS, GLOBALS, "xc")
    assert "complete -F _xc xc xc.py" in script and "_xeroctl" not in script


def test_kind_of_value():
    def kind(*names, **options):
        return xeroctl.value_kind(flag(*names, **options))
    assert kind("--a", metavar="FILE") == kind("a", metavar="PATH") == "file"
    assert kind("--a", metavar="DIR") == "folder"
    assert kind("--a", metavar="ID") == kind("--a") == "any"
    assert kind("--a", type=choice("x", "a b", "y|z")) == "|x"
    assert xeroctl.value_kind(
        marked(flag("--a", metavar="PATH"), "")) == "any"


def test_lines_fit():
    for template in (xeroctl.POSIX_WALK, xeroctl.BASH, xeroctl.ZSH,
                     xeroctl.FISH):
        assert max(map(len, template.splitlines())) <= 79


def test_rows_below_a_word_are_offered_behind_it():
    places = dict(xeroctl.completion_places(xeroctl.GROUPS))
    named = {place: [row.split()[0] for row in rows]
             for place, rows in places.items()}
    assert "join-keys" in named["agents"]
    assert "--revoke" not in named["agents"]
    assert "--revoke" in named["agents join-keys"]
    assert "--promote" in named["models versions"]
