"""batches run --template: rows in, answers beside them.

Whatever a row holds, it is sent as it stands there, once, and comes back in
its place; whatever moment a kill picks, the same command goes on.
"""

import csv
import io
import json
import os

import pytest

from conftest import sampled
from helpers import answer_to, check_refused, until
from test_runs import (CHAT, ONE_BY_ONE, PARTS, SAY, Job, as_lines,
                       check_made_once, check_undisturbed, die_in_request,
                       finished_lines, forks, go_on, good, kills,
                       plan_for_kills, posted, read_lines, step)

TEMPLATE = "say {name}: {text}"
HEAD = ["name", "text"]
ROWS = [["a", "x"], ["b", "two\nlines"], ["c", 'a "quote", a comma'],
        ["d", "{name} {{}}"], ["e", "=1+1"]]
ADDED = ["answer", "finish_reason", "error", "tokens"]
assert forks and step  # fixtures


def as_csv(rows, **how):
    text = io.StringIO()
    csv.writer(text, **how).writerows(rows)
    return text.getvalue().encode()


class Sheet(Job):
    """A job whose input is rows."""

    def __init__(self, folder, name="in.csv", output="out.csv"):
        super().__init__(folder)
        os.unlink(self.input)
        self.input, self.output = self.path(name), self.path(output)
        self.errors = self.output + ".errors.jsonl"
        self.state = self.output + ".state.json"
        self.journal = self.output + ".journal.jsonl"
        self.template = TEMPLATE
        self.fill([HEAD] + ROWS)

    def fill(self, rows, line=None):
        if line is None:
            self.write(as_csv(rows), os.path.basename(self.input))

    def argv(self, *more):
        return super().argv("--template", self.template, *more)

    def rows(self, delimiter=","):
        """The head of OUT, and its rows as objects."""
        text = self.read(self.output).decode("utf-8-sig")
        head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True,
                                 delimiter=delimiter)
        return head, [dict(zip(head, row)) for row in rows]

    def failed_rows(self):
        return "".join(row["name"] for row in self.rows()[1] if row["error"])

    def check(self):
        """Each row is in its place, its answer beside it."""
        head, rows = self.rows()
        assert head == HEAD + ADDED
        assert [[row[name] for name in HEAD] for row in rows] == ROWS
        for row in rows:
            assert row["answer"] == answer_to(f"say {row['name']}:"
                                              f" {row['text']}")
            assert (row["finish_reason"], row["error"]) == ("stop", "")
            assert int(row["tokens"]) > 0
        assert self.names() == {"in.csv", "out.csv"}


@pytest.fixture
def job(tmp_path):
    return Sheet(tmp_path)


def prompts(router):
    """The last message of each request that was sent, in both forms."""
    lines = [json.loads(line)["body"] for file_id, record
             in router.files.items() if record["purpose"] == "batch"
             for line in router.file_bytes(file_id).decode().split("\n")[:-1]]
    return [body["messages"][-1]["content"] for body in lines + [
        seen.json for seen in router.seen("POST", "/chat/completions")]]


def asks_for(name):
    """Whether a request is that of a row."""
    return lambda seen: f'"say {name}: '.encode() in seen.body


def first_request(run, job, *more):
    """The request of the first row, as a check shows it."""
    shown = run("batches", "check", job.input, "--template", job.template,
                "-o", "json", *more, against=None)
    assert shown.exit_status == 0, shown
    return json.loads(shown)["first"]


def prompt_of(run, job, template, *more):
    job.template = template
    first = first_request(run, job, *more)
    return first["body"]["messages"][-1]["content"]


both_forms = pytest.mark.parametrize("direct", [[], ["--direct"]])


# == the whole job ===========================================================

@both_forms
def test_answers_stand_beside_their_rows(run, router, job, direct):
    shown = run(*job.argv(*direct))
    assert shown.exit_status == 0, shown
    job.check()
    assert sorted(prompts(router)) == sorted(
        f"say {name}: {text}" for name, text in ROWS)


