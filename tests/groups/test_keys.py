"""keys: made, limited, rotated and revoked, and shown only once."""

import json
import re
from shlex import split

import pytest

from helpers import asked, check_call


NOW = 1770000000
GROUP = ("keys",)
KEYS = "/management/api-keys"
HEADS = ["ID", "NAME", "PREFIX", "SCOPES", "ACTIVE", "LAST_USED", "EXPIRES"]
CREATE = "--create --name n --scopes inference"
VALUE = r"xero_demo_[0-9a-f]{32}"


@pytest.fixture
def key(router):
    """The id of a key that may only infer, beside the one in use."""
    router.add_key("xero_demo_small", "inference")
    return list(router.store.keys.records)[-1]


def works(run, value):
    """The exit status of a call with a key."""
    return run("workspaces", "-q", "--api-key", value).exit_status


# == keeping keys ============================================================

def test_a_key_comes_works_and_goes(run, router):
    made = json.loads(run("keys", "--create", "--name", "ci", "--scopes",
                          "inference", "-o", "json"))
    value, key_id = made["key"], made["id"]
    assert works(run, value) == 0
    assert run("keys", "-o", "id") == f"key_1\n{key_id}\n"
    assert run("keys", key_id, "-o", "id") == f"{key_id}\n"
    gone = run("keys", key_id, "--delete", "--force")
    assert gone == f"deleted {key_id}\n"
    assert works(run, value) == 3
    listed = json.loads(run("keys", "-o", "json"))["data"]
    assert [each["active"] for each in listed] == [True, False]
    assert [each for each in asked(router) if KEYS in each] == [
        f"POST {KEYS}", f"GET {KEYS}", f"GET {KEYS}/{key_id}",
        f"DELETE {KEYS}/{key_id}", f"GET {KEYS}"]


def test_a_list_is_as_the_page_says(run, key, golden):
    run("keys", "create", "--name", "nightly batches", "--scopes",
        "inference,research", "--expires", "30d")
    run("keys", "revoke", key, "--force")
    shown = golden("keys-list", "keys")
    assert shown.splitlines()[0].split() == HEADS


def test_a_record_is_as_the_page_says(golden):
    shown = golden("keys-show", "keys", "key_1")
    labels = [line.split(":")[0] for line in shown.splitlines()]
    assert labels[:7] == HEADS


def test_a_new_key_is_shown_as_a_person_needs_it(golden):
    shown = golden("keys-create", "keys", "--create", "--name", "ci",
                   "--scopes", "inference")
    assert re.search(rf"^key: +{VALUE}$", shown, re.M)


SENT = [
    ("--create --name n --scopes 'inference,management, execution ,research'",
     f"POST {KEYS}",
     {"name": "n", "scopes": ["inference", "management", "execution",
                              "research"]}),
    ("create --name=-n --scopes inference --endpoint"
     " 00000001-0000-4000-8009-000000000001", f"POST {KEYS}",
     {"name": "-n", "scopes": ["inference"],
      "endpoint_id": "00000001-0000-4000-8009-000000000001"}),
    (f"{CREATE} --expires 30d", f"POST {KEYS}",
     {"name": "n", "scopes": ["inference"],
      "expires_at": "2026-03-04T02:40:00Z"}),
    (f"{CREATE} --expires 12h", f"POST {KEYS}",
     {"name": "n", "scopes": ["inference"],
      "expires_at": "2026-02-02T14:40:00Z"}),
    (f"{CREATE} --expires 2026-12-01T00:00:00+02:00", f"POST {KEYS}",
     {"name": "n", "scopes": ["inference"],
      "expires_at": "2026-12-01T00:00:00+02:00"}),
    (f"{CREATE} --expires 2026-12-01", f"POST {KEYS}",
     {"name": "n", "scopes": ["inference"], "expires_at": "2026-12-01"}),
    ("key_1 --ip-filter --allow 127.0.0.0/8 10.1.2.3/32 --block fe80::/10"
     " --force", f"PUT {KEYS}/key_1/ip-filter",
     {"allow": ["127.0.0.0/8", "10.1.2.3/32"], "block": ["fe80::/10"]}),
    ("ip-filter key_1 --allow 127.0.0.1 --allow 10.0.0.0/8 -y",
     f"PUT {KEYS}/key_1/ip-filter",
     {"allow": ["127.0.0.1/32", "10.0.0.0/8"], "block": []}),
    ("key_1 --ip-filter --clear --force", f"PUT {KEYS}/key_1/ip-filter",
     {"allow": [], "block": []}),
    ("key_1 --quota --clear", f"PUT {KEYS}/key_1/quota",
     {"requests": None, "window_seconds": None}),
    ("--create --name n --scope inference", f"POST {KEYS}",
     {"name": "n", "scopes": ["inference"]}),
    ("key_1 --ip-filter --block 10.1.2.3/24 --force",
     f"PUT {KEYS}/key_1/ip-filter", {"allow": [], "block": ["10.1.2.0/24"]}),
    ("key_1 --quota --quota-requests 50 --quota-window 60",
     f"PUT {KEYS}/key_1/quota", {"requests": 50, "window_seconds": 60}),
    ("quota key_1 --quota-window 1 --quota-requests 9",
     f"PUT {KEYS}/key_1/quota", {"requests": 9, "window_seconds": 1}),
]


@pytest.mark.parametrize("words, call, body", SENT)
def test_flags_are_sent_by_flag_and_by_word(run, router, words, call, body):
    check_call(run(*GROUP, *split(words)), router, call, body)


