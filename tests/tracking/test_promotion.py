import dataclasses
import os
import re
import threading
from functools import partial

import pytest

from qpipe.errors import ConfigError, PromotionError, TrackingError
from qpipe.records.verdict import Decision
from qpipe.tracking.connection import connect
from qpipe.tracking.promotion.ledger import now, open_ledger
from qpipe.tracking.promotion.moves import history, orphaned, promote, reconcile, rollback
from qpipe.tracking.promotion.rights import deserving


@pytest.fixture(params=["sqlite", "server"])
def anywhere(request, tmp_path):
    """A tracker on sqlite, and one on a real server."""
    uri = request.getfixturevalue("database" if request.param == "sqlite" else "server")
    return connect(uri, f"{request.node.name}-{tmp_path.name}", folder=tmp_path)


@pytest.fixture
def name(request, tmp_path):
    """A registered model of the test's own."""
    return f"digits-{request.node.name}-{tmp_path.name}".replace("[", "-").replace("]", "")


@pytest.fixture
def logged(make, tmp_path):
    """Logs an engine that passed, and gives its result."""

    def log(tracker, number=0, **changes):
        result = make.result(
            make.engine(
                tmp_path / f"engine-{number}", content=f"weights {number}".encode(), **changes.pop("engine", {})
            ),
            key=f"{number:064x}",
            **changes,
        )
        parent = tracker.start("run-1", "digits", {})
        tracker.log_cell(parent, result)
        return result

    return log


def at(tracker, name, alias="champion"):
    return str(tracker.client.get_registered_model(name).aliases.get(alias))


def together(work, count):
    """Run `work(number)` in as many threads at once; what it returned and what it raised."""
    done, failed = [], []
    gate = threading.Barrier(count)

    def one(number):
        gate.wait()
        try:
            done.append(work(number))
        except PromotionError as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) + len(failed) == count
    return done, failed


def test_an_engine_that_passed_becomes_a_version_with_an_alias(anywhere, name, logged):
    result = logged(anywhere)

    promoted = promote(anywhere, result, model_name=name, alias="champion", expected="")

    assert (promoted.model, promoted.version, promoted.alias) == (name, "1", "champion")
    version = anywhere.client.get_model_version_by_alias(name, "champion")
    assert version.tags["qpipe.engine"] == result.engine.digest
    assert version.tags["qpipe.evidence"] == result.evidence.digest
    (move,) = history(anywhere, name)
    assert (move.version, move.previous, move.evidence, move.forced) == ("1", None, result.evidence.digest, False)
    assert "@" in move.by


@pytest.mark.parametrize("how", ["set_tracking_uri", "variable"])
def test_a_version_names_its_model_wherever_mlflow_points(tracker, name, logged, how, monkeypatch):
    """The link from version to model does not depend on MLflow's own setting, which is as before afterwards."""
    import mlflow
    from mlflow.tracking._tracking_service import utils

    elsewhere = "sqlite:////nowhere/elsewhere.db"
    if how == "set_tracking_uri":
        monkeypatch.setattr(utils, "_tracking_uri", elsewhere)
    if how == "variable":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
    before = (utils._tracking_uri, os.environ.get("MLFLOW_TRACKING_URI"), mlflow.get_tracking_uri())

    promote(tracker, logged(tracker), model_name=name, alias="champion")

    (model,) = tracker.client.search_logged_models([tracker.experiment_id])
    assert tracker.client.get_model_version(name, "1").source == f"models:/{model.model_id}"
    assert (utils._tracking_uri, os.environ.get("MLFLOW_TRACKING_URI"), mlflow.get_tracking_uri()) == before


def test_promoting_again_changes_nothing(tracker, name, logged):
    result = logged(tracker)
    first = promote(tracker, result, model_name=name, alias="champion")

    assert promote(tracker, result, model_name=name, alias="champion") == first
    assert len(history(tracker, name)) == 1
    assert len(tracker.client.search_model_versions(f"name = '{name}'")) == 1


def test_rollback_goes_back_one_at_a_time(tracker, name, logged):
    for number in range(3):
        promote(tracker, logged(tracker, number), model_name=name, alias="champion")
    assert at(tracker, name) == "3"

    assert [rollback(tracker, name, "champion").version for _ in range(2)] == ["2", "1"]
    assert at(tracker, name) == "1"
    with pytest.raises(PromotionError, match="no earlier version") as caught:
        rollback(tracker, name, "champion")
    assert "qpipe promote RUN_ID" in caught.value.hint
    assert caught.value.code == 5  # the registry refuses: a name that nobody knows is 2
    assert [move.action for move in history(tracker, name)] == ["promote"] * 3 + ["rollback"] * 2


