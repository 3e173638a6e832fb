"""The page in a real browser: inert, complete, and quick with many records."""

from __future__ import annotations

import dataclasses

import pytest

from tests.browser import CHROMIUM, browser
from tests.page.test_page import HOSTILE, hostile, results
from tests.results import made
from textadv.page import build_page
from textadv.results import Results

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def fresh(tab):
    """The tab with nothing noted yet."""
    for notes in (tab.requests, tab.problems, tab.scripts):
        notes.clear()
    tab.size(1200, 900)
    tab.media()
    return tab


def write(folder, *runs):
    file = folder / "report.html"
    file.write_text(build_page(runs), encoding="utf-8")
    return file


def count(tab, selector):
    return tab.run(f"document.querySelectorAll({selector!r}).length")


def test_hostile_texts_run_nothing_and_ask_for_nothing(fresh, tmp_path):
    file = write(tmp_path, hostile(), results())
    fresh.open(file)
    assert fresh.run("document.documentElement.dataset.ready") == "yes"
    assert count(fresh, ".example") == 20
    fresh.run("for (const one of document.querySelectorAll('select')) "
              "{ one.selectedIndex = 0; one.dispatchEvent(new Event('change')); }")  # fmt: skip
    assert fresh.scripts == []
    assert fresh.problems == []
    assert set(fresh.requests) == {file.resolve().as_uri()}
    shown = fresh.run("document.querySelector('.example .text').textContent")
    assert "<script>alert(1)</script>" in shown
    assert "U+202E" in shown
    assert "U+200B" in shown
    assert "\u202e" not in shown
    assert fresh.run("document.querySelector('.example .mark').title").startswith("U+")
    assert HOSTILE[:8] in fresh.run("document.querySelector('h1').textContent")


def test_the_policy_stops_what_escaping_might_miss(fresh, tmp_path):
    page = build_page([results()])
    bad = '<img src="https://example.org/x.png"><script>alert(3)</script>'
    bad += '<b onclick="alert(4)" id="b">b</b><p id="p" style="color: red">p</p>'
    file = tmp_path / "report.html"
    file.write_text(page.replace("<main>", "<main>" + bad), encoding="utf-8")
    fresh.open(file)
    fresh.run("document.getElementById('b').click()")
    assert fresh.scripts == []
    assert fresh.run("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
    assert len([text for text in fresh.problems if "Content Security Policy" in text]) >= 3


def test_searching_filtering_and_paging(fresh, tmp_path):
    one = results()
    fresh.open(write(tmp_path, one))
    flipped = [record for record in one.records if record.status == "flipped"]
    assert fresh.run("document.getElementById('count').textContent") == f"{len(flipped)} records"
    first = fresh.run("document.querySelector('.example').textContent")
    assert "✗ flipped" in first
    assert "−" not in first  # the sign is the style sheet's, not the text's
    assert fresh.run("getComputedStyle(document.querySelector('del'), '::before').content") == '"−"'
    assert fresh.run("getComputedStyle(document.querySelector('ins'), '::before').content") == '"+"'
    assert fresh.run("document.querySelector('.example del').textContent") == "text"
    assert fresh.run("document.querySelector('.example ins').textContent") == "test"
    fresh.run("document.getElementById('next').click()")
    assert fresh.run("document.getElementById('page').textContent").startswith("page 2 of")
    fresh.run("const s = document.getElementById('by-status'); s.value = 'survived';"
              "s.dispatchEvent(new Event('change'))")  # fmt: skip
    survived = sum(record.status == "survived" for record in one.records)
    assert fresh.run("document.getElementById('count').textContent") == f"{survived} records"
    assert count(fresh, "ins") == 1  # the one of the legend
    fresh.run("document.getElementById('search').value = 'ID-0007'; s.value = '';"
              "s.dispatchEvent(new Event('change'))")  # fmt: skip
    assert fresh.run("document.getElementById('count').textContent") == "2 records"
    fresh.run("document.getElementById('search').value = 'nothing has this';"
              "document.getElementById('by-label').dispatchEvent(new Event('change'))")  # fmt: skip
    assert fresh.run("document.querySelector('.none').textContent") == "No example matches."


def test_right_to_left_letters_keep_their_stored_order(fresh, tmp_path):
    one = made({"a": ["flipped", "survived"]})
    record = dataclasses.replace(
        one.records[0], text=("x אבג y",), adversarial_text=("x אבג уes",)
    )  # fmt: skip
    run = Results(report=one.report, records=(record, *one.records[1:]))
    fresh.open(write(tmp_path, run))
    places = fresh.run(
        """(() => {
        const node = document.querySelector('.example .rtl').firstChild;
        return [0, 1, 2].map((at) => {
          const range = document.createRange();
          range.setStart(node, at); range.setEnd(node, at + 1);
          return range.getBoundingClientRect().left;
        });
      })()"""
    )
    assert places == sorted(places)
    assert fresh.run("document.querySelector('.example .foreign').title") == "U+0443"


def test_it_fits_a_phone_and_turns_dark(fresh, tmp_path):
    file = write(tmp_path, hostile(), results())
    fresh.size(360, 780, phone=True)
    fresh.open(file)
    assert fresh.run("document.documentElement.scrollWidth") <= 360
    light = fresh.run("getComputedStyle(document.body).backgroundColor")
    fresh.media(dark=True)
    dark = fresh.run("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    fresh.run("document.getElementById('theme').click()")
    assert fresh.run("getComputedStyle(document.body).backgroundColor") == light
    fresh.media()
    fresh.run("document.getElementById('theme').click()")
    assert fresh.run("getComputedStyle(document.body).backgroundColor") == dark
    colour = "getComputedStyle(document.querySelector('.plot path[stroke=\"#1f6f8b\"]')).stroke"
    shade = fresh.run(colour)
    fresh.run("document.getElementById('theme').click()")
    assert fresh.run(colour) != shade


def test_it_prints(fresh, tmp_path):
    fresh.open(write(tmp_path, results()))
    fresh.media(printing=True, dark=True)
    assert fresh.run("getComputedStyle(document.querySelector('.top')).display") == "none"
    assert fresh.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert fresh.pdf()[:5] == b"%PDF-"


def test_ten_thousand_records_stay_usable(fresh, tmp_path):
    outcomes = ["flipped", "survived", "flipped", "wrong_before"] * 1250
    one = made({"a": outcomes, "b": outcomes})
    file = write(tmp_path, one)
    assert file.stat().st_size < 4_000_000
    assert fresh.open(file) < 5
    assert count(fresh, ".example") == 20
    took = fresh.run(
        """(() => {
        const started = performance.now();
        document.getElementById('search').value = 'number 4999';
        document.getElementById('by-status').value = '';
        document.getElementById('by-status').dispatchEvent(new Event('change'));
        return performance.now() - started;
      })()"""
    )
    assert took < 1500
    assert fresh.run("document.getElementById('count').textContent") == "2 records"
    assert count(fresh, "*") < 2000
