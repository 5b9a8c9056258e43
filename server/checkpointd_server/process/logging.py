"""Logs: structured, on standard error, a line for people or a JSON object for machines.

Standard output is kept for what a script reads: the ready line, a printed schema, an answer as JSON.
"""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor

from checkpointd_server.process.background_log import BackgroundHandler

_OF_SEVERAL_LINES = {"exception", "stack"}


class LogFormat(StrEnum):
    """The format of log lines."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logs(
    level: LogLevel = LogLevel.INFO, format: LogFormat = LogFormat.TEXT, stream: TextIO | None = None
) -> None:
    """Sends every log line of the process, those of libraries too, through one formatter.

    Args:
        level: The least important lines that are written.
        format: For people or for machines.
        stream: Where to. None: standard error.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # Plain tracebacks: the richer ones show local variables, and those hold what agents store.
    ending: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if format is LogFormat.JSON
        else [
            structlog.processors.format_exc_info,
            _escape,
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            ),
        ]
    )
    # The driver's pool logs its failures with its own words, which may hold values. The store says the same in ours.
    logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = BackgroundHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    flush_logs()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # The event loop reports every selector it opens; the drivers' debug lines quote what is stored.
    for chatty in ("asyncio", "asyncpg", "grpc"):
        logging.getLogger(chatty).setLevel(max(logging.INFO, root.level))
    # It logs headers that it can't decode, each twice and whole: a token may be among them.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_says_nothing_of_headers)


def flush_logs() -> None:
    """Waits until what was logged is written, but not for long."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _says_nothing_of_headers(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Invalid encoding on")


def _escape(logger: object, name: str, event: EventDict) -> EventDict:
    """Writes characters out that do something to a terminal, or begin a line: ids and subjects may have any."""
    return {
        key: _printable(value, key in _OF_SEVERAL_LINES) if isinstance(value, str) else value
        for key, value in event.items()
    }


def _printable(text: str, several_lines: bool) -> str:
    if text.isprintable():
        return text
    kept = "\n\t" if several_lines else ""
    return "".join(
        character if character.isprintable() or character in kept else _written_out(character) for character in text
    )


def _written_out(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
