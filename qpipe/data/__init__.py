"""Rows to batches: roles with digests, columns matched to a model's inputs, and no row in two roles."""

from qpipe.data.batches import Batch
from qpipe.data.copies import Copies, find_copies, merge_groups
from qpipe.data.digests import outcome_digest, role_digest, rows_digest, sealed, unsealed
from qpipe.data.opening import check_overlap, open_role
from qpipe.data.overlap import Overlap
from qpipe.data.roles import Role

__all__ = [
    "Batch",
    "Copies",
    "Overlap",
    "Role",
    "check_overlap",
    "find_copies",
    "merge_groups",
    "open_role",
    "outcome_digest",
    "role_digest",
    "rows_digest",
    "sealed",
    "unsealed",
]
