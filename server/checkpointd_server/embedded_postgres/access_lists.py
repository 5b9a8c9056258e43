"""POSIX access control lists on Linux: they let one more user traverse a folder.

A list is the extended attribute `system.posix_acl_access`: a version, and entries of tag, rights and id (acl(5)).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = 2
_ENTRY = struct.Struct("<HHI")
_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_WALK = 1


def has_traversal(folder: Path, uid: int) -> bool:
    """Returns whether the folder's list lets some user traverse it."""
    entries = _read(folder)
    mask = next((rights for (tag, _), rights in entries.items() if tag == _MASK), 7)
    return bool(entries.get((_USER, uid), 0) & mask & _WALK)


def grant_traversal(folder: Path, uid: int) -> None:
    """Lets a user traverse a folder. Raises OSError, also if the file system has no such lists."""
    entries = _read(folder)
    if not entries:
        mode = stat.S_IMODE(folder.stat().st_mode)
        entries = {
            (_OWNER, _NO_ID): mode >> 6 & 7,
            (_OWNING_GROUP, _NO_ID): mode >> 3 & 7,
            (_OTHERS, _NO_ID): mode & 7,
        }
    entries[_USER, uid] = entries.get((_USER, uid), 0) | _WALK
    group_class = [rights for (tag, _), rights in entries.items() if tag in (_USER, _OWNING_GROUP, _GROUP)]
    mask = entries.get((_MASK, _NO_ID))
    if mask is None:
        mask = 0
        for rights in group_class:
            mask |= rights
    entries[_MASK, _NO_ID] = mask | _WALK
    packed = b"".join(_ENTRY.pack(tag, rights, owner) for (tag, owner), rights in sorted(entries.items()))
    if not hasattr(os, "setxattr"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    os.setxattr(folder, _ATTRIBUTE, struct.pack("<I", _VERSION) + packed)


def _read(folder: Path) -> dict[tuple[int, int], int]:
    """Returns the rights of each tag and id, or nothing without a list."""
    if not hasattr(os, "getxattr"):
        return {}
    try:
        packed = os.getxattr(folder, _ATTRIBUTE)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return {}
        raise
    return {(tag, owner): rights for tag, rights, owner in _ENTRY.iter_unpack(packed[4:])}
