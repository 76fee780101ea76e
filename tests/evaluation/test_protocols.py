"""Protocols: names, fingerprints, refused values; and that they need nothing heavy."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import PROTOCOLS, Protocol, protocol_named


def test_every_protocol_has_its_name_and_its_own_fingerprint():
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert len({protocol.fingerprint() for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)
    assert all(json.dumps(protocol.as_dict()) for protocol in PROTOCOLS.values())


def test_policies_of_the_specification():
    assert PROTOCOLS["unified.full"].exclude_history
    assert not PROTOCOLS["relrec.full"].exclude_history
    assert not PROTOCOLS["latentcrs.one_turn"].exclude_history
    assert PROTOCOLS["iclrec.released"].seen_score == "zero"
    assert PROTOCOLS["cesrec.sampled100"].negatives == 100
    assert PROTOCOLS["unified.full"].negatives == 0
    assert (PROTOCOLS["latentcrs.multi_turn"].turns, PROTOCOLS["latentcrs.multi_turn"].users) == (5, 500)
    assert PROTOCOLS["unified.full"].cutoffs == (1, 5, 10, 20, 50)


def test_fingerprint_follows_meaning_only():
    full = PROTOCOLS["unified.full"]
    assert dataclasses.replace(full, about="else", cutoffs=(3,)).fingerprint() == full.fingerprint()
    for change in ({"exclude_history": False}, {"version": 2}, {"users": 10}, {"ties": "pessimistic"}):
        assert dataclasses.replace(full, **change).fingerprint() != full.fingerprint()


def test_unknown_names_and_values():
    with pytest.raises(BenchError, match=r"Did you mean 'unified\.full'"):
        protocol_named("unified.ful")
    assert protocol_named("relrec.full").name == "relrec.full"
    for change, words in (
        ({"split": "random"}, "split"),
        ({"candidates": "many"}, "candidates"),
        ({"cutoffs": ()}, "cutoffs"),
        ({"users": -1}, "users"),
        ({"seen_score": "minus"}, "seen_score"),
    ):
        with pytest.raises(BenchError, match=words):
            Protocol("mine", **change)


def test_import_is_light():
    code = "import sys, recllm_bench.evaluation.protocols; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
