"""Compares checkpointd with LangGraph's own savers, on one durable PostgreSQL, in alternation.

python -m tests.bench                     everything
python -m tests.bench --only ainvoke      one case
python -m tests.bench profile             CPU time of a put by layer
python -m tests.bench publish             write the latest results into README.md and docs/
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from checkpointd_server.process.logging import LogLevel, configure_logs
from tests.bench import report
from tests.bench.case import QUICK, Pace
from tests.bench.environment import commit, machine, open_environment
from tests.bench.publish import draw, publish
from tests.bench.registry import all_cases

OUT = Path(".build/bench")
_out = click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path), help="Where results are.")
_quick = click.option("--quick", is_flag=True, help="Only to see that everything works: the figures mean nothing.")


@click.group(invoke_without_command=True, context_settings={"show_default": True})
@click.option("--rounds", default=3, type=click.IntRange(1), help="How often each case is measured with each saver.")
@click.option("--seconds", default=5.0, type=click.FloatRange(0.5), help="How long a throughput case takes.")
@click.option("--only", multiple=True, metavar="CASE", help="Only the cases of these names; may be given repeatedly.")
@click.option("--list", "show", is_flag=True, help="Print the cases' names, and measure nothing.")
@_quick
@_out
@click.pass_context
def main(
    context: click.Context, rounds: int, seconds: float, only: tuple[str, ...], show: bool, quick: bool, out: Path
) -> None:
    """Measures checkpointd and the stock savers, prints the figures, and saves them with charts in a folder.

    A case's result stays there until the case is measured again, so cases can be measured separately.
    """
    if context.invoked_subcommand is not None:
        return
    if show:
        for case in all_cases():
            click.echo(f"{case.name:18} {case.title}")
        return
    _measure(only, QUICK if quick else replace(Pace(), rounds=rounds, seconds=seconds), out)


@main.command("profile")
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(0.5), help="How long it looks.")
@_quick
@_out
def profile_puts(seconds: float, quick: bool, out: Path) -> None:
    """Shows which layers take a put's time."""
    _measure(("profile",), QUICK if quick else replace(Pace(), seconds=seconds), out)


@main.command("publish")
@_out
def publish_results(out: Path) -> None:
    """Writes the latest results into README.md, docs/performance.md and docs/figures."""
    results = report.load(out, (case.name for case in all_cases()))
    if not results:
        raise click.ClickException(f"there are no results in {out}: measure first")
    if any(result["quick"] for result in results):
        raise click.ClickException(f"the figures in {out} that were made with --quick mean nothing: measure again")
    for path in publish(results):
        click.echo(path)


def _measure(only: tuple[str, ...], pace: Pace, out: Path) -> None:
    cases = [case for case in all_cases() if not only or case.name in only]
    if unknown := set(only) - {case.name for case in cases}:
        raise click.BadParameter(f"no case is named {', '.join(sorted(unknown))}; see --list", param_hint="--only")
    configure_logs(LogLevel.ERROR)
    results = []
    with open_environment() as environment:
        for case in cases:
            result = {
                "name": case.name,
                "title": case.title,
                "measured": datetime.now(UTC).date().isoformat(),
                "commit": commit(),
                "quick": pace == QUICK,
                "machine": {**machine(), "postgresql": environment.cluster.fetch_value("SHOW server_version")},
                **case.run(environment, pace, _progress),
            }
            report.save(out, result)
            results.append(result)
    click.echo(report.report(results) + "\n")
    for path in draw(report.load(out, (case.name for case in all_cases())), out):
        click.echo(f"chart: {path}")
    click.echo(f"figures: {out}/*.json")


def _progress(what: str) -> None:
    click.echo(f"... {what}", err=True)


if __name__ == "__main__":
    sys.exit(main())
