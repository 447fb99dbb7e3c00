"""Every YAML block of the documentation is a pipeline (over the first whole one), or a target file."""

import re
from pathlib import Path

import pytest
import yaml

from qpipe.config import read_pipeline, read_targets
from qpipe.flow.workplace import open_registry

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [
    (page, number, *match)
    for page in ("pipeline-file.md", "data.md")
    for number, match in enumerate(re.findall(r"```yaml *(\w*)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL))
]
BASE = next(text for page, _, kind, text in BLOCKS if page == "pipeline-file.md" and not kind)
PIPELINES = [block for block in BLOCKS if block[2] == ""]


@pytest.fixture(scope="module")
def registry():
    return open_registry(None)


def merged(text):
    block, whole = yaml.safe_load(text), yaml.safe_load(BASE)
    if "models" in block:
        del whole["model"]
    if "data" in block:
        whole["gates"] = {"quality": {"margin": 0.01}}
    return yaml.safe_dump({**whole, **block})


@pytest.mark.parametrize("text", [text for *_, text in PIPELINES], ids=[f"{page}-{n}" for page, n, *_ in PIPELINES])
def test_blocks_are_pipelines(tmp_path, registry, text):
    (tmp_path / "p.yaml").write_text(text if text == BASE else merged(text))
    assert read_pipeline(tmp_path / "p.yaml", registry).name == "digits"


def test_blocks_are_targets(tmp_path):
    texts = [text for _, _, kind, text in BLOCKS if kind == "target"]
    (tmp_path / "my-board.yaml").write_text(texts[0])
    assert [target.isa for target in read_targets(tmp_path, "me")] == [("asimd", "asimddp|i8mm")]
    assert len(texts) == 1


def test_the_message_in_the_docs_is_the_real_one(tmp_path, registry):
    from qpipe.errors import ConfigError

    wrong = BASE.replace("calibration:", "calibraton:").replace("[int8]", "[int-8]")
    (tmp_path / "digits.yaml").write_text(wrong)
    with pytest.raises(ConfigError) as error:
        read_pipeline(tmp_path / "digits.yaml", registry)
    page = (DOCS / "pipeline-file.md").read_text()
    assert error.value.message.removeprefix(f"{tmp_path}/") in page
    for line in error.value.hint.splitlines():
        assert line.replace(f"{tmp_path}/", "") in page
