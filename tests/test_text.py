"""Floor 3: pure value to string."""

import pytest

import xeroctl
from xeroctl import StandIn, UsageError

NOW = 1770000000
CONTROLS = "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize("path, value", [
    ("id", "a"), ("usage.cached", 4), ("choices.0.text", "hi"),
    ("choices.1.text", None), ("choices.text", None), ("usage.0", None),
    ("choices.²", None), ("choices.-1", None),
    ("id.length", None), ("nothing", None), ("nothing.at.all", None)])
def test_a_dotted_path_leads_to_a_value_or_to_none(path, value):
    record = {"id": "a", "usage": {"cached": 4}, "choices": [{"text": "hi"}]}
    assert xeroctl.dig(record, path) == value


@pytest.mark.parametrize("nothing", [None, 3, "text", True, [], {}])
def test_a_path_through_what_is_no_object_leads_nowhere(nothing):
    assert xeroctl.dig(nothing, "a.b") is None


def test_planting_makes_the_parents_that_are_missing():
    tree = {"a": {"x": 1}}
    for path, value in (("a.b", 2), ("c", 3), ("d.e.f", 4)):
        xeroctl.plant(tree, path, value)
    assert tree == {"a": {"x": 1, "b": 2}, "c": 3, "d": {"e": {"f": 4}}}


def test_controls_are_shown_as_escapes():
    escapes = [f"\\x{ord(c):02x}" for c in CONTROLS]
    escapes += [f"\\u{ord(c):04x}" for c in OVERRIDES]
    assert xeroctl.visible(CONTROLS + OVERRIDES) == "".join(escapes)


@pytest.mark.parametrize("text", [
    "", "a\n\tb", "\\x1b", " \u00a0", "\u0301", "日本語 👍🏽", "\u2028"])
def test_text_without_controls_stays_as_it_is(text):
    assert xeroctl.visible(text) == text


@pytest.mark.parametrize("value, is_positive", [
    (1, True), (0.1, True), (0, False), (-1, False), (True, False),
    ("1", False), (None, False)])
def test_only_a_number_can_be_positive(value, is_positive):
    assert xeroctl.is_positive(value) is is_positive


@pytest.mark.parametrize("header, seconds", [
    ("3", 3), (" 2.5 ", 2.5), ("0", 0), ("", 0), ("soon", 0), ("-3", 0),
    ("Mon, 02 Feb 2026 02:40:30 GMT", 30),
    ("Mon, 02 Feb 2026 02:39:00 GMT", 0)])
def test_a_time_to_wait_is_seconds_or_a_date(header, seconds):
    assert xeroctl.header_seconds(header, NOW) == seconds


def test_one_line_shows_line_ends_and_tabs():
    assert xeroctl.one_line("a\n\tb\n") == "a\\n\\tb\\n"


@pytest.mark.parametrize("text, carried", [
    ("日本語", "日本語"),
    ("caf\udcc3\udca9", "café"),
    ("\udcff", "\ufffd"),
    ("a\udcffb\udcc3\udca9", "a\ufffdbé"),
    ("a\ud800b", "a\ufffdb"),
    ("\ud800é\udcff", "\ufffdé\ufffd")])
def test_whole_text_is_text_that_utf8_can_carry(text, carried):
    assert xeroctl.whole(text) == carried


@pytest.mark.parametrize("raw, text", [
    (b"", ""),
    (b"a\r\nb", "a\r\nb"),
    (b"\xef\xbb\xbfa", "a"),
    ("é".encode("utf-16"), "é"),
    (b"\xff\xfe\xe9\x00", "é"),
    (b"\xfe\xff\x00\xe9", "é"),
    (b"caf\xe9", "caf\ufffd")])
def test_bytes_are_decoded_as_their_byte_order_mark_says(raw, text):
    assert xeroctl.decoded(raw) == text


def test_compact_json_has_no_space_and_no_escape():
    value = {"b": [1, 0.1], "a": "é\u2028", "c": {}, "n": None}
    assert xeroctl.compact_json(value) == (
        '{"b":[1,0.1],"a":"é\u2028","c":{},"n":null}')


def test_pretty_json_is_indented_by_two_and_not_escaped():
    assert xeroctl.pretty_json({"b": ["é"], "a": 1}) == (
        '{\n  "b": [\n    "é"\n  ],\n  "a": 1\n}')


@pytest.mark.parametrize("text, value", [
    (" [1, 2.5] \n", [1, 2.5]), ("null", None), ('"\\ud800"', "\ud800"),
    ("123456789012345678901234567890", 123456789012345678901234567890)])
def test_json_is_decoded(text, value):
    assert xeroctl.parse_json(text) == value


@pytest.mark.parametrize("text", [
    "", "{", "{} {}", "'a'", "[1,]", "NaN", "[Infinity]", "-Infinity",
    "[" * 100000, '{"a":' * 100000])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        xeroctl.parse_json(text)


