#!/usr/bin/env python3
"""Writes mlrsearch.json: what the reference implementation of MLRsearch answers for simulated devices.

Run by hand, when a case is added:

    python3 -m venv venv && venv/bin/pip install MLRsearch==1.2.1
    venv/bin/python generate.py > mlrsearch.json

The devices are those of src/search/simulate.rs, in the same arithmetic. src/search/mlrsearch/tests.rs runs the Rust
controller over them and compares bounds, conditional throughput, number of trials, their time and packets.
"""

import json
import math
import random
import sys
from importlib.metadata import version

from MLRsearch import AbstractMeasurer, Config, MeasurementResult, MultipleLossRatioSearch, SearchGoal

REFERENCE = "1.2.1"
MIN_LOAD, MAX_LOAD = 9001.0, 14_880_952.0


class Simulated(AbstractMeasurer):
    """A device by its description; counts what it is asked for."""

    def __init__(self, device):
        self.device = device
        self.trials, self.seconds, self.packets = 0, 0.0, 0

    def lost(self, load, duration, wanted):
        device = self.device
        kind = device["kind"]

        def above(capacity):
            return max(0.0, wanted - math.floor(capacity * duration))

        if kind == "knee":
            part = max(0.0, (load - device["low"]) / (device["high"] - device["low"]))
            return math.floor(wanted * min(1.0, part * part * device["loss"]))
        if kind == "noisy":
            factors = device["factors"]
            return above(device["capacity"] * factors[self.trials % len(factors)])
        if kind == "buffer":
            return max(0.0, above(device["capacity"]) - device["buffer"])
        if kind == "inverted" and device["from"] <= load < device["to"]:
            return math.floor(wanted * device["loss"])
        return above(device["capacity"])

    def measure(self, intended_duration, intended_load):
        wanted = math.floor(intended_load * intended_duration)
        lost = int(self.lost(intended_load, intended_duration, wanted))
        self.trials += 1
        self.seconds += intended_duration
        self.packets += wanted
        slow_sender = self.device["kind"] == "slow-sender"
        return MeasurementResult(
            intended_duration=intended_duration,
            intended_load=intended_load,
            intended_count=wanted,
            offered_count=wanted - lost if slow_sender else wanted,
            loss_count=0 if slow_sender else lost,
        )


def factors(seed, low, high, count=61):
    """Noise as a table, so that no random generator has to agree with another."""
    generator = random.Random(seed)
    return [round(generator.uniform(low, high), 4) for _ in range(count)]


DEVICES = {
    "step": {"kind": "step", "capacity": 3_170_000.0},
    "step near the least load": {"kind": "step", "capacity": 9_100.0},
    "step near the greatest load": {"kind": "step", "capacity": 14_860_000.0},
    "zero capacity": {"kind": "step", "capacity": 0.0},
    "capacity below the least load": {"kind": "step", "capacity": 5_000.0},
    "capacity above the greatest load": {"kind": "step", "capacity": 2e7},
    "soft knee": {"kind": "knee", "low": 2e6, "high": 4e6, "loss": 0.2},
    "softer knee": {"kind": "knee", "low": 1e5, "high": 1.4e7, "loss": 0.6},
    "noise of 1 %": {"kind": "noisy", "capacity": 5.2e6, "factors": factors(1, 0.99, 1.0)},
    "noise of 10 %": {"kind": "noisy", "capacity": 5.2e6, "factors": factors(2, 0.9, 1.0)},
    "noise of 60 %": {"kind": "noisy", "capacity": 8e5, "factors": factors(3, 0.4, 1.0)},
    "buffer of 50,000": {"kind": "buffer", "capacity": 1.1e6, "buffer": 50_000.0},
    "buffer of 2,000,000": {"kind": "buffer", "capacity": 1.1e6, "buffer": 2_000_000.0},
    "inverted loss": {"kind": "inverted", "capacity": 6e6, "from": 2.9e6, "to": 3.1e6, "loss": 0.03},
    "inverted loss next to the capacity": {"kind": "inverted", "capacity": 6e6, "from": 5.7e6, "to": 5.8e6, "loss": 0.1},
    "slow sender": {"kind": "slow-sender", "capacity": 7.3e6},
}

