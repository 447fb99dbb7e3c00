"""What tables print is what is there: nothing is cut off on a narrow screen, and no bracket is taken for a style."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from qpipe.cli.guarded import run_app
from qpipe.cli.promoting import moves_table
from qpipe.flow import doctor, workplace
from qpipe.flow.preflight.forecast import Forecast
from qpipe.records.comparison import Pair, Standing
from qpipe.records.explanation import Explanation, Layer, Step
from qpipe.records.fleet import Refusal
from qpipe.records.verdict import Decision
from qpipe.report.compare import compare_table
from qpipe.report.explain import render_explanation
from qpipe.report.offers import Offer, offer_table, offers_list
from qpipe.report.plan import plan_table, plans_table
from qpipe.report.table import as_text
from qpipe.tracking.promotion.ledger import Move

NARROW, WIDE = 80, 400
HINT = "pip install 'qpipe-tensorrt[enterprise]', see [/conv1]"


def whole(render):
    """What a wide screen shows, after a look whether a narrow one shows every sign of it."""
    narrow, wide = (as_text(render(), width) for width in (NARROW, WIDE))
    assert Counter("".join(narrow.split())) == Counter("".join(wide.split()))
    return wide


def a_move():
    return Move(
        model="digits", alias="champion", sequence=1, action="promote", version="12", previous="11", engine="e",
        evidence="v", by="someone-with-a-name@a-build-machine", at="2026-11-22T15:11:20.123456+00:00",
        reason="the board [rev-b] is back [/lab]", forced=True, token="t",
    )  # fmt: skip


def an_explanation():
    layer = Layer(
        tensor="/encoder/layer.0/attention/self/MatMul_output_0[/a]/of/a/name/longer/than/the/screen", node="n",
        op="MatMul", sqnr_db=31.25, low=-1.125, high=2.5, clipped=0.01, kernel="MatMulIntegerToFloat",
    )  # fmt: skip
    step = Step(name="quantized", metric=0.9444, sqnr_db=31.25, note="[/conv1] in float")
    told = {"cell": "m/int8/t", "metric": "accuracy", "role": "gate", "rows": 10}
    return Explanation(**told, steps=(step,), layers=(layer,), placement=None, remarks=())


def a_pair():
    was, now = (
        {"metric": 0.9744, "ratio": 0.9741, "size_bytes": 132_000},
        {"metric": 0.9722, "ratio": 1.234, "size_bytes": 5},
    )
    before = Standing(status="ok", decision=Decision.PASS, **was, engine="46b9ebe58559")
    after = Standing(status="ok", decision=Decision.INCONCLUSIVE, **now, engine="019d19511111")
    return Pair(cell="a-model-of-some-length/int8-float[rtx]/nvidia-rtx-blackwell", before=before, after=after)


def a_forecast():
    keys = dict.fromkeys(("prepare", "build", "measure"), "0123456789abcdef")
    costs = {"changed": (), "seconds": None, "engine_bytes": None, "memory_bytes": 0}
    return Forecast(cell="m/int8/t", **keys, **costs, cached=False, prepared=True, built=False, note=HINT)


@pytest.mark.parametrize(
    ("render", "texts"),
    [
        (lambda: moves_table((a_move(),)), (a_move().by, a_move().at, a_move().reason)),
        (lambda: render_explanation(an_explanation()), (an_explanation().layers[0].tensor, "[/conv1]", "-1.125")),
        (lambda: compare_table((a_pair(),)), (a_pair().cell, "0.9744 → 0.9722", "46b9ebe5 → 019d1951")),
        (lambda: plan_table((a_forecast(),)), (HINT,)),
    ],
    ids=["history", "explain", "compare", "plan"],
)
def test_a_narrow_screen_shows_every_sign(render, texts):
    shown = whole(render)
    assert [text for text in texts if text not in shown] == []


def test_a_plan_of_many_counts_what_was_refused_by_itself_with_the_reason_once():
    done = replace(a_forecast(), cached=True, note="cached")
    refused = replace(done, note="refused before: node [/conv1] has NaN")
    away = replace(a_forecast(), note="cannot be run here: no board")
    shown = as_text(plans_table([(Path("a.yaml"), (done, refused)), (Path("b.yaml"), (refused, done, away))]), NARROW)
    head, *rows = [line.split() for line in shown.splitlines()]
    assert head[:3] == ["pipeline", "cells", "cached"]
    assert [row[:3] for row in rows[:2]] == [["a.yaml", "2", "1"], ["b.yaml", "3", "1"]]
    assert rows[0][-3:] == ["1", "refused", "before"]
    assert rows[-3][:4] == ["2", "pipelines", "5", "2"]
    assert [" ".join(row) for row in rows[-2:]] == [
        "2 refused before: node [/conv1] has NaN",
        "1 cannot be run here: no board",
    ]


def test_a_plan_of_many_tells_what_stops_several_once():
    base = Refusal(message="fleet.yaml:7: unknown key [x]", hint="known keys: y", code=2)
    own = Refusal(message="z.yaml: no such file", hint="", code=2)
    plans = [*((Path(f"{name}.yaml"), base) for name in "abc"), (Path("z.yaml"), own)]
    rows = [" ".join(line.split()) for line in as_text(plans_table(plans), NARROW).splitlines()[1:]]
    assert rows[:4] == [
        *(f"{name}.yaml – – – error, below" for name in "abc"),
        "z.yaml – – – error: z.yaml: no such file",
    ]
    assert " ".join(rows[5:]) == "3 pipelines: error: fleet.yaml:7: unknown key [x] hint: known keys: y"


def test_targets_are_a_line_each_on_a_narrow_screen_and_their_names_can_be_copied(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(NARROW))
    names = sorted(workplace.open_registry().targets)
    assert run_app(["targets"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["target", "backend", "here", "summary"]
    assert [line.split()[0] for line in lines[: len(names)]] == names
    assert lines[len(names)] == ""
    assert max(map(len, (head, *lines))) <= NARROW
    assert len(lines) < len(names) + 20


def test_a_target_by_its_name_has_all_that_is_said_of_it(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(NARROW))
    registry = workplace.open_registry()
    target = max(registry.targets.values(), key=lambda one: len(one.summary))
    assert run_app(["targets", target.name]) == 0
    assert target.summary.replace(" ", "") in "".join(capsys.readouterr().out.split())
    assert run_app(["targets", "cpu-locl"]) == 2
    assert "did you mean 'cpu-local'?" in capsys.readouterr().err


def test_what_is_missing_is_told_once_for_the_targets_that_miss_it():
    told = {"backend": "b", "build": "ready; the first build fetches [tools]", "hint": HINT, "summary": "a board " * 12}
    offers = [Offer(target=name, run="no driver [/x]", **told) for name in ("a", "b")]
    shown = as_text(offers_list([*offers, Offer(target="c", run="ready", **told)]), NARROW)
    assert shown.count("no driver [/x]: a, b\n") == shown.count("the first build fetches [tools]: a, b, c\n") == 1
    assert [line.split()[2] for line in shown.splitlines()[1:4]] == ["builds", "builds", "ready"]
    assert whole(lambda: offer_table(offers[0])).count(HINT) == 1


def test_doctor_prints_hints_and_paths_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(NARROW))
    path = "/a/path/longer/than/what/a/narrow/screen/has/for/it/in/any/of/these/columns/store"
    found = (
        doctor.Finding(state="ok", what="store", found=path),
        doctor.Finding(state="note", what="target", found="", hint=HINT),
    )
    monkeypatch.setattr(doctor, "diagnose", lambda **_: found)
    assert run_app(["doctor"]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert path in said
    assert "".join(HINT.split()) in said


def test_doctor_fits_a_screen_and_names_every_target_and_version(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", str(NARROW))
    monkeypatch.chdir(tmp_path)
    found = doctor.diagnose(store=None, tracking_uri=None)
    monkeypatch.setattr(doctor, "diagnose", lambda **_: found)
    assert run_app(["doctor"]) in (0, 5)
    out = capsys.readouterr().out
    words = {word.strip(",") for word in out.split()}
    assert {one.brief for one in found if one.kind in ("target", "package")} <= words
    assert re.search(r"\d+ stages, \d+ gates", out)
    assert len(out.splitlines()) < 50


def test_doctor_says_what_is_missing_once_and_what_is_broken_each_by_itself():
    away = {"state": "note", "found": "no driver", "hint": HINT, "kind": "target"}
    broken = {"state": "broken", "found": "absent", "kind": "package"}
    findings = (
        doctor.Finding(what="scipy", **broken),
        doctor.Finding(what="numpy", state="ok", found="2.4", kind="package", brief="2.4"),
        doctor.Finding(what="mlflow", **broken),
        *(doctor.Finding(what=f"target {name}", brief=name, **away) for name in "ab"),
        doctor.Finding(what="target c", brief="c", **(away | {"hint": "another"})),
    )
    assert [(one.state, one.what, one.found) for one in doctor.abridged(findings)] == [
        ("broken", "scipy", "absent"),
        ("ok", "packages", "numpy 2.4"),
        ("broken", "mlflow", "absent"),
        ("note", "2 targets", "no driver: a, b"),
        ("note", "target c", "no driver"),
    ]
