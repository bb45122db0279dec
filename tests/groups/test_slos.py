"""slos: what is promised, and how it was kept."""

import json
import re
from shlex import split

import pytest

from helpers import asked, check_call
from router import Router

NOW = 1770000000
GROUP = ("slos",)
FIRST = "00000001-0000-4000-8007-000000000001"
SECOND = "00000002-0000-4000-8007-000000000002"
THIRD = "00000003-0000-4000-8007-000000000003"
DEMO = "00000001-0000-4000-8009-000000000001"
LOW, HIGH = "less_than_or_equal", "greater_than_or_equal"
HEADS = ["ID", "NAME", "METRIC", "TARGET", "COMPLIANCE", "STATUS"]
KEPT_HEADS = ["NAME", "TARGET", "COMPLIANCE", "STATUS"]
CREATE = "--create --name n --metric availability --target 99.5"
NEW = CREATE.split()
SENT_NEW = {"name": "n", "metric": "availability", "target": 99.5,
            "comparison": HIGH, "window_days": 30}
BARS = re.compile("^compliance [▁▂▃▄▅▆▇█ ]+$", re.M)


def as_list(*rows):
    return json.dumps({"object": "list", "data": rows,
                       "has_more": False}).encode()


def ids(run, *words):
    return run("slos", *words, "-o", "id").split()


# == keeping objectives ======================================================

def test_an_objective_comes_and_goes(run, router):
    made = json.loads(run("slos", *NEW, "-o", "json"))
    assert made["id"] == THIRD
    assert ids(run) == [THIRD, SECOND, FIRST]
    changed = json.loads(run("slos", THIRD, "--update", "--target", "90",
                             "-o", "json"))
    assert (changed["name"], changed["target"]) == ("n", 90)
    assert ids(run, THIRD) == [THIRD]
    gone = run("slos", THIRD, "--delete", "--force")
    assert gone == f"deleted {THIRD}\n"
    assert ids(run) == [SECOND, FIRST]
    assert asked(router) == [
        "POST /slos", "GET /slos", f"PUT /slos/{THIRD}",
        f"GET /slos/{THIRD}", f"DELETE /slos/{THIRD}", "GET /slos"]


def test_a_list_is_as_the_page_says(golden):
    shown = golden("slos-list", "slos")
    assert shown.splitlines()[0].split() == HEADS


def test_a_record_is_as_the_page_says(golden):
    shown = golden("slos-show", "slos", FIRST)
    labels = {line.split(":")[0] for line in shown.splitlines()}
    assert set(HEADS) <= labels


SENT = [
    (CREATE, "POST /slos", SENT_NEW),
    (f"{CREATE} --comparison less_than_or_equal --window-days 90 --endpoint"
     f" {DEMO} --description d", "POST /slos",
     dict(SENT_NEW, comparison=LOW, window_days=90, endpoint_id=DEMO,
      description="d")),
    (f"{FIRST} --update --name m", f"PUT /slos/{FIRST}", {"name": "m"}),
    (f"{FIRST} --update --metric error_rate --target 0.01 --comparison"
     " less_than_or_equal --window-days 1 --description d",
     f"PUT /slos/{FIRST}",
     {"metric": "error_rate", "target": 0.01, "comparison": LOW,
      "window_days": 1, "description": "d"}),
]


@pytest.mark.parametrize("words, call, body", SENT)
def test_flags_are_sent_and_no_others(run, router, words, call, body):
    check_call(run(*GROUP, *split(words)), router, call, body)


@pytest.mark.parametrize("metric, comparison", [
    ("availability", HIGH), ("throughput", HIGH), ("tokens_per_second", HIGH),
    ("latency_p99", LOW), ("p95_latency", LOW), ("error_rate", LOW),
    ("errors", LOW)])
