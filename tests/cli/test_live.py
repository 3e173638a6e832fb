"""The table that fills while attacks run."""

from __future__ import annotations

import io
import random
import re

from rich.console import Console

from textadv.attacks import Record
from textadv.cli.live import AttackTable


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def record(name: str, at: int, status: str, queries: int = 10) -> Record:
    return Record(
        id=str(at), attack=name, status=status, label=0, text=("a b",), num_queries=queries
    )  # type: ignore[arg-type]


def table(names, count, *, terminal=False, width=80, **options):
    clock = Clock()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    return AttackTable(console, "attack", names, count, clock=clock, **options), clock, console


def figures(made: AttackTable) -> dict[str, list[str]]:
    """Return the cells of each row as they are drawn."""
    console = Console(file=io.StringIO(), width=120)
    console.print(made.table())
    lines = console.file.getvalue().splitlines()
    head = next(at for at, line in enumerate(lines) if "───" in line)
    return {
        line.split("  ")[0].strip(): re.split(r"\s{2,}", line.strip())[1:]
        for line in lines[head + 1 :]
        if line.strip(" ─")
    }


def test_one_row_per_attack_with_accuracy_texts_left_speed_and_time() -> None:
    made, clock, _ = table(["one", "two"], 10)
    for at, status in enumerate(["wrong_before", "flipped", "survived", "survived"]):
        clock.now += 1
        made.on_record(record("one", at, status))
    clock.now += 1
    made.on_record(record("two", 0, "unresolved", queries=40))
    assert figures(made)["one"] == ["50.0%", "1", "0", "6", "8", "0:08"]
    # The second attack's clock starts where the record before its first one came.
    assert figures(made)["two"] == ["0.0%", "0", "1", "9", "40", "0:09"]
    # Text 0 alone is through both: wrong before, so nothing of it is robust.
    assert figures(made)["worst case"] == ["0.0%", "0", "0", "9", "16", "0:15"]
    clock.now += 5  # a slow text: the table says so before the text is done
    assert figures(made)["one"][4:] == ["4", "0:15"]


def test_the_worst_case_is_over_texts_that_every_attack_is_done_with() -> None:
    made, clock, _ = table(["one", "two"], 4)
    outcomes = {"one": ["survived", "survived", "survived", "flipped"], "two": ["survived"] * 2}
    for name, statuses in outcomes.items():
        for at, status in enumerate(statuses):
            clock.now += 1
            made.on_record(record(name, at, status))
    assert figures(made)["worst case"][:4] == ["100.0%", "0", "0", "2"]
    made.on_record(record("two", 3, "survived"))
    assert figures(made)["worst case"][:4] == ["66.7%", "1", "0", "1"]


def test_a_finished_attack_keeps_its_speed_and_has_no_time_left() -> None:
    made, clock, _ = table(["one", "two"], 1)
    clock.now += 2
    made.on_record(record("one", 0, "survived", queries=50))
    clock.now += 100
    assert figures(made)["one"] == ["100.0%", "0", "0", "0", "25", "0:00"]
    assert figures(made)["two"] == ["-", "-", "-", "1", "-", "-"]


def test_in_a_cascade_what_was_flipped_before_is_not_left_and_counts_as_lost() -> None:
    before = {"one": [], "two": ["one"], "other": []}
    made, clock, _ = table(["one", "two", "other"], 4, before=before)
    for at, status in enumerate(["flipped", "wrong_before", "survived", "survived"]):
        clock.now += 1
        made.on_record(record("one", at, status))
    assert figures(made)["two"][3] == "2"
    assert figures(made)["other"][3] == "4"
    clock.now += 1
    made.on_record(record("two", 2, "flipped"))
    assert figures(made)["two"][:4] == ["0.0%", "1", "0", "1"]
    clock.now += 1
    made.on_record(record("two", 3, "survived"))
    # One of the four texts is left standing, although one of the two that were tried is.
    assert figures(made)["two"][:4] == ["25.0%", "1", "0", "0"]
    assert "total" in figures(made)


def test_an_earlier_start_counts_but_not_for_speed() -> None:
    old = [record("one", at, "survived", queries=999) for at in range(5)]
    made, clock, _ = table(["one"], 10, records=old)
    assert figures(made) == {"one": ["100.0%", "0", "0", "5", "-", "-"]}
    clock.now += 2
    made.on_record(record("one", 5, "flipped"))
    assert figures(made) == {"one": ["83.3%", "1", "0", "4", "5", "0:08"]}


def test_without_a_terminal_a_plain_line_now_and_then() -> None:
    made, clock, console = table(["one", "two"], 100)
    with made:
        for at in range(60):
            clock.now += 1
            made.on_record(record("one", at, "survived"))
    lines = console.file.getvalue().splitlines()
    assert lines == [
        "attack, accuracy so far: one 100.0%, 80 left; 10 queries/s, time left 3:00",
        "attack, accuracy so far: one 100.0%, 60 left; 10 queries/s, time left 2:40",
        "attack, accuracy so far: one 100.0%, 40 left; 10 queries/s, time left 2:20",
    ]


def test_nothing_is_printed_when_there_is_nothing_to_do() -> None:
    for terminal in (False, True):
        made, _, console = table(["one"], 3, terminal=terminal)
        with made:
            pass
        assert console.file.getvalue() == ""


def test_on_a_terminal_the_table_is_wiped_at_the_end_and_kept_when_stopped() -> None:
    class Before:
        touched, closed = 105.0, 0

        def close(self) -> None:
            self.closed += 1

    for stop in (False, True):
        before = Before()
        made, clock, console = table(["one"], 3, terminal=True, after=before)
        try:
            with made:
                clock.now = 107.0
                made.on_record(record("one", 0, "survived", queries=30))
                made.on_record(record("one", 1, "survived", queries=30))
                assert before.closed == 1
                assert made.cells("one")[4] == "30"  # since the display before was last touched
                if stop:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        drawn = console.file.getvalue()
        assert "queries" in drawn
        # Erasing lines, after the last time they are drawn, leaves nothing behind.
        assert (drawn.rfind("\x1b[2K") > drawn.rfind("100.0%")) is not stop
        assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1


def test_the_longest_names_and_figures_fit_80_columns() -> None:
    names = ["imperceptible-homoglyph", "random-substitution"]
    made, clock, _ = table(names, 10_000)
    source = random.Random(0)
    for at in range(2000):
        clock.now += 1
        made.on_record(record(names[0], at, source.choice(["flipped", "unresolved"]), 54321))
    console = Console(file=io.StringIO(), width=80)
    console.print(made.table())
    drawn = console.file.getvalue()
    assert "…" not in drawn
    assert "10000" in drawn
    assert "54321" in drawn
    assert max(map(len, drawn.splitlines())) <= 80
