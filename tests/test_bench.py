"""Speed ratios: how they are measured and told, not how fast this machine is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eosrepro import bench
from eosrepro.bench import Ratio


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


def test_the_gradient_and_the_product_are_measured_against_baselines() -> None:
    ratios = bench.bench(n_examples=20, rounds=1, threads=1, device="cpu")
    assert [(ratio.name, ratio.baseline) for ratio in ratios] == [
        ("gradient", "matrix products"),
        ("Hessian-vector product", "gradient"),
    ]
    assert all(ratio.milliseconds > 0 and ratio.baseline_milliseconds > 0 for ratio in ratios)
    assert ratios[0].milliseconds == ratios[1].baseline_milliseconds


def test_the_baseline_is_the_matrix_products_of_one_gradient() -> None:
    multiply = bench.matrix_products(50, "cpu")
    with FlopCounterMode(display=False) as counter:
        multiply()
    forward = 2 * 50 * (3072 * 200 + 200 * 200 + 200 * 10)
    assert counter.get_total_flops() == 3 * forward - 2 * 50 * 3072 * 200


@pytest.mark.parametrize(("milliseconds", "met", "cell"), [(26.0, True, "yes"), (28.0, False, "**no**")])
def test_a_ratio_is_told_with_its_target_and_whether_it_is_met(milliseconds: float, met: bool, cell: str) -> None:
    ratio = Ratio("gradient", "matrix products", milliseconds, 20.0, 1.35)
    assert (ratio.ratio, ratio.met) == (milliseconds / 20, met)
    assert json.loads(json.dumps(bench.as_records([ratio]))) == [
        {
            "name": "gradient",
            "baseline": "matrix products",
            "milliseconds": milliseconds,
            "baseline_milliseconds": 20.0,
            "target": 1.35,
            "ratio": milliseconds / 20,
            "met": met,
        }
    ]
    hardware, _, *_, row = bench.as_markdown([ratio]).splitlines()
    assert hardware.startswith(f"PyTorch {torch.__version__}")
    assert row == f"| gradient | {milliseconds} | matrix products | 20.0 | {milliseconds / 20:.2f} | 1.35 | {cell} |"