@pytest.mark.parametrize("form, seconds", [
    (0, 0), (1779890580, 1779890580), (1779890580.25, 1779890580.25),
    ("2026-05-27T14:03:00Z", 1779890580),
    ("2026-05-27t14:03:00z", 1779890580),
    ("2026-05-27 14:03", 1779890580),
    (" 2026-05-27T14:03:00 ", 1779890580),
    ("2026-05-27T14:03:00.123456Z", 1779890580),
    ("2026-05-27T16:03:00+02:00", 1779890580),
    ("2026-05-27T08:33:00-0530", 1779890580),
    ("2026-05-28T00:33:00+10:30", 1779890580),
    ("2026-05-27 16:03:00+02", 1779890580),
    ("2026-05-27", 1779840000),
    ("2024-02-29T00:00:00Z", 1709164800)])
def test_a_time_is_read_in_any_form(form, seconds):
    assert xeroctl.seconds_of(form) == seconds


NO_TIMES = [None, True, "", "soon", "2026", "2026-13-01", "2026-05-27T",
            "2026-05-27 and more", [], {}]


@pytest.mark.parametrize("value", NO_TIMES)
def test_what_is_no_time_has_no_seconds(value):
    assert xeroctl.seconds_of(value) is None


@pytest.mark.parametrize("value, text", [
    (None, "-"), (True, "yes"), (False, "no"), ("", ""), ("a", "a"),
    (0, "0"), (12345678901234567890, "12345678901234567890"), (0.1, "0.1"),
    (["é", 1], '["é",1]'), ({"b": 1, "a": None}, '{"b":1,"a":null}')])
def test_any_json_value_is_text_in_a_cell(value, text):
    assert xeroctl.as_text(value) == text


@pytest.mark.parametrize("value, text", [
    (1779890580, "2026-05-27 14:03 UTC"),
    (1779890639.9, "2026-05-27 14:03 UTC"),
    ("2026-05-27T16:03:59+02:00", "2026-05-27 14:03 UTC"),
    (0, "1970-01-01 00:00 UTC"),
    (10 ** 30, "1000000000000000000000000000000")])
def test_a_time_is_shown_in_utc(value, text):
    assert xeroctl.as_time(value) == text


@pytest.mark.parametrize("value", NO_TIMES)
def test_what_is_no_time_is_shown_as_it_is(value):
    as_it_is = xeroctl.as_text(value)
    assert xeroctl.as_time(value) == as_it_is
    assert xeroctl.as_age(value, NOW) == as_it_is


@pytest.mark.parametrize("seconds, text", [
    (-5, "0s ago"), (0, "0s ago"), (59, "59s ago"), (60, "1m ago"),
    (3599, "59m ago"), (3600, "1h ago"), (86399, "23h ago"),
    (86400, "1d ago"), (864000, "10d ago"), (90.9, "1m ago"),
    (59.9, "59s ago"), (-59, "0s ago"), (-60, "in 1m"), (-259200, "in 3d")])
def test_an_age_is_told_in_its_greatest_unit(seconds, text):
    assert xeroctl.as_age(NOW - seconds, NOW) == text


def test_an_age_is_told_of_any_form_of_time():
    assert xeroctl.as_age("2026-02-02T00:40:00Z", NOW) == "2h ago"


@pytest.mark.parametrize("count, text", [
    (0, "0 B"), (512, "512 B"), (999, "999 B"), (1000, "1.0 KB"),
    (1049, "1.0 KB"), (1050, "1.1 KB"), (999949, "999.9 KB"),
    (999950, "1.0 MB"), (4200000000, "4.2 GB"), (999950000000, "1.0 TB"),
    (10 ** 15, "1000.0 TB"), (1500.0, "1.5 KB"),
    (None, "-"), (True, "yes"), ("4 GB", "4 GB")])
def test_a_size_is_told_in_the_unit_a_person_would_pick(count, text):
    assert xeroctl.as_size(count) == text


@pytest.mark.parametrize("count, text", [
    (0, "0 models"), (1, "1 model"), (2, "2 models")])
def test_one_is_no_many(count, text):
    assert xeroctl.as_many(count, "model") == text


@pytest.mark.parametrize("seconds, text", [
    (0, "0.0 s"), (0.57, "0.6 s"), (9.94, "9.9 s"), (10, "10 s"),
    (12.4, "12 s"), (300, "5m 0s")])
def test_a_duration_is_told_as_people_say_it(seconds, text):
    assert xeroctl.as_duration(seconds) == text


