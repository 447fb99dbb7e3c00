"""MLflow, and nothing else imports it: runs, flavor, registry, ledger, `models:/` sources. mlflow comes late."""

from qpipe.tracking.connection import connect, database_mark, knock, resolve_uri, stray_mlruns
from qpipe.tracking.experiment import Dataset, Logged, run_status
from qpipe.tracking.holds import Hold, holding
from qpipe.tracking.onnxmodels import told_otherwise
from qpipe.tracking.patience import address
from qpipe.tracking.portable import export_portable
from qpipe.tracking.promotion.ledger import Move, now
from qpipe.tracking.promotion.moves import history, orphaned, promote, reconcile, rollback
from qpipe.tracking.sources import fetch_engine, fetch_model
from qpipe.tracking.sync import Spool, SpooledCell, read_spool, sync, write_spool
from qpipe.tracking.tracker import Tracker, joined_run

__all__ = [
    "Dataset",
    "Hold",
    "Logged",
    "Move",
    "Spool",
    "SpooledCell",
    "Tracker",
    "address",
    "connect",
    "database_mark",
    "export_portable",
    "fetch_engine",
    "fetch_model",
    "history",
    "holding",
    "joined_run",
    "knock",
    "now",
    "orphaned",
    "promote",
    "read_spool",
    "reconcile",
    "resolve_uri",
    "rollback",
    "run_status",
    "stray_mlruns",
    "sync",
    "told_otherwise",
    "write_spool",
]
