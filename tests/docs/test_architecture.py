"""docs/architecture.md speaks of the tree as it is."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_file_that_the_page_names_is_there():
    named = {name for name in re.findall(r"`([\w./-]+)`", PAGE) if name.endswith((".py", "/")) and "<" not in name}
    assert len(named) > 60
    assert sorted(name for name in named if not any((root / name).exists() for root in (ROOT / "qpipe", ROOT))) == []


def test_every_room_is_on_the_map():
    (drawn,) = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    rooms = {path.parent.name for path in (ROOT / "qpipe").glob("*/__init__.py")}
    told = set(re.findall(r"(\w+)/", drawn)) | set(re.findall(r"`(testing|scaffold)/`", PAGE))
    assert rooms - told == set()
