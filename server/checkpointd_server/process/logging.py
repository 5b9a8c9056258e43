"""Structured logs on standard error: lines of text for people, or JSON objects for programs.

Standard output is reserved for what scripts read: the ready line, a printed schema, JSON.
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
    """The lowest level of lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logs(
    level: LogLevel = LogLevel.INFO, format: LogFormat = LogFormat.TEXT, stream: TextIO | None = None
) -> None:
    """Sends every log line of the process, including those of libraries, through one formatter.

    Args:
        level: The lowest level of lines that are written.
        format: Text for people, or JSON for programs.
        stream: The stream to write to. None: standard error.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # Plain tracebacks: richer ones show local variables, which may contain stored values.
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
    # The driver's error messages may contain values. The store logs the same errors without them.
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
    # The event loop logs every selector; debug lines of the drivers quote stored values.
    for chatty in ("asyncio", "asyncpg", "grpc"):
        logging.getLogger(chatty).setLevel(max(logging.INFO, root.level))
    # gRPC logs headers that it can't decode in full, twice: a token may be among them.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_says_nothing_of_headers)


def flush_logs() -> None:
    """Waits a short time until everything logged is written."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _says_nothing_of_headers(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Invalid encoding on")


def _escape(logger: object, name: str, event: EventDict) -> EventDict:
    """Escapes control characters and line breaks: ids and subjects may contain any."""
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
