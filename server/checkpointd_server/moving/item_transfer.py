"""Moving items of long-term memory: each is checked by reading it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from checkpointd.v1.store_service_pb2 import (
    RESTORE_OUTCOME_DIFFERENT,
    RESTORE_OUTCOME_EXPIRED,
    RESTORE_OUTCOME_SAME,
    ItemValue,
    WholeItem,
)
from checkpointd_server.moving.export_file import ExportWriter
from checkpointd_server.moving.remote_items import ItemsRefused, Namespace, RemoteItems, name_of
from checkpointd_server.moving.transfer import Report

BATCH_ITEMS = 200
"""Number of items restored per call."""
BATCH_BYTES = 2 * 1024 * 1024
"""Size at which a call is full, in bytes."""
_EMPTY_MAP = b"\x80"
"""An index in which filters see nothing."""


def export_items(
    source: RemoteItems,
    prefixes: Sequence[Namespace],
    target: ExportWriter,
    report: Report,
    *,
    vectors: bool,
    redact: bool,
    progress: Callable[[int], None],
) -> None:
    """Writes items that the target lacks.

    Args:
        source: Their source.
        prefixes: The namespaces to export, none below another.
        target: Their target.
        report: Gets their number.
        vectors: Whether to include vectors.
        redact: Whether to leave out their values.
        progress: Called for each.

    Raises:
        FileNotWritten: The target can't be written.
    """
    has = dict(target.has.items)
    report.items_there = len(has)
    for prefix in prefixes:
        for page in source.read(prefix, vectors=vectors and not redact, has=has):
            items = [_redacted(item) for item in page] if redact else page
            target.write_items(items)
            report.items += len(items)
            progress(len(items))


def _redacted(item: WholeItem) -> WholeItem:
    made = WholeItem()
    made.CopyFrom(item)
    made.item.value.CopyFrom(ItemValue(type="null", index=_EMPTY_MAP))
    made.ClearField("words")
    made.has_words = False
    return made


class ItemImport:
    """Restores items on a server, in batches.

    Args:
        target: Their target.
        report: Gets the outcome of each.
        replace: Whether to replace existing items that differ.
        vectors: Whether to include vectors.
        progress: Called for each.
    """

    def __init__(
        self, target: RemoteItems, report: Report, *, replace: bool, vectors: bool, progress: Callable[[int], None]
    ) -> None:
        self._target = target
        self._report = report
        self._replace = replace
        self._vectors = vectors
        self._progress = progress
        self._batch: list[WholeItem] = []
        self._size = 0

    def take(self, item: WholeItem) -> None:
        """Adds the next item. Raises MoveError, grpc.RpcError."""
        if item.vectors and not self._vectors:
            item.ClearField("vectors")
            item.vectors_left_out = True
        size = item.ByteSize()
        if self._batch and (len(self._batch) >= BATCH_ITEMS or self._size + size > BATCH_BYTES):
            self.flush()
        self._batch.append(item)
        self._size += size

    def flush(self) -> None:
        """Restores the remaining items. Raises MoveError, grpc.RpcError."""
        batch, self._batch, self._size = self._batch, [], 0
        if batch:
            self._restore(batch)
            self._progress(len(batch))

    def _restore(self, items: Sequence[WholeItem]) -> None:
        try:
            outcomes = self._target.restore(items, replace=self._replace)
        except ItemsRefused as error:
            if len(items) == 1:
                self._report.failed_items[name_of(items[0])] = f"{name_of(items[0])} is refused: {error}"
                return
            for item in items:  # the others are unaffected
                self._restore([item])
            return
        restored = []
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome == RESTORE_OUTCOME_SAME:
                self._report.items_there += 1
            elif outcome == RESTORE_OUTCOME_EXPIRED:
                self._report.items_expired += 1
            elif outcome == RESTORE_OUTCOME_DIFFERENT:
                name = name_of(item)
                self._report.failed_items[name] = f"{name} is there already, with other contents; --replace replaces it"
            else:
                restored.append(item)
        self._check(restored)

    def _check(self, items: Sequence[WholeItem]) -> None:
        """Reads restored items back."""
        for item, result in zip(items, self._target.get(items) if items else (), strict=True):
            found, wanted = result.get.item, item.item
            if (found.value.type, found.value.data) == (wanted.value.type, wanted.value.data):
                self._report.items += 1
            elif wanted.HasField("expires_at") and not result.get.HasField("item"):
                self._report.items_expired += 1
            else:
                self._report.failed_items[name_of(item)] = f"{name_of(item)} reads back as something else"
