import os
import resource
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from qpipe.errors import ConfigError, PromotionError, TrackingError, UnreachableError
from qpipe.flow.doctor import _mlflow
from qpipe.tracking.connection import connect, knock, resolve_uri, stray_mlruns
from qpipe.tracking.patience import BEGIN, PROMOTE, SYNC, address, calling, patience
from qpipe.tracking.tracker import joined_run

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def test_the_package_imports_without_mlflow():
    modules = "qpipe.tracking.connection, qpipe.tracking.tracker, qpipe.tracking.flavor"
    code = f"import sys, {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_uri_is_as_given_then_the_environment_then_sqlite(tmp_path, monkeypatch):
    assert resolve_uri(None, folder=tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert resolve_uri(None, folder=tmp_path) == "http://there:5000"
    assert resolve_uri("sqlite:///x.db", folder=tmp_path) == "sqlite:///x.db"


def test_a_new_database_leaves_artifacts_beside_it_and_prints_nothing(tmp_path, make):
    here = tmp_path / "elsewhere"
    here.mkdir()
    code = (
        "from pathlib import Path; from qpipe.tracking.connection import connect\n"
        f"tracker = connect(None, 'digits', folder=Path({str(tmp_path / 'work')!r}))\n"
        "run = tracker.start('run-1', 'digits', {}); tracker.finish(run, 'FINISHED')\n"
        "assert tracker.client.get_run(run).info.artifact_uri.startswith('file://'), tracker\n"
        "assert '/work/mlartifacts/digits/' in tracker.client.get_run(run).info.artifact_uri\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env=make.environment(), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(here.iterdir()) == []
    assert (tmp_path / "work" / "mlflow.db").exists()


def test_two_connections_share_the_experiment(database, tmp_path):
    assert (
        connect(database, "shared", folder=tmp_path).experiment_id
        == connect(database, "shared", folder=tmp_path).experiment_id
    )


def test_a_server_that_is_not_there_is_refused_at_once(make, tmp_path):
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="no MLflow server") as caught:
        connect(f"http://127.0.0.1:{make.free_port()}", "digits", folder=tmp_path)
    assert time.monotonic() - started < 10
    assert caught.value.code == 2
    assert "--offline" in caught.value.hint


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(UnreachableError, match="no MLflow at"):
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}", "digits", folder=tmp_path, timeout_s=2)
        assert time.monotonic() - started < 10


def test_a_database_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError, match="cannot write the MLflow database") as caught:
        connect(f"sqlite:///{tmp_path}/file/mlflow.db", "digits", folder=tmp_path)
    assert caught.value.code == 2


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns"])
def test_the_file_store_is_refused(uri, tmp_path):
    with pytest.raises(ConfigError, match="file store"):
        connect(uri, "digits", folder=tmp_path)


def test_a_deleted_experiment_is_named(database, tmp_path):
    tracker = connect(database, "gone", folder=tmp_path)
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(ConfigError, match=r"'gone' .* is deleted"):
        connect(database, "gone", folder=tmp_path)


def test_the_database_of_a_server_is_not_opened_past_it(database, tmp_path):
    connect(database, None, folder=tmp_path).client.create_experiment("served", artifact_location="mlflow-artifacts:/9")
    with pytest.raises(ConfigError, match=r"'served' .* behind an MLflow server") as caught:
        connect(database, "served", folder=tmp_path)
    assert "http://HOST:PORT" in caught.value.hint


