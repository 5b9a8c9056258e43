"""The rules of this house: test helpers, beginnings of docstrings, and flows that are written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.house_rules import BEGINNINGS, docstring_beginnings, flows_written_twice, stray_helpers

HERE = Path("tests/store/test_reads.py")


@pytest.mark.parametrize(
    "line",
    [
        "from tests.support.tenant import Tenant",
        "from tests.support import graphs",
        "import tests.store.pieces",
        "from tests.store import pieces",
        "from .pieces import put",
        "from langgraph.checkpoint.grpc import test_something",
    ],
)
def test_helpers_come_from_support_or_from_the_own_folder(line: str) -> None:
    assert list(stray_helpers(HERE, line)) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("from tests.store.test_puts import put", "nothing is imported from tests and conftests"),
        ("from tests.store import test_puts", "nothing is imported from tests and conftests"),
        ("import tests.store.test_puts as puts", "nothing is imported from tests and conftests"),
        ("from .test_puts import put", "nothing is imported from tests and conftests"),
        ("from tests.store.conftest import CLUSTERS", "nothing is imported from tests and conftests"),
        ("from tests.conftest import pytest_configure", "nothing is imported from tests and conftests"),
        ("def f():\n    from tests.rpc.requests import copy", "is in tests/support, not tests/rpc"),
        ("from tests.bench import agents", "is in tests/support, not tests/bench"),
        ("import tests.rpc.requests", "is in tests/support, not tests/rpc"),
    ],
)
def test_any_other_import_of_a_helper_is_told(line: str, problem: str) -> None:
    (told,) = stray_helpers(HERE, line)
    assert told.startswith(f"{line.count(chr(10)) + 1}: ")
    assert problem in told


def test_helpers_that_are_shared_need_none_of_one_folder() -> None:
    (told,) = stray_helpers(Path("tests/support/storm.py"), "from tests.faults.postgres import FaultyPostgres")
    assert "not tests/faults" in told


TWICE = """
class Lease:
    def {sync}(self):
        while True:
            self.call()


class {owner}:
    async def {awaiting}(self):
        while True:
            await self.acall()
"""


@pytest.mark.parametrize(
    ("sync", "owner", "awaiting"),
    [("release", "AsyncLease", "release"), ("_take", "AioLease", "_take"), ("__enter__", "AsyncLease", "__aenter__")],
)
def test_a_flow_in_two_classes_is_told(sync: str, owner: str, awaiting: str) -> None:
    (told,) = flows_written_twice(TWICE.format(sync=sync, owner=owner, awaiting=awaiting))
    assert told == f"9: {awaiting} does the same as {sync}: write it once, as a flow"


def test_a_flow_in_two_methods_is_told() -> None:
    text = "class Saver:\n def _get(self):\n  for x in y: f(x)\n async def _aget(self):\n  for x in y: await f(x)"
    assert list(flows_written_twice(text)) == ["4: _aget does the same as _get: write it once, as a flow"]


@pytest.mark.parametrize(
    "text",
    [
        "def get():\n return run(f)\nasync def aget():\n return await arun(f)",
        "def get():\n for x in y: f(x)\nasync def aget():\n return await arun(f)",
        "class A:\n def get(self):\n  for x in y: f(x)\nclass B:\n async def aget(self):\n  for x in y: await f(x)",
        "def get():\n for x in y: f(x)\ndef aget():\n for x in y: f(x)",
    ],
)
def test_thin_pairs_and_strangers_are_left_alone(text: str) -> None:
    assert list(flows_written_twice(text)) == []


@pytest.mark.parametrize("word", sorted(BEGINNINGS))
@pytest.mark.parametrize(
    "text", ['"""{}."""', 'def f():\n  """{} it is."""', 'class C:\n  async def f():\n    """{} it is."""']
)
def test_a_docstring_that_begins_with_a_question_is_told(word: str, text: str) -> None:
    (told,) = docstring_beginnings(text.format(f"{word} it is"))
    assert told.endswith(f"a docstring begins with a verb or a noun, not {word!r}")


def test_so_is_that_of_a_variable() -> None:
    (told,) = docstring_beginnings('class C:\n  x: int\n  """What it is."""\n  y: int\n  """How long it lasts."""')
    assert told == "3: a docstring begins with a verb or a noun, not 'What'"


def test_docstrings_begin_with_verbs_and_nouns() -> None:
    text = '"""Whatever."""\nclass C:\n  """The state."""\n  def f():\n    """Returns whether."""\n  def g(): pass'
    assert list(docstring_beginnings(text)) == []
