"""Measures checkpointd beside LangGraph's own savers: on one PostgreSQL with its durability on, turn and turn about.

python -m tests.bench                     the whole table
python -m tests.bench --only ainvoke      one scene
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from checkpointd_server.logs import LogLevel, configure_logs
from tests.bench import scenes
from tests.bench.report import Row, table, write_chart, write_json
from tests.bench.stage import Stage, machine, set_stage


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=3, type=click.IntRange(1), help="How often each scene is measured with each saver.")
@click.option("--seconds", default=5.0, type=click.FloatRange(0.5), help="How long a throughput scene takes.")
@click.option("--only", multiple=True, help="Only the scenes of these names; may be given several times.")
@click.option(
    "--processes", default=48, type=click.IntRange(0), help="How many agent processes count connections; 0: skip."
)
@click.option("--history", default=10_000, type=click.IntRange(0), help="How long the long thread is; 0: skip.")
@click.option("--out", default=Path(".build/bench"), type=click.Path(path_type=Path), help="Where JSON and chart go.")
def main(rounds: int, seconds: float, only: tuple[str, ...], processes: int, history: int, out: Path) -> None:
    """Measures checkpointd beside the stock savers, and prints a table."""
    chosen = [scene for scene in scenes.scenes(seconds) if not only or scene.name in only]
    if unknown := set(only) - {scene.name for scene in chosen}:
        raise click.BadParameter(f"no scene is named {', '.join(sorted(unknown))}", param_hint="--only")
    configure_logs(LogLevel.ERROR)
    out.mkdir(parents=True, exist_ok=True)
    rows = [Row(scene=scene) for scene in chosen]
    with set_stage() as stage:
        for number in range(1, rounds + 1):
            for row in rows:
                _progress(f"round {number} of {rounds}: {row.scene.title}")
                row.theirs.append(row.scene.measure(stage, "postgres"))
                row.ours.append(row.scene.measure(stage, "checkpointd"))
        if rows:
            click.echo(table(rows) + "\n")
        facts = _facts(stage, processes=processes, history=history, seconds=seconds)
    content = {"machine": machine(), "rounds": rounds, "rows": [row.as_json() for row in rows], "facts": facts}
    write_json(out / "bench.json", content)
    if rows:
        write_chart(out / "bench.svg", rows)
    for fact, figure in facts.items():
        click.echo(f"- {fact}: {figure}")
    click.echo(f"- machine: {content['machine']}")
    click.echo(f"- all figures: {out / 'bench.json'}, chart: {out / 'bench.svg'}")


def _facts(stage: Stage, *, processes: int, history: int, seconds: float) -> dict[str, str]:
    """What isn't a ratio to the stock saver."""
    facts = {}
    if processes:
        _progress(f"connections of {processes} agent processes")
        count = scenes.connections(stage, "checkpointd", processes=processes)
        stock = scenes.connections(stage, "postgres", processes=processes)
        facts[f"connections to PostgreSQL with {processes} agent processes (target: 16 at the most)"] = (
            f"{count}, with the stock saver {stock}"
        )
    if history:
        _progress(f"reading the latest of {history} checkpoints")
        medians = scenes.history(stage, (10, history))
        facts[f"reading the latest of {history:,} checkpoints against 10 (target: 1.1 at the most)"] = (
            f"{medians[history] / medians[10]:.2f} ({medians[history]:.2f} ms against {medians[10]:.2f} ms)"
        )
    for agents in (1, 32):
        _progress(f"CPU time a call, {agents} agents")
        cost = scenes.server_cpu(stage, agents=agents, seconds=seconds)
        facts[f"CPU time a call, {agents} agents in one process"] = (
            f"server {cost['server']:.0f} us, client {cost['client']:.0f} us (with serialization)"
        )
    return facts


def _progress(what: str) -> None:
    click.echo(f"... {what}", err=True)


if __name__ == "__main__":
    sys.exit(main())
