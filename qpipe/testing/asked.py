"""What a backend answers before any work: `check` and `scheme`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from qpipe.errors import TargetError
from qpipe.plugins.answers import ask_availability, ask_scheme
from qpipe.plugins.backend import Backend
from qpipe.plugins.kinds import BACKENDS
from qpipe.plugins.packages import ABSENT
from qpipe.records import codec
from qpipe.records.engine import Availability, Unavailable
from qpipe.records.target import Target
from qpipe.testing.comparing import error_of
from qpipe.testing.subject import Subject

_LIGHT_CHECK = """
import sys
sys.path[:] = {path!r}
import importlib, os
from importlib.metadata import entry_points
from qpipe.plugins import loader
from qpipe.records import codec
from qpipe.records.target import Target
before, environment = set(sys.modules), dict(os.environ)
package = {module!r}.partition(".")[0]
for point in entry_points(group="qpipe"):
    if point.module.partition(".")[0] == package:
        importlib.import_module(point.module)
backend = getattr(importlib.import_module({module!r}), {name!r})()
backend.check(codec.decode(Target, {target!r}))
found = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(found - {{package, "qpipe", *{light!r}}} - sys.stdlib_module_names), sep=", ")
print(*sorted(name for name in environment.keys() | os.environ if os.environ.get(name) != environment.get(name)))
"""


class AskedContract(Subject):
    """Answers are steady, quick, and explain themselves."""

    def test_it_is_a_backend_of_the_targets_name(self, backend: Backend, target: Target) -> None:
        """The methods are there, and the target names this backend."""
        assert (wrong := BACKENDS.complain(backend)) is None, f"this is no backend: {wrong}"
        assert backend.name == target.backend, f"it is called {backend.name!r}, its target names {target.backend!r}"

    def test_check_is_steady_and_explains_itself(self, backend: Backend, target: Target, state: Availability) -> None:
        """The same answer twice; what is missing has a reason; what is there has a name."""
        assert ask_availability(backend, target) == state, "check answers differently a second time"
        for part in (state.build, state.run):
            assert not isinstance(part, Unavailable) or part.reason.strip(), "Unavailable needs a reason"
        assert state.toolchain, "toolchain is empty: name what shapes the engine with its version (package_versions)"
        assert isinstance(state.run, Unavailable) or state.fingerprint, "a device that runs has a fingerprint"
        absent = [name for name, version in state.toolchain if version == ABSENT]
        honest = isinstance(state.build, Unavailable) or not absent
        assert honest, f"it can build, though {absent[0]} is {ABSENT}: name the distribution as pip does"

    def test_check_imports_nothing_heavy(self, backend: Backend, target: Target) -> None:
        """`qpipe targets` imports every plugin and asks every backend, of a vendor's runtime it needs nothing."""
        code = _LIGHT_CHECK.format(
            path=sys.path,
            module=type(backend).__module__,
            name=type(backend).__name__,
            target=codec.encode(target),
            light=self.light_modules,
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        *_, modules, variables = done.stdout.split("\n")[:-1]
        assert not modules, (
            f"check (or the plugin) imports {modules}: import it inside build and open, where it is used"
        )
        assert not variables, f"check (or an import) changes the environment variables {variables}: set them in build"

    def test_unknown_options_are_refused(self, backend: Backend, target: Target) -> None:
        """By `check`, before any work, with the key in the message."""
        wrong = replace(target, options={**target.options, "no_such_option": 1})
        _assert_refused(backend, wrong, "no_such_option", "options")

    def test_unknown_schemes_are_refused(self, backend: Backend, target: Target) -> None:
        """By `check`, before any work."""
        _assert_refused(backend, replace(target, scheme="no-such-scheme"), "no-such-scheme", "scheme")

    def test_scheme_is_steady_data(self, backend: Backend, target: Target) -> None:
        """It is part of the prepare key."""
        assert ask_scheme(backend, target) == ask_scheme(backend, target), "scheme answers differently a second time"


def _assert_refused(backend: Backend, target: Target, word: str, field: str) -> None:
    said = error_of(lambda: backend.check(target), TargetError, f"check of a target with {field} {word!r}")
    assert said is not None, f"check takes a target with {field} {word!r}: raise TargetError for what is not known"
    assert word in said, f"check refuses {field} {word!r} without naming it: {said}"
