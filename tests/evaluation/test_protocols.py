"""Protocols: names, fingerprints, refused values; and that they need nothing heavy."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import PROTOCOLS, Protocol, protocol_lines, protocol_named


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


FINGERPRINTS = {
    "unified.full": "c01339790e8e9df6",
    "unified.time": "9be6914cb9120301",
    "unified.ratio": "2d027c86e180fa18",
    "latentcrs.one_turn": "551c472147185bb9",
    "latentcrs.one_turn.sample500": "273491ed1b35758c",
    "latentcrs.multi_turn": "eed7c6b6c82ee29e",
    "latentcrs.multi_turn.n24": "3d7234090a27ebf8",
    "cesrec.sampled100": "c411daf03ac0999c",
    "cesrec.sampled100.n1000": "5d152f7753077076",
    "cesrec.sampled100.n100": "717abbea99e790ec",
    "cesrec.sampled100.n300": "4c406a0c4b5cc857",
    "cesrec.full": "719e07accd907c25",
    "cesrec.recformer": "dcd9d4812ff02852",
    "people.redial": "26d24c0209c0876f",
    "people.inspired": "8371b6cc42fc8ba3",
    "people.opendialkg": "eeb06c71f7baf421",
    "people.all": "d3b323bbbde27ffc",
    "relrec.full": "105f4607a1170316",
    "iclrec.released": "0b267fef0ca948e7",
}


def test_shipped_protocols_mean_what_older_records_say():
    assert {name: protocol.fingerprint() for name, protocol in PROTOCOLS.items()} == FINGERPRINTS
    for name in PROTOCOLS:
        assert protocol_named(name) is PROTOCOLS[name]


def test_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "strict.yaml"
    own.write_text("base: unified.full\nties: pessimistic\ncutoffs: [3]\nmetrics: NDCG\n")
    strict = protocol_named(str(own))
    assert (strict.name, strict.ties, strict.cutoffs, strict.metrics) == ("strict", "pessimistic", (3,), ("NDCG",))
    own.write_text("base: unified.full\nties: optimistic\n")
    assert protocol_named("./strict.yaml").fingerprint() != strict.fingerprint()
    several = tmp_path / "several.yml"
    several.write_text(
        "a:\n  base: b\n  users: 10\nb:\n  base: relrec.full\n  split: ratio\n  split_params: {share: 0.2}\n"
    )
    a = protocol_named("several.yml#a")
    assert (a.users, a.filter, a.split, a.split_params) == (10, "relrec", "ratio", (("share", 0.2),))
    with pytest.raises(BenchError, match=r"has 2 protocols; choose one: several\.yml#a"):
        protocol_named("several.yml")
    with pytest.raises(BenchError, match="has no protocol 'ab'"):
        protocol_named("several.yml#ab")


def test_the_folder_of_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "protocols").mkdir()
    own = tmp_path / "protocols" / "lab.yaml"
    own.write_text(
        "lab.short:\n  about: ours\n  base: unified.full\n  cutoffs: [1]\nlab.long:\n  base: lab.short\n  users: 9\n"
    )
    assert protocol_named("lab.long").users == 9
    assert dict(protocol_lines())["lab.short"] == "ours"
    with pytest.raises(BenchError, match=r"Did you mean 'lab\.short'"):
        protocol_named("lab.shor")
    own.write_text("unified.full:\n  users: 3\n")
    with pytest.raises(BenchError, match="give yours another name"):
        protocol_named("unified.full")


def test_a_plug_in_of_any_shape(tmp_path, monkeypatch):
    (tmp_path / "planted_rules.py").write_text(
        "from recllm_bench.evaluation.protocols import Protocol\n"
        "STRICT = Protocol('strict', ties='pessimistic')\n"
        "FIELDS = {'base': 'unified.full', 'users': 7}\n"
        "NONE = 5\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    facts = tmp_path / "planted_rules-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-rules\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[recllm_bench.protocols]\nplanted.strict = planted_rules:STRICT\n")
    assert protocol_named("planted.strict").ties == "pessimistic"
    assert protocol_named("planted_rules:FIELDS").users == 7
    assert "planted.strict" in dict(protocol_lines())
    with pytest.raises(BenchError, match="is no protocol: give a Protocol, a mapping"):
        protocol_named("planted_rules:NONE")
    with pytest.raises(BenchError, match=r"unknown protocol 'planted\.strikt'"):
        protocol_named("planted.strikt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: unified.full\nuser: 5\n", r"own\.yaml:2: .*unknown field 'user'. Did you mean 'users'"),
        ("base: unified.ful\n", r"own\.yaml:1: unknown protocol 'unified.ful'. Did you mean 'unified.full'"),
        ("base: own\n", r"own\.yaml:1: protocol 'own' is its own base: own on own"),
        ("a:\n  base: b\nb:\n  base: a\n", r"own\.yaml:4: protocol 'b' is its own base: a on b on a"),
        ("about: x\nusers: many\n", r"own\.yaml:2: .*users: expected a whole number, got 'many'"),
        ("about: x\nusers: true\n", r"own\.yaml:2: .*expected a whole number"),
        ("about: x\nusers: -1\n", r"own\.yaml:2: .*users must be 0"),
        ("about: x\n\nties: random\n", r"own\.yaml:3: .*ties 'random' is not one of expected"),
        ("about: x\nexclude_history: 1\n", r"own\.yaml:2: .*expected true or false, got 1"),
        ("about: x\ncutoffs: [5, x]\n", r"own\.yaml:2: .*expected a list of whole numbers"),
        ("about: x\ncutoffs: []\n", r"own\.yaml:2: .*cutoffs must be at least 1"),
        ("about: x\nmetrics: [NDGC]\n", r"protocol own: unknown metric 'NDGC'. Did you mean 'NDCG'"),
        ("about: x\ncandidates: sampled0\n", r"own\.yaml:2: .*must be 'all' or 'sampledN'"),
        ("about: x\nsplit_params: 5\n", r"own\.yaml:2: .*mapping of the split's parameters"),
        ("about: 2026-01-01\n", r"own\.yaml:1: .*about: expected text"),
        ("about: x\n5: y\n", r"own\.yaml:2: the key 5 is not text"),
        ("about: x\nabout: y\n", r"own\.yaml:2: 'about' is here twice"),
        ("about: [1\n", r"own\.yaml:2: not valid YAML"),
        ("- 1\n", r"own\.yaml:1: a protocol is a mapping"),
        ("", r"own\.yaml:1: a protocol is a mapping"),
        ("a: &a\n  b: *a\n", r"own\.yaml:1: not valid YAML .*contains itself"),
        ("a:\n  base: unified.full\nb: 5\n", r"own\.yaml:3: protocol 'b' must be a mapping"),
        ("[" * 5000, "nested too deep|nested deeper"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(text, said, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(BenchError, match=said) as caught:
        protocol_named(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(BenchError, match="there is no file"):
        protocol_named(str(tmp_path / "none.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"about: x\nfilter: caf\xe9\n")
    with pytest.raises(BenchError, match=r"latin\.yaml:2: not UTF-8"):
        protocol_named(str(tmp_path / "latin.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(BenchError, match="cannot be read"):
        protocol_named(str(tmp_path / "folder.yaml"))


def test_aliases_do_not_grow_without_bound(tmp_path):
    path = tmp_path / "bomb.yaml"
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    path.write_text("\n".join(rows))
    with pytest.raises(BenchError, match="aliases make more than"):
        protocol_named(str(path))