def test_the_comparison_is_that_of_the_metric(run, router, metric,
                                              comparison):
    run("slos", "--create", "--name", "n", "--target", "1", "--metric",
        metric)
    assert router.requests[0].json["comparison"] == comparison
    other = LOW if comparison == HIGH else HIGH
    run("slos", "--create", "--name", "n", "--target", "1", "--metric",
        metric, "--comparison", other)
    assert router.requests[1].json["comparison"] == other


@pytest.mark.parametrize("words, said", [
    (f"{CREATE} --target -1", "--target"),
    (f"{CREATE} --target 0", "--target"),
    (f"{FIRST} --update --target 0", "--target"),
    (f"{CREATE} --target nan", "--target"),
    (f"{CREATE} --target 99%", "--target"),
    (f"{CREATE} --window-days 0", "--window-days"),
    (f"{CREATE} --window-days 91", "--window-days"),
    (f"{CREATE} --window-days 1.5", "--window-days"),
    (f"{CREATE} --comparison less", "--comparison"),
    (f"{FIRST} --update", "nothing to update"),
])
def test_wrong_words_are_refused_before_anything_is_sent(refused, words,
                                                         said):
    assert said in refused(*split(words))


def test_what_the_server_refuses_is_told_with_its_field(run, router):
    shown = run("slos", *NEW, "--endpoint", FIRST)
    assert shown.exit_status in (1, 4) and shown == ""
    assert "endpoint" in shown.stderr


# == how they are kept =======================================================

def test_those_of_an_endpoint_come_with_those_of_the_project(run, router):
    run("slos", *NEW, "--endpoint", DEMO)
    other = "00000002-0000-4000-8009-000000000002"
    assert ids(run, "--endpoint", DEMO) == [THIRD, SECOND, FIRST]
    assert ids(run, "--endpoint", other, "--limit", "9") == [SECOND, FIRST]
    assert ids(run) == [THIRD, SECOND, FIRST]
    assert asked(router)[1:] == [
        f"GET /endpoints/{DEMO}/slos", f"GET /endpoints/{other}/slos?limit=9",
        "GET /slos"]
    assert run("slos", "--endpoint", "nowhere").exit_status == 4


def test_an_endpoint_may_be_given_by_its_slug(run, router):
    assert ids(run, "--endpoint", "demo") == [SECOND, FIRST]
    made = json.loads(run("slos", *NEW, "--endpoint", "demo", "-o", "json"))
    assert made["endpoint_id"] == DEMO
    assert asked(router) == [
        "GET /endpoints/demo", f"GET /endpoints/{DEMO}/slos",
        "GET /endpoints/demo", "POST /slos"]


def test_a_summary_tells_how_all_are_kept(run, router):
    whole, head, *rows = run("slos", "--summary").splitlines()
    assert whole == ("total: 2; met: 0; at risk: 1; breached: 1;"
                     " compliance: 94.2%")
    assert head.split() == [*KEPT_HEADS, "METRIC"]
    assert [row.split("  ")[0] for row in rows] == ["Slowest answers",
                                                   "Availability"]
    told = json.loads(run("slos", "--summary", "-o", "json"))
    assert told["object"] == "slo.summary" and told["at_risk"] == 1
    assert asked(router) == ["GET /slos/summary", "GET /slos?limit=100",
                             "GET /slos/summary"]


def test_a_summary_shows_the_objectives_that_it_has(run, router):
    router.order("GET /summary", body=json.dumps({
        "object": "slo.summary", "updated_at": NOW, "compliance": 0.9996,
        "compliance_percentage": 99.96, "objectives": [
            {"id": "slo_1", "target": 99.99, "compliance": 0.9996}]}).encode())
    assert run("slos", "--summary").splitlines() == [
        "updated at: 2026-02-02 02:40 UTC; compliance: 99.96%",
        "NAME  TARGET  COMPLIANCE  STATUS  METRIC",
        "-     99.99   99.96%      -       -"]
    assert asked(router) == ["GET /slos/summary"]


