"""Every member of the vendor's API that the plugin uses exists in the installed package."""

import ast
import importlib.util
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest
from qpipe_tensorrt import api, border, demands
from qpipe_tensorrt.products import ENTERPRISE, installed_version

MODULE_ATTRIBUTES = [name for name in api.Vendor.__annotations__ if not name.startswith("_")]


def members(protocol: type) -> list[str]:
    return sorted({*vars(protocol), *protocol.__annotations__} - set(vars(ModuleType)) - hidden(protocol))


def hidden(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if name.startswith("_")}


def missing(vendor: ModuleType, skipped: tuple[str, ...] = ()) -> list[str]:
    names = [f"{protocol.__name__}.{name}" for protocol in api.SURFACE for name in members(protocol)]
    absent = [
        f"{protocol.__name__}.{name}"
        for protocol in api.SURFACE
        for name in members(protocol)
        if name not in skipped and not hasattr(getattr(vendor, protocol.__name__), name)
    ]
    absent += [name for name in MODULE_ATTRIBUTES if name not in skipped and not hasattr(vendor, name)]
    absent += [
        f"{kind}.{name}"
        for kind, wanted in api.ENUMERATIONS.items()
        if kind not in skipped
        for name in wanted
        if not hasattr(attrgetter(kind)(vendor), name)
    ]
    assert len(names) > 40
    return absent


def test_tensorrt_rtx_has_every_member(rtx):
    assert missing(rtx) == []


def test_a_missing_member_would_be_seen(rtx):
    reduced = ModuleType("reduced")
    vars(reduced).update({name: value for name, value in vars(rtx).items() if not name.startswith("__")})
    reduced.Builder = type("Builder", (), {})
    assert "Builder.build_serialized_network" in missing(reduced)


def test_the_listed_surface_is_what_the_plugin_uses():
    """mypy refuses a member that no Protocol has; a Protocol has none that nobody uses."""
    trees = [ast.parse(path.read_text()) for path in Path(api.__file__).parent.glob("*.py") if path.name != "api.py"]
    used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    listed = {name for protocol in api.SURFACE for name in members(protocol)} | set(MODULE_ATTRIBUTES)
    assert listed - used == set()
    texts = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {name for names in api.ENUMERATIONS.values() for name in names} - texts == set()
    assert set(border.NUMPY) | set(demands._NAMES) <= set(api.ENUMERATIONS["DataType"])
    assert {*demands._PRODUCTS, *demands._THROUGH} <= set(api.ENUMERATIONS["LayerType"])


@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"])
def test_the_capabilities_are_the_builders(rtx, capability):
    assert hasattr(rtx.ComputeCapability, "SM" + capability.replace(".", ""))


def test_capabilities_without_an_rtx_gpu_are_not_there(rtx):
    assert not [number for number in ("87", "90", "100", "103", "110") if hasattr(rtx.ComputeCapability, f"SM{number}")]


@pytest.mark.skipif(importlib.util.find_spec(ENTERPRISE.module) is None, reason="the package tensorrt is not installed")
def test_tensorrt_has_every_member():
    import tensorrt

    assert installed_version(ENTERPRISE) is not None
    assert missing(tensorrt, skipped=api.RTX_ONLY) == []