@pytest.mark.parametrize("text, cells", [
    ("", 0), ("abc", 3), ("é", 1), ("e\u0301", 1), ("日本", 4), ("ｆｗ", 4),
    ("ﾊﾟ", 2), ("한국", 4), ("👍", 2), ("a\u200bb", 2), ("x\u20dd", 1),
    ("…", 1), ("\u202e", 0), ("❤", 1), ("❤\ufe0f", 2), ("a\ufe0f", 1),
    ("1\ufe0f\u20e3", 2), ("👍🏽", 2), ("☝🏽", 2), ("🇩🇪", 2), ("🇩🇪🇫", 3),
    ("👩\u200d💻x", 3), ("👩🏽\u200d❤\ufe0f\u200d👩🏽", 2), ("क\u200dष", 2),
    ("🏴\U000e0067\U000e0062\U000e007f", 2), ("🥰🫠", 4),
    ("\u1112\u1161\u11ab", 2)])
def test_a_width_is_counted_in_terminal_cells(text, cells):
    assert xeroctl.display_width(text) == cells


@pytest.mark.parametrize("text, filled", [
    ("ab", "ab  "), ("日", "日  "), ("e\u0301", "e\u0301   "),
    ("too long", "too long")])
def test_padding_fills_up_to_a_width(text, filled):
    assert xeroctl.padded(text, 4) == filled


@pytest.mark.parametrize("text, width, kept", [
    ("abcd", 4, "abcd"), ("abcde", 4, "abc…"), ("日本", 4, "日本"),
    ("日本語", 4, "日…"), ("日本語", 5, "日本…"), ("ab", 1, "…"),
    ("e\u0301e\u0301e\u0301", 2, "e\u0301…"), ("", 0, ""),
    ("🇩🇪🇫🇷", 3, "🇩🇪…"), ("🇩🇪🇫🇷", 2, "…"), ("👍🏽👍🏽", 3, "👍🏽…"),
    ("👩\u200d💻ab", 3, "👩\u200d💻…"), ("❤\ufe0fab", 3, "❤\ufe0f…")])
def test_a_cut_text_ends_with_an_ellipsis(text, width, kept):
    assert xeroctl.cut_to(text, width) == kept


def test_the_nearest_words_come_best_first():
    words = ["delete", "deleted", "create", "list"]
    assert xeroctl.nearest("delet", words) == ["delete", "deleted"]
    assert xeroctl.did_you_mean("delet", words) == "did you mean delete?"
    assert xeroctl.did_you_mean("xyz", words) is None


@pytest.mark.parametrize("key, shown", [
    ("xero_demo_8d1f6c0b72e94a35", "xero_demo_…"),
    ("xero_acme-prod_secret", "xero_acme-prod_…"),
    ("xero_demo_", "…"), ("xero_8d1f6c0b72e94a35", "…"),
    ("sk-proj-8d1f6c0b", "…"), ("my_xero_demo_8d1f", "…"), ("", "…")])
def test_of_a_key_only_the_slug_is_shown(key, shown):
    assert xeroctl.redacted_key(key) == shown


@pytest.mark.parametrize("page, said", [
    ("<html><title>502 Bad\n Gateway</title><h1>x</h1>",
     'an HTML page ("502 Bad Gateway")'),
    ("<HTML><H1 class=x>Down</H1>", 'an HTML page ("Down")'),
    ("<html><title> </title>", "an HTML page"),
    ("<html><p>nothing", "an HTML page"),
    (f"<html><title>{'a' * 300}</title>", f'an HTML page ("{"a" * 100}")')])
def test_a_page_is_summed_up_by_its_title(page, said):
    assert xeroctl.html_summary(page) == said
    assert xeroctl.body_summary(page) == said


@pytest.mark.parametrize("text, is_page", [
    ("<html>", True), (" \n<!DOCTYPE html>", True), ("<HTML lang=en>", True),
    ('{"a":"<html>"}', False), ("<xml>", False), ("", False)])
def test_a_page_is_known_by_its_beginning(text, is_page):
    assert xeroctl.is_html(text) == is_page


def test_another_body_is_summed_up_by_its_beginning():
    assert xeroctl.body_summary(" no\n\tsuch  \x1b[2Jthing ") == (
        "no such \\x1b[2Jthing")
    assert xeroctl.body_summary("é" * 1000) == "é" * 300


@pytest.mark.parametrize("name, segment", [
    ("conv_1", "conv_1"), ("a-b.c_d", "a-b.c_d"), ("a b", "a%20b"),
    ("meta/llama", "meta%2Fllama"), ("50%", "50%25"), ("?#&", "%3F%23%26"),
    ("é", "%C3%A9"), ("caf\udcc3\udca9", "caf%C3%A9"), ("...", "...")])
def test_a_name_in_a_path_is_percent_encoded(name, segment):
    assert xeroctl.quoted(name) == segment


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_no_id_is_empty_or_climbs_the_path(name):
    with pytest.raises(UsageError):
        xeroctl.path_of("models", name)


def test_a_path_is_made_of_encoded_segments():
    assert xeroctl.path_of() == ""
    assert xeroctl.path_of("models", "a/b", "share") == "/models/a%2Fb/share"


def test_a_stand_in_is_shown_as_it_is():
    assert xeroctl.path_of("chats", StandIn("<chat id>")) == (
        "/chats/<chat id>")