@both_forms
def test_a_row_that_failed_says_why(run, router, job, direct):
    router.batch_plan(fail_lines={"row-2": 500})
    router.order(SAY, when=asks_for("b"), status=500, message="It was bad.")
    shown = run(*job.argv(*direct))
    assert shown.exit_status == 1
    head, rows = job.rows()
    assert [row["name"] for row in rows] == list("abcde")
    assert [bool(row["error"]) for row in rows] == [
        False, True, False, False, False]
    assert rows[1]["answer"] == rows[1]["finish_reason"] == ""
    assert rows[1]["error"].startswith("HTTP 500 ")
    failed, = read_lines(job.errors)
    assert failed["custom_id"] == "row-2"


@both_forms
def test_result_lines_are_written_as_ever(run, router, job, direct):
    job.output = job.path("out.jsonl")
    assert run(*job.argv("--id-column", "name", *direct)).exit_status == 0
    assert [each["custom_id"] for each in read_lines(job.output)] == [
        "a", "b", "c", "d", "e"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_line_ends_and_mark_are_those_of_the_input(run, job, end, mark,
                                                   name):
    tab = {"csv": ",", "tsv": "\t"}[name]
    job.input, job.output = job.path("in." + name), job.path("OUT." + name)
    job.write(mark + as_csv([HEAD] + ROWS, delimiter=tab,
                            lineterminator=end), "in." + name)
    assert run(*job.argv()).exit_status == 0
    data = job.read(job.output)
    assert (data[:3] == b"\xef\xbb\xbf") == bool(mark)
    assert data.decode("utf-8-sig").startswith(tab.join(HEAD + ADDED) + end)
    assert data.endswith(end.encode()) and (b"\r" in data) == (end[0] == "\r")
    rows = job.rows(tab)[1]
    assert [[row[name] for name in HEAD] for row in rows] == ROWS


def test_a_tsv_comes_of_a_csv(run, job):
    job.output = job.path("out.tsv")
    assert run(*job.argv()).exit_status == 0
    assert job.rows("\t")[0] == HEAD + ADDED


def test_cells_come_back_as_they_were(run, job):
    cells = ["=1+1", "+1", "-1", "@x", " a ", "", "'", '"', '""', "\r",
             "a\rb", "\r\n", "\n\n", ",", "\t", "é", "\U0001f600", "\u2028",
             "\x85", "\x0b", "0" * 200000, "NULL", "1e5", "\ufeffx", "\\n"]
    job.fill([["name", "text"]] + [[cell, "x"] for cell in cells])
    assert run(*job.argv()).exit_status == 0
    rows = job.rows()[1]
    assert [row["name"] for row in rows] == cells
    for row in rows:
        assert row["answer"] == answer_to(f"say {row['name']}: x")


def test_what_a_model_says_breaks_no_row(run, router, job):
    text = 'a,"b"\r\nc\rd\n\u2028\x00e'
    body = {"choices": [{"message": {"content": text},
                         "finish_reason": "length"}],
            "usage": {"total_tokens": 7}}
    router.order(SAY, times=None, body=json.dumps(body).encode())
    assert run(*job.argv("--direct")).exit_status == 0
    for row in job.rows()[1]:
        assert row["answer"] == text.replace("\0", "\ufffd")
        assert (row["finish_reason"], row["tokens"]) == ("length", "7")


@pytest.mark.parametrize("message, answer", [
    ({"content": None, "refusal": "No."}, "No."),
    ({"content": [{"type": "text", "text": "a"},
                  {"type": "text", "text": "b"}]}, "ab"),
    ({"content": [{"type": "thinking", "thinking": "hm"},
                  {"type": "text", "text": "b"}]}, "b"),
    ({"content": None, "reasoning": "hm", "tool_calls": []}, ""),
    ({"content": "\ud800"}, "\ufffd"),
])
def test_the_answer_is_the_text_of_it(run, router, job, message, answer):
    body = {"choices": [{"message": message}]}
    router.order(SAY, times=None, body=json.dumps(body).encode())
    assert run(*job.argv("--direct")).exit_status == 0
    assert {(row["answer"], row["finish_reason"], row["tokens"])
            for row in job.rows()[1]} == {(answer, "", "")}


def test_other_columns_are_kept(run, job):
    job.fill([["x", "name", "", "text"], ["1", "a", "2", "3"]])
    job.template = "{name}"
    assert run(*job.argv()).exit_status == 0
    (row,) = job.rows()[1]
    assert (row["x"], row[""], row["answer"]) == ("1", "2", answer_to("a"))


def test_a_short_row_ends_with_empty_cells(run, job):
    """Spreadsheets leave the last commas out."""
    job.write(b"name,text\na\nb,x\n", "in.csv")
    assert run(*job.argv()).exit_status == 0
    assert [(row["text"], row["answer"]) for row in job.rows()[1]] == [
        ("", answer_to("say a: ")), ("x", answer_to("say b: x"))]


def test_empty_lines_are_no_rows(run, job):
    job.write(b'\n\r\nname,text\r\n\r\na,"\n\n"\n\n\r\nb,x\n\n\n', "in.csv")
    assert run(*job.argv("--id-column", "name")).exit_status == 0
    assert [(row["name"], row["text"]) for row in job.rows()[1]] == [
        ("a", "\n\n"), ("b", "x")]


# == what a request is made of ===============================================

def test_a_request_has_the_fields_that_are_given(run, job):
    first = first_request(
        run, job, "--system", "Be {name}.", "--model", "m", "--max-tokens",
        "5", "--temperature", "0.5", "--param", "stop=[1]", "--param",
        "seed=7", "--param", "user=null", "--id-column", "text")
    assert first == {
        "custom_id": "x", "method": "POST", "url": CHAT, "body": {
            "model": "m", "messages": [
                {"role": "system", "content": "Be {name}."},
                {"role": "user", "content": "say a: x"}],
            "max_tokens": 5, "temperature": 0.5, "stop": [1], "seed": 7,
            "user": None}}


def test_the_model_is_the_endpoint(run, router, job):
    assert first_request(run, job)["body"]["model"] == "<endpoint>"
    assert run(*job.argv("--direct")).exit_status == 0
    assert {seen.json["model"] for seen in posted(router)} == {"demo"}


def test_a_template_may_stand_in_a_file(run, job):
    job.write("1 {name}\r\n2 é\r\n".encode(), "t")
    assert prompt_of(run, job, "@" + job.path("t")) == "1 a\r\n2 é"


@pytest.mark.parametrize("template, prompt", [
    ("{name}{name}", "aa"), ("none", "none"), ("{{name}} {name}", "{name} a"),
    ("{{{name}}}", "{a}"), ('{"a": {"b": "{name}"}}', '{"a": {"b": "a"}}'),
    ('{"a": {name}}', '{"a": a}'), ("{ name }", "{ name }"), ("{}", "{}"),
    ('{{"a": {{"b": 1}}}}', '{"a": {"b": 1}}'), ("{...}", "{...}"),
    ("{a b}", "{a b}"), ("} { {name", "} { {name"), ("{name!r:>9}",
                                                    "{name!r:>9}"),
    ("%s \\1 \\g<0> {name}", "%s \\1 \\g<0> a"), ("{Ein Titel}", "x"),
    ("{text}", "{name} {{}}")])
def test_braces_of_a_template(run, job, template, prompt):
    job.fill([["name", "Ein Titel", "text"], ["a", "x", "{name} {{}}"]])
    assert prompt_of(run, job, template) == prompt


@pytest.mark.parametrize("data, prompt", [
    (b'{"name": "a", "text": "x"}\n', "say a: x"),
    (b'\xef\xbb\xbf\r\n \n{"name": 1.50, "text": null}\r\n', "say 1.5: "),
    (b'{"text": {"a": [1]}, "name": true, "z": 0}', 'say true: {"a":[1]}'),
])
def test_objects_are_rows(run, job, data, prompt):
    job.input = job.path("in.jsonl")
    job.write(data, "in.jsonl")
    assert prompt_of(run, job, TEMPLATE) == prompt


def test_the_columns_of_objects_are_their_keys(run, job):
    job.input = job.path("in.jsonl")
    job.write(b'{"name": "a", "z": 1}\n\n{"y": [null], "name": "b"}\n',
              "in.jsonl")
    job.template = "{name}"
    assert run(*job.argv()).exit_status == 0
    head, rows = job.rows()
    assert head == ["name", "z", "y"] + ADDED
    assert [list(row.values())[:4] for row in rows] == [
        ["a", "1", "", answer_to("a")], ["b", "", "[null]", answer_to("b")]]


def test_lines_are_rows(run, job):
    job.input = job.path("in.TXT")
    job.write(b'\xef\xbb\xbfa "b", c\r\n\r\n  \n \xc3\xa9 \n{x}', "in.TXT")
    job.template = "{line}"
    assert run(*job.argv()).exit_status == 0
    head, rows = job.rows()
    assert head == ["line"] + ADDED
    assert [(row["line"], row["answer"]) for row in rows] == [
        (each, answer_to(each)) for each in ('a "b", c', " é ", "{x}")]


@pytest.mark.parametrize("form, data", [
    ("csv", b"name,text\na,x\n"), ("tsv", b"name\ttext\na\tx\n"),
    ("jsonl", b'{"name":"a","text":"x"}\n'), ("txt", b"a\n")])
def test_standard_input_is_told_its_form(run, router, job, form, data):
    job.input, job.template = "-", "{line}" if form == "txt" else "{name}"
    check_refused(run(*job.argv(), stdin=data), router, "--input-format")
    shown = run(*job.argv("--input-format", form), stdin=data)
    assert shown.exit_status == 0, shown
    assert job.rows()[1][0]["answer"] == answer_to("a")


def test_the_form_is_told_of_a_name_that_does_not(run, router, job):
    os.rename(job.input, job.path("rows"))
    job.input = job.path("rows")
    check_refused(run(*job.argv()), router, "--input-format", "csv, tsv")
    assert run(*job.argv("--input-format", "csv")).exit_status == 0
    assert [row["name"] for row in job.rows()[1]] == list("abcde")


# == what is wrong, by row ===================================================

FAULTS = {
    "too long": (b"name,text\na,x\nb,y,z\n", ["row 2: 3 cells"]),
    "no UTF-8": (b"name,text\na,x\nb,\xff\n", ["row 2: not UTF-8"]),
    "UTF-16": ("name,text\na,x\n".encode("utf-16"), ["not UTF-8"]),
    "NUL": (b"name,text\n\na,\0\nb,y\n", ["row 1: not CSV", "NUL"]),
    "open quote": (b'name,text\na,x\n"b\n\n,y\n', ["row 2: not CSV",
                                                   "quote"]),
    "text behind a quote": (b'name,text\n"a"b,x\nc,y\n', ["row 1: not CSV"]),
    "carriage return": (b"name,text\na,x\rb,y\nc,z\n", ["row 1: not CSV"]),
    "head twice": (b"name,text,name\na,x,y\n", ['"name" twice']),
    "head open": (b'name,"text\na,x\n', ["not CSV"]),
    "no column": (b"name,title\na,x\n", [
        'no column "text"', '"name", "title"']),
    "empty": (b"", ["the file is empty"]),
    "mark alone": (b"\xef\xbb\xbf\r\n", ["the file is empty"]),
    "head alone": (b"name,text\n", ["empty"]),
    "many": (b"name,text\n" + b"a,b,c\n" * 30, [
        "30 things are wrong", "row 20: ", "and 10 more"]),
}


@pytest.mark.parametrize("kind", FAULTS)
@both_forms
def test_what_is_wrong_is_told_by_row(run, router, job, kind, direct):
    data, words = FAULTS[kind]
    job.write(data, "in.csv")
    for more in [], ["--dry-run"]:
        check_refused(run(*job.argv(*direct, *more)), router, "in.csv",
                      *words)
    shown = run("batches", "check", job.input, "--template", TEMPLATE)
    check_refused(shown, router, "in.csv", *words)
    assert job.names() == {"in.csv"}


@pytest.mark.parametrize("data, word", [
    (b'{"name":"a","text":"b"}\n[1]\n', "row 2: not a JSON object"),
    (b'{"name":"a","text":"b"}\n\n{"name"\n', "row 2: not JSON"),
    (b'{"name":"a","text":"b"}\n{"name":"b"}\n',
     'row 2: no column "text": there are "name"')])
def test_what_is_wrong_with_an_object_is_told(run, router, job, data, word):
    job.input = job.path("in.jsonl")
    job.write(data, "in.jsonl")
    check_refused(run(*job.argv()), router, word)


@pytest.mark.parametrize("rows, word", [
    ([["a", "x"], ["", "y"]], "row 2: name is empty"),
    ([["a", "x"], ["b", "x"], ["a", "y"]],
     'row 3: custom_id "a" repeats row 1')])
def test_an_id_is_there_once(run, router, job, rows, word):
    job.fill([HEAD] + rows)
    check_refused(run(*job.argv("--id-column", "name")), router, word)
    check_refused(run(*job.argv("--id-column", "nome")), router,
                  'no column "nome"', '"name", "text"')


@pytest.mark.parametrize("name", ADDED)
@both_forms
def test_a_column_of_an_answer_is_not_in_the_input(run, router, job, name,
                                                   direct):
    job.fill([HEAD + [name], ["a", "b", "c"]])
    check_refused(run(*job.argv(*direct)), router, name, "rename")
    job.input = job.path("in.jsonl")
    job.write(b'{"name":"a","text":"b"}\n{"name":"b","text":"","%b":0}\n'
              % name.encode(), "in.jsonl")
    check_refused(run(*job.argv(*direct)), router, name, "rename")
    job.output = job.path("out.jsonl")
    assert run(*job.argv(*direct)).exit_status == 0


def test_rows_are_no_requests_without_a_template(run, router, job):
    argv = [word for word in job.argv() if word not in (
        "--template", TEMPLATE)]
    check_refused(run(*argv), router, "--template")
    check_refused(run("batches", "check", job.input), router, "--template")
    check_refused(run(*argv, "--system", "x"), router, "--template")
    job.template = ""
    check_refused(run(*job.argv()), router, "template is empty")


@both_forms
def test_a_dry_run_shows_the_first_request(run, router, job, direct):
    shown = run(*job.argv("--dry-run", *direct))
    assert shown.exit_status == 0 and router.requests == []
    assert "say a: x" in (shown if direct else shown.stderr)
    assert job.names() == {"in.csv"}


def test_a_check_shows_the_first_request(run, job):
    shown = run("batches", "check", job.input, "--template", TEMPLATE,
                against=None)
    assert shown.exit_status == 0
    assert "First request:\n{\n" in shown
    assert '"content": "say a: x"' in shown and "Lines:             5" in shown


# == parts, and what goes on =================================================

def test_what_is_made_is_cut_into_parts(run, router, job):
    shown = run(*job.argv("--split", "--max-requests", "2"))
    assert shown.exit_status == 0, shown
    job.check()
    check_made_once(router, 3)


def test_over_a_limit_without_split_is_refused(run, router, job):
    check_refused(run(*job.argv("--max-requests", "4")), router, "--split")


def test_a_batch_that_fails_tells_rows(run, router, job):
    router.batch_plan()
    router.batch_plan(fail=[{"message": "No.", "line": 2}])
    shown = run(*job.argv("--split", "--max-requests", "3", "-o", "json"))
    assert json.loads(shown)["problems"] == ["row 5: No."]


OTHERS = {
    "template": lambda job: ["--template", TEMPLATE + "!"],
    "system": lambda job: ["--system", "x"],
    "model": lambda job: ["--model", "m"],
    "max_tokens": lambda job: ["--max-tokens", "9"],
    "temperature": lambda job: ["--temperature", "1"],
    "param": lambda job: ["--param", "seed=1"],
    "id": lambda job: ["--id-column", "name"],
    "row": lambda job: job.fill([HEAD] + ROWS[:4] + [["e", "=1+2"]]) or [],
    "head": lambda job: job.fill([["name", "text", ""]] + ROWS) or [],
}


@pytest.mark.parametrize("name", OTHERS)
@both_forms
def test_answers_to_two_prompts_never_mix(run, router, job, clock, name,
                                          direct):
    router.order(SAY, times=None, status=401)
    router.order("GET /batches/batch_1", times=None, status=401)
    assert run(*job.argv(*direct)).exit_status == 3
    router.orders.clear()
    before, count = job.read(job.state), len(posted(router))
    shown = run(*job.argv(*direct, *OTHERS[name](job)))
    assert shown.exit_status == 2 and "another run" in shown.stderr, shown
    assert job.read(job.state) == before and len(posted(router)) == count
    job.fill([HEAD] + ROWS)
    assert run(*job.argv(*direct)).exit_status == 0
    job.check()


class Lines(Job):
    """A run whose OUT has result lines."""

    ids = "abcde"

    def __init__(self, folder):
        super().__init__(folder)
        self.fill(self.ids)

    def failed_rows(self):
        return self.failed()

    def check(self):
        check_undisturbed(self)


KINDS = {"lines": Lines, "rows": Sheet}
ROW_IDS = {f"row-{number}": name for number, name in enumerate("abcde", 1)}
both_kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def either(request, tmp_path):
    return request.param(tmp_path)


@both_kinds
def test_a_run_may_be_killed_at_any_moment(forks, router, tmp_path, step,
                                           kind):
    for moment, job in kills(tmp_path, kind, 1, step):
        router.files.clear()
        router.batches.clear()
        plan_for_kills(router)
        if forks.run(router, job, *PARTS, moment=moment) == 0:
            break
        go_on(forks, router, job, PARTS, moment)
        job.check()
        check_made_once(router, 3)
    assert moment > 40


@both_kinds
def test_a_direct_run_may_be_killed_at_any_moment(forks, router, tmp_path,
                                                  step, kind):
    """Sent once more is what had no result yet, one line at the most."""
    for moment, job in kills(tmp_path, kind, 1, (step + 1) // 2):
        del router.requests[:], router.orders[:]
        router.order(SAY, when=lambda seen: b'"say c' in seen.body,
                     status=500)
        if forks.run(router, job, *ONE_BY_ONE, moment=moment) == 0:
            break
        finished = {ROW_IDS.get(each, each) for each in finished_lines(job)}
        go_on(forks, router, job, ONE_BY_ONE, moment)
        job.check()
        sent = [each[4] for each in prompts(router)]
        twice = {each for each in sent if sent.count(each) > 1 + (each == "c")}
        assert len(twice) <= 1 and not twice & finished, moment
        assert len(sent) <= 7, moment
    assert moment > 10


@sampled(1, 2, 4, 5, 12, 15)
@pytest.mark.parametrize("match", ["POST /files", "POST /batches",
                                   "GET /batches/batch_2", "GET /content"])
@pytest.mark.parametrize("acting", [False, True])
def test_a_run_may_be_killed_in_a_request(forks, router, either, match,
                                          acting):
    plan_for_kills(router)
    die_in_request(forks, router, either, match, *PARTS, after_acting=acting)
    if acting and match.startswith("POST"):
        until(lambda: (router.files if "files" in match
                       else router.batches))
    assert forks.run(router, either, *PARTS) == 0
    either.check()
    check_made_once(router, 3)


# == the same command on a finished run ======================================

AGAIN = "--retry-failed", "1"


def fail(router, names, times=1):
    """Have the lines, or rows, of such names fail in both forms."""
    router.batch_plan(fail_lines=dict.fromkeys(
        [each for pair in ROW_IDS.items() for each in pair
         if pair[1] in names], 500))
    for name in names:
        router.order(SAY, status=500, times=times, when=lambda seen, name=name:
                     f'"say {name}'.encode() in seen.body)


def finish(run, router, job, names, *words):
    """A run that has ended, but for some that failed."""
    fail(router, names)
    assert run(*job.argv(*words)).exit_status == 1
    assert job.failed_rows() == names
    del router.requests[:]
    router.batches.clear()
    router.files.clear()
    return {name: job.read(name) for name in job.names()}


@both_forms
def test_only_what_failed_is_sent_again(run, router, either, direct):
    finish(run, router, either, "bd", *direct)
    shown = run(*either.argv(*AGAIN, *direct, "-o", "json"))
    assert shown.exit_status == 0, shown
    assert [each[4] for each in sorted(prompts(router))] == ["b", "d"]
    summary = json.loads(shown)
    assert (summary["requests"], summary["done"], summary["failed"]) == (
        5, 5, 0)
    assert summary["tokens"] > 5 and summary["errors_file"] is None
    either.check()


@both_forms
def test_without_the_flag_it_says_how_many_failed(run, router, either,
                                                  direct):
    before = finish(run, router, either, "bd", *direct)
    for more in [], ["--retry-failed", "0"]:
        check_refused(run(*either.argv(*direct, *more)), router,
                      "2 of 5 requests failed", "--retry-failed N")
        assert {name: either.read(name) for name in either.names()} == before
    assert either.state in map(either.path, before)
    assert either.journal not in map(either.path, before)


@both_forms
def test_what_fails_again_stays_and_may_be_sent_again(run, router, either,
                                                      direct):
    finish(run, router, either, "bcd", *direct)
    fail(router, "bd")
    assert run(*either.argv(*AGAIN, *direct)).exit_status == 1
    assert either.failed_rows() == "bd"
    assert len(read_lines(either.errors)) == 2
    fail(router, "d")
    assert run(*either.argv("--retry-failed", "2", *direct)).exit_status == 0
    assert sorted(each[4] for each in prompts(router)) == list("bbcddd")
    either.check()


@both_forms
def test_force_sends_all_of_a_finished_run(run, router, either, direct):
    finish(run, router, either, "b", *direct)
    assert run(*either.argv("--force", *AGAIN, *direct)).exit_status == 0
    assert len(prompts(router)) == 5
    either.check()


def cut_out(name, start, stop):
    """Take some lines out of a file of a finished run."""
    def change(job):
        path = getattr(job, name)
        lines = job.read(path).splitlines(True)
        del lines[start:stop]
        job.write(b"".join(lines), path)
    return change


def twice(name):
    def change(job):
        path = getattr(job, name)
        data = job.read(path)
        job.write(data + data.splitlines(True)[-1], path)
    return change


def gone(name):
    return lambda job: os.unlink(getattr(job, name))


def also_done(job):
    """The line of b stands in OUT as well."""
    line = job.read().splitlines(True)[0]
    line = json.loads(line.decode())
    job.write(job.read() + as_lines([dict(line, custom_id="b")]), job.output)


WRONG = {
    "OUT gone": (gone("output"), ["cannot read", "out.jsonl"]),
    "ERR gone": (gone("errors"), ["cannot read", "errors.jsonl"]),
    "OUT lacks two": (cut_out("output", 0, 2), ["neither has a",
                                                "neither has c"]),
    "OUT empty": (cut_out("output", 0, 99), ["neither has a"]),
    "ERR lacks": (cut_out("errors", 0, 1), ["neither has b"]),
    "OUT twice": (twice("output"), ["custom_id 'e'"]),
    "ERR twice": (twice("errors"), ["custom_id 'd'"]),
    "both": (also_done, ["custom_id 'b'"]),
}
WRONG_ROWS = {
    "OUT gone": (gone("output"), ["cannot read", "out.csv"]),
    "ERR gone": (gone("errors"), ["cannot read", "errors.jsonl"]),
    "OUT lacks the last": (cut_out("output", -1, None), ["neither has row-5"]),
    "OUT lacks one": (cut_out("output", 1, 2), [
        "row 1 is not that of the input", "neither has row-1"]),
    "OUT empty": (cut_out("output", 0, 99), ["empty"]),
    "head": (cut_out("output", 0, 1), ["head"]),
    "ERR lacks": (cut_out("errors", 0, 1), ["neither has row-2"]),
    "OUT twice": (twice("output"), ["row 6 is not that of the input"]),
    "ERR twice": (twice("errors"), ["custom_id 'row-4'"]),
    "cell": (lambda job: job.write(job.read("out.csv").replace(
        b"a,x", b"a,y"), "out.csv"), ["row 1 is not that of the input"]),
    "error taken out": (lambda job: job.write(job.read("out.csv").replace(
        b"HTTP 500 Internal", b""), "out.csv") or os.unlink(job.errors),
        ["cannot read"]),
    "quote": (lambda job: job.write(job.read("out.csv") + b'"', "out.csv"),
              ["a quote is not closed"]),
}


@pytest.mark.parametrize("kind, wrong", [
    (Lines, each) for each in WRONG] + [(Sheet, each) for each in WRONG_ROWS])
def test_what_does_not_account_for_the_input_is_refused(run, router, tmp_path,
                                                        kind, wrong):
    change, words = (WRONG if kind is Lines else WRONG_ROWS)[wrong]
    job = kind(tmp_path)
    finish(run, router, job, "bd")
    change(job)
    before = {name: job.read(name) for name in job.names()}
    if words[0] != "cannot read":
        words = words + ["do not have each id", "--force"]
    check_refused(run(*job.argv(*AGAIN)), router, *words)
    assert {name: job.read(name) for name in job.names()} == before
    assert run(*job.argv("--force")).exit_status == 0
    job.check()


def test_an_error_that_was_taken_out_of_a_row_is_told(run, router, job):
    finish(run, router, job, "b")
    head, rows = job.rows()
    rows[1]["error"] = ""
    job.write(as_csv([head] + [list(row.values()) for row in rows]),
              "out.csv")
    check_refused(run(*job.argv(*AGAIN)), router,
                  "nobody waits for custom_id 'row-2'")


def test_the_order_of_lines_does_not_matter(run, router, tmp_path):
    job = Lines(tmp_path)
    finish(run, router, job, "bd")
    for path in job.output, job.errors:
        job.write(b"".join(job.read(path).splitlines(True)[::-1]), path)
    assert run(*job.argv(*AGAIN)).exit_status == 0
    job.check()


def test_what_nobody_asked_for_stays_in_the_errors(run, router, tmp_path):
    job = Lines(tmp_path)
    router.batch_plan(output=as_lines([good(each) for each in "abzce"])
                      + b"oops\n")
    assert run(*job.argv()).exit_status == 1
    kept = job.spare()
    assert len(kept) == 2 and job.failed() == "d"
    assert run(*job.argv(*AGAIN)).exit_status == 1
    assert (job.done(), job.spare()) == ("abcde", kept)
    assert run(*job.argv(*AGAIN)).exit_status == 1
    assert (job.done(), job.spare()) == ("abcde", kept)


@pytest.mark.parametrize("name", OTHERS)
def test_a_finished_run_is_of_its_own_prompts(run, router, job, name):
    before = finish(run, router, job, "b")
    shown = run(*job.argv(*AGAIN, *OTHERS[name](job)))
    check_refused(shown, router, "another run")
    job.fill([HEAD] + ROWS)
    assert {name: job.read(name) for name in job.names()} == before


@both_kinds
@pytest.mark.parametrize("words", [PARTS, ONE_BY_ONE])
def test_a_run_again_may_be_killed_at_any_moment(forks, run, router, tmp_path,
                                                 step, kind, words):
    """OUT is whole at each moment, the old one or the new one."""
    for moment, job in kills(tmp_path, kind, 1, (step + 1) // 2):
        router.orders.clear()
        del router.store.plans[:]
        finish(run, router, job, "bc", *words[:-2])
        if forks.run(router, job, *words, moment=moment) == 0:
            break
        had_ended = not os.path.exists(job.state)
        assert job.failed_rows() in ("", "bc"), moment
        assert forks.run(router, job, *words) == 2 * had_ended, moment
        job.check()
        sent = sorted(each[4] for each in prompts(router))
        assert sent in (["b", "c"], ["b", "b", "c"], ["b", "c", "c"]), moment
        assert len(sent) == 2 or words is ONE_BY_ONE, moment
    assert moment > 10


def test_a_run_again_that_was_stopped_goes_on_without_the_flag(run, router,
                                                               either):
    finish(run, router, either, "bd", "--direct")
    router.order(SAY, status=401, times=None)
    shown = run(*either.argv("--direct", *AGAIN))
    assert shown.exit_status == 3 and either.failed_rows() == "bd"
    router.orders.clear()
    assert run(*either.argv("--direct", *AGAIN)).exit_status == 0
    either.check()
