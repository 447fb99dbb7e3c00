"""Many pipelines of one command: what is wrong with one stops no other."""

import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from xml.etree import ElementTree

import pytest
from small_pipeline import write_small_pipeline

from qpipe.cli.fleet import run_pipelines
from qpipe.cli.guarded import run_app
from qpipe.errors import BuildError, Interrupted, InterruptedFleet
from qpipe.flow.fleet import plan_fleet, run_fleet
from qpipe.flow.options import RunOptions
from qpipe.records.fleet import Ended, Refusal
from qpipe.records.result import RunResult
from qpipe.report.fleet import render_fleet
from qpipe.report.table import as_text

OK = RunResult(run_id="r", mlflow_run_id=None, pipeline="p", exit_code=0, warnings=(), cells=(), promoted=())
PROMOTE = {"model": "{model}-{target}", "alias": "champion"}


@pytest.fixture
def fleet(tmp_path):
    """Four pipelines: the second has a mistake in its text, the third one's model is cut short."""
    write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    model = (tmp_path / "small.onnx").read_bytes()
    for name in "abcd":
        (tmp_path / f"{name}.onnx").write_bytes(model[:200] if name == "c" else model)
        own = {"base": "small.yaml", "name": name, "model": {"path": f"{name}.onnx"}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(own | ({"recpes": []} if name == "b" else {})))
    return [tmp_path / f"{name}.yaml" for name in "abcd"]


def test_mistakes_are_told_before_any_work_and_the_others_are_run(fleet):
    order = []

    def run(file):
        order.append(f"run {file.stem}")
        return OK

    ended = run_fleet(fleet, run, lambda one: order.append(f"{one.file.stem}: {one.exit_code}"))
    assert order == ["b: 2", "c: 2", "run a", "a: 0", "run d", "d: 0"]
    assert [one.file for one in ended] == fleet
    assert "unknown key 'recpes'" in ended[1].end.message
    assert "not a whole ONNX file" in ended[2].end.message


def test_hours_of_a_fleet_are_told_meanwhile_beside_the_object_too(fleet, capsys):
    code = run_pipelines(fleet, lambda _: OK, as_json=True)
    told = capsys.readouterr()
    assert (code, json.loads(told.out)["exit_code"]) == (2, 2)
    assert [line.split(":")[0] for line in told.err.splitlines()] == [
        f"[{count}/4] {file}" for count, file in enumerate((fleet[1], fleet[2], fleet[0], fleet[3]), 1)
    ]


def test_the_command_that_makes_one_page_of_all_stands_at_the_end_in_one_line(fleet, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    runs = {"a": replace(OK, run_id="a" * 16), "d": replace(OK, run_id="d" * 16)}
    run_pipelines(fleet, lambda file: runs[file.stem], as_json=False, store="my store")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"as one page: qpipe report {'a' * 16} {'d' * 16} --store 'my store'"


def test_an_error_and_a_bug_are_results_of_their_file(fleet, capsys):
    errors = {"a": BuildError("no toolchain", hint="install it"), "d": ZeroDivisionError("division by zero")}

    def run(file):
        raise errors[file.stem]

    ended = run_fleet(fleet, run, lambda _: None)
    assert ended[0].end == Refusal(message="no toolchain", hint="install it", code=5)
    assert (ended[3].exit_code, ended[3].end.message) == (1, "ZeroDivisionError: division by zero")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("end", [Interrupted("interrupted"), KeyboardInterrupt()], ids=["a child", "this process"])
def test_ctrl_c_stops_them_all_and_what_was_finished_is_told(fleet, tmp_path, capsys, end):
    """A night of work left no JUnit file and no overview: 13 of 14 had been judged."""
    begun = []

    def run(file):
        begun.append(file.stem)
        if file.stem == "d":
            raise end
        return OK

    junit = tmp_path / "junit.xml"
    with pytest.raises(InterruptedFleet, match="2 of 5 pipelines"):
        run_pipelines([*fleet, later(fleet)], run, as_json=True, junit=junit)
    assert begun == ["a", "d"]
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 130
    assert [one["exit_code"] for one in found["pipelines"]] == [0, 2, 2, 130, 130]
    assert [one["error"]["message"] for one in found["pipelines"][3:]] == [
        "not finished: interrupted",
        "not begun: interrupted",
    ]
    cases = [case.get("message") for case in ElementTree.parse(junit).iter("error")]
    assert cases[2:] == ["not finished: interrupted", "not begun: interrupted"]


def test_ctrl_c_while_a_pipeline_ends_well_stops_the_next(fleet):
    stop = Event()

    def run(_):
        stop.set()
        return OK

    ended = run_fleet(fleet, run, lambda _: None, stop)
    assert [one.exit_code for one in ended] == [0, 2, 2, 130]


def test_an_interrupted_fleet_is_one_object_and_two_lines(fleet, capsys, monkeypatch):
    def run(*_given):
        raise KeyboardInterrupt

    monkeypatch.setattr("qpipe.cli.running._run_of_many", run)
    assert run_app(["run", *map(str, fleet), "--json"]) == 130
    told = capsys.readouterr()
    assert json.loads(told.out)["exit_code"] == 130
    assert told.err.splitlines()[-2] == "error: interrupted: 2 of 4 pipelines are not finished"


def test_many_that_were_not_begun_are_one_line_of_the_overview(fleet):
    why = Refusal(message="not begun: interrupted", hint="again", code=130)
    text = as_text(render_fleet([Ended(file=Path(f"{n}.yaml"), end=why) for n in range(60)]))
    assert text.count("not begun") == 1
    assert "and 57 more" in text


def later(fleet):
    """One pipeline more."""
    file = fleet[0].with_name("e.yaml")
    file.write_text(fleet[0].read_text().replace('"name": "a"', '"name": "e"'))
    return file


def test_two_files_never_promote_to_one_name(tmp_path, fleet):
    for name in "ad":
        file = tmp_path / f"{name}.yaml"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"promote": PROMOTE | {"model": "digits"}}))
    ended = run_fleet([fleet[0], fleet[3]], lambda _: OK, lambda _: None)
    assert ended[0].end is OK
    assert ended[1].end.message == f"{fleet[3]}: promotes to digits as champion, and so does {fleet[0]}"


def test_a_plan_of_all_has_cells_or_the_reason(fleet, tmp_path):
    found = dict(plan_fleet(fleet, RunOptions(store=str(tmp_path / "store"))))
    assert [line.cell for line in found[fleet[0]]] == ["a/none/cpu-local", "a/int8/cpu-local"]
    assert isinstance(found[fleet[1]], Refusal)
    assert not (tmp_path / "store").exists()