def test_a_wide_summary_has_the_ids(run):
    _, head, *rows = run("slos", "--summary", "-o", "wide").splitlines()
    assert head.split() == [*KEPT_HEADS, "METRIC", "ID"]
    assert [row.split()[-1] for row in rows] == [SECOND, FIRST]


def test_a_history_ends_in_a_line_of_it(router, golden):
    shown = golden("slos-history", "slos", FIRST, "--history")
    assert shown.splitlines()[0].split() == ["TIME", "COMPLIANCE", "VALUE"]
    assert BARS.findall(shown) == [shown.splitlines()[-1]]
    assert asked(router) == [f"GET /slos/{FIRST}/history"]


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "id"])
def test_the_line_is_for_people_alone(run, form):
    shown = run("slos", FIRST, "--history", "-o", form)
    assert not BARS.search(shown) and not re.search("[▁-█]", shown)
    assert len(shown.splitlines()) == 7 + (form == "csv") or form == "json"


def test_the_line_goes_from_old_to_new(run, router):
    rows = [{"compliance": share, "created_at": at}
            for share, at in [(1, 30), (0.5, 20), (0, 10)]]
    router.order("GET /history", body=as_list(*rows), times=2)
    assert BARS.findall(run("slos", FIRST, "--history")) == [
        "compliance ▁▄█"]


def test_no_history_has_no_line(run, router):
    router.order("GET /history", body=as_list())
    shown = run("slos", FIRST, "--history")
    assert shown == "" and shown.stderr == "No measurements found.\n"


def test_a_measurement_now_is_one_more_of_the_history(run):
    before = ids(run, FIRST, "--history")
    shown = run("slos", FIRST, "--calculate")
    assert re.search(r"^COMPLIANCE: +\d+\.\d%$", shown, re.M)
    after = ids(run, FIRST, "--history")
    assert after[1:] == before and len(after) == 8


@pytest.mark.parametrize("row, said", [
    ({"compliance": 0.9996}, "99.96%"), ({"compliance": 1}, "100.0%"),
    ({"compliance": 0.9996, "target": 99.99}, "99.96%"),
    ({"compliance": 0.9996, "target": 0.9999}, "99.96%"),
    ({"compliance": 0.5, "target": 99.999}, "50.000%"),
    ({"compliance": 0.99896, "target": 99.9}, "99.896%"),
    ({"compliance": 0.57, "target": 57}, "57.0%"),
    ({"compliance": 0.948, "target": 2500}, "94.8%"),
    ({"compliance": 0.9999999999, "target": 99}, "100.000000%"),
    ({"compliance": 0.5}, "50.0%"), ({"compliance": 0}, "0.0%"),
    ({"compliance_percentage": 99.5}, "99.5%"),
    ({"compliance": None, "compliance_percentage": 12}, "12.0%"),
    ({"compliance": None}, "-"), ({}, "-")])
def test_compliance_is_a_percentage(run, router, row, said):
    router.order("GET /slos", body=as_list(dict({"id": "x"}, **row)))
    target = str(row.get("target", "-"))
    assert run("slos").splitlines()[1].split() == [
        "x", "-", "-", target, said, "-"]


def test_raw_values_are_left_as_they_are(run):
    row = run("slos", "-o", "csv").splitlines()[2].split(",")
    assert row[3:] == ["99.9", "0.9478", "at_risk"]


# == the frontend ============================================================

@pytest.mark.parametrize("words, path", [
    ([], "/slos"), ([FIRST], f"/slos/{FIRST}"),
    (["--summary"], "/slos/summary"),
    (["--endpoint", DEMO], f"/endpoints/{DEMO}/slos")])
def test_a_frontend_url_is_where_objectives_are(run, router, words, path):
    with Router(clock=lambda: NOW) as frontend:
        shown = run("slos", *words, "--frontend-url", frontend.origin)
        assert shown.exit_status == 0
        assert asked(frontend)[:1] == [f"GET {path}"]
    assert router.requests == []