@pytest.mark.parametrize("words, said", [
    ("create --name n --scopes inferenc", "did you mean inference?"),
    ("create --name n --scopes inference,,research", "--scopes"),
    ("create --name n --scopes ''", "--scopes"),
    (f"{CREATE} --expires 2026-12-01T00:00:00",
     "zone"),
    (f"{CREATE} --expires soon", "'soon'"),
    (f"{CREATE} --expires 30x", "'30x'"),
    ("key_1 --ip-filter --allow 10.0.0.0/33", "CIDR"),
    ("key_1 --ip-filter --block 10.0.0", "CIDR"),
    ("ip-filter key_1 --block example.com", "CIDR"),
    ("key_1 --ip-filter", "--allow"),
    ("key_1 --ip-filter --clear --block ::/0", "--clear"),
    ("key_1 --ip-filter --clear", "IP filter of key key_1?"),
    ("key_1 --quota", "--quota-window"),
    ("key_1 --quota --clear --quota-window 5 --quota-requests 1", "--clear"),
    ("key_1 --quota --quota-requests 0 --quota-window 1", "--quota-requests"),
    ("revok key_1", "did you mean revoke?"),
])
def test_wrong_words_are_refused_before_anything_is_sent(refused, words,
                                                         said):
    assert said in refused(*split(words))


# == the value ===============================================================

@pytest.mark.parametrize("line", [CREATE, "key_1 --rotate --force"])
def test_the_value_is_shown_once_and_alone(run, line):
    shown = run("keys", *line.split(), "-o", "id", "-vv")
    assert re.match(VALUE + r"\n\Z", shown)
    assert shown.strip() not in shown.stderr
    assert "warning: keep the key: it is not shown again" in shown.stderr
    for later in (), ("-o", "json"), ("-o", "csv"), ("-vv",):
        listed = run("keys", *later, "--api-key", shown.strip()
                     if "rotate" in line else "xero_demo_small")
        assert shown.strip() not in listed + listed.stderr


def test_under_json_the_answer_is_whole(run):
    shown = run("keys", *CREATE.split(), "-o", "json")
    made = json.loads(shown)
    assert re.match(VALUE, made["key"]) and made["quota"] is None
    assert made["key"] not in shown.stderr


def test_an_answer_that_came_twice_is_not_made_twice(run, router):
    router.order(f"POST {KEYS}", drop="after", after_acting=True)
    shown = run("keys", *CREATE.split())
    assert shown.exit_status == 5 and len(router.requests) == 1


def test_a_rotated_key_works_for_a_day_more(run, router):
    now = [NOW]
    router.store.clock = lambda: now[0]
    shown = run("keys", "rotate", "key_1", "--force", "-o", "id")
    assert "24 hours" in shown.stderr
    assert works(run, router.key) == works(run, shown.strip()) == 0
    now[0] += 86401
    assert works(run, router.key) == 3
    assert works(run, shown.strip()) == 0


def test_a_dry_run_of_a_rotation_promises_nothing(run):
    shown = run("keys", "rotate", "key_1", "--dry-run")
    assert shown.exit_status == 0 and shown.stderr == ""


def test_a_revoked_key_is_not_rotated(run, key):
    run("keys", "revoke", key, "--force")
    shown = run("keys", "rotate", key, "--force", "-o", "id")
    assert shown == "" and shown.exit_status == 1
    assert "HTTP 409" in shown.stderr and "24 hours" not in shown.stderr


# == limits ==================================================================

def test_a_filter_keeps_callers_out(run, router, key):
    assert works(run, "xero_demo_small") == 0
    assert run("keys", key, "--ip-filter", "--block",
               "127.0.0.0/8", "--force").exit_status == 0
    shown = run("workspaces", "--api-key", "xero_demo_small")
    assert shown.exit_status == 3 and "ip_not_allowed" in shown.stderr
    assert run("keys", key, "--ip-filter", "--allow",
               "127.0.0.1/32", "--force").exit_status == 0
    assert works(run, "xero_demo_small") == 0


def test_limits_are_lifted(run, key):
    run("keys", key, "--ip-filter", "--block", "127.0.0.0/8", "--force")
    run("keys", key, "--quota", "--quota-requests", "1", "--quota-window",
        "3600")
    assert works(run, "xero_demo_small") == 3
    assert run("keys", key, "--ip-filter", "--clear", "-y").exit_status == 0
    assert [works(run, "xero_demo_small") for _ in range(2)] == [0, 6]
    assert run("keys", key, "--quota", "--clear").exit_status == 0
    assert works(run, "xero_demo_small") == 0


# == a key for one endpoint ==================================================

def test_an_endpoint_is_looked_up_by_its_slug(run, router):
    made = json.loads(run("keys", *CREATE.split(), "--endpoint", "demo", "-o",
                          "json"))
    assert made["endpoint_id"] == "00000001-0000-4000-8009-000000000001"
    assert asked(router) == ["GET /endpoints/demo", f"POST {KEYS}"]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_key_for_an_endpoint_that_is_not_there_is_not_made(run, router,
                                                             more):
    shown = run("keys", *CREATE.split(), "--endpoint", "demmo", *more)
    assert (shown, shown.exit_status) == ("", 4)
    assert "'demmo'" in shown.stderr and "did you mean demo?" in shown.stderr
    assert router.seen("POST", "*") == []


def test_curl_shows_the_look_up_too(run, router):
    shown = run("keys", *CREATE.split(), "--endpoint", "demo", "--curl")
    assert "/endpoints/demo" in shown and "<id of demo>" in shown
    assert router.requests == []
