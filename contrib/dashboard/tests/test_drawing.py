"""Charts as SVG and values as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from protojobs.clock import cpu_s
from protojobs.port.observing import DepthSample
from protojobs_dashboard import text
from protojobs_dashboard.charts import Chart, Layer, bars, lines
from protojobs_dashboard.pages.drawn import depths

NOW = datetime(2026, 11, 27, 18, 0, tzinfo=UTC)


def chart(*layers: Layer, stacked: bool = False) -> Chart:
    count = len(layers[0].values)
    labels = tuple(f"18:{minute:02}" for minute in range(count))
    return Chart(id="c", title="T", labels=labels, layers=layers, say=text.compact, is_stacked=stacked)


def layer(name: str, *values: float | None) -> Layer:
    return Layer(name=name, css=f"x-{name}", values=values)


def test_bars_are_stacked_and_each_has_its_words(read):
    drawn = read(bars(chart(layer("ok", 3, None), layer("bad", 1, 0), stacked=True)))
    assert [found["class"] for found in drawn.all("rect")] == ["hit", "x-ok", "x-bad", "hit"]
    ok, bad = drawn.all("rect")[1:3]
    assert float(ok["height"]) + float(bad["height"]) == pytest.approx(160)
    assert float(bad["y"]) == 0 and float(ok["y"]) == pytest.approx(40)
    assert drawn.text == "18:00: ok 3, bad 118:01: nothing"
    assert drawn.all("svg")[0]["aria-labelledby"] == "c-title"


def test_lines_break_where_there_is_no_value(read):
    drawn = read(lines(chart(layer("p50", 1, None, 2, 4))))
    path = drawn.all("path")[0]["d"]
    assert path.count("M") == 2 and path.count("L") == 1
    assert len(drawn.all("rect", **{"class": "hit"})) == 4


@pytest.mark.parametrize("stacked", [True, False])
def test_a_chart_of_nothing_is_empty_and_divides_by_nothing(stacked):
    nothing = chart(layer("ok", None, 0), stacked=stacked)
    assert nothing.is_empty and nothing.top == 1
    assert nothing.__html__()
    assert Chart(id="c", title="", labels=(), layers=(), say=text.compact).is_empty


def test_the_longest_queues_have_lines_of_their_own_and_the_rest_one_together():
    samples = [
        DepthSample(at=NOW + timedelta(minutes=minute), queue=f"q{number}", ready=number, scheduled=0, processing=0)
        for minute in range(2)
        for number in range(20)
    ]
    drawn = depths(samples)
    assert [one.name for one in drawn.layers] == [*[f"q{number}" for number in range(19, 12, -1)], "all others"]
    assert drawn.layers[-1].values == (sum(range(13)), sum(range(13)))
    assert len({one.css for one in drawn.layers}) == 8


@pytest.mark.parametrize(
    ("value", "words"),
    [
        *((None, "–"), (0.0, "0 ms"), (0.0123, "12 ms"), (3.44, "3.4 s"), (42.0, "42 s"), (320.0, "5 min 20 s")),
        *((3600.0, "1 h"), (183_600.0, "2 d 3 h"), (-5.0, "−5.0 s"), (2.0**63, "106751991167300 d 15 h")),
    ],
)
def test_durations_are_told_in_two_units(value, words):
    assert text.seconds(value) == words


def test_counts_say_whether_they_are_exact():
    assert [text.counted(number, True) for number in (5, 10_000, 10_001, 250_000)] == [
        *("5", "10,000+", "10,000+", "≈ 250,000")
    ]
    assert text.counted(250_000, False) == "250,000"
    assert text.compact(1_000, is_capped=True) == "1,000+"


def test_times_are_told_in_utc_with_their_age():
    moment = NOW - timedelta(minutes=3)
    assert text.age(moment, NOW) == (
        '<time datetime="2026-11-27T17:57:00Z" title="2026-11-27 17:57:00 UTC">3 min ago</time>'
    )
    assert "2026-11-27 17:57:00 UTC</time>" in text.when(moment, NOW) and "(3 min ago)" in text.when(moment, NOW)
    assert ">in 2 h<" in text.age(NOW + timedelta(hours=2), NOW) and ">now<" in text.age(NOW, NOW)
    assert text.age(None, NOW) == "–"


def test_json_is_laid_out_without_being_changed():
    stored = '{"a":[1,2,{}],"big":123456789012345678901234567890,"a":1e999,"t":"x\\"{,"}'
    shown = text.laid_out(stored)
    assert shown.splitlines()[:3] == ["{", '  "a": [', "    1,"]
    assert "".join(shown.split()) == "".join(stored.split())
    for broken in ("", "{", '"open', "]]]", "[" * 60_000, "nonsense"):
        assert "".join(text.laid_out(broken).split()) == broken
    assert text.laid_out("[" * 5_000).count("\n") <= text.JSON_LINES_MAX
    assert "more characters" in text.laid_out("1" * 100_000)


def test_a_string_that_is_cut_off_is_laid_out_as_fast_as_a_whole_one():
    cut = '{"html":"' + '\\"' * 30_000
    began = cpu_s()
    assert "".join(text.laid_out(cut).split()) == cut
    assert cpu_s() - began < 2, "it was a quarter of a minute"
    assert text.laid_out('["a, {b') == '[\n  "a, {b'


def test_what_hides_or_reorders_is_spelled_out():
    assert text.visible("a\u202eb\x00\ud800\U000e0041") == "a\\u202eb\\u0000\\ud800\\U000e0041"
    assert text.visible("שלום 👩‍💻\n\tnaïve") == "שלום 👩‍💻\n\tnaïve"
    assert text.editable('"\u202e\U000e0041<"') == "&#34;\\u202e\\udb40\\udc41&lt;&#34;"
    assert text.exact("\u202e\udc80\"'") == "\u202e\ufffd&#34;&#39;"