CSIT = {
    "loss_ratio": 0.0,
    "exceed_ratio": 0.5,
    "width": 0.005,
    "initial_trial_s": 1.0,
    "final_trial_s": 1.0,
    "duration_sum_s": 21.0,
    "preceding_targets": 2,
    "expansion": 2,
}

GOALS = {
    "NDR and PDR": [CSIT, CSIT | {"loss_ratio": 0.005}],
    "PDR alone": [CSIT | {"loss_ratio": 0.005}],
    "RFC 2544": [CSIT | {"exceed_ratio": 0.0, "final_trial_s": 60.0, "duration_sum_s": 60.0}],
    "three unlike goals": [
        CSIT | {"width": 0.02, "final_trial_s": 5.0, "duration_sum_s": 61.0, "expansion": 4, "preceding_targets": 3},
        CSIT | {"loss_ratio": 0.1, "exceed_ratio": 0.25, "width": 0.01, "initial_trial_s": 0.5, "preceding_targets": 1},
        CSIT | {"exceed_ratio": 0.0, "duration_sum_s": 1.0, "preceding_targets": 0},
    ],
    "four widths": [
        CSIT | {"width": 0.07, "preceding_targets": 1},
        CSIT | {"width": 0.013, "loss_ratio": 0.005, "expansion": 3},
        CSIT | {"width": 0.031, "exceed_ratio": 0.2},
        CSIT | {"width": 0.005, "loss_ratio": 0.02, "duration_sum_s": 7.0},
    ],
}


def search(device, goals):
    """One search by the reference."""
    measurer = Simulated(device)
    config = Config()
    config.max_load, config.min_load = MAX_LOAD, MIN_LOAD
    keys = [
        SearchGoal(
            loss_ratio=goal["loss_ratio"],
            exceed_ratio=goal["exceed_ratio"],
            relative_width=goal["width"],
            initial_trial_duration=goal["initial_trial_s"],
            final_trial_duration=goal["final_trial_s"],
            duration_sum=goal["duration_sum_s"],
            preceding_targets=goal["preceding_targets"],
            expansion_coefficient=goal["expansion"],
            fail_fast=False,
        )
        for goal in goals
    ]
    config.goals = keys
    config.search_duration_max = 1e6
    results = MultipleLossRatioSearch(config).search(measurer, debug=lambda text: None)

    def pps(load):
        return None if load is None else float(load)

    return {
        "goals": [
            {
                "lower": pps(results[key].relevant_lower_bound),
                "upper": pps(results[key].relevant_upper_bound),
                "conditional_throughput": pps(results[key].conditional_throughput),
            }
            for key in keys
        ],
        "trials": measurer.trials,
        "seconds": measurer.seconds,
        "packets": measurer.packets,
    }


def main():
    found = version("MLRsearch")
    if found != REFERENCE:
        sys.exit(f"this needs MLRsearch=={REFERENCE}, not {found}")
    cases = [
        {"device": name, "goals": goals, "result": search(device, GOALS[goals])}
        for name, device in DEVICES.items()
        for goals in GOALS
    ]
    rows = lambda table: ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())
    print(f'{{"reference": "MLRsearch {REFERENCE}", "min_load": {MIN_LOAD}, "max_load": {MAX_LOAD},')
    print(f'"devices": {{\n{rows(DEVICES)}\n}},')
    print(f'"goals": {{\n{rows(GOALS)}\n}},')
    print('"cases": [\n' + ",\n".join("  " + json.dumps(case) for case in cases) + "\n]}")


if __name__ == "__main__":
    main()
