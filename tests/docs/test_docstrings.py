"""Everything public in the client has a docstring, with each parameter, the result and the errors."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint import grpc as package

PREFIX = "langgraph.checkpoint.grpc"
MODULES = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")]
ELSEWHERE = re.compile(r"Awaits |The arguments are those of")
"""Phrases that refer to another docstring for the rest."""
RETURNS = re.compile(r"\A(Returns|Yields) |^(Returns|Yields):$", re.MULTILINE)
RAISES = re.compile(r"^Raises:$", re.MULTILINE)
RAISES_NOTHING = {
    "Encryption.sealed_type",
    "GrpcSaver.aclose",
    "GrpcSaver.close",
    "GrpcStore.aclose",
    "GrpcStore.close",
    "PortableSerializer.restored",
}


def exported() -> Iterator[tuple[str, Any]]:
    """Yields the classes and functions that the package exports, and their public methods and properties."""
    for name in package.__all__:
        thing = getattr(package, name)
        yield name, thing
        if not inspect.isclass(thing):
            continue
        for base in inspect.getmro(thing):
            if base.__module__.startswith(PREFIX):
                for attribute, value in vars(base).items():
                    function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                    if not attribute.startswith("_") and (inspect.isfunction(function) or isinstance(value, property)):
                        yield f"{name}.{attribute}", function


EXPORTED = dict(exported())


def parameters(thing: Any) -> list[str]:
    """Returns the names of a function's or a class's parameters that have to be documented."""
    if isinstance(thing, property):
        return []
    # Fields of dataclasses have their own docstrings, and users don't build errors.
    if inspect.isclass(thing) and (
        dataclasses.is_dataclass(thing) or issubclass(thing, BaseException) or "__init__" not in vars(thing)
    ):
        return []
    return [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]


@pytest.mark.parametrize("module", MODULES)
def test_public_modules_have_docstrings(module: str) -> None:
    assert importlib.import_module(f"{PREFIX}.{module}").__doc__


@pytest.mark.parametrize("name", EXPORTED)
def test_what_is_exported_has_a_whole_docstring(name: str) -> None:
    thing = EXPORTED[name]
    text = thing.__doc__
    assert text
    if ELSEWHERE.search(text):
        return
    text = inspect.cleandoc(text)
    missing = [one for one in parameters(thing) if not re.search(rf"^    \*{{0,2}}{one}: ", text, re.MULTILINE)]
    assert not missing, f"Args lacks {missing}"
    if inspect.isfunction(thing) and inspect.signature(thing).return_annotation not in ("None", None):
        assert RETURNS.search(text), "it doesn't describe the return value"
    if inspect.isfunction(thing):
        assert bool(RAISES.search(text)) is (name not in RAISES_NOTHING), "Raises"


def test_a_docstring_in_another_place_is_there() -> None:
    for name, thing in EXPORTED.items():
        if found := re.match(r"Awaits (?:what )?`(\w+)`", thing.__doc__ or ""):
            assert f"{name.partition('.')[0]}.{found[1]}" in EXPORTED, name
