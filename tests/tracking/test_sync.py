import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from qpipe.cli.guarded import run_app
from qpipe.errors import TrackingError
from qpipe.records.result import RunResult
from qpipe.records.target import Target
from qpipe.testing.fake import fake_site
from qpipe.testing.models import small_rows, write_small_model
from qpipe.tracking import Spool, SpooledCell, connect, history, promote, read_spool, sync, write_spool
from qpipe.tracking.experiment import Dataset

TARGET = Target(name="cpu-local", backend="stand-in")


class Relay(ThreadingHTTPServer):
    """Stands before a real server: passes everything on, or nothing, or applies a POST and then denies it.

    `lose_at` is the end of a path and a text of the body: from that request on nobody answers.
    """

    daemon_threads = True

    def __init__(self, server):
        self.server_url, self.gone, self.deny, self.lose_at = server, False, [], None
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        if self.server.lose_at is not None:
            path, text = self.server.lose_at
            self.server.gone |= self.path.endswith(path) and text in (body or b"")
        if self.server.gone:
            self.close_connection = True
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        request = urllib.request.Request(self.server.server_url + self.path, body, headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                code, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            code, content = error.code, error.read()
        denied = [path for path in self.server.deny if self.command == "POST" and self.path.endswith(path)]
        if denied:
            self.server.deny.remove(denied[0])
            code, content = 503, b"{}"
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815 (names of http.server)

    def log_message(self, *_):
        pass


@pytest.fixture
def relay(server, monkeypatch):
    for name in ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER"):
        monkeypatch.setenv(name, "0")  # retries at once
    with Relay(server) as relay:
        thread = threading.Thread(target=relay.serve_forever, args=(0.05,))
        thread.start()
        yield relay
        relay.shutdown()
        thread.join()


@pytest.fixture
def spool(make, tmp_path):
    results = tuple(
        make.result(make.engine(tmp_path / f"e{number}", content=bytes([number])), key=f"{number:064x}")
        for number in range(2)
    )
    evidence = make.evidence_folder(tmp_path / "evidence")
    run = RunResult(
        run_id=f"run-{tmp_path.name}",
        mlflow_run_id=None,
        pipeline="digits",
        exit_code=0,
        warnings=(),
        cells=results,
        promoted=(),
    )
    return Spool(
        result=run,
        params=(("recipes", "int8"),),
        cells=tuple(SpooledCell(key=one.key, target=TARGET, evidence=evidence) for one in results),
        dataset=Dataset(name="gate", digest="cd" * 32, source="gate.npz", rows=10),
    )


def counted(tracker):
    runs = tracker.client.search_runs([tracker.experiment_id])
    models = tracker.client.search_logged_models([tracker.experiment_id])
    return len(runs), len(models), {str(model.status) for model in models}, {run.info.status for run in runs}


def test_a_spool_comes_back_as_it_was(spool, tmp_path):
    assert read_spool(write_spool(tmp_path / "run.json", spool)) == spool
    assert not list(tmp_path.glob(".run*"))


def test_a_file_that_is_no_spool(tmp_path):
    with pytest.raises(TrackingError, match="No such file"):
        read_spool(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(TrackingError, match="is not a run"):
        read_spool(tmp_path / "broken.json")


def test_a_run_lost_in_the_middle_is_logged_later_once(relay, server, spool, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    tracker = connect(relay.url, f"lost-{tmp_path.name}", folder=tmp_path)
    parent = tracker.start(spool.result.run_id, "digits", dict(spool.params))
    first = tracker.log_cell(parent, spool.result.cells[0], target=TARGET)
    relay.gone = True
    with pytest.raises(TrackingError, match="logging the cell") as caught:
        tracker.log_cell(parent, spool.result.cells[1], target=TARGET)
    assert caught.value.code == 5
    assert "qpipe sync" in caught.value.hint
    relay.gone = False

    run, logged = sync(tracker, spool)

    assert run == parent
    assert logged[spool.result.cells[0].key].run_id == first.run_id
    assert counted(tracker) == (3, 2, {"READY"}, {"FINISHED"})
    assert sync(tracker, spool) == (run, logged)
    assert counted(tracker) == (3, 2, {"READY"}, {"FINISHED"})
    names = [item.path for item in tracker.client.list_artifacts(run)]
    assert names == ["result.json"]


def test_requests_that_were_applied_and_then_denied_leave_no_doubles(relay, spool, tmp_path):
    tracker = connect(relay.url, f"denied-{tmp_path.name}", folder=tmp_path)
    result = spool.result.cells[0]

    relay.deny = ["/runs/create"]
    parent = tracker.start(spool.result.run_id, "digits", {})
    relay.deny = ["/runs/create", "/logged-models", "/runs/log-batch"]
    tracker.log_cell(parent, result, target=TARGET)
    tracker.finish(parent, "FINISHED")
    relay.deny = ["/runs/create", "/registered-models/create", "/model-versions/create", "/runs/log-parameter"]
    name = f"denied-{tmp_path.name}"
    promoted = promote(tracker, result, model_name=name, alias="champion")

    assert relay.deny == []
    assert counted(tracker) == (2, 1, {"READY"}, {"FINISHED"})
    assert promoted.version == "1"
    assert len(tracker.client.search_model_versions(f"name = '{name}'")) == 1
    ledgers = tracker.client.get_experiment_by_name("qpipe-ledger").experiment_id
    assert len(tracker.client.search_runs([ledgers], f"tags.`qpipe.ledger` = '{name}'")) == 1


def test_evidence_that_was_swept_away_is_told(tracker, spool, tmp_path):
    (tmp_path / "evidence").rename(tmp_path / "gone")
    with pytest.raises(TrackingError, match="evidence is no longer there"):
        sync(tracker, spool)


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """Writes a pipeline of the small network on a scripted backend, in the current folder; the cells run once."""
    folder = tmp_path / "place"
    (folder / "targets").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(fake_site()))
    write_small_model(folder)
    for number, role in enumerate(("calibration", "gate")):
        rows = small_rows(200, number)
        np.savez(folder / f"{role}.npz", image=rows, label=np.zeros(200, np.int64))
    (folder / "targets" / "good.yaml").write_text("{name: good, backend: fake}")

    def write(name):
        document = {
            "name": name,
            "model": {"path": "small.onnx", "name": name},
            "task": "classification",
            "data": {"label": "label", "calibration": {"npz": "calibration.npz"}, "gate": {"npz": "gate.npz"}},
            "targets": ["good"],
            "recipes": ["int8"],
            "gates": {"quality": {"margin": 0.05}},
            "promote": {"model": "{model}", "alias": "champion"},
            "tracking": {"experiment": name},
        }
        (folder / "small.yaml").write_text(json.dumps(document))

    return write


def qpipe_says(capfd, *arguments):
    capfd.readouterr()
    code = run_app([*arguments, "--json"])
    return code, json.loads(capfd.readouterr().out)


@pytest.mark.parametrize(
    ("where", "promoted"),
    [
        pytest.param(("/runs/log-parameter", b""), 0, id="the ledger", marks=pytest.mark.slow),
        pytest.param(("result.json", b""), 1, id="the results"),
    ],
)
def test_a_server_lost_in_mid_run_costs_the_log_and_not_the_results(
    relay, pipeline, capfd, tmp_path, monkeypatch, *, where, promoted
):
    """Through the whole command line: exit code 5 with every verdict; once it is back, `qpipe sync` makes it good."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", relay.url)
    name = f"lost-{promoted}-{tmp_path.name}"
    pipeline(name)
    relay.lose_at = where
    code, said = qpipe_says(capfd, "run", "small.yaml", "--no-profile")
    assert (code, said["exit_code"], relay.gone) == (5, 5, True)
    assert [cell["verdict"] for cell in said["cells"]] == [None, "PASS"]
    assert any("qpipe sync" in warning for warning in said["warnings"])
    assert len(said["promoted"]) == promoted
    code, answer = qpipe_says(capfd, "sync", "last")
    assert (code, answer["error"]["code"]) == (2, 2)  # nobody answers yet

    relay.gone, relay.lose_at = False, None
    code, synced = qpipe_says(capfd, "sync", "last")
    assert (code, synced["exit_code"], synced["warnings"]) == (0, 0, [])
    assert [(one["model"], one["version"]) for one in synced["promoted"]] == [(name, "1")]
    tracker = connect(relay.url, name, folder=tmp_path)
    assert counted(tracker) == (3, 2, {"READY"}, {"FINISHED"})
    assert tracker.client.get_registered_model(name).aliases == {"champion": "1"}
    assert len(history(tracker, name)) == 1
    assert qpipe_says(capfd, "sync", "last")[0] == 2  # nothing is left to log
