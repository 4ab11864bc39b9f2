"""Speed ratios: how they are measured and told, not how fast this machine is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from benchmarks import bench, growth, spreading
from benchmarks.__main__ import main
from benchmarks.bench import Result


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_candidates_take_turns_and_the_first_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    now = 0.0
    durations = {"a": iter([90, 3, 1, 2]), "b": iter([90, 7, 5, 6])}

    def work(name: str) -> None:
        nonlocal now
        calls.append(name)
        now += next(durations[name]) / 1000

    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: now))
    medians = bench.alternating_medians({"a": lambda: work("a"), "b": lambda: work("b")}, rounds=3, device="cpu")
    assert calls == ["a", "b"] * 4
    assert medians == {"a": pytest.approx(2), "b": pytest.approx(6)}


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    """The whole bench, small: 50 examples, a run that passes the edge."""
    threads = torch.get_num_threads()
    found = bench.bench(n_examples=50, rounds=1, steps=120, threads=1, device="cpu")
    torch.set_num_threads(threads)
    return {result.name: result for result in found}


def test_every_promise_has_its_line_and_stands_beside_its_baseline(results: dict[str, Result]) -> None:
    promised = {name: result.target for name, result in results.items() if result.target is not None}
    assert promised == {
        "gradient": 1.1,
        "Hessian product": 1.3,
        "L at 100 τ": 15,
        "both sides of eq. 5.1 over 2 minibatches": 40,
        "largest error against converged float64": 1e-3,
        "largest shortfall in the audits": 1e-3,
        "before the edge: largest difference of the two": 1e-3,
        "past the edge: largest difference of the two": 1e-3,
    }
    assert {name.split(", baseline")[0] for name in results if "baseline" in name} <= results.keys()
    assert len([name for name in results if "baseline" in name]) == 6
    assert all(result.value >= 0 for result in results.values())


def test_the_sharpness_of_the_run_past_the_edge_is_right(results: dict[str, Result]) -> None:
    assert results["measurements of the sharpness past the edge"].value >= 10
    assert results["largest error against converged float64"].value < 1e-3
    assert results["sharpness, audits included"].value > results["sharpness"].value > 1


def test_a_run_that_does_not_reach_the_edge_promises_nothing_of_it() -> None:
    threads = torch.get_num_threads()
    found = bench.bench(n_examples=20, rounds=1, steps=5, threads=1, device="cpu")
    torch.set_num_threads(threads)
    assert (found[-1].name, found[-1].value) == ("measurements of the sharpness past the edge", 0)


@pytest.mark.parametrize(("length", "most", "expected"), [(3, 10, [0, 1, 2]), (101, 3, [0, 50, 100]), (1, 1, [0])])
def test_spread(length: int, most: int, expected: list[int]) -> None:
    assert bench._spread(length, most) == expected


@pytest.mark.parametrize(
    ("target", "met", "cells"), [(15, True, "≤ 15 | yes"), (2, False, "≤ 2 | **no**"), (None, None, " | ")]
)
def test_a_result_is_told_with_its_target_and_whether_it_is_met(
    target: float | None, met: bool | None, cells: str
) -> None:
    result = Result("L at 100 τ", 3.14159, "gradients", target, 26.04)
    assert result.met is met
    assert json.loads(json.dumps(bench.as_records([result]))) == [
        {
            "name": "L at 100 τ",
            "value": 3.14159,
            "unit": "gradients",
            "target": target,
            "milliseconds": 26.04,
            "met": met,
        }
    ]
    hardware, _, *_, row = bench.as_markdown([result]).splitlines()
    assert hardware.startswith(f"PyTorch {torch.__version__}")
    assert row == f"| L at 100 τ | 3.14 | gradients | {cells} | 26.0 |"


def test_the_command_prints_json() -> None:
    small = ["--examples", "20", "--rounds", "1", "--steps", "0", "--threads", "1", "--device", "cpu"]
    done = CliRunner().invoke(main, [*small, "--json"])
    assert done.exit_code == 0
    names = [result["name"] for result in json.loads(done.stdout)]
    assert names[:3] == ["gradient", "gradient, with the faster library", "Hessian product"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--examples", "0"], "--examples"),
        (["--rounds", "0"], "--rounds"),
        (["--threads", "-1"], "--threads"),
        (["--device", "gpu"], "'gpu' is not one of"),
        (["--device", "cuda"], "PyTorch finds no GPU here"),
    ],
)
def test_mistakes_are_usage_errors(options: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_growth_over_runs_and_ranks_is_measured_and_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"N_EXAMPLES": 20, "CHUNK": 10, "FEW": 10, "STEPS": 2}.items():
        monkeypatch.setattr(spreading, name, value)
    monkeypatch.setattr(spreading.engine, "default_jobs", lambda *_of, **_threads: 1)
    runs = [spreading.many_runs(count) for count in (1, 2)]
    assert [each["runs"] for each in runs] == [1, 2]
    alone = spreading.rank(0, 1, tmp_path)
    assert all(alone[key] > 0 for key in ("gradient_ms", "product_ms", "peak_mb"))
    points = [
        {**growth.point(n, 200, 1, reduced=reduced), "width": growth.WIDTH, "n_examples": shown}
        for n, shown, reduced in ((10, 10, False), (12, growth.N_EXAMPLES, False), (10, 10, True))
    ]
    assert [each["reduced"] for each in points] == [False, False, True]
    ranks = [{"ranks": size, **alone} for size in (1, 2)]
    growth.draw(points, runs, ranks, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