def test_what_was_taken_back_does_not_return_by_repetition(tracker, name, logged):
    promote(tracker, logged(tracker, 1), model_name=name, alias="champion")
    second = logged(tracker, 2)
    promote(tracker, second, model_name=name, alias="champion")
    rollback(tracker, name, "champion", reason="blurry at night")

    with pytest.raises(PromotionError, match=r"version 2 was taken back: .*blurry at night"):
        promote(tracker, second, model_name=name, alias="champion")
    assert promote(tracker, second, model_name=name, alias="champion", force_reason="fixed lamps").version == "2"
    assert at(tracker, name) == "2"


@pytest.mark.parametrize("decision", [Decision.FAIL, Decision.INCONCLUSIVE, None])
def test_what_did_not_pass_is_never_registered(tracker, name, logged, decision):
    result = logged(tracker, decision=decision)

    with pytest.raises(PromotionError, match="no right to an alias"):
        promote(tracker, result, model_name=name, alias="champion")
    assert tracker.client.search_registered_models(f"name = '{name}'") == []


def test_who_has_no_right_is_told_which_required_gates_are_why(result):
    verdicts = tuple(
        dataclasses.replace(result.verdicts[0], gate=gate, decision=decision, required=required, reason=f"so {gate}")
        for gate, decision, required in (
            ("quality", Decision.PASS, True),
            ("size", Decision.FAIL, True),
            ("speed", Decision.FAIL, False),
        )
    )
    failed = dataclasses.replace(result, decision=Decision.FAIL, verdicts=verdicts)
    with pytest.raises(PromotionError, match=r"no right to an alias: FAIL; size: so size$"):
        deserving(failed, None)


def test_force_needs_a_reason_and_records_it(tracker, name, logged):
    result = logged(tracker, decision=Decision.FAIL)
    with pytest.raises(PromotionError):
        promote(tracker, result, model_name=name, alias="champion", force_reason="  ")

    promoted = promote(tracker, result, model_name=name, alias="champion", force_reason="demo on Monday")

    assert promoted.note == "forced: demo on Monday"
    (move,) = history(tracker, name)
    assert (move.forced, move.reason) == (True, "demo on Monday")
    assert tracker.client.get_model_version(name, "1").tags["qpipe.forced"] == "demo on Monday"


@pytest.mark.parametrize("changes", [{"kind": "simulated"}, {"engine": {"kind": "simulated"}}])
def test_simulated_evidence_is_no_ground(tracker, name, logged, changes):
    with pytest.raises(PromotionError, match="simulated"):
        promote(tracker, logged(tracker, **changes), model_name=name, alias="champion")


def test_the_reference_is_never_promoted(tracker, name, logged):
    with pytest.raises(PromotionError, match="is the reference"):
        promote(
            tracker, logged(tracker, engine={"recipe": "none"}), model_name=name, alias="champion", force_reason="x"
        )


def test_a_cell_without_an_engine(tracker, name, result):
    broken = dataclasses.replace(result, engine=None, status="crashed", reason="signal 11")
    with pytest.raises(PromotionError, match="no engine: crashed: signal 11"):
        promote(tracker, broken, model_name=name, alias="champion", force_reason="x")


def test_marks_of_verdicts_travel(tracker, name, logged):
    result = logged(tracker)
    marked = dataclasses.replace(result.verdicts[0], notes=("agreement-only",))
    promoted = promote(tracker, dataclasses.replace(result, verdicts=(marked,)), model_name=name, alias="champion")
    assert promoted.note == "agreement-only"


@pytest.mark.parametrize(("model", "alias"), [("m", "latest"), ("m", "v12"), ("m", "a b"), ("a/b", "x"), ("", "x")])
def test_names_that_mlflow_cannot_have(tracker, result, model, alias):
    with pytest.raises(ConfigError, match="cannot be"):
        promote(tracker, result, model_name=model, alias=alias)


@pytest.mark.parametrize(("model", "alias"), [("m" * 257, "x"), ("m", "a" * 201)])
def test_names_that_are_too_long(tracker, result, model, alias):
    with pytest.raises(ConfigError, match=r"of 2\d\d characters"):
        promote(tracker, result, model_name=model, alias=alias)


