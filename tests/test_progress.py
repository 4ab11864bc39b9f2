"""What a person sees of a long computation, in a pipe and on a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from eosrepro.stages import progress as module
from eosrepro.stages.progress import progress


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """To be called in the test itself: pytest puts its own stderr in place after the fixtures."""

    def put_in_place() -> Terminal:
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return put_in_place


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""  # stdout is for results
    return err.splitlines()


def run(clock: Clock, total: int, seconds_a_step: float, *, end: int | None = None) -> None:
    with progress("train exp3", total) as report:
        for step in range((total if end is None else end) + 1):
            report(step, loss=2.0 - step / 1000)
            clock.now += seconds_a_step


def steps_of(lines: list[str]) -> list[int]:
    return [int(line.split("step ")[1].split("/")[0]) for line in lines]


def test_pipe_shows_first_every_tenth_and_last(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 200, 0.5)
    lines = lines_of(capsys)
    assert steps_of(lines) == list(range(0, 201, 20))
    assert lines[0] == "train exp3: step 0/200  loss 2"
    assert lines[1] == "train exp3: step 20/200  loss 1.98  ETA 1 min 30 s"
    assert lines[-1] == "train exp3: step 200/200  loss 1.8"


def test_pipe_of_a_slow_run_is_never_silent_for_long(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 1000, 10.0, end=12)
    lines = lines_of(capsys)
    assert steps_of(lines) == [0, 3, 6, 9, 12]
    assert lines[1].endswith("ETA 2 h 46 min")


def test_pipe_of_a_run_of_an_instant_shows_its_ends(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 100, 0.001)
    assert steps_of(lines_of(capsys)) == [0, 100]


def test_pipe_shows_where_a_run_stopped_early(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 10_000, 0.001, end=17)
    assert steps_of(lines_of(capsys)) == [0, 17]


def test_last_step_is_shown_when_the_computation_fails(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), progress("train exp3", 100) as report:  # noqa: PT012
        report(0, loss=2.0)
        clock.now += 0.1
        report(1, loss=1.5)
        raise KeyboardInterrupt
    assert lines_of(capsys)[-1].startswith("train exp3: step 1/100  loss 1.5")


def test_nothing_reported_is_nothing_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train exp3", 100):
        pass
    assert lines_of(capsys) == []


def test_what_is_not_a_number_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("diagnose exp3", 10) as report:
        report(0, products=3, sharpness=float("nan"))
    assert lines_of(capsys) == ["diagnose exp3: step 0/10  products 3"]


def test_terminal_shows_a_bar_with_values_and_ends_with_the_last(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    with progress("train [exp3]", 300) as report:
        for step in range(121):
            report(step, loss=2.0 - step / 1000, accuracy=0.5)
    shown = screen.getvalue()
    assert "train [exp3]" in shown  # square brackets are no markup
    assert "━" in shown
    last = shown[shown.rindex("train [exp3]") :]
    assert "120/300" in last
    assert "loss 1.88  accuracy 0.5" in last
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor stays hidden"
    assert sys.stderr is screen


def test_terminal_is_redrawn_ten_times_a_second(terminal: Callable[[], Terminal], clock: Clock) -> None:
    screen = terminal()
    with progress("train exp3", 1000) as report:
        for step in range(1000):
            report(step)
            clock.now += 0.01
    assert 85 <= screen.getvalue().count("/1000") <= 105


def test_terminal_keeps_what_others_write(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    with progress("train exp3", 10) as report:
        report(0)
        print("Warning: MLflow is away", file=sys.stderr)
        report(10)
    assert "Warning: MLflow is away\n" in screen.getvalue()


def test_dumb_terminal_gets_lines(terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = terminal()
    with progress("train exp3", 10) as report:
        report(10)
    assert screen.getvalue() == "train exp3: step 10/10\n"


@pytest.mark.parametrize("kind", [module._Bar, module._Lines])
def test_nothing_is_made_ready_or_drawn_between_two_showings(
    kind: type[module._Display], terminal: Callable[[], Terminal], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal()
    if kind is module._Lines:
        monkeypatch.setenv("TERM", "dumb")
    shown: list[int] = []
    show = kind._show_latest
    monkeypatch.setattr(kind, "_show_latest", lambda self: (shown.append(self._latest[0]), show(self)))
    with progress("train exp3", 1_000_000) as report:
        report(0, loss=2.0)
        before = screen.getvalue()
        monkeypatch.setattr(module, "isnan", lambda _value: pytest.fail("values were put into words for nothing"))
        for step in range(1, 1000):
            report(step, loss=1.0, accuracy=0.5, RP=0.0, L=30.0)
        assert (shown, screen.getvalue()) == ([0], before)
        monkeypatch.setattr(module, "isnan", lambda _value: False)
        clock.now += module.LINE_SECONDS
        report(1000, loss=1.0)
        report(1001, loss=1.0)
        assert shown == [0, 1000]
    assert shown == [0, 1000, 1001]
    assert "1001/1000000" in screen.getvalue().replace(",", "")
