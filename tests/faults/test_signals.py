"""SIGTERM, SIGINT and SIGUSR1 in every phase: saved, exit 75, and the command that goes on."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

from tests.faults import child
from tests.faults.experiments import PHASES, SIGNALS, stopped_by, whole_command
from tests.faults.harness import contents, differences
from textadv import cli, interrupts
from textadv.interrupts import Interrupted, listening


@pytest.fixture(autouse=True)
def _foreground():
    """A shell has its background jobs ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_every_signal_in_every_phase(children, phase):
    """Saved within a step, exit 75, and the advice given leads to the same end."""
    place = children.folder / f"signals-{phase}"
    whole = whole_command(children, place / "whole")
    for name in SIGNALS:
        lost, waited = stopped_by(children, place / name, phase, name, whole)
        assert lost == []
        assert waited < 5


def test_a_signal_while_training_is_obeyed_after_the_step(tmp_path):
    """In this process: the step ends, the state is saved, and a resumed run ends the same."""

    class Send(child.Diary):
        def on_step(self, step, figures):
            if step == 3:
                signal.raise_signal(signal.SIGTERM)

    fields = {"max_steps": 5, "save_steps": 100, "eval_steps": 2}
    child.make_trainer(tmp_path / "whole", "fgm", **fields).fit()
    sender = Send(tmp_path / "run")
    stopped = child.make_trainer(tmp_path / "run", "fgm", callback=sender, **fields)
    with pytest.raises(Interrupted, match=r"SIGTERM, saved at step 3\. To go on: run the same"):
        stopped.fit()
    assert [p.name for p in (tmp_path / "run" / "checkpoints").glob("step-*")] == ["step-00000003"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    child.make_trainer(tmp_path / "run", "fgm", **fields).fit(resume=True)
    assert differences(contents(tmp_path / "whole"), contents(tmp_path / "run")) == []


def test_an_interrupted_validation_is_made_up_for(tmp_path, monkeypatch):
    fields = {"max_steps": 4, "save_steps": 4, "eval_steps": 2}
    child.make_trainer(tmp_path / "whole", "fgm", **fields).fit()
    with monkeypatch.context() as patch:
        measured = []

        def measure(*arguments, **options):
            measured.append(1)
            signal.raise_signal(signal.SIGINT)

        patch.setattr("textadv.validation.measure", measure)
        with pytest.raises(Interrupted, match="SIGINT, saved at step 2"):
            child.make_trainer(tmp_path / "run", "fgm", **fields).fit()
    assert measured == [1]
    child.make_trainer(tmp_path / "run", "fgm", **fields).fit(resume=True)
    assert differences(contents(tmp_path / "whole"), contents(tmp_path / "run")) == []


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step(children):
    """Only one of them gets the signal."""

    def both(folder, **alone):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        job = {"folder": str(children.folder / folder), "method": "fgm", "port": port,
               "fields": {"max_steps": 6, "save_steps": 100}}  # fmt: skip
        started = [
            children.start(child.train_as_one_of_two, rank=rank, **job, **(alone if rank else {}))
            for rank in (0, 1)
        ]
        return [one.wait() for one in started], started[0].said()

    assert both("two-whole")[0] == [0, 0]
    codes, said = both("two-stopped", at=3)
    assert codes == [75, 75]
    assert "saved at step 3" in said
    assert both("two-stopped")[0] == [0, 0]
    whole, stopped = (children.folder / name for name in ("two-whole", "two-stopped"))
    assert differences(contents(whole), contents(stopped)) == []


def test_no_except_clause_on_the_way_takes_it_for_a_failure():
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert not issubclass(Interrupted, Exception)


def test_signals_are_given_back_and_shared():
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    with listening() as outer, listening() as inner:
        assert outer is inner
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert before == {s: signal.getsignal(s) for s in before}
    with listening() as signals:
        assert signals.pending is None


def test_a_process_told_to_ignore_a_signal_goes_on_ignoring_it():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with listening():
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_second_signal_quits_and_an_echo_does_not(monkeypatch):
    reached = []

    def three_times():
        with listening() as signals, signals.held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # a launcher passing the same Ctrl-C on
            reached.append("after the echo")
            monkeypatch.setattr(interrupts, "SECONDS_TO_SECOND", 0.0)
            signal.raise_signal(signal.SIGINT)
            reached.append("after the second")

    with pytest.raises(KeyboardInterrupt) as caught:
        three_times()
    assert reached == ["after the echo"]
    assert type(caught.value) is KeyboardInterrupt


def test_other_threads_watch_nothing():
    found = []

    def elsewhere():
        with listening() as signals, signals.held():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


def test_attacks_stop_with_75_and_go_on(children, tmp_path):
    """The same command goes on where it stopped, and ends with the same report."""
    child.make_recipe(tmp_path)
    argv = ["attack", "base", "--data", "test.jsonl", "--attack", "deepwordbug"]
    argv += ["--num-examples", "10", "--query-budget", "60", "--output-dir"]
    log = tmp_path / "said.log"
    job = {"cwd": str(tmp_path), "log": str(log), "folder": str(tmp_path)}
    stopped = children.run(child.command, argv=[*argv, "a"], phase="attack", signal="SIGTERM",
                           **job)  # fmt: skip
    assert stopped.code == 75
    assert log.read_text().rstrip().endswith("To go on: run the same command again")
    for folder in ("a", "b"):
        assert children.run(child.command, argv=[*argv, folder], **job).code == 0, log.read_text()
    reports = [(tmp_path / folder / "report.json").read_text() for folder in ("a", "b")]
    assert reports[0] == reports[1]


def test_commands_that_keep_nothing_are_simply_interrupted(monkeypatch, capsys):
    from textadv.cli import tools

    monkeypatch.setattr(tools, "env", lambda arguments: os.kill(os.getpid(), signal.SIGINT))
    assert cli.main(["env"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
