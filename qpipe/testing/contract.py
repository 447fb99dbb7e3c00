"""The suite that every backend passes: subclass it in a test file and give it two fixtures.

```python
class TestMyBackend(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return MyBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(name="my-board", backend="my-backend")
```

Where `check` says that engines cannot be built or run here, the tests that need it are skipped with its reason.
"""

from __future__ import annotations

from qpipe.testing.asked import AskedContract
from qpipe.testing.built import BuiltContract
from qpipe.testing.moved import MovedContract
from qpipe.testing.opened import OpenedContract


class BackendContract(MovedContract, OpenedContract, BuiltContract, AskedContract):
    """What the core relies on: its answers, builds, sessions, and engines elsewhere. `Subject` has what you may say."""