def test_a_name_that_no_experiment_can_have_is_no_trouble_of_the_servers(database, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot have the experiment 'xxx.*500 characters"):
        connect(database, "x" * 501, folder=tmp_path)


def test_whoever_reads_needs_no_experiment(database, tmp_path):
    first = connect(database, "first", folder=tmp_path)
    first.client.delete_experiment("0")  # MLflow's own, `Default`
    try:
        assert connect(database, None, folder=tmp_path).experiment_id == "0"
    finally:
        first.client.restore_experiment("0")


_EXPERIMENT = b'{"experiment": {"experiment_id": "1", "name": "digits", "lifecycle_stage": "active"}}'


@pytest.fixture(scope="module")
def gateway():
    """Answers with the status that the first part of the path names, and nothing else; as MLflow 2 below `2.22`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = self.path.split("/")[1], b""
            if status == "2.22":
                known = {"get-by-name": _EXPERIMENT, "search": b"{}"}
                body = known.get(self.path.partition("/experiments/")[2].partition("?")[0], b"")
                status, body = ("200", body) if body else ("404", b"<!doctype html>")
            self.send_response(int(status))
            self.send_header("Retry-After", "3600")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  (http.server's name)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever).start()
        yield f"127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (401, "does not let this user in", "set MLFLOW_TRACKING_USERNAME"),
        (403, "does not let this user in", "the right to do that"),
        (503, "no MLflow at", "start the server"),
    ],
)
def test_a_server_that_refuses_us_is_no_server_that_is_away(gateway, status, message, hint, tmp_path):
    for experiment in ("digits", None):
        with pytest.raises(UnreachableError, match=message) as caught:
            connect(f"http://ann:s3cret@{gateway}/{status}", experiment, folder=tmp_path)
        assert hint in caught.value.hint
        assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(("server", "message"), [("2.22", "older than MLflow 3"), ("200", "is no MLflow")])
def test_a_server_that_cannot_hold_a_run_is_refused_before_work(gateway, server, message, tmp_path):
    with pytest.raises(UnreachableError, match=message) as caught:
        connect(f"http://{gateway}/{server}", "digits", folder=tmp_path)
    assert caught.value.code == 2
    assert "qpipe sync" in caught.value.hint


def test_the_doctor_says_that_a_server_is_too_old(gateway):
    """It was called ok."""
    (found,) = _mlflow(f"http://{gateway}/2.22")
    assert (found.state, "older than MLflow 3" in found.found) == ("broken", True)


@pytest.mark.parametrize(
    ("errand", "kind", "then"),
    [
        (SYNC, TrackingError, "qpipe sync"),
        (PROMOTE, PromotionError, "qpipe promote"),
        (BEGIN, UnreachableError, "the same command"),
    ],
)
def test_what_this_user_may_not_do_is_not_lost(errand, kind, then):
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    with pytest.raises(kind, match="may not") as caught, calling("here", "writing", errand):
        raise MlflowException("may not", error_code=PERMISSION_DENIED)
    assert caught.type is kind
    assert then in caught.value.hint
    assert "once MLflow answers" not in caught.value.hint


def test_a_gateway_that_asks_for_an_hour_does_not_get_it(gateway, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv(RETRIES, "1")
    began = time.monotonic()
    with pytest.raises(TrackingError, match="too many 429"), calling("here", "reading"):
        MlflowClient(tracking_uri=f"http://{gateway}/429").search_experiments()
    assert time.monotonic() - began < 30


def test_a_user_without_a_home_is_told_before_mlflow_is_imported(tmp_path, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # as in a container that runs as any uid
    with pytest.raises(ConfigError, match="the user 54321 has no home folder") as caught:
        knock(None, folder=tmp_path)
    assert "export HOME=" in caught.value.hint


def test_a_stray_mlruns_is_told(database, tmp_path):
    assert stray_mlruns(tmp_path) is None
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("")
    assert stray_mlruns(tmp_path) == tmp_path / "mlruns"
    assert "mlruns" in connect(database, "digits", folder=tmp_path).warnings[0]


def test_patience_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.delenv(RETRIES, raising=False)
    seen = []

    def hold(seconds):
        with patience():
            time.sleep(seconds)
            seen.append(os.environ.get(RETRIES))

    threads = [threading.Thread(target=hold, args=(0.02 * part,)) for part in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["3"] * 5
    assert RETRIES not in os.environ


def test_patience_respects_the_users_choice(monkeypatch):
    monkeypatch.setenv(RETRIES, "9")
    with patience():
        assert os.environ[RETRIES] == "9"
    assert os.environ[RETRIES] == "9"


def test_errors_say_what_was_being_done():
    with (
        pytest.raises(TrackingError, match="MLflow at here: logging the cell: disk full") as caught,
        calling("here", "logging the cell"),
    ):
        raise OSError("disk full")
    assert caught.value.code == 5
    assert "qpipe sync" in caught.value.hint


def test_a_run_lost_in_the_middle_is_a_tracking_error(database, tmp_path):
    with pytest.raises(TrackingError, match="finishing the run"):
        connect(database, "lost", folder=tmp_path).finish("0" * 32, "FINISHED")


def test_joined_run_is_the_users(monkeypatch, database):
    import mlflow

    assert joined_run() is None
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    assert joined_run() == "abc"
    monkeypatch.delenv("MLFLOW_RUN_ID")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    with mlflow.start_run(experiment_id="0") as run:
        assert joined_run() == run.info.run_id


def test_a_database_whose_driver_is_missing_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uri = f"postgresql+pg8000://ann:secret@127.0.0.1:{listening.getsockname()[1]}/mlflow"
        with pytest.raises(ConfigError, match="needs the package pg8000") as caught:
            connect(uri, "x", folder=tmp_path)
    assert "secret" not in caught.value.message
    assert "postgresql+psycopg2://" in caught.value.hint


def test_a_database_that_refuses_is_asked_once(monkeypatch, tmp_path):
    """MLflow itself asks ten times, for minutes."""
    monkeypatch.setattr("qpipe.tracking.connection.DATABASES", {"sqlite": 0})
    monkeypatch.setattr("qpipe.tracking.connection.sqlite_file", lambda _: None)
    monkeypatch.setattr("qpipe.tracking.connection._touch_port", lambda *_: None)
    with pytest.raises(UnreachableError, match="unable to open database file"):
        connect(f"sqlite:///{tmp_path}/none/mlflow.db", "x", folder=tmp_path)


@pytest.mark.parametrize(
    ("uri", "printed"),
    [
        ("postgresql://ann:s3cret@host:5432/mlflow", "postgresql://ann:***@host:5432/mlflow"),
        ("http://ann:s3cret@host", "http://ann:***@host"),
        ("http://host:5000", "http://host:5000"),
        ("http://ann:s3cret@host:port", "http://ann:***@host:port"),
        ("mysql://ann:s3/c#r@t@host/db", "mysql://ann:***@host/db"),
        ("postgresql://host/db?user=ann&password=s3cret&x=1", "postgresql://host/db?user=ann&password=***&x=1"),
        ("sqlite:////tmp/a:b@c/mlflow.db", "sqlite:////tmp/a:b@c/mlflow.db"),
    ],
)
def test_a_password_is_not_printed(uri, printed):
    assert address(uri) == printed
    with pytest.raises(TrackingError) as caught, calling(uri, "asking"):
        raise OSError("gone")
    assert caught.value.message.startswith(f"MLflow at {printed}: asking")


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("to http://ann:s3c@ret@host:5/api/x?a=b@c failed", "to http://ann:***@host:5/api/x?a=b@c failed"),
        ("for url: https://host:5000/api?alias=m@champion", "for url: https://host:5000/api?alias=m@champion"),
        ("https://:t0ken@host, then http://ann:s3cret@host", "https://:***@host, then http://ann:***@host"),
        ("of postgresql://host/db?password=s3cret refused", "of postgresql://host/db?password=*** refused"),
        (f"PUT {'a' * 400}: too many", f"PUT {'a' * 146} … {'a' * 140}: too many"),
    ],
)
def test_mlflows_own_words_lose_their_passwords_too(said, printed):
    with pytest.raises(TrackingError) as caught, calling("here", "asking"):
        raise OSError(said)
    assert caught.value.message.endswith(f": {printed}")


@pytest.mark.parametrize(
    "uri", ["http://ann:s3cret@[::1", "http://ann:s3cret@host:port", "postgresql://ann:s3/cret@host/db"]
)
def test_a_uri_that_cannot_be_read_is_told_without_its_password(uri, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        connect(uri, "x", folder=tmp_path)
    assert "s3" not in f"{caught.value.message} {caught.value.hint}"


def test_a_database_that_finds_no_room(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UnreachableError, match=r"no MLflow at sqlite:.*(disk I/O error|full)"):
            connect(None, None, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_database_behind_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UnreachableError, match="cannot write the MLflow database"):
        knock(f"sqlite:///{tmp_path}/a/mlflow.db", folder=tmp_path)