def test_however_long_a_reason_the_ledger_can_be_read(tracker, name, logged):
    """MLflow cuts parameters at 6000 characters, and JSON writes up to twelve for a sign."""
    promote(tracker, logged(tracker, 1), model_name=name, alias="champion", force_reason="x" * 9000)
    promote(tracker, logged(tracker, 2), model_name=name, alias="champion", force_reason="🦊" * 9000)

    reasons = [move.reason for move in history(tracker, name)]
    assert [set(reason) for reason in reasons] == [{"x", "…"}, {"🦊", "…"}]
    assert [len(reason) for reason in reasons] > [1000, 400]


def test_an_entry_that_cannot_be_read_is_named(tracker, name, logged):
    promote(tracker, logged(tracker), model_name=name, alias="champion")
    tracker.client.log_param(open_ledger(tracker, name).run_id, "alias.champion.000002", '{"action":"promote"')
    with pytest.raises(PromotionError, match=rf"alias.champion.000002 in the ledger of {name}.* cannot be read"):
        history(tracker, name)


def test_who_may_not_move_an_alias_enters_nothing(tracker, name, logged, monkeypatch):
    """Else whoever may, and merely looks, would finish a move that was refused."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    promote(tracker, logged(tracker, 1), model_name=name, alias="champion")
    promote(tracker, logged(tracker, 2), model_name=name, alias="champion")

    def refuse(*_):
        raise MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    with monkeypatch.context() as here:
        for write in ("set_registered_model_alias", "set_registered_model_tag"):
            here.setattr(tracker.client, write, refuse)
        with pytest.raises(TrackingError, match="Permission denied") as caught:
            rollback(tracker, name, "champion")
    assert "the right to do that" in caught.value.hint
    assert reconcile(tracker, name) == ()
    assert at(tracker, name) == "2"


def test_new_evidence_for_the_same_engine_is_a_new_version(tracker, name, logged):
    result = logged(tracker)
    promote(tracker, result, model_name=name, alias="champion")
    again = dataclasses.replace(result, evidence=dataclasses.replace(result.evidence, digest="77" * 32))
    assert promote(tracker, again, model_name=name, alias="champion").version == "2"


def test_an_engine_that_lies_in_another_experiment_is_found(tracker, database, name, logged, tmp_path):
    """A step joins its caller's run; promoted later, from the pipeline's own experiment."""
    result = logged(tracker)
    elsewhere = connect(database, f"elsewhere-{tmp_path.name}", folder=tmp_path)
    assert promote(elsewhere, result, model_name=name, alias="champion").version == "1"


def test_an_engine_that_is_not_logged(tracker, name, result):
    """One of its own: other tests log theirs in the same database, and those are found in any experiment."""
    unknown = dataclasses.replace(result, engine=dataclasses.replace(result.engine, digest="0f" * 32))
    with pytest.raises(PromotionError, match="is not logged"):
        promote(tracker, unknown, model_name=name, alias="champion")


def test_a_pending_model_is_not_registered(tracker, name, result):
    tracker.client.create_logged_model(tracker.experiment_id, name="x", tags={"qpipe.engine": result.engine.digest})
    with pytest.raises(PromotionError, match="is PENDING"):
        promote(tracker, result, model_name=name, alias="champion")


def test_a_ready_model_without_artifacts_is_not_registered(tracker, name, result):
    tags = {"qpipe.engine": result.engine.digest}
    model = tracker.client.create_logged_model(tracker.experiment_id, name="x", tags=tags)
    tracker.client.finalize_logged_model(model.model_id, "READY")
    with pytest.raises(PromotionError, match=r"lacks model\.onnx, engine\.json"):
        promote(tracker, result, model_name=name, alias="champion")


def test_an_alias_moved_since_the_caller_looked(tracker, name, logged):
    promote(tracker, logged(tracker, 1), model_name=name, alias="champion")
    promote(tracker, logged(tracker, 2), model_name=name, alias="champion")
    with pytest.raises(PromotionError, match=r"is at version 2, not at 1: .*@.* moved .* to version 2 at 20"):
        promote(tracker, logged(tracker, 3), model_name=name, alias="champion", expected="1")


def test_an_alias_moved_by_hand_is_told_and_reconciled(tracker, name, logged):
    promote(tracker, logged(tracker, 1), model_name=name, alias="champion")
    promote(tracker, logged(tracker, 2), model_name=name, alias="champion")
    tracker.client.set_registered_model_alias(name, "champion", "1")

    with pytest.raises(PromotionError, match="is at version 1, moved by somebody outside the ledger"):
        promote(tracker, logged(tracker, 3), model_name=name, alias="champion")
    assert [move.version for move in reconcile(tracker, name)] == ["2"]
    assert at(tracker, name) == "2"
    assert reconcile(tracker, name) == ()


def champions(tracker, name, logged, *numbers):
    for number in numbers:
        promote(tracker, logged(tracker, number), model_name=name, alias="champion")


def test_a_champion_that_was_deleted_leaves_the_way_open(tracker, name, logged):
    champions(tracker, name, logged, 1, 2)
    tracker.client.delete_model_version(name, "2")

    assert reconcile(tracker, name) == ()
    assert [move.version for move in orphaned(tracker, name)] == ["2"]
    assert promote(tracker, logged(tracker, 3), model_name=name, alias="champion").version == "3"
    assert (at(tracker, name), orphaned(tracker, name)) == ("3", ())


def test_from_a_champion_that_was_deleted_the_way_back(tracker, name, logged):
    champions(tracker, name, logged, 1, 2)
    tracker.client.delete_model_version(name, "2")
    done = rollback(tracker, name, "champion")
    assert (done.version, done.note) == ("1", "rolled back from version 2, which was deleted")
    assert at(tracker, name) == "1"


def test_a_rollback_passes_over_versions_that_were_deleted(tracker, name, logged):
    champions(tracker, name, logged, 1, 2, 3)
    tracker.client.delete_model_version(name, "2")

    done = rollback(tracker, name, "champion")
    assert (done.version, done.note) == ("1", "rolled back from version 3; deleted: version 2")
    with pytest.raises(PromotionError, match="no earlier version to go back to"):
        rollback(tracker, name, "champion")
    assert at(tracker, name) == "1"


def test_a_version_deleted_between_its_registration_and_the_alias(tracker, name, logged, monkeypatch):
    champions(tracker, name, logged, 1)
    result = logged(tracker, 2)

    def deleted(*_):
        tracker.client.delete_model_version(name, "2")

    with monkeypatch.context() as here:
        here.setattr("qpipe.tracking.promotion.alias.follow", deleted)
        promote(tracker, result, model_name=name, alias="champion")
    assert at(tracker, name) == "1"
    assert promote(tracker, result, model_name=name, alias="champion").version == "3"


def test_a_logged_model_that_was_deleted_is_logged_again_with_its_figures(tracker, name, logged):
    result = logged(tracker, 1)
    (model,) = tracker.client.search_logged_models([tracker.experiment_id])
    tracker.client.delete_logged_model(model.model_id)

    with pytest.raises(PromotionError, match="is not logged") as caught:
        promote(tracker, result, model_name=name, alias="champion", model_id=model.model_id)
    assert "run the pipeline again" in caught.value.hint

    promote(tracker, logged(tracker, 1), model_name=name, alias="champion")
    (again,) = tracker.client.search_logged_models([tracker.experiment_id], "metrics.accuracy > 0.9")
    assert again.model_id != model.model_id


def test_an_engine_that_was_judged_long_ago_takes_no_younger_ones_place(tracker, name, logged, monkeypatch):
    champions(tracker, name, logged, 1)
    before, later = "2000-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"
    with pytest.raises(PromotionError, match=f"was judged at {re.escape(before)}, and since then .* to version 1"):
        promote(tracker, logged(tracker, 2), model_name=name, alias="champion", judged_at=before)
    assert len(tracker.client.search_model_versions(f"name = '{name}'")) == 1
    assert promote(tracker, logged(tracker, 1), model_name=name, alias="champion", judged_at=before).version == "1"
    late = partial(promote, tracker, logged(tracker, 2), model_name=name, alias="champion")
    with pytest.raises(PromotionError, match=r"a clock is wrong .* was judged at 2999-.*, and .* to version 1"):
        late(judged_at=later)
    with monkeypatch.context() as fast:
        fast.setattr("qpipe.tracking.promotion.alias.now", lambda: "2999-01-02T00:00:00+00:00")
        assert late(judged_at=later).version == "2"
    with pytest.raises(PromotionError, match=r"a clock is wrong .* to version 2 at 2999-"):
        promote(tracker, logged(tracker, 3), model_name=name, alias="champion", judged_at=now())


def test_a_writer_that_died_between_its_two_writes_is_followed(tracker, name, logged):
    promote(tracker, logged(tracker, 1), model_name=name, alias="champion")
    promote(tracker, logged(tracker, 2), model_name=name, alias="champion")
    ledger = open_ledger(tracker, name)
    head = ledger.read().head("champion")
    ledger.write(dataclasses.replace(head, sequence=3, version="1", previous="2", token="dead"))

    promoted = promote(tracker, logged(tracker, 3), model_name=name, alias="champion", expected="1")

    assert promoted.version == "3"
    assert [move.version for move in history(tracker, name)] == ["1", "2", "1", "3"]


def test_an_alias_that_was_there_before_qpipe_can_be_gone_back_to(tracker, name, logged):
    tracker.client.create_registered_model(name)
    tracker.client.create_model_version(name, "file:///old", run_id=tracker.start("old", "x", {}))
    tracker.client.set_registered_model_alias(name, "champion", "1")

    promote(tracker, logged(tracker), model_name=name, alias="champion")

    assert rollback(tracker, name, "champion").version == "1"
    assert at(tracker, name) == "1"


def test_models_that_qpipe_does_not_know(tracker, name):
    with pytest.raises(ConfigError, match="no registered model"):
        history(tracker, name)
    for read in (history, reconcile):
        with pytest.raises(ConfigError, match="cannot be the name of a registered model"):
            read(tracker, "a/b")
    tracker.client.create_registered_model(name)
    with pytest.raises(PromotionError, match="never promoted"):
        rollback(tracker, name, "champion")


def test_of_twenty_writers_of_one_number_exactly_one_wins(anywhere, name, logged):
    promote(anywhere, logged(anywhere), model_name=name, alias="champion")
    ledger = open_ledger(anywhere, name)
    first = ledger.read().head("champion")

    def write(number):
        ledger.write(dataclasses.replace(first, sequence=2, token=f"token {number}", by=f"writer {number}"))
        return number

    done, failed = together(write, 20)

    assert len(done) == 1
    assert all(f"somebody else was first: writer {done[0]} moved" in str(error) for error in failed)
    assert ledger.read().head("champion").by == f"writer {done[0]}"


def test_twenty_promotions_at_once_from_the_same_state(tracker, name, logged):
    result = logged(tracker)
    promote(tracker, result, model_name=name, alias="champion")
    results = [
        dataclasses.replace(result, evidence=dataclasses.replace(result.evidence, digest=f"{number:064x}"))
        for number in range(20)
    ]

    done, failed = together(
        lambda number: promote(tracker, results[number], model_name=name, alias="champion", expected="1"), 20
    )

    assert len(done) == 1
    assert len(failed) == 19
    assert at(tracker, name) == done[0].version
    assert [move.sequence for move in history(tracker, name)] == [1, 2]


@pytest.mark.slow
def test_first_promotions_at_once_agree_on_one_ledger(tracker, name, logged):
    results = [logged(tracker, number) for number in range(8)]

    done, _ = together(lambda number: promote(tracker, results[number], model_name=name, alias="champion"), 8)

    moves = history(tracker, name)
    assert sorted(move.version for move in moves) == sorted(one.version for one in done)
    assert [move.sequence for move in moves] == list(range(1, len(done) + 1))
    assert at(tracker, name) == moves[-1].version
    runs = tracker.client.search_runs(
        [tracker.client.get_experiment_by_name("qpipe-ledger").experiment_id], f"tags.`qpipe.ledger` = '{name}'"
    )
    assert len(runs) == 1


def test_a_slow_writer_cannot_undo_a_later_move(tracker, name, logged, monkeypatch):
    promote(tracker, logged(tracker, 1), model_name=name, alias="champion")
    second, third = logged(tracker, 2), logged(tracker, 3)
    true_set = tracker.client.set_registered_model_alias
    slow_is_waiting, third_is_there = threading.Event(), threading.Event()

    def set_slowly(model, alias, version):
        if version == "2" and not slow_is_waiting.is_set():
            slow_is_waiting.set()
            third_is_there.wait(60)
        true_set(model, alias, version)

    monkeypatch.setattr(tracker.client, "set_registered_model_alias", set_slowly)
    slow = threading.Thread(target=promote, args=(tracker, second), kwargs={"model_name": name, "alias": "champion"})
    slow.start()
    slow_is_waiting.wait(10)
    promote(tracker, third, model_name=name, alias="champion")
    assert at(tracker, name) == "3"
    third_is_there.set()
    slow.join()

    assert at(tracker, name) == "3"
    assert [move.version for move in history(tracker, name)] == ["1", "2", "3"]
