"""GrpcStore answers as InMemoryStore does, call by call."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.grpc import GrpcStore
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, Op, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from tests.support.server_process import ServerProcess

# True is not among them: it equals 1 in Python, and only there.
SCALARS = st.sampled_from([None, 0, 1, 2, 10, 1.0, 2.5, -3, 2**70, "", "a", "b", "10", "é\0"])
NUMBERS = st.sampled_from([-4, 0, 1, 1.5, 2, 9, 10, 2**69])
FIELDS = st.sampled_from(["f", "g", "é"])
VALUES = st.dictionaries(
    FIELDS, st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(FIELDS, SCALARS, max_size=2)), max_size=3
)
LABELS = st.sampled_from(["a", "b", "*", "ä"])
PATHS = st.lists(LABELS, max_size=2).map(tuple)
KEYS = st.sampled_from(["k", "l", "ключ"])
CONDITIONS = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=2),
    st.dictionaries(FIELDS, SCALARS, min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(["$eq", "$ne"]), SCALARS, min_size=1, max_size=2),
)
ORDERS = st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS, min_size=1, max_size=2)
ALL = 1000


@st.composite
def operations(draw: st.DrawFn, root: str) -> Op:
    """One operation below a root. A search asks for all results, since the stores order them differently."""
    kind = draw(st.sampled_from(["put", "put", "put", "delete", "get", "search", "list"]))
    namespace = (root, *draw(PATHS))
    match kind:
        case "put":
            return PutOp(namespace, draw(KEYS), draw(VALUES))
        case "delete":
            return PutOp(namespace, draw(KEYS), None)
        case "get":
            return GetOp(namespace, draw(KEYS))
        case "search":
            filter = draw(st.one_of(st.none(), st.dictionaries(FIELDS, st.one_of(CONDITIONS, ORDERS), max_size=2)))
            return SearchOp(namespace, filter, draw(st.sampled_from([0, ALL])), 0)
    conditions = [MatchCondition("prefix", (root, *draw(PATHS)))]
    if draw(st.booleans()):
        conditions.append(MatchCondition("suffix", draw(PATHS)))
    depth = draw(st.sampled_from([None, 1, 2, 3]))
    return ListNamespacesOp(tuple(conditions), depth, draw(st.sampled_from([1, 2, 100])), draw(st.integers(0, 2)))


def plain(result: Any) -> Any:
    """Returns the part of a result that doesn't depend on clocks or on the order of what is found."""
    if isinstance(result, list):
        return sorted(map(plain, result), key=repr) if result and not isinstance(result[0], tuple) else result
    return (result.namespace, result.key, repr(result.value)) if hasattr(result, "value") else result


def answers(reference: InMemoryStore, batch: list[Op]) -> list[Any]:
    """Returns what InMemoryStore answers. Raises TypeError or ValueError if it has to order what isn't a number."""
    results = [plain(one_answer(reference, op)) if not isinstance(op, PutOp) else None for op in batch]
    reference.batch([op for op in batch if isinstance(op, PutOp)])
    return results


def one_answer(reference: InMemoryStore, op: Op) -> Any:
    """Returns what InMemoryStore reads. In it, reading or deleting an item leaves the item's namespace behind."""
    for namespace in [known for known, items in reference._data.items() if not items]:
        del reference._data[namespace]
    return reference.batch([op])[0]


def compared(reference: InMemoryStore, op: Op) -> bool:
    """Returns whether the stores should give the same answer. InMemoryStore compares texts that look like numbers."""
    if not isinstance(op, SearchOp):
        return True
    ordered = [name for name, condition in (op.filter or {}).items() if _orders(condition)]
    values = [item.value for items in reference._data.values() for item in items.values()]
    if any(isinstance(value.get(name), str) for value in values for name in ordered):
        return False
    try:
        one_answer(reference, op)
    except (TypeError, ValueError):
        return False
    return True


def _orders(condition: Any) -> bool:
    return isinstance(condition, dict) and bool(set(condition) & {"$gt", "$gte", "$lt", "$lte"})


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_batches(shared_server: ServerProcess, data: st.DataObject) -> None:
    root = str(uuid.uuid4())
    reference = InMemoryStore()
    with GrpcStore(shared_server.target) as store:
        for _ in range(data.draw(st.integers(1, 6))):
            batch = data.draw(st.lists(operations(root), min_size=1, max_size=8))
            batch = [op for op in batch if compared(reference, op)]
            expected = answers(reference, batch)
            found = store.batch(batch) if data.draw(st.booleans()) else asyncio.run(store.abatch(batch))
            assert [plain(result) for result in found] == expected
        everything = SearchOp((root,), None, ALL, 0)
        assert [plain(result) for result in store.batch([everything])] == answers(reference, [everything])
