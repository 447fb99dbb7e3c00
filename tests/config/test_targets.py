from pathlib import Path

import pytest

from qpipe.config import first_party_targets, read_targets
from qpipe.errors import ConfigError, TargetError
from qpipe.flow.workplace import open_registry
from qpipe.records.target import Host, Limits, Target

GOOD = """\
name: board
backend: litert
summary: a board
arch: aarch64
isa: [asimd, "asimddp|i8mm"]
scheme: litert
batch_sizes: [1, 4]
threads: 4
host: {adb: serial-1}
limits: {timeout_s: 30, memory_bytes: 1073741824}
options: {delegate: xnnpack, flags: [1, 2]}
"""


def test_a_target_file(tmp_path):
    (tmp_path / "board.yaml").write_text(GOOD)
    assert read_targets(tmp_path, "me") == (
        Target(
            name="board",
            backend="litert",
            summary="a board",
            arch="aarch64",
            isa=("asimd", "asimddp|i8mm"),
            scheme="litert",
            batch_sizes=(1, 4),
            threads=4,
            host=Host(kind="adb", address="serial-1"),
            limits=Limits(timeout_s=30.0, memory_bytes=2**30),
            options={"delegate": "xnnpack", "flags": [1, 2]},
            owner="me",
        ),
    )


def test_first_party_targets():
    targets = {target.name: target for target in first_party_targets()}
    assert {"cpu-local", "cpu-x86-amx", "cpu-x86-vnni", "cpu-x86-avx2", "cpu-arm64"} <= set(targets)
    assert {target.owner for target in targets.values()} == {"qpipe-core"}
    assert targets["cpu-local"].arch == ""
    assert targets["cpu-x86-vnni"].isa == ("avx512_vnni|avx_vnni",)
    assert all(target.summary for target in targets.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("backend:", "bakend:", "2: unknown key 'bakend' in the file; did you mean 'backend'?"),
        ("threads: 4", "threads: 0", "8: threads: should be greater than or equal to 1, found 0"),
        ("{adb: serial-1}", "{adbb: x}", "9: unknown key 'adbb' in host; did you mean 'adb'?"),
        ("{adb: serial-1}", "{adb: x, ssh: y}", "9: host: name one place: {adb: SERIAL}"),
        ("{adb: serial-1}", "{adb: x, rows: 8}", "9: host: rows belongs to an emulator"),
        ("{adb: serial-1}", "{emulator: e, rows: 0}", "9: host.rows: should be greater than or equal to 1"),
        ("{adb: serial-1}", "remote", "9: host: unknown value 'remote'"),
        ("timeout_s", "timeout", "10: unknown key 'timeout' in limits; did you mean 'timeout_s'?"),
        ("[asimd,", "[ASIMD+,", "5: isa[0]: String should match pattern"),
        ("name: board", "name: bord", "1: name is 'bord', but the file is board.yaml"),
    ],
)
def test_bad_target_files(tmp_path, old, new, message):
    (tmp_path / "board.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError) as error:
        read_targets(tmp_path, "me")
    assert error.value.message.startswith(f"{tmp_path}/board.yaml:{message}")


def test_two_files_with_one_name(tmp_path):
    (tmp_path / "board.yaml").write_text(GOOD)
    (tmp_path / "board.yml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"board\.yml: target 'board' is defined in .*board\.yaml already"):
        read_targets(tmp_path, "me")


def test_no_folder():
    with pytest.raises(ConfigError, match="no such folder of targets"):
        read_targets(Path("/nowhere/targets"), "me")


def test_a_broken_file_of_the_users_takes_no_other_with_it(tmp_path):
    """The good ones serve; the broken one is listed with its reason, also to whoever asks for it by name."""
    folder = tmp_path / "targets"
    folder.mkdir()
    (folder / "board.yaml").write_text(GOOD)
    (folder / "bord.yaml").write_text(GOOD.replace("name: board", "name: bord").replace("threads: 4", "threads: 0"))
    (folder / "twin.yml").write_text(GOOD.replace("name: board", "name: twin"))

    registry = open_registry(tmp_path)

    assert {"board", "twin", "cpu-local"} <= set(registry.targets)
    assert registry.target("board").owner == str(folder / "board.yaml")
    (trouble,) = (one for one in registry.problems if one.name.startswith("targets/"))
    assert trouble.name == "targets/bord.yaml"
    assert trouble.reason.startswith(f"{folder}/bord.yaml:8: threads: should be greater than or equal to 1")
    with pytest.raises(TargetError, match="unknown target 'bord'") as error:
        registry.target("bord")
    assert "bord.yaml:8: threads" in error.value.hint
